"""Tiles (c2sp.org/tlog-tiles): 256 hashes a tile, entry bundles beside them; after a power cut each file is whole.

`tile/0/x001/x234/067` holds leaf hashes 1,234,067·256 and on; `….p/5` is a tile that has only five yet;
`tile/1/…` holds the roots of full tiles of level 0; `tile/entries/…` holds the entries themselves, each after
its length in two bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from falaj.governance.audit.merkle import HASH_SIZE, Frontier, Nodes, peaks, root_from_leaves
from falaj.kernel.errors import Integrity, Invalid
from falaj.kernel.files import flush

WIDTH = 256
"""Hashes or entries in a full tile."""
MAX_BYTES = 0xFFFF
"""Bytes of one entry at the most, from the two bytes of its length."""
_PATH = re.compile(r"tile/(?P<level>0|[1-9]\d?|entries)/(?P<n>(?:x\d{3}/){0,6}\d{3})(?:\.p/(?P<width>[1-9]\d{0,2}))?\Z")
_PARTIAL = re.compile(r"(tile/(?:0|[1-9]\d?|entries)/(?:x\d{3}/)*\d{3})\.p/([1-9]\d{0,2})\Z")
TEMPORARY = ".new"
"""How the name of a file ends while it is being written."""


def hash_path(level: int, n: int, width: int = WIDTH) -> str:
    """Where tile `n` of `level` lies, with `width` hashes in it."""
    return _path(str(level), n, width)


def entries_path(n: int, width: int = WIDTH) -> str:
    """Where entry bundle `n` lies, with `width` entries in it."""
    return _path("entries", n, width)


def spans(count: int) -> Iterator[tuple[int, int]]:
    """(number, width) of the tiles that hold `count` hashes: full ones, then a partial one if there is a rest."""
    for n in range(count // WIDTH):
        yield n, WIDTH
    if count % WIDTH:
        yield count // WIDTH, count % WIDTH


def levels(size: int) -> Iterator[tuple[int, int]]:
    """(level, hashes on it) for every level that a tree of `size` has tiles on."""
    level = 0
    while size:
        yield level, size
        size, level = size // WIDTH, level + 1


def paths(size: int) -> Iterator[str]:
    """Every tile that a tree of `size` needs."""
    for level, count in levels(size):
        yield from (hash_path(level, n, width) for n, width in spans(count))
    yield from (entries_path(n, width) for n, width in spans(size))


def partial_of(path: str) -> tuple[str, int] | None:
    """For the path of a partial tile: the path of its full tile, and its width."""
    match = _PARTIAL.match(path)
    return (match[1], int(match[2])) if match else None


class Name(msgspec.Struct, frozen=True):
    """What a path names: tile `n` of a level (None for an entry bundle), `width` hashes or entries of it."""

    level: int | None
    n: int
    width: int

    @property
    def path(self) -> str:
        """The one spelling of it."""
        return entries_path(self.n, self.width) if self.level is None else hash_path(self.level, self.n, self.width)


def parse_path(path: str) -> Name | None:
    """What a path names; None unless it is spelt as the format says."""
    match = _PATH.match(path)
    if match is None:
        return None
    level = None if match["level"] == "entries" else int(match["level"])
    name = Name(level, int(match["n"].replace("x", "").replace("/", "")), int(match["width"] or WIDTH))
    return name if name.width <= WIDTH and name.path == path else None


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle. Raises `Invalid` for an entry above 65,535 bytes."""
    if any(len(data) > MAX_BYTES for data in entries):
        raise Invalid(
            f"an entry is above {MAX_BYTES} bytes",
            hint="refer to large detail by its digest",
            code="audit_entry_too_large",
        )
    return b"".join(len(data).to_bytes(2, "big") + data for data in entries)


def decode_entries(bundle: bytes) -> tuple[list[bytes], bool]:
    """The entries of a bundle, and whether it ends where its last entry does."""
    entries, at = [], 0
    while at + 2 <= len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            break
        entries.append(bundle[at + 2 : end])
        at = end
    return entries, at == len(bundle)


def split_hashes(tile: bytes) -> list[bytes]:
    """The hashes of a tile. Raises `Integrity` for a length that is not a multiple of 32."""
    if len(tile) % HASH_SIZE:
        raise Integrity("a tile is cut off inside a hash", hint="restore the tile from a backup", code="audit_tile_cut")
    return [tile[i : i + HASH_SIZE] for i in range(0, len(tile), HASH_SIZE)]


def read_tile(folder: Path, name: Name, size: int) -> bytes | None:
    """A tile's bytes as a tree of at most `size` leaves has it, from the folder of a log of `size`; None if it has none.

    A partial tile is the beginning of the one that replaced it, so it can be had although its own file is gone.
    """
    count = size if name.level is None else size // WIDTH**name.level
    held = min(WIDTH, count - name.n * WIDTH)
    if not 0 < name.width <= held:
        return None
    data = (folder / Name(name.level, name.n, held).path).read_bytes()
    if name.level is not None:
        return data[: name.width * HASH_SIZE]
    return encode_entries(decode_entries(data)[0][: name.width])


