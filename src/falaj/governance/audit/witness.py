"""A witness: cosigns a log's checkpoint if it extends the one that it cosigned before (c2sp.org/tlog-witness).

It needs no database and no home: its folder holds its key and, for each log, the key to believe, the newest checkpoint
that it cosigned, and signed checkpoints that it refused. A `fork`, another root at the size that was cosigned, proves that
the log was rewritten, and so does one `beyond` a tree that its final checkpoint sealed. The others only call for a look: whoever
has a log's old checkpoint can send it again, and whoever has a new one can send it with a proof that is none.

A final checkpoint names the shard that follows. Once it is cosigned, that shard is known here too, if it has the same key:
the only way to it is that link, and from there on the sealed one is answered for no more but with what it ended with.

    witness.json   name and vkey          logs/<sha256 of the origin>/vkey · checkpoint
    key.pem        0600                   logs/…/rotation/N           statements that led to the log's key
                                          logs/…/refused/{fork,behind,unproven,beyond}-<sha256 of the text>
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from falaj.governance.audit import merkle, note, rotation, shards, tiles
from falaj.governance.audit.note import SIZE_TYPE
from falaj.kernel.clock import Clock
from falaj.kernel.digests import sha256
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, NotFound
from falaj.kernel.files import write_private
from falaj.kernel.log import logger

MAX_REQUEST = 65_536
"""Bytes of a request at the most: 63 hashes and a checkpoint with more signatures than anybody has."""
MAX_REFUSED = 100
"""Refused checkpoints of one sort that are kept of a log at the most; the first ones say what happened."""
FORK, BEHIND, UNPROVEN, BEYOND = "fork", "behind", "unproven", "beyond"
"""Why a checkpoint that its log had signed was refused."""
SORTS = (FORK, BEHIND, UNPROVEN, BEYOND)
_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})\Z")
_LONGEST = 63  # hashes of a proof
_log = logger(__name__)


class Reply(msgspec.Struct, frozen=True):
    """An answer to a log: the HTTP status, the body, its media type."""

    status: int
    body: bytes
    kind: str = "text/plain; charset=utf-8"


class Seen(msgspec.Struct, frozen=True):
    """What a witness knows of a log. `at` is when it last cosigned, in seconds since 1970 (0: never); `refused` counts
    the signed checkpoints that it kept and did not cosign, by their sort; `next` is the shard that a sealed one names."""

    origin: str
    vkey: str
    size: int = 0
    root: str = ""
    at: int = 0
    refused: dict[str, int] = {}
    next: str = ""


class _About(msgspec.Struct, frozen=True):
    """`witness.json`."""

    name: str
    vkey: str


class _Request(msgspec.Struct, frozen=True):
    """A request, taken apart; nothing of it is believed yet."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes


