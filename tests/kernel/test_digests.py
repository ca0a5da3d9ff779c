from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.digests import (
    FileEntry,
    canonical_json,
    digest_of,
    manifest,
    manifest_digest,
    parse_digest,
    sha256,
    sha256_file,
    short,
)
from falaj.kernel.errors import Invalid

ENTRY = st.builds(
    FileEntry,
    path=st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    size=st.integers(0, 1000),
    sha256=st.binary(max_size=2).map(sha256),
)
ENTRIES = st.lists(ENTRY, max_size=5, unique_by=lambda e: e.path)


def test_a_digest_is_the_hash_of_the_bytes(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "f").write_bytes(data)
    assert sha256(data) == sha256_file(tmp_path / "f") == "sha256:" + hashlib.sha256(data).hexdigest()
    assert parse_digest(sha256(data)) == sha256(data)
    assert short(sha256(data)) == hashlib.sha256(data).hexdigest()[:12]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256:" + "g" * 64,
        "sha256:../" + "a" * 61,
    ],
)
def test_nothing_else_is_a_digest(text: str) -> None:
    with pytest.raises(Invalid):
        parse_digest(text)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1}'.encode()
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1}) != digest_of({"a": 1, "b": 2})


@given(ENTRIES, ENTRIES)
def test_only_equal_manifests_share_a_name(one: list[FileEntry], two: list[FileEntry]) -> None:
    assert (manifest_digest(one) == manifest_digest(two)) == (sorted(one) == sorted(two))


@given(ENTRIES.filter(bool), st.data())
def test_any_change_of_an_entry_changes_the_name(entries: list[FileEntry], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(entries) - 1))
    old = entries[at]
    new = data.draw(
        st.sampled_from(
            [
                msgspec.structs.replace(old, path=old.path + "x"),
                msgspec.structs.replace(old, size=old.size + 1),
                msgspec.structs.replace(old, sha256=sha256(old.sha256.encode())),
            ]
        )
    )
    changed = [*entries[:at], new, *entries[at + 1 :]]
    names = {manifest_digest(entries), manifest_digest(changed), manifest_digest(entries[:at] + entries[at + 1 :])}
    assert len(names) == 3


def test_swapped_names_are_another_folder(tmp_path: Path) -> None:
    for folder, first, second in (("one", "a", "b"), ("two", "b", "a")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / first).write_bytes(b"1")
        (tmp_path / folder / second).write_bytes(b"2")
    assert manifest_digest(manifest(tmp_path / "one")) != manifest_digest(manifest(tmp_path / "two"))


def test_a_manifest_lists_every_regular_file(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("z", ".hidden", "sub/a", "sub/deep/.gitignore"):
        (tmp_path / name).write_text(name)
    found = manifest(tmp_path)
    assert [e.path for e in found] == [".hidden", "sub/a", "sub/deep/.gitignore", "z"]
    assert all((e.size, e.sha256) == (len(e.path), sha256(e.path.encode())) for e in found)


@pytest.mark.parametrize("what", ["file link", "folder link", "broken link", "outside link", "pipe", "socket"])
def test_a_manifest_refuses_what_is_not_a_regular_file(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "model"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "real").write_text("x")
    targets = {"file link": "real", "folder link": ".", "broken link": "nowhere", "outside link": "/etc/hostname"}
    if what == "pipe":
        os.mkfifo(root / "sub" / "it")
    elif what == "socket":
        monkeypatch.chdir(root / "sub")  # a socket's path may only be short
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("it")
        listener.close()
    else:
        (root / "sub" / "it").symlink_to(targets[what])
    with pytest.raises(Invalid, match="it is not a regular file"):
        manifest(root)


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"a\x1b[2J"])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: bytes) -> None:
    with open(os.path.join(os.fsencode(tmp_path), name), "wb"):  # noqa: PTH118, PTH123  # pathlib takes no bytes
        pass
    with pytest.raises(Invalid, match="cannot name a file"):
        manifest(tmp_path)
