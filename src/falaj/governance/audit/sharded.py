"""Checks a whole log, shard by shard and the links between them, from bytes; knows no SQL: rows are handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from falaj.governance.audit import merkle, note, shards, tiles
from falaj.governance.audit.model import Report, Stored
from falaj.governance.audit.quorum import WitnessPolicy
from falaj.governance.audit.shards import Known, Part
from falaj.governance.audit.verify import CHECKPOINT, VKEY, check_extends, heads, verify_database_entries, verify_folder
from falaj.kernel.errors import FalajError, Integrity

_TRIES = 5
Rows = Callable[[int, int | None], Iterable[Stored]]
"""`rows(first, end)`: the rows from one number to below another; to the last one, if None."""


def verify_log(
    folder: Path, vkey: str | None, policy: WitnessPolicy | None = None, *, exported: bool = False, midway: bool = False
) -> Report:
    """Check a published log with all its shards; as `verify_folder`, which checks each of them.

    `vkey` may be the key of any shard; None believes the one that lies in the folder. A problem of a later shard begins with
    where it lies. A log that may be `midway` is a home's that a crash left between two shards: its next start goes on.
    """
    for _ in range(_TRIES):
        before = _heads(folder)
        report = _once(folder, vkey, policy, exported=exported, midway=midway)
        if report.ok or _heads(folder) == before:
            return report
    return _once(folder, vkey, policy, exported=exported, midway=midway)


def verify_rows(rows: Rows, folder: Path, vkey: str | None = None, *, midway: bool = False) -> Report:
    """Check database rows, all of them, against the shards in `folder`; as `verify_database_entries`."""
    chain, _ = _followed(folder, vkey, midway=midway)
    starts = [k.first for k in chain] or [0]
    found = [
        (
            number,
            verify_database_entries(rows(first, end), folder / shards.place(number), _newest(chain, number), first),
        )
        for number, (first, end) in enumerate(pairwise([*starts, None]), 1)
        if first is not None
    ]
    return _joined(found, ())


def prove_extends(old: bytes, folder: Path, vkey: str) -> tuple[note.Checkpoint, note.Checkpoint]:
    """The old checkpoint and the log's newest, after proving from the tiles in `folder` that its log begins with the old one:
    that the old one's shard does, and that its last tree leads on to the newest. Raises `Integrity`."""
    parts = shards.parts_in(folder)
    return extended(
        old, parts, vkey, lambda number, first, last: path_between(folder / shards.place(number), first, last)
    )


def extended(
    old: bytes, parts: Sequence[Part], vkey: str, between: Callable[[int, int, int], Sequence[bytes]]
) -> tuple[note.Checkpoint, note.Checkpoint]:
    """As `prove_extends`, for shards from elsewhere; `between(shard, old size, new size)` gives the consistency proof."""
    chain = shards.follow(parts, note.parse_vkey(vkey))
    if why := shards.missing_after(chain):
        raise _incomplete(why)
    known = shard_of(chain, note.unsigned(old).origin)
    part = parts[known.number - 1]
    hashes = between(known.number, note.unsigned(old).size, known.checkpoint.size)
    first, _ = check_extends(old, part.checkpoint, known.keys.newest.vkey, hashes, part.rotations)
    return first, chain[-1].checkpoint


def shard_of(chain: Sequence[Known], origin: str) -> Known:
    """The shard of this name. Raises `Integrity` when the log has none."""
    found = next((k for k in chain if k.checkpoint.origin == origin), None)
    if found is None:
        raise _incomplete(f"it has no shard {origin}")
    return found


def path_between(folder: Path, old: int, new: int) -> tuple[bytes, ...]:
    """The consistency proof between two sizes of the log in a folder; empty where none is due. Raises `Integrity`."""
    if not 0 < old < new:
        return ()
    size = note.unsigned((folder / CHECKPOINT).read_bytes()).size
    return merkle.consistency_proof(tiles.stored_nodes(folder, size), old, new)


def folder_of(folder: Path, origin: str) -> Path:
    """Where the shard of this name lies in a log's folder. Raises `Integrity` when the log has none."""
    number = 1
    while (checkpoint := folder / shards.place(number) / CHECKPOINT).is_file():
        if note.unsigned(checkpoint.read_bytes()).origin == origin:
            return checkpoint.parent
        number += 1
    raise _incomplete(f"it has no shard {origin}")


