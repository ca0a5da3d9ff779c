"""Key-encryption keys: one suite for the file and every place that can be had here, and what each place refuses."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from falaj.governance.signing import kek, recovery
from falaj.governance.signing.kek import FileKey, FileKeys, KeptKey
from falaj.governance.signing.wrapping import vault as transit
from falaj.kernel.errors import Conflict, Integrity, Invalid, Unavailable
from tests.governance.signing.hsm import Hsm, hsm
from tests.governance.signing.keks import Keeper, keeper, keeper_of
from tests.governance.signing.transit import Transit, vault

__all__ = ["hsm", "keeper", "vault"]
KEY = b"x" * 32
Make = Callable[[], FileKey | KeptKey]


@pytest.fixture(params=["file", "env", "token", "vault"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a new key-encryption key each time."""
    if request.param == "file":
        return lambda: kek.key_of(kek.new_file(""))
    places = keeper_of(request.param, request, monkeypatch)
    return lambda: kek.key_of(kek.new_file(places.make()))


# every key


def test_a_wrapped_key_opens_in_its_own_place_with_its_own_key_only(made: Make) -> None:
    one, other = made(), made()
    wrapped = one.wrap(KEY, "lake/0")
    assert one.unwrap(wrapped, "lake/0") == KEY and wrapped.isprintable() and wrapped.isascii()
    assert one.wrap(KEY, "lake/0") != wrapped  # or two equal keys would show
    for key, place in ((one, "lake/1"), (one, "online/0"), (one, "check"), (other, "lake/0")):
        with pytest.raises(Integrity) as refused:
            key.unwrap(wrapped, place)
        assert refused.value.code == "store_key_broken"
    assert one.unwrap(wrapped, "lake/0") == KEY


def test_a_changed_byte_opens_nothing(made: Make) -> None:
    key = made()
    wrapped = key.wrap(KEY, "lake/0")
    head, _, text = wrapped.rpartition(":")
    raw = base64.b64decode(text)
    for at in (0, 11, 12, len(raw) // 2, len(raw) - 1):
        other = base64.b64encode(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]).decode()
        with pytest.raises(Integrity):
            key.unwrap(f"{head}:{other}" if head else other, "lake/0")
    for other in ("", "?", text[:16], "vault:v9:" + text):
        with pytest.raises(Integrity):
            key.unwrap(other, "lake/0")


def test_its_file_knows_it_again(made: Make, tmp_path: Path) -> None:
    keys = FileKeys(_folder(tmp_path))
    first = keys.current()
    assert first.at == "" and FileKeys(keys_folder(tmp_path)).current().id == first.id
    key = made()
    data = kek.new_file(key.at)
    again = kek.key_of(data)
    assert again.at == key.at and recovery.public_ids({kek.FILE: data}) == {"kek": again.id}
    assert again.id != key.id  # each time that it is introduced, it gets a name of its own


# every place


def test_a_folder_that_names_a_place_holds_no_key(keeper: Keeper, tmp_path: Path) -> None:
    place = keeper.make()
    folder = _folder(tmp_path, place)
    data = (folder / kek.FILE).read_bytes()
    assert data.startswith(f"elsewhere: {place}".encode()) and b"\ncheck: " in data
    key = kek.key_in(folder)
    assert key.at.startswith(place) and key.secret == b""
    assert key.unwrap(key.wrap(KEY, "a/0"), "a/0") == KEY


def test_nothing_is_asked_before_something_is_to_be_opened(keeper: Keeper, tmp_path: Path) -> None:
    place = keeper.make()
    folder = _folder(tmp_path, place)
    wrapped = kek.key_in(folder).wrap(KEY, "a/0")
    keeper.hide(place)
    key = kek.key_in(folder)
    assert key.id and key.at
    for use in (lambda: key.unwrap(wrapped, "a/0"), lambda: key.wrap(KEY, "a/0"), lambda: kek.new_file(place)):
        with pytest.raises(Unavailable) as away:
            use()
        assert away.value.code == "kek_unavailable" and away.value.hint
    keeper.bring(place)
    assert key.unwrap(wrapped, "a/0") == KEY


