from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from falaj.governance.audit import merkle, tiles
from falaj.kernel.errors import Integrity, Invalid

MANY = [hashlib.sha256(str(i).encode()).digest() for i in range(70_000)]


def expected_tiles(leaves: list[bytes]) -> dict[str, bytes]:
    """Every hash tile of a tree, from the definition."""
    found, level, hashes = {}, 0, leaves
    while hashes:
        for n in range(0, len(hashes), 256):
            part = hashes[n : n + 256]
            found[tiles.hash_path(level, n // 256, len(part))] = b"".join(part)
        full = range(0, len(hashes) // 256 * 256, 256)
        hashes, level = [merkle.root_from_leaves(hashes[i : i + 256]) for i in full], level + 1
    return found


def test_paths() -> None:
    assert tiles.hash_path(0, 0) == "tile/0/000"
    assert tiles.hash_path(1, 1234067) == "tile/1/x001/x234/067"
    assert tiles.hash_path(0, 1000, 5) == "tile/0/x001/000.p/5"
    assert tiles.entries_path(67, 255) == "tile/entries/067.p/255"
    assert tiles.partial_of("tile/0/x001/000.p/5") == ("tile/0/x001/000", 5)
    assert tiles.partial_of("tile/0/000") is None
    assert tiles.partial_of("tile/0/../000.p/5") is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_growing_in_any_steps_writes_the_same_tiles(steps: list[int]) -> None:
    edge, files, size = tiles.Edge(), {}, 0
    for step in steps:
        edge, written = tiles.grow(edge, MANY[size : size + step])
        files.update(written)
        size += step
        assert edge.size == size
        assert edge.root() == merkle.root_from_leaves(MANY[:size])
    want = expected_tiles(MANY[:size])
    assert {name: files[name] for name in want} == want
    assert set(want) == {p for p in tiles.paths(size) if not p.startswith("tile/entries/")}


@pytest.mark.parametrize(("first", "then"), [(65_535, 1), (65_536, 300), (65_000, 5_000)])
def test_the_third_level(first: int, then: int) -> None:
    edge, files = tiles.grow(tiles.Edge(), MANY[:first])
    edge, more = tiles.grow(edge, MANY[first : first + then])
    want = expected_tiles(MANY[: first + then])
    assert "tile/2/000.p/1" in want
    assert {name: (files | more)[name] for name in want} == want
    assert edge.root() == merkle.root_from_leaves(MANY[: first + then])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_hold_entries(entries: list[bytes]) -> None:
    bundle = tiles.encode_entries(entries)
    assert tiles.decode_entries(bundle) == (entries, True)
    if bundle:
        assert tiles.decode_entries(bundle[:-1])[1] is False or tiles.decode_entries(bundle[:-1])[0] != entries
    assert tiles.decode_entries(bundle + b"\0") == (entries, False)


def test_limits() -> None:
    assert tiles.decode_entries(tiles.encode_entries([b"x" * 65_535])) == ([b"x" * 65_535], True)
    with pytest.raises(Invalid):
        tiles.encode_entries([b"x" * 65_536])
    with pytest.raises(Integrity):
        tiles.split_hashes(bytes(33))


def test_files_are_written_whole_and_outgrown_ones_removed(tmp_path: Path) -> None:
    tiles.write_files(tmp_path, {"tile/0/000.p/5": b"five", "tile/entries/000.p/5": b"5"})
    (tmp_path / "tile/0/000.p/9.new").write_bytes(b"half")
    tiles.write_files(tmp_path, {"tile/0/000.p/7": b"seven", "tile/entries/000.p/7": b"7"})
    tiles.prune(tmp_path, 7, 5)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"tile/0/000.p/7", "tile/entries/000.p/7", "tile/0/000.p/9.new"}
    tiles.prune(tmp_path, 7)
    assert not (tmp_path / "tile/0/000.p/9.new").exists()
    tiles.prune(tmp_path, 256, 7)
    assert not list(tmp_path.rglob("*.p"))