def create(folder: Path, name: str) -> str:
    """Make a witness in a new folder; returns its vkey. Raises `Conflict` when the folder holds something."""
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(
            f"{folder} is not empty",
            hint="name a new folder: a witness's key and memory belong together",
            code="folder_not_empty",
        )
    key = Ed25519PrivateKey.generate()
    vkey = note.verifier_of(name, key.public_key(), note.COSIGNATURE).vkey
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(folder / "key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    tiles.write_files(folder, {"witness.json": msgspec.json.encode(_About(name, vkey))})
    return vkey


class Witness:
    """A witness over its folder. One process at a time may answer for it."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises `Integrity` for a folder that is no witness's, or whose key is not the one that it names."""
        self.folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        try:
            about = msgspec.json.decode((folder / "witness.json").read_bytes(), type=_About)
            key = load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
        except (OSError, ValueError, msgspec.DecodeError) as e:
            raise _no_witness(folder) from e
        if not isinstance(key, Ed25519PrivateKey):
            raise _no_witness(folder)
        self._key = key
        self._verifier = note.verifier_of(about.name, key.public_key(), note.COSIGNATURE)
        if self._verifier.vkey != about.vkey:
            raise _no_witness(folder)

    @property
    def name(self) -> str:
        """The name in its lines."""
        return self._verifier.name

    @property
    def vkey(self) -> str:
        """The key to hand to whoever believes this witness."""
        return self._verifier.vkey

    def trust(self, vkey: str) -> str:
        """Answer for a log from now on; returns its origin. Raises `Conflict` for a second key of the same origin."""
        verifier = note.parse_vkey(vkey)
        place = _place(verifier.name)
        known = self._read(f"{place}/vkey")
        if known is not None and known != f"{vkey}\n".encode():
            raise Conflict(
                f"another key of {verifier.name} is known to this witness",
                hint="a log that replaced its key says so: `falaj witness follow` with its statement; else ask its operator what happened",
                code="log_known_by_another_key",
            )
        tiles.write_files(self.folder, {f"{place}/vkey": f"{vkey}\n".encode()})
        return verifier.name

    def follow(self, statement: bytes) -> str:
        """Believe the next key of a log that is known, which the key that is believed vouches for; returns its vkey.

        Raises `Integrity` for a statement that does not hold or does not fit what was cosigned, `NotFound` for a log that
        is not known.
        """
        told = rotation.parse(statement)
        place = _place(told.old.name)
        with self._lock:
            known = self._read(f"{place}/vkey")
            if known is None:
                raise NotFound(
                    f"this witness does not know {told.old.name}",
                    hint="`falaj witness show` lists the logs that it knows; a new one is added by `falaj witness trust`",
                    code="no_such_log",
                )
            keys = self._keys(told.old.name)
            if keys.newest == told.new:
                return told.new.vkey
            if keys.newest != told.old:
                raise _misfit("it is by another key than this witness believes")
            last = self._last(told.old)
            if last is not None and (
                last[0].size > told.size or (last[0].size == told.size and last[0].root != told.root)
            ):
                raise _misfit(f"{last[0].size} entries by the old key were cosigned, and it ends at {told.size}")
            tiles.write_files(self.folder, {f"{place}/{rotation.path(len(keys.rotations) + 1)}": statement})
            tiles.write_files(self.folder, {f"{place}/vkey": f"{told.new.vkey}\n".encode()})
        return told.new.vkey

    def logs(self) -> list[Seen]:
        """What is known of each log, by origin. Raises `Integrity` for a checkpoint that this witness did not cosign."""
        found = []
        for path in sorted(self.folder.glob("logs/*/vkey")):
            vkey = path.read_text("utf-8").removesuffix("\n")
            verifier = note.parse_vkey(vkey)
            last = self._last(verifier)
            refused = {sort: n for sort in SORTS if (n := len(_kept(path.parent / "refused", sort)))}
            if last is None:
                found.append(Seen(verifier.name, vkey, refused=refused))
            else:
                checkpoint, opened = last
                root = checkpoint.text.split("\n")[2]
                at = opened.times[self.vkey]
                after = shards.next_of(checkpoint).partition("+")[0]
                found.append(Seen(verifier.name, vkey, checkpoint.size, root, at, refused, after))
        return sorted(found, key=lambda s: s.origin)

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer `POST add-checkpoint`. Raises `OSError` when the memory cannot be written: nothing is cosigned then."""
        try:
            request = _parse(body)
            origin = note.unsigned(request.checkpoint).origin
        except FalajError as e:
            return _told(400, e.message)
        vkey = self._read(f"{_place(origin)}/vkey")
        if vkey is None:
            return _told(404, "this witness does not know this log")
        log = note.parse_vkey(vkey.decode().removesuffix("\n"))
        try:
            head = self._keys(origin).open(request.checkpoint)[0]
        except FalajError as e:
            return _told(403, e.message)
        if request.old > head.size:
            return _told(400, f"old {request.old} is more than the checkpoint's {head.size}")
        with self._lock:
            return self._judge(request, log, head)

    def _judge(self, request: _Request, log: note.Verifier, head: note.Checkpoint) -> Reply:
        last = self._last(log)
        known = last[0].size if last else 0
        fork = last is not None and head.size == known and head.root != last[0].root
        if fork:
            self._keep(log, request.checkpoint, FORK)
        if request.old != known:
            if head.size < known:
                self._keep(log, request.checkpoint, BEHIND)
            return Reply(409, f"{known}\n".encode(), SIZE_TYPE)
        if fork:
            return _told(409, "another root was cosigned at this size")
        if last is not None and shards.next_of(last[0]) and head.text != last[0].text:
            self._keep(log, request.checkpoint, BEYOND)
            return _told(422, f"this log was sealed at {known}: it goes on under the name in its final checkpoint only")
        why = _inconsistent(request, last[0] if last else None, head)
        if why:
            if last is not None:
                self._keep(log, request.checkpoint, UNPROVEN)
            return _told(422, why)
        line = note.cosign(head.text, self.name, self._key, int(self._clock.now().timestamp()))
        signed = b"".join(line.encode() for name, key_id, line in note.lines_of(request.checkpoint)
                          if (name, key_id) == (log.name, log.key_id))  # fmt: skip
        stored = f"{head.text}\n".encode() + signed + line.encode()
        tiles.write_files(self.folder, {f"{_place(log.name)}/checkpoint": stored})
        self._follow_on(log, head)
        return Reply(200, line.encode())

    def _follow_on(self, log: note.Verifier, head: note.Checkpoint) -> None:
        """Know the shard that a final checkpoint names, if it is one of this log and has this log's key."""
        vkey = shards.next_of(head)
        try:
            after = note.parse_vkey(vkey)
        except FalajError:
            return  # it is not final, or a foreign log's own line: it leads nowhere
        ours = after.public == log.public and shards.is_shard_of(after.name, log.name)
        if ours and self._read(f"{_place(after.name)}/vkey") is None:
            tiles.write_files(self.folder, {f"{_place(after.name)}/vkey": f"{vkey}\n".encode()})

    def _last(self, log: note.Verifier) -> tuple[note.Checkpoint, note.Opened] | None:
        """The newest checkpoint that was cosigned. Raises `Integrity` unless it carries both signatures."""
        raw = self._read(f"{_place(log.name)}/checkpoint")
        if raw is None:
            return None
        checkpoint, opened = self._keys(log.name).open(raw, (self._verifier,))
        if self.vkey not in opened.times:
            raise Integrity(
                f"what this witness remembers of {log.name} is not what it cosigned",
                hint="keep the folder as it is, and find out who could write there",
                code="witness_memory_broken",
            )
        return checkpoint, opened

    def _keys(self, origin: str) -> rotation.LogKeys:
        """The keys that a known log has had since it is known here. Raises `Integrity`."""
        place = _place(origin)
        statements = rotation.stored(self.folder / place)
        vkey = (self._read(f"{place}/vkey") or b"").decode().removesuffix("\n")
        return rotation.follow(note.parse_vkey(vkey), statements)

    def _keep(self, log: note.Verifier, checkpoint: bytes, sort: str) -> None:
        """Keep a checkpoint that its log signed and that was not cosigned."""
        _log.error("refused", origin=log.name, sort=sort)
        place = f"{_place(log.name)}/refused"
        name = f"{sort}-{sha256(note.unsigned(checkpoint).text.encode()).removeprefix('sha256:')}"
        kept = _kept(self.folder / place, sort)
        if name not in kept and len(kept) < MAX_REFUSED:
            tiles.write_files(self.folder, {f"{place}/{name}": checkpoint})

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None


def _parse(body: bytes) -> _Request:
    """A request's parts. Raises `FalajError` for what is none."""
    head, parted, checkpoint = body.partition(b"\n\n")
    lines = head.split(b"\n")
    old = _OLD.match(lines[0])
    if len(body) > MAX_REQUEST or not parted or old is None or len(lines) - 1 > _LONGEST:
        raise Invalid(
            "this is no request to a witness",
            hint="see c2sp.org/tlog-witness: `old N`, at most 63 hashes, an empty line, a checkpoint",
            code="bad_witness_request",
        )
    proof = tuple(note.unbase64(line.decode("ascii", "replace")) for line in lines[1:])
    return _Request(int(old[1]), proof, checkpoint)


def _inconsistent(request: _Request, last: note.Checkpoint | None, head: note.Checkpoint) -> str:
    """Why the new tree is not proven to extend the known one; empty when it is."""
    if last is None or last.size == 0:
        if request.proof:
            return "a proof from size 0 proves nothing"
        return "" if head.size or head.root == merkle.EMPTY_ROOT else "an empty tree has another root"
    try:
        merkle.verify_consistency(last.size, head.size, last.root, head.root, request.proof)
    except FalajError as e:
        return e.message
    return ""


def _kept(folder: Path, sort: str) -> set[str]:
    return {p.name for p in folder.glob(f"{sort}-*") if not p.name.endswith(tiles.TEMPORARY)}


def _place(origin: str) -> str:
    return f"logs/{sha256(origin.encode()).removeprefix('sha256:')}"


def _told(status: int, why: str) -> Reply:
    return Reply(status, f"{why}\n".encode())


def _misfit(why: str) -> Integrity:
    return Integrity(
        f"the statement that the log's key was replaced is not followed: {why}",
        hint="ask the log's operator what happened; a log whose history broke begins anew under another origin",
        code="rotation_not_followed",
    )


def _no_witness(folder: Path) -> Integrity:
    return Integrity(
        f"{folder} is not the folder of a witness, or its key is not the one that it names",
        hint="make one: `falaj witness init FOLDER --name NAME`; a lost key cannot be replaced, only a new witness made",
        code="no_witness",
    )
