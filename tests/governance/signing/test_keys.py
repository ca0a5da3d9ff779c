from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.signing.keys import KeyRing, plane_key, public_pem
from falaj.governance.signing.sealing import seal_to, unseal
from falaj.kernel.errors import Integrity, Unavailable

NAMES = {"attestation.pem", "dev.pem", "staging.pem", "production.pem", "model.pem", "log.pem", "kek.bin", "pepper.bin"}
READER, OTHER = X25519PrivateKey.generate(), X25519PrivateKey.generate()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_new_ring_is_its_owners_alone(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    assert set(contents(ring.folder)) == NAMES
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in ring.folder.iterdir()} == {0o600}
    assert [p.name for p in tmp_path.iterdir()] == ["keys"]
    assert isinstance(ring.attestation, Ed25519PrivateKey) and isinstance(ring.log, Ed25519PrivateKey)
    assert isinstance(ring.model, ec.EllipticCurvePrivateKey) and isinstance(ring.model.curve, ec.SECP256R1)
    assert len(ring.kek) == len(ring.pepper) == 32 and ring.kek != ring.pepper


def test_opening_again_gives_the_same_keys(tmp_path: Path) -> None:
    one, two = KeyRing(tmp_path / "keys"), KeyRing(tmp_path / "keys")
    assert (one.kek, one.pepper) == (two.kek, two.pepper)
    for name in ("attestation", "model", "log"):
        assert public_pem(getattr(one, name)) == public_pem(getattr(two, name))


def test_no_two_rings_share_a_key(tmp_path: Path) -> None:
    one, two = contents(KeyRing(tmp_path / "a").folder), contents(KeyRing(tmp_path / "b").folder)
    assert len(set(one.values()) | set(two.values())) == 2 * len(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("what", ["missing", "empty", "cut", "noise", "a folder"])
def test_a_missing_or_broken_key_is_refused_and_never_made_again(tmp_path: Path, name: str, what: str) -> None:
    path = KeyRing(tmp_path / "keys").folder / name
    kept = path.read_bytes()
    path.unlink()
    if what == "a folder":
        path.mkdir()
    elif what != "missing":
        path.write_bytes({"empty": b"", "cut": kept[:-40] or kept[:-1], "noise": b"\xff" * 31}[what])
    before = sorted(p.name for p in path.parent.iterdir())
    for _ in range(2):
        with pytest.raises(Integrity, match=name) as refused:
            KeyRing(tmp_path / "keys")
        assert refused.value.code == "key_missing"
        assert "backup" in refused.value.hint
    assert sorted(p.name for p in path.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["log", "model", "production"])
def test_a_successor_that_could_not_take_its_place_is_not_made_anew(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = KeyRing(tmp_path / "keys")
    fingerprint = ring.prepare(name)

    def refused(_path: Path, _to: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(Path, "replace", refused)
        with pytest.raises(OSError, match="Input/output"):
            ring.take_over(name)
    with pytest.raises(Unavailable, match="not finished") as told:
        ring.prepare(name)
    assert told.value.code == "rotation_unfinished"
    again = KeyRing(ring.folder)
    again.take_over(name)
    assert again.record(name).fingerprint == fingerprint


def test_an_empty_folder_is_not_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    with pytest.raises(Integrity):
        KeyRing(tmp_path / "keys")
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize("name", ["attestation.pem", "log.pem", "model.pem"])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    folder = KeyRing(tmp_path / "keys").folder
    wrong = READER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    swapped = (folder / ("model.pem" if name != "model.pem" else "log.pem")).read_bytes()
    for data in (wrong, swapped):
        (folder / name).write_bytes(data)
        with pytest.raises(Integrity, match=name):
            KeyRing(folder)


def test_a_start_that_was_interrupted_leaves_no_half_ring(tmp_path: Path) -> None:
    half = tmp_path / "keys.new"
    half.mkdir()
    (half / "kek.bin").write_bytes(b"half")
    assert set(contents(KeyRing(tmp_path / "keys").folder)) == NAMES
    assert not half.exists()


def test_a_data_plane_keeps_its_key(tmp_path: Path) -> None:
    folder = tmp_path / "plane"
    assert public_pem(plane_key(folder)) == public_pem(plane_key(folder))
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    (folder / "key.pem").write_bytes(b"")
    with pytest.raises(Integrity):
        plane_key(folder)


# sealing


@given(st.binary(max_size=100), st.text(max_size=20))
def test_what_was_sealed_opens_for_its_reader_and_purpose(plain: bytes, purpose: str) -> None:
    assert unseal(READER, seal_to(READER.public_key(), plain, purpose), purpose) == plain


def test_sealing_hides_and_never_repeats() -> None:
    one, two = (seal_to(READER.public_key(), b"a data key", "blob") for _ in range(2))
    assert one != two
    assert b"a data key" not in one.encode()


def test_another_reader_or_purpose_opens_nothing() -> None:
    sealed = seal_to(READER.public_key(), b"a data key", "blob:1")
    for reader, purpose in (
        (OTHER, "blob:1"),
        (READER, "blob:2"),
        (READER, ""),
        (READER, "blob:1 "),
        (READER, "Blob:1"),
    ):
        with pytest.raises(Integrity) as refused:
            unseal(reader, sealed, purpose)
        assert refused.value.code == "not_sealed_to_me"


def test_every_changed_character_is_refused() -> None:
    sealed = seal_to(READER.public_key(), b"key", "p")
    for at in range(len(sealed)):
        for character in ("A", "B", "=", "\n", "é"):
            changed = sealed[:at] + character + sealed[at + 1 :]
            if changed != sealed:
                with pytest.raises(Integrity):
                    unseal(READER, changed, "p")


@pytest.mark.parametrize("sealed", ["", "AAAA", "=", "not base64!", "A" * 60, "\ud800", "é"])
def test_what_was_never_sealed_is_refused(sealed: str) -> None:
    with pytest.raises(Integrity):
        unseal(READER, sealed, "p")
    with pytest.raises(Integrity):
        unseal(READER, seal_to(READER.public_key(), b"key", "p") + sealed + "AAAA", "p")
