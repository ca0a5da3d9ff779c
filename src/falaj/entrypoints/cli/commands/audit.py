"""The audit log: read it, verify it, take it away, prove what it holds. What checks needs no home."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.audit import export, note, proof, rotation, sharded, shards
from falaj.governance.audit.model import encode
from falaj.governance.audit.quorum import WitnessPolicy, parse_policy
from falaj.governance.audit.verify import VKEY, check_extends, demanding_quorum
from falaj.kernel.errors import Integrity, Invalid

audit_app = App(name="audit", help="The log of everything that anyone did.")
Vkey = Annotated[str | None, Parameter(help="The log's key to trust, as you got it from its operator.")]
Policy = Annotated[
    Path | None,
    Parameter(help="A file (c2sp.org/tlog-policy) of witnesses: a checkpoint without their quorum is refused."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class Wanted:
    """Which entries."""

    principal: Annotated[str | None, Parameter(help="Who did it.")] = None
    action: Annotated[str | None, Parameter(help="What was done.")] = None
    subject: Annotated[str | None, Parameter(help="To which thing.")] = None
    outcome: Annotated[str | None, Parameter(help="done, denied or refused.")] = None
    since: Annotated[str | None, Parameter(help="From this time on, like 2026-03-01T00:00:00Z.")] = None
    until: Annotated[str | None, Parameter(help="Before this time.")] = None
    before: Annotated[int | None, Parameter(help="Before this entry: the next page.")] = None
    limit: Annotated[int, Parameter(help="How many, newest first.")] = 30


ALL = Wanted()


@audit_app.command(name="log")
def audit_log(*, wanted: Wanted = ALL, common: Common = DEFAULT) -> None:
    """List the newest entries; reading them is an entry too."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/audit", **{k: v for k, v in asdict(wanted).items() if v is not None})
    if common.json:
        render.show_json(rows)
        return
    columns = ("entry", "at", "principal", "action", "subject", "outcome", "why")
    render.table(columns, [_row(r) for r in rows])


@audit_app.command(name="verify")
def audit_verify(
    *,
    folder: Annotated[Path | None, Parameter(help="A copy of the log's files instead of the home's own log.")] = None,
    vkey: Annotated[str | None, Parameter(help="The key to trust, for a copy; else the one that lies in it.")] = None,
    witnesses: Policy = None,
    common: Common = DEFAULT,
) -> None:
    """Check every byte of the log against its signed checkpoint. Exit code 4 if anything differs."""
    if folder is not None:
        if not folder.is_dir():
            raise Invalid(
                f"there is no folder {folder}",
                hint="name the folder with a copy of the log's files",
                code="no_such_folder",
            )
        policy = _policy(witnesses)
        found = sharded.verify_log(folder, vkey, policy, exported=True)
        report: dict[str, Any] = msgspec.to_builtins(demanding_quorum(found, policy) if policy else found)
    elif vkey is not None or witnesses is not None:
        raise Invalid(
            "--vkey and --witnesses are for a copy of the log",
            hint="name the copy: --folder; for its own log the home has its own key, and witnesses from FALAJ_WITNESSES",
            code="copy_not_named",
        )
    else:
        with connect(common.settings()) as client:
            report = client.post("/api/v1/audit/verification")
    if not report["ok"]:
        raise Integrity(
            f"the log does not hold: {'; '.join(report['problems'][:3])}",
            hint="keep this copy as it is, compare with a witness's or a backup's checkpoint, and find out who could write there",
            code="audit_broken",
            details=report,
        )
    if common.json:
        render.show_json(report)
        return
    count = report.get("folder", report)["shards"]
    where = f" in {count} shards" if count > 1 else ""
    render.line(f"the log holds: {report['size']} entries{where}, root {report['root']}")
    if replaced := report.get("folder", report)["rotations"]:
        render.line(f"its key was replaced {replaced} time{'s'[: replaced > 1]}; each one vouches for the next")
    _tell_witnesses(report.get("folder", report))


