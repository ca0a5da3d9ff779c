"""A backup folder alone: what is put into it comes out, and nothing else is believed or read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.kernel.digests import FileEntry
from falaj.kernel.errors import FalajError, Integrity
from falaj.storage.archive.manifest import FORMAT, Manifest, Standing, decoded, object_name
from falaj.storage.archive.reading import check, lay_out, read_manifest
from falaj.storage.archive.writing import Writer

BACKUP = "bak_" + "0" * 26
DATA = {"falaj.db": b"rows" * 1000, "plane/journal/x.log": b"records", "empty": b""}


def manifest(*files: FileEntry, identifier: str = BACKUP) -> Manifest:
    return Manifest(
        FORMAT,
        identifier,
        "2026-01-01T00:00:00.000Z",
        "1",
        "here",
        "/home",
        Standing("1", "1", 0, ""),
        {},
        files,
        ("x",),
    )


KEYS = (b"1" * 32, b"2" * 32)


def sign(body: bytes) -> dict[str, Any]:
    return {"body": base64.b64encode(body).decode()}


def verify(envelope: dict[str, Any]) -> bytes:
    return base64.b64decode(envelope["body"])


def silent(_text: str, _done: int, _total: int) -> None:
    """No progress."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = Writer(tmp_path / "backups", KEYS)
    for name, data in DATA.items():
        writer.put(name, data)
    writer.finish(manifest(*sorted(writer.files.values())), sign)
    return tmp_path / "backups"


def test_what_was_put_in_comes_out(folder: Path, tmp_path: Path) -> None:
    there = read_manifest(folder, "", verify)
    check(folder, there, silent, KEYS)
    (tmp_path / "new").mkdir()
    lay_out(folder, there, tmp_path / "new", silent, KEYS)
    assert {name: (tmp_path / "new" / name).read_bytes() for name in DATA} == DATA
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("endless", ["/dev/zero", "/proc/self/mem"])
def test_an_object_is_read_no_further_than_it_was_signed(folder: Path, tmp_path: Path, endless: str) -> None:
    """The one never ends, the other cannot be read."""
    if not Path(endless).exists():
        pytest.skip(f"there is no {endless}")
    there = read_manifest(folder, "", verify)
    named = next(f for f in there.files if f.size)
    path = folder / object_name(named.sha256, KEYS[0])
    path.unlink()
    path.symlink_to(endless)
    with pytest.raises(Integrity, match=named.path) as refused:
        check(folder, there, silent, KEYS)
    assert refused.value.code == "backup_damaged"
    (tmp_path / "new").mkdir()
    with pytest.raises(Integrity, match=named.path):
        lay_out(folder, there, tmp_path / "new", silent, KEYS)


@pytest.mark.parametrize(
    "digest", ["", "../x", "sha256:../../../x", "sha256:" + "0" * 62 + "/x", "sha256:" + "0" * 64 + "\0", "/x"]
)
def test_a_signed_digest_that_is_none_leads_nowhere(digest: str) -> None:
    with pytest.raises(Integrity, match="it names"):
        decoded(msgspec.json.encode(manifest(FileEntry("x", 1, digest))), "x.json")


@pytest.mark.parametrize("path", ["", ".", "..", "../x", "/x", "a/../../x", "a\\b", "a\0b"])
def test_a_signed_path_that_leads_out_is_refused_all_the_same(path: str) -> None:
    body = msgspec.json.encode(manifest(FileEntry("good", 0, "sha256:x"), FileEntry(path, 0, "sha256:x")))
    with pytest.raises(FalajError) as refused:
        decoded(body, "x.json")
    assert refused.value.code == "backup_damaged" and repr(path) in refused.value.message


def test_what_cannot_be_an_id_is_refused() -> None:
    with pytest.raises(Integrity, match="it names 'x'"):
        decoded(msgspec.json.encode(manifest(identifier="x")), "x.json")