def newest_folder(folder: Path) -> Path:
    """Where the shard that grows lies in a log's folder, as far as the folder tells."""
    number = 1
    while (folder / shards.place(number + 1) / VKEY).is_file():
        number += 1
    return folder / shards.place(number)


def _once(folder: Path, vkey: str | None, policy: WitnessPolicy | None, *, exported: bool, midway: bool) -> Report:
    chain, problem = _followed(folder, vkey, midway=midway)
    found: list[tuple[int, Report]] = []
    first = 0
    count = shards.there(folder, midway=midway)
    for number in range(1, count + 1):
        key = _newest(chain, number)
        if key is None and vkey is not None and count == 1:
            key = vkey  # the log has one shard, and the trusted key decides
        at = folder / shards.place(number)
        beside = shards.FOLDER if number == 1 else ""
        report = verify_folder(at, key, policy, exported=exported, first=first, beside=beside)
        found.append((number, report))
        first += report.size
    problems = [problem] if problem and (count > 1 or not found[0][1].problems) else []
    problems += _beheaded(folder, found[0][1].size)
    if chain and (why := shards.missing_after(chain)) and not (midway and not problem):
        problems.append(why)
    problems += _surplus(folder)
    return _joined(found, problems)


def _followed(folder: Path, vkey: str | None, *, midway: bool) -> tuple[tuple[Known, ...], str]:
    """The shards as far as they can be followed from the trusted key, and why not; none, unless all can."""
    try:
        lying = (folder / VKEY).read_text("utf-8", "replace").removesuffix("\n") if vkey is None else vkey
        return shards.follow(shards.parts_in(folder, midway=midway), note.parse_vkey(lying)), ""
    except FalajError as e:
        return (), e.message
    except OSError as e:
        return (), f"{VKEY}: it cannot be read ({e.strerror})"


def _newest(chain: Sequence[Known], number: int) -> str | None:
    return chain[number - 1].keys.newest.vkey if number <= len(chain) else None


def _beheaded(folder: Path, size: int) -> list[str]:
    """That the first shard there is follows another one."""
    try:
        bundle = tiles.read_tile(folder, tiles.Name(None, 0, 1), size) or b""
    except OSError:
        return []  # it is named as missing
    told = next((t for t in map(shards.told_in, tiles.decode_entries(bundle)[0]) if t), None)
    earlier = told.previous.vkey.partition("+")[0] if told and told.previous else ""
    return [f"{earlier}: it is missing: the first entry there is, of {told.origin}, follows it"] if told else []


def _surplus(folder: Path) -> list[str]:
    """What lies among the shards and is none that follows the one before it."""
    known = {shards.place(n).split("/")[1] for n in range(2, shards.there(folder) + 1)}
    lying = folder / shards.FOLDER
    names = sorted(p.name for p in lying.iterdir()) if lying.is_dir() and not lying.is_symlink() else []
    wrong = [f"{shards.FOLDER}/{n}: it follows no shard of this log" for n in names if n not in known]
    return [*wrong, f"{shards.FOLDER}: it is a link"] if lying.is_symlink() else wrong


def _joined(found: Sequence[tuple[int, Report]], more: Sequence[str]) -> Report:
    """One report of all shards, and of what is wrong between them."""
    problems = [*more]
    for number, report in found:
        at = f"{shards.place(number)[:-1]}: " if number > 1 else ""
        problems += [f"{at}{text}" for text in report.problems]
    reports = [r for _, r in found]
    return msgspec.structs.replace(
        reports[-1],
        ok=all(r.ok for r in reports) and not problems,
        size=sum(r.size for r in reports),
        problems=tuple(problems),
        checked_bytes=sum(r.checked_bytes for r in reports),
        unchecked=sum(r.unchecked for r in reports),
        rotations=sum(r.rotations for r in reports),
        shards=len(reports),
    )


def _heads(folder: Path) -> tuple[bytes, ...]:
    """The bytes that tell whether any shard moved while the log was read."""
    return tuple(data for n in range(1, shards.there(folder) + 1) for data in heads(folder / shards.place(n)))


def _incomplete(why: str) -> FalajError:
    return Integrity(
        f"the log is not whole: {why}",
        hint="fetch it again from its operator, and ask what became of the shard",
        code="audit_shard_cut",
    )
