"""The log as plain files that travel: `checkpoint`, `vkey` and `tile/…` by their C2SP paths; and `rotation/…`
where its key was replaced; and the same below `shard/N` for each later shard.

On the way it is a tar file. Whoever receives it takes only what such a log has, verifies it from its bytes, and lays it
over an earlier export only if the new log begins with the old one.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from falaj.governance.audit import rotation, shards, tiles
from falaj.governance.audit.model import Report
from falaj.governance.audit.quorum import WitnessPolicy
from falaj.governance.audit.sharded import newest_folder, prove_extends, verify_log
from falaj.governance.audit.verify import CHECKPOINT, HEAD, VKEY, demanding_quorum
from falaj.kernel.errors import Conflict, FalajError, Integrity

MAX_FILE = tiles.WIDTH * (tiles.MAX_BYTES + 2)
"""Bytes of a file of a log at the most: an entry bundle of the largest entries."""
_BLOCK = 512


class Snapshot(msgspec.Struct, frozen=True):
    """A published log: `edge` are the files that change as it grows, the others lie in `folder` for good.

    `trees` are where each shard lies below it, and its size.
    """

    folder: Path
    trees: tuple[tuple[str, int], ...]
    edge: dict[str, bytes]

    def lasting(self) -> Iterator[str]:
        """The files that lie in the folder for good."""
        for place, size in self.trees:
            yield from (name for name in (f"{place}{p}" for p in tiles.paths(size)) if name not in self.edge)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file of the log, one after the other."""
        yield from self.edge.items()
        for name in self.lasting():
            yield name, (self.folder / name).read_bytes()


def taken(folder: Path, trees: Sequence[tuple[str, int]], *, heads: bool = False) -> Snapshot:
    """The log at this moment, in which nothing is published; with `heads` also the publisher's own files."""
    edge: dict[str, bytes] = {}
    for place, size in trees:
        names = [CHECKPOINT, VKEY, *([HEAD] if heads and (folder / place / HEAD).exists() else ())]
        names += [rotation.path(n) for n in range(1, len(rotation.stored(folder / place)) + 1)]
        names += [name for name in tiles.paths(size) if tiles.partial_of(name)]
        edge |= {f"{place}{name}": (folder / place / name).read_bytes() for name in names}
    return Snapshot(folder, tuple(trees), edge)


def pack(snapshot: Snapshot) -> Iterator[bytes]:
    """The snapshot as a tar file, piece by piece; the same snapshot gives the same bytes."""
    for name, data in snapshot.files():
        about = tarfile.TarInfo(name)
        about.size, about.mode = len(data), 0o644
        yield about.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)
    yield bytes(2 * _BLOCK)


def unpack(packed: Path, folder: Path) -> None:
    """Lay out a packed log in a new folder. Raises `Integrity` for anything that is not a file of a log."""
    folder.mkdir(parents=True)
    try:
        with tarfile.open(packed, "r:") as tar:
            for member in tar:
                if not _belongs(member):
                    raise _bad(f"it holds {member.name[:80]!r}, which is no file of a log")
                source = tar.extractfile(member)
                path = folder / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read() if source else b"")
    except (tarfile.TarError, EOFError) as e:
        raise _bad(f"it cannot be read ({e})") from e


def place(new: Path, folder: Path, vkey: str | None, policy: WitnessPolicy | None = None) -> Report:
    """Verify the log in `new` and let it take the name `folder`; returns what was verified.

    Where an earlier export lies, the new log must extend it, by the same key. Raises `Integrity` for a log that does
    not hold, and `Conflict` for a folder that holds something else; then both stay as they are.
    """
    earlier = _earlier(folder)
    trusted = vkey or (_text(folder / VKEY) if earlier else _text(new / VKEY))
    report = verify_log(new, trusted, policy, exported=True)
    if policy is not None:
        report = demanding_quorum(report, policy)
    if not report.ok:
        raise Integrity(
            f"the log that was exported does not hold: {'; '.join(report.problems[:3])}",
            hint=f"it lies in {new.name} to be looked at; find out who could write to it",
            code="audit_broken",
            details={"problems": list(report.problems)},
        )
    if earlier:
        _extends(earlier, new, trusted)
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rmdir()  # it is empty
        new.rename(folder)
    return report


def _extends(earlier: bytes, new: Path, vkey: str) -> None:
    try:
        prove_extends(earlier, new, vkey)
    except FalajError as e:
        raise Integrity(
            f"the log does not begin with the one that was exported before: {e.message}",
            hint=f"keep both: the old one lies where it was, the new one in {new.name}; the log went back or was rewritten",
            code="audit_fork",
        ) from e


def _earlier(folder: Path) -> bytes:
    """The checkpoint of an earlier export; nothing where there is none. Raises `Conflict` for another folder."""
    if not folder.exists():
        return b""
    if folder.is_dir():
        if (folder / CHECKPOINT).is_file() and (folder / VKEY).is_file():
            return (newest_folder(folder) / CHECKPOINT).read_bytes()
        if not any(folder.iterdir()):
            return b""
    raise Conflict(
        f"{folder} is there already, and is no earlier export of a log",
        hint="name a new folder, or that of an earlier export to bring it up to date",
        code="folder_not_empty",
    )


def _belongs(member: tarfile.TarInfo) -> bool:
    shard = shards.split(member.name)
    name = shard[1] if shard else ""
    known = name in (CHECKPOINT, VKEY) or rotation.is_path(name) or tiles.parse_path(name) is not None
    return known and member.isreg() and member.size <= MAX_FILE


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise _bad(f"it has no {path.name} that can be read") from e


def _bad(why: str) -> FalajError:
    return Integrity(
        f"this is no exported log: {why}",
        hint="export it again; if it stays so, it is changed on its way",
        code="bad_export",
    )