def test_another_key_at_its_place_opens_and_wraps_nothing(keeper: Keeper, tmp_path: Path) -> None:
    place = keeper.make()
    folder = _folder(tmp_path, place)
    wrapped = kek.key_in(folder).wrap(KEY, "a/0")
    keeper.exchange(place)
    for opens in (True, False):
        key = kek.key_in(folder)
        with pytest.raises(Integrity) as refused:
            _ = key.unwrap(wrapped, "a/0") if opens else key.wrap(KEY, "a/0")
        assert refused.value.code == "kek_other_key" and place in refused.value.message


def test_the_key_that_wraps_already_is_no_successor(keeper: Keeper, tmp_path: Path) -> None:
    place = keeper.make()
    folder = _folder(tmp_path, place)
    with pytest.raises(Conflict) as refused:
        FileKeys(folder, place).prepare()
    assert refused.value.code == "kek_same_key" and "FALAJ_KEK" in refused.value.hint
    assert not (folder / kek.NEXT).exists()
    keys = FileKeys(folder, keeper.make())
    new = keys.prepare()
    assert keys.current().id != new.id
    keys.take_over()
    assert keys.current().id == new.id == kek.key_in(folder).id
    keeper.hide(place)  # the old one is not asked
    home = FileKeys(folder)
    assert isinstance(home.prepare(), FileKey)


@pytest.mark.parametrize("data", [b"", b"k" * 31, b"k" * 33, b"elsewhere: env:A\n", b"elsewhere: file:/x\ncheck: a\n",
                                  b"elsewhere: env:A\ncheck: a\nmore\n", b"elsewhere: env:A\x00\ncheck: a\n"])  # fmt: skip
def test_a_file_that_is_no_key_is_refused(data: bytes, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / kek.FILE).write_bytes(data)
    with pytest.raises(Integrity) as refused:
        FileKeys(folder)
    assert refused.value.code == "key_missing"


@pytest.mark.parametrize("place", ["", "file:/k", "env:", "env:A B", "awskms:key", "hashivault:", "hashivault:a/b", "hashivault:a/0",
                                   "hashivault:../sys/seal", "pkcs11:", "pkcs11:token=a", "https://x", "env:A\nB"])  # fmt: skip
def test_what_is_no_place_is_refused(place: str) -> None:
    with pytest.raises(Invalid) as refused:
        kek.wrapper_of(place)
    assert refused.value.code == "bad_signer" and refused.value.hint


# one place


@pytest.mark.parametrize("text", ["", "no base64!", base64.b64encode(b"k" * 16).decode(), "aa" * 32])
def test_a_variable_without_a_key_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEK", text)
    with pytest.raises(Unavailable) as refused:
        kek.new_file("env:A_KEK")
    assert "A_KEK" in refused.value.message and (not text or text not in refused.value.message + refused.value.hint)


def test_a_token_gives_only_keys_that_never_leave_it(hsm: Hsm) -> None:
    named = secrets.token_hex(4)
    for place in (
        hsm.make_secret(f"short-{named}", 128),
        hsm.make_secret(f"out-{named}", EXTRACTABLE=True),
        hsm.make_secret(f"clear-{named}", SENSITIVE=False),
    ):
        with pytest.raises(Invalid) as refused:
            kek.new_file(place)
        assert refused.value.code == "kek_key_type"
    with pytest.raises(Unavailable):
        kek.new_file(hsm.make(f"pair-{named}"))  # signs: it is no secret key


def test_a_token_key_is_known_by_another_name_too(hsm: Hsm, tmp_path: Path) -> None:
    place = hsm.make_secret("named-twice")
    folder = _folder(tmp_path, place)
    hsm.rename("named-twice", "other-name")
    with pytest.raises(Conflict):
        FileKeys(folder, hsm.uri("other-name")).prepare()


