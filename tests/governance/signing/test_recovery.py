"""Keys sealed under a recovery code: only the code opens them, and nothing of theirs is in the file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.signing import recovery
from falaj.governance.signing.keys import KeyRing
from falaj.kernel.errors import Conflict, Denied, Integrity, Invalid

NOW = "2026-01-01T00:00:00.000Z"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The keys of a new home."""
    folder = tmp_path_factory.mktemp("ring") / "keys"
    KeyRing(folder)
    return recovery.read_folder(folder)


def test_what_was_sealed_comes_back(keys: dict[str, bytes], tmp_path: Path) -> None:
    code = recovery.new_code()
    found = recovery.unseal(recovery.seal(keys, code, NOW), code)
    assert found == keys and len(keys) == 8
    assert sorted(recovery.install(found, tmp_path / "keys")) == sorted(keys)
    KeyRing(tmp_path / "keys")
    assert all(p.stat().st_mode & 0o077 == 0 for p in (tmp_path / "keys").iterdir())


def test_the_code_is_long_and_never_the_same() -> None:
    codes = {recovery.new_code() for _ in range(200)}
    assert len(codes) == 200
    assert all(re.fullmatch(r"(?:[0-9A-HJKMNP-TV-Z]{4}-){7}[0-9A-HJKMNP-TV-Z]{4}", c) for c in codes)


def test_it_may_be_typed_as_people_type() -> None:
    code = recovery.new_code()
    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l") + "\n"
    assert recovery.parse_code(typed) == recovery.parse_code(code)


@given(place=st.integers(0, 31), other=st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
def test_a_slip_is_told_and_not_where(place: int, other: str) -> None:
    plain = recovery.new_code().replace("-", "")
    typed = plain[:place] + other + plain[place + 1 :]
    if typed == plain:
        return
    with pytest.raises(Invalid) as refused:
        recovery.parse_code(typed)
    assert refused.value.code == "recovery_code_mistyped"
    assert plain not in refused.value.message and typed not in refused.value.message


def test_another_code_is_refused_without_saying_more(keys: dict[str, bytes]) -> None:
    sealed = recovery.seal(keys, recovery.new_code(), NOW)
    with pytest.raises(Denied) as refused:
        recovery.unseal(sealed, recovery.new_code())
    assert (refused.value.code, refused.value.details) == ("wrong_recovery_code", {})


@pytest.mark.parametrize("field", ["made_at", "keys", "salt", "nonce", "sealed"])
def test_a_changed_file_does_not_open(keys: dict[str, bytes], field: str) -> None:
    code = recovery.new_code()
    document = msgspec.json.decode(recovery.seal(keys, code, NOW))
    place = document if field == "sealed" else document["header"]
    place[field] = {**place[field], "log": "x"} if field == "keys" else "AAAA" + place[field][4:]
    with pytest.raises(Denied):
        recovery.unseal(msgspec.json.encode(document), code)


def test_nothing_secret_is_in_the_file(keys: dict[str, bytes]) -> None:
    code = recovery.new_code()
    sealed = recovery.seal(keys, code, NOW)
    assert b"PRIVATE" not in sealed and code.encode() not in sealed
    assert not any(data in sealed for data in keys.values())
    assert recovery.parse(sealed).header.keys == recovery.public_ids(keys)


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b'{"header": {"format": "other"}, "sealed": ""}'])
def test_what_is_no_keys_backup_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        recovery.unseal(data, recovery.new_code())
    assert refused.value.code == "not_a_keys_backup"


def test_nothing_is_overwritten(keys: dict[str, bytes], tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "kek.bin").write_bytes(b"another")
    with pytest.raises(Conflict) as refused:
        recovery.install(keys, folder)
    assert refused.value.code == "another_key_there"
    assert [p.name for p in folder.iterdir()] == ["kek.bin"]


def test_a_key_that_is_no_key_is_told() -> None:
    with pytest.raises(Integrity):
        recovery.public_ids({"log.pem": b"not a key"})