@audit_app.command(name="export")
def audit_export(
    folder: Annotated[Path, Parameter(help="Where to: a new folder, or an earlier export to bring up to date.")],
    /,
    *,
    vkey: Vkey = None,
    witnesses: Policy = None,
    common: Common = DEFAULT,
) -> None:
    """Take the log away as plain files by their C2SP paths, verified. Exit code 4 if it does not extend an earlier export."""
    policy, settings = _policy(witnesses), common.settings()
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # left by an export that was refused or interrupted
    with tempfile.TemporaryDirectory(prefix="falaj-export-") as scratch:
        packed = Path(scratch) / "log.tar"
        with connect(settings) as client:
            client.download("/api/v1/audit/export", packed)
        export.unpack(packed, new)
    report = export.place(new, folder, vkey, policy)
    trusted = (folder / VKEY).read_text("utf-8").strip()
    if common.json:
        render.show_json({**msgspec.to_builtins(report), "folder": str(folder), "vkey": trusted})
        return
    where = f" in {report.shards} shards" if report.shards > 1 else ""
    render.line(f"{folder}: {report.size} entries{where}, root {report.root}; the log holds")
    _tell_witnesses(msgspec.to_builtins(report))
    render.line(f"its key is {trusted}: keep it apart from the copy")


@audit_app.command(name="prove")
def audit_prove(
    entry: Annotated[int, Parameter(help="The number of an entry.")],
    /,
    *,
    to: Annotated[Path | None, Parameter(help="The file to write; else entry-N.tlog-proof.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Write a proof that an entry is in the log, with the entry, in one file (c2sp.org/tlog-proof)."""
    if entry < 0:
        raise Invalid("entries are counted from 0", hint="`falaj audit log` shows their numbers", code="no_such_entry")
    path = to or Path(f"entry-{entry}{proof.SUFFIX}")
    with connect(common.settings()) as client:
        data = client.text(f"/api/v1/audit/proofs/{entry}")
    found = proof.parse_proof(data)
    path.write_bytes(data)
    if common.json:
        render.show_json({"file": str(path), "index": found.index, "hashes": len(found.hashes)})
    else:
        render.line(f"{path}: entry {found.index}, {len(found.hashes)} hashes, {len(data)} bytes")


@audit_app.command(name="check-proof")
def audit_check_proof(
    file: Annotated[Path, Parameter(help="A proof.")],
    /,
    *,
    vkey: Vkey = None,
    witnesses: Policy = None,
    entry: Annotated[Path | None, Parameter(help="The entry's bytes, where the proof does not carry them.")] = None,
    rotations: Annotated[
        tuple[Path, ...],
        Parameter(name="--rotation", help="Where the log's key was replaced: each rotation/N of its files, in order."),
    ] = (),
    common: Common = DEFAULT,
) -> None:
    """Check a proof from the entry's bytes to the signed root; needs no home and no network. Exit code 4 if it fails."""
    policy = _policy(witnesses)
    data = _bytes(file, proof.MAX_PROOF)
    given = proof.parse_proof(data)
    trusted = _trusted(vkey, policy, note.unsigned(given.checkpoint).origin)
    statements = [_bytes(path, rotation.MAX_STATEMENT) for path in rotations]
    found = proof.check_proof(
        given, trusted, policy, None if entry is None else _bytes(entry, note.MAX_NOTE), statements
    )
    if common.json:
        render.show_json({**msgspec.to_builtins(found), "witnesses": [list(w) for w in found.witnesses]})
        return
    render.line(f"proven: entry {found.index} of the {found.size} in {found.origin}, root {found.root}")
    if found.witnesses:
        render.line(f"cosigned by {len(found.witnesses)} of the witnesses that you trust")
    render.line(encode(found.entry).decode())


@audit_app.command(name="consistency")
def audit_consistency(
    old: Annotated[Path, Parameter(help="A checkpoint that was kept.")],
    new: Annotated[Path | None, Parameter(help="A newer one; else the log's newest.")] = None,
    /,
    *,
    folder: Annotated[Path | None, Parameter(help="Prove it from a copy of the log, with no home.")] = None,
    vkey: Vkey = None,
    common: Common = DEFAULT,
) -> None:
    """Prove that a log begins with the log of a checkpoint that was kept. Exit code 4 if it went back or was rewritten."""
    kept = _bytes(old, note.MAX_NOTE)
    if folder is not None:
        trusted = vkey or _bytes(folder / VKEY, note.MAX_NOTE).decode("utf-8", "replace").strip()
        first, last = sharded.prove_extends(kept, folder, trusted)
        if new is not None:
            last = _same_log(_bytes(new, note.MAX_NOTE), folder, trusted, first, kept)
        hashes = []
        if first.origin == last.origin:
            at = sharded.folder_of(folder, first.origin)
            hashes = list(sharded.path_between(at, first.size, last.size))
    else:
        first, last, hashes = _proven_online(kept, None if new is None else _bytes(new, note.MAX_NOTE), vkey, common)
    answer = {"origin": last.origin, "old": first.size, "new": last.size, "hashes": proof.encode_path(hashes)}
    if common.json:
        render.show_json(answer if first.origin == last.origin else answer | {"from": first.origin})
    elif first.origin == last.origin:
        render.line(f"consistent: the {last.size} entries of {last.origin} begin with the {first.size} of {old}")
    else:
        render.line(f"consistent: {first.origin} begins with the {first.size} entries of {old}, and ends where it was")
        render.line(f"            sealed; from there the links lead to the {last.size} entries of {last.origin}")


@audit_app.command(name="shards")
def audit_shards(*, common: Common = DEFAULT) -> None:
    """List the log's shards: each is a log of its own, and the final checkpoint of one leads to the next."""
    with connect(common.settings()) as client:
        found = client.get("/api/v1/audit/shards")
    if common.json:
        render.show_json(found)
        return
    rows = [
        (s["number"], s["origin"], s["first"], s["size"], "sealed" if s["sealed"] else "grows", s["place"] or ".")
        for s in found
    ]
    render.table(("shard", "name", "from entry", "entries", "state", "folder"), rows)


@audit_app.command(name="shard")
def audit_shard(
    *,
    reason: Annotated[str, Parameter(help="Why; it stands in the log.")],
    common: Common = DEFAULT,
) -> None:
    """Seal the log's shard for good and begin the next one, as a log of its own that a signed link leads to."""
    with connect(common.settings()) as client:
        begun = client.post("/api/v1/audit/shards", {"reason": reason})
    if common.json:
        render.show_json(begun)
        return
    render.line(f"{begun['sealed']} is sealed at {begun['size']} entries, root {begun['root']}")
    render.line(f"{begun['origin']} begins with entry {begun['first']}, in {begun['place']}")
    render.line(f"its key is {begun['vkey']}: whoever has the key of an earlier shard needs no new one")


@audit_app.command(name="witnesses")
def audit_witnesses(*, common: Common = DEFAULT) -> None:
    """Show who watches over this log, what each has cosigned last, and whether the newest checkpoint has its quorum."""
    with connect(common.settings()) as client:
        found = client.get("/api/v1/audit/witnesses")
    if common.json:
        render.show_json(found)
        return
    if not found["witnesses"]:
        render.line(
            "this log has no witnesses: whoever has its key and its disk can rewrite it unseen (FALAJ_WITNESSES)"
        )
        return
    rows = [(w["name"], w["state"], w["size"] or "", w["at"], w["why"]) for w in found["witnesses"]]
    render.table(("witness", "state", "entries", "at", "why"), rows)
    refusing = [w["name"] for w in found["witnesses"] if w["state"] == "refused"]
    if refusing:
        render.line(f"{', '.join(refusing)} refuses this log: what it has seen is no beginning of it")
    elif found["quorum"] is not None:
        has = "has its quorum" if found["quorum"] else "has no quorum"
        render.line(f"the checkpoint of {found['signed']} entries {has} ({found['rule']})")


def _proven_online(
    old: bytes, new: bytes | None, vkey: str | None, common: Common
) -> tuple[note.Checkpoint, note.Checkpoint, list[bytes]]:
    """Ask the home for the proofs, and check them here; returns both checkpoints, and the proof if both are of one shard."""
    with connect(common.settings()) as client:
        trusted = vkey or client.text("/api/v1/audit/log/vkey").decode("utf-8", "replace").strip()
        first = note.unsigned(old)  # whose it is is looked at below
        last = None if new is None else note.unsigned(new)
        asked: dict[str, Any] = {"old": max(first.size, 1), "origin": first.origin}
        if last is not None and last.origin == first.origin:
            asked["new"] = last.size
        answer = client.get("/api/v1/audit/consistency", **asked)
        later = answer
        if last is not None and "new" not in asked:
            later = client.get("/api/v1/audit/consistency", old=max(last.size, 1), origin=last.origin)
    if last is not None and "new" in asked:
        hashes = _hashes(answer) if first.size < answer["new"] else []
        keys = sharded.shard_of(shards.follow(_parts(answer), note.parse_vkey(trusted)), first.origin).keys
        rotations = [s.encode() for s in answer["rotations"]]
        return (*check_extends(old, new or b"", keys.newest.vkey, hashes, rotations), hashes)
    begun, newest = _extended(old, answer, trusted)
    if new is None:
        same = begun.origin == newest.origin and begun.size < newest.size
        return begun, newest, _hashes(answer) if same else []
    ended, _ = _extended(new, later, trusted)
    chain = shards.follow(_parts(later), note.parse_vkey(trusted))
    return begun, _after(chain, begun, ended), []


def _extended(old: bytes, answer: dict[str, Any], trusted: str) -> tuple[note.Checkpoint, note.Checkpoint]:
    """The old checkpoint and the log's newest, proven by what the home answered."""
    return sharded.extended(
        old, _parts(answer), trusted, lambda _shard, first, last: _hashes(answer) if first < last else ()
    )


def _after(chain: Sequence[shards.Known], first: note.Checkpoint, last: note.Checkpoint) -> note.Checkpoint:
    """The later checkpoint, of a later shard. Raises `Integrity` when it is of an earlier one."""
    if sharded.shard_of(chain, last.origin).number < sharded.shard_of(chain, first.origin).number:
        raise Integrity(
            f"{last.origin} comes before {first.origin}",
            hint="name the older checkpoint first",
            code="audit_fork",
        )
    return last


def _hashes(answer: dict[str, Any]) -> list[bytes]:
    return [note.unbase64(h) for h in answer["hashes"]]


def _parts(answer: dict[str, Any]) -> list[shards.Part]:
    return [
        shards.Part(s["checkpoint"].encode(), tuple(r.encode() for r in s["rotations"]), s["link"].encode())
        for s in answer["shards"]
    ]


def _same_log(new: bytes, folder: Path, vkey: str, first: note.Checkpoint, old: bytes) -> note.Checkpoint:
    """The newer checkpoint, after proving that the log in the folder begins with it, and it with the older one."""
    last, _ = sharded.prove_extends(new, folder, vkey)
    chain = shards.follow(shards.parts_in(folder), note.parse_vkey(vkey))
    if last.origin != first.origin:
        return _after(chain, first, last)
    known = sharded.shard_of(chain, first.origin)
    at = folder / shards.place(known.number)
    between = sharded.path_between(at, first.size, last.size)
    check_extends(old, new, known.keys.newest.vkey, between, rotation.stored(at))
    return last


def _policy(file: Path | None) -> WitnessPolicy | None:
    return None if file is None else parse_policy(_bytes(file, note.MAX_NOTE))


def _trusted(vkey: str | None, policy: WitnessPolicy | None, origin: str) -> str:
    """The key to believe: the one given, or the one that the policy has for this log."""
    if vkey is not None:
        return vkey
    known = next((log.vkey for log in policy.logs if log.name == origin), None) if policy else None
    if known is None:
        raise Invalid(
            f"no key of {origin} is trusted: a proof cannot vouch for itself",
            hint="give the log's key, as its operator published it: --vkey, or a `log` line in --witnesses",
            code="no_trusted_key",
        )
    return known


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as f:
            return f.read(limit + 1)
    except OSError as e:
        raise Invalid(
            f"{path} cannot be read: {e.strerror or e}", hint="name a file that is there", code="no_such_file"
        ) from e


def _tell_witnesses(report: dict[str, Any]) -> None:
    seen = ", ".join(f"{name} ({at})" for name, at in report["witnesses"].items())
    if report["quorum"] is False:
        render.line(f"NOT WITNESSED: cosigned by {seen or 'no witness'}, which is no quorum")
    elif seen:
        render.line(f"witnessed by {seen}")
    if report["unchecked"]:
        render.line(f"{report['unchecked']} cosignatures were not checked: name their keys with --witnesses")


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    why = entry["detail"].get("reason") or ""
    acting = entry["detail"].get("on_behalf_of")
    principal = f"{entry['principal']} for {acting}" if acting and acting != entry["principal"] else entry["principal"]
    return (entry["index"], entry["at"], principal, entry["action"], entry["resource_id"], entry["outcome"], why)