def test_the_library_of_a_token_that_is_not_there_is_told(hsm: Hsm, tmp_path: Path) -> None:
    place = hsm.uri("any").replace("/usr/lib/softhsm/libsofthsm2.so", str(tmp_path / "nothing.so"))
    with pytest.raises(Unavailable) as refused:
        kek.new_file(place)
    assert refused.value.code == "kek_unavailable" and "nothing.so" in refused.value.message


def test_vault_is_pinned_to_a_version(vault: type[Transit], tmp_path: Path) -> None:
    vault.keys["m"] = [secrets.token_bytes(32)]
    folder = _folder(tmp_path, "hashivault:m")
    first = kek.key_in(folder)
    assert first.at == "hashivault:m/1"
    wrapped = first.wrap(KEY, "a/0")
    vault.keys["m"].append(secrets.token_bytes(32))  # rotated over there
    again = kek.key_in(folder)
    assert again.unwrap(wrapped, "a/0") == KEY and again.wrap(KEY, "a/0").startswith("vault:v1:")
    with pytest.raises(Conflict):
        FileKeys(folder, "hashivault:m/1").prepare()
    second = FileKeys(folder, "hashivault:m").prepare()
    assert second.at == "hashivault:m/2" and second.wrap(KEY, "a/0").startswith("vault:v2:")
    with pytest.raises(Integrity):
        second.unwrap(wrapped, "a/0")
    with pytest.raises(Unavailable, match="newest version is 2"):
        kek.new_file("hashivault:m/3")


@pytest.mark.parametrize("more", [{"type": "aes128-gcm96"}, {"type": "rsa-4096"}, {"derived": True}])
def test_vault_gives_keys_of_256_bits_that_bind_only(vault: type[Transit], more: dict[str, object]) -> None:
    vault.keys["m"], vault.more["m"] = [secrets.token_bytes(32)], more
    with pytest.raises(Invalid) as refused:
        kek.new_file("hashivault:m")
    assert refused.value.code == "kek_key_type"
    vault.more.clear()
    assert kek.new_file("hashivault:m")
    vault.binds = False  # a release that does not know associated data
    with pytest.raises(Invalid, match="does not bind") as refused:
        kek.new_file("hashivault:m")
    assert refused.value.code == "kek_key_type"


@pytest.mark.parametrize("address", ["", "http://vault.example:8200", "vault.example", "http://10.0.0.1"])
def test_no_key_goes_to_vault_in_clear(vault: type[Transit], monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("VAULT_ADDR", address)
    with pytest.raises(Unavailable) as refused:
        kek.new_file("hashivault:m")
    assert refused.value.code == "kek_unavailable" and "https://" in refused.value.hint and not vault.asked


def test_vault_refuses_and_is_away(vault: type[Transit], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vault.keys["m"] = [secrets.token_bytes(32)]
    folder = _folder(tmp_path, "hashivault:m")
    with pytest.raises(Unavailable):
        kek.new_file("hashivault:missing")
    for name, value in (("VAULT_TOKEN", "s.2"), ("VAULT_ADDR", "http://127.0.0.1:9")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(Unavailable) as refused:
                kek.key_in(folder).wrap(KEY, "a/0")
            assert refused.value.code == "kek_unavailable" and "s.2" not in refused.value.message
    monkeypatch.setattr(transit, "hvac", None)
    with pytest.raises(Unavailable) as refused:
        kek.key_in(folder).wrap(KEY, "a/0")
    assert refused.value.code == "signer_library_missing" and "pip install" in refused.value.hint


def keys_folder(root: Path) -> Path:
    return root / "keys"


def _folder(root: Path, place: str = "") -> Path:
    folder = keys_folder(root)
    folder.mkdir(mode=0o700)
    (folder / kek.FILE).write_bytes(kek.new_file(place))
    (folder / kek.FILE).chmod(0o600)
    return folder