def stored_nodes(folder: Path, size: int) -> Nodes:
    """The full subtrees of the log of `size` that lies in a folder. Raises `Integrity` for a tile that is cut or missing."""
    kept: dict[tuple[int, int], list[bytes]] = {}

    def node(level: int, i: int) -> bytes:
        tile, depth = divmod(level, 8)
        first = i << depth
        at = tile, first // WIDTH
        if at not in kept:
            width = min(WIDTH, size // WIDTH**tile - at[1] * WIDTH)
            kept[at] = split_hashes(_tile_bytes(folder, hash_path(tile, at[1], width), width))
        return root_from_leaves(kept[at][first % WIDTH : first % WIDTH + (1 << depth)])

    return node


def _tile_bytes(folder: Path, name: str, width: int) -> bytes:
    try:
        data = (folder / name).read_bytes()
    except OSError:
        data = b""
    if len(data) != width * HASH_SIZE:
        raise Integrity(
            f"{name} is missing or cut off",
            hint="run `falaj audit verify`, and restore the audit folder from a backup",
            code="audit_tile_cut",
        )
    return data


class Edge(msgspec.Struct, frozen=True):
    """The right edge of the tiles: for each level the hashes of its last, not yet full tile."""

    tails: tuple[tuple[bytes, ...], ...] = ()

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return sum(len(tail) * WIDTH**level for level, tail in enumerate(self.tails))

    def root(self) -> bytes:
        """The root of the tree."""
        return Frontier(self.size, tuple(p for tail in reversed(self.tails) for p in peaks(tail))).root()


def grow(edge: Edge, leaves: Sequence[bytes]) -> tuple[Edge, dict[str, bytes]]:
    """The edge after these leaf hashes, and the hash tiles (path → bytes) that they change."""
    files: dict[str, bytes] = {}
    tails: list[tuple[bytes, ...]] = []
    arriving, level = list(leaves), 0
    while arriving:
        first = edge.size // WIDTH ** (level + 1)
        hashes = [*(edge.tails[level] if level < len(edge.tails) else ()), *arriving]
        arriving = []
        for n, width in spans(len(hashes)):
            tile = hashes[n * WIDTH : n * WIDTH + width]
            files[hash_path(level, first + n, width)] = b"".join(tile)
            if width == WIDTH:
                arriving.append(root_from_leaves(tile))
        tails.append(tuple(hashes[len(hashes) // WIDTH * WIDTH :]))
        level += 1
    return Edge((*tails, *edge.tails[level:])), files


def bundles(first: int, entries: Sequence[bytes]) -> dict[str, bytes]:
    """The entry bundles (path → bytes) for entries that begin at bundle `first`."""
    return {
        entries_path(first + n, width): encode_entries(entries[n * WIDTH : n * WIDTH + width])
        for n, width in spans(len(entries))
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files so that each is whole or absent, and return when they would survive a power cut.

    Temporary file → write → fsync → rename → fsync of the folders. Raises `OSError`; after that nothing is known
    about the files, and the process must not try again.
    """
    folders: set[Path] = set()
    for name, data in files.items():
        path = folder / name
        for missing in [p for p in path.parents if not p.exists()][::-1]:
            missing.mkdir()
            folders.add(missing.parent)
        temporary = path.with_name(path.name + TEMPORARY)
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
        folders.add(path.parent)
    for changed in sorted(folders):
        flush(changed)


def prune(folder: Path, size: int, old_size: int | None = None) -> None:
    """Remove partial tiles that a tree of `size` has outgrown, and temporary files left by a crash.

    With `old_size` only the tiles that were partial then are looked at; without it, the whole folder.
    """
    keep = set(paths(size)) if old_size is None else set(_edge_paths(size))
    if old_size is None:
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    else:
        # The partial tiles of either size; a crash leaves no others, because it is finished to the head it named.
        names = list(_edge_paths(old_size))
    for name in names:
        if name not in keep and (partial_of(name) or name.endswith(TEMPORARY)):
            path = folder / name
            path.unlink(missing_ok=True)
            if path.parent.name.endswith(".p") and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()


def _edge_paths(size: int) -> Iterator[str]:
    """The partial tiles of a tree of `size`."""
    for level, count in levels(size):
        if count % WIDTH:
            yield hash_path(level, count // WIDTH, count % WIDTH)
    if size % WIDTH:
        yield entries_path(size // WIDTH, size % WIDTH)


def _path(level: str, n: int, width: int) -> str:
    digits = f"{n:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{g}" for g in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + ("" if width == WIDTH else f".p/{width}")
