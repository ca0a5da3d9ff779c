"""What an audit entry is, and the pure rules about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Integrity, Invalid

MAX_ENTRY = 4096
"""Bytes of an encoded entry at the most; larger detail is replaced by its digest."""
MAX_FIELD = 512
"""Bytes of one encoded text field at the most; six of them and a shortened detail always fit an entry."""
MAX_FOUND = 1000
"""Entries that one search returns at the most."""
COLUMNS = ("at", "principal", "action", "resource_type", "resource_id", "outcome", "operation_id")
"""The fields that a search can look at, in the order of `columns_of`."""

AUDIT_READ = Action("audit.read", "audit", "AuditLog", "read and search the audit log")
AUDIT_VERIFY = Action("audit.verify", "read", "AuditLog", "check the audit log against its signed checkpoint")
AUDIT_FETCH = Action("audit.fetch", "audit", "AuditLog", "fetch the audit log's checkpoint, tiles, consistency proofs")
AUDIT_PROVE = Action("audit.prove", "audit", "AuditLog", "take away a proof of one entry, with the entry")
AUDIT_EXPORT = Action("audit.export", "audit", "AuditLog", "take away the whole audit log, entries and all")
AUDIT_SHARD = Action("audit.shard", "administration", "AuditLog", "seal the audit log's shard and begin the next one")
AUDIT_TURN = Action("audit.turn", "system", "AuditLog", "begin the audit log's next shard with its period")
ACTIONS = (AUDIT_READ, AUDIT_VERIFY, AUDIT_FETCH, AUDIT_PROVE, AUDIT_EXPORT, AUDIT_SHARD, AUDIT_TURN)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that happened. Its leaf is the hash of `encode(entry)`.

    `at` is RFC 3339 in UTC with milliseconds; `outcome` is done, denied or refused.
    """

    at: str
    principal: str
    action: str
    resource_type: str
    resource_id: str
    outcome: str
    operation_id: str
    detail: dict[str, Any] = {}


class Stored(msgspec.Struct, frozen=True):
    """A row of the store as it is: nothing in it is believed until it is checked against a checkpoint.

    `leaf` is 32 bytes; `columns` are the searchable copies of fields, in the order of `COLUMNS`.
    """

    index: int
    data: bytes
    leaf: bytes
    columns: tuple[str, ...]


class Conditions(msgspec.Struct, frozen=True):
    """What a search looks for; None means anything. Newest first; `before_index` turns the page.

    `since` is inclusive, `until` exclusive; both need a time zone. `limit` is 1 to 1000.
    """

    principal: str | None = None
    action: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    outcome: str | None = None
    operation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100
    before_index: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= MAX_FOUND:
            raise Invalid(
                f"limit must be 1 to {MAX_FOUND}", hint="turn the page with before_index", code="bad_audit_limit"
            )
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise Invalid(
                    f"{name} has no time zone", hint="end the time with Z or an offset", code="time_without_zone"
                )


class Found(msgspec.Struct, frozen=True):
    """An entry that a search found. `signed` says whether a checkpoint covers it yet."""

    index: int
    entry: Entry
    signed: bool


class Published(msgspec.Struct, frozen=True):
    """A signed checkpoint: how many entries, their root (base64, as in the checkpoint), when this process signed it.

    `first` is the number of the shard's first entry in the whole log.
    """

    size: int
    root: str
    at: str
    first: int = 0

    @property
    def entries(self) -> int:
        """How many entries of the whole log it and the sealed shards before it cover."""
        return self.first + self.size


class Report(msgspec.Struct, frozen=True):
    """What a verification found. `size` and `root` are the signed ones (empty if no signature could be believed).

    `witnesses` are those of the given policy that cosigned, each with the time that it named. `quorum` says whether they
    suffice; it is None where no policy asks for any. `unchecked` counts cosignatures that nobody gave a key for.
    Of a log in several shards `size` counts all entries; root, witnesses and quorum are the newest shard's.
    """

    ok: bool
    size: int
    root: str
    problems: tuple[str, ...]
    checked_bytes: int
    witnesses: dict[str, str] = {}
    quorum: bool | None = None
    unchecked: int = 0
    rotations: int = 0
    shards: int = 1


class WitnessStanding(msgspec.Struct, frozen=True):
    """How a witness stands to this log. `size` and `at` are of the last checkpoint that it cosigned for this process
    (0 and empty before); `state` is asked | cosigned | silent | stranger | refused, and `why` says what is wrong.

    silent: it does not answer · stranger: it does not know this log or its key · refused: what it saw of this log before
    is no beginning of what the log is now.
    """

    name: str
    vkey: str
    url: str
    size: int = 0
    at: str = ""
    state: str = "asked"
    why: str = ""


class ShardLink(msgspec.Struct, frozen=True):
    """What a shard hands out so that all can be followed: its newest checkpoint, the statements that its key was replaced,
    and the proof of its first entry, all as text (the proof of the log's first shard is empty)."""

    origin: str
    checkpoint: str
    rotations: tuple[str, ...]
    link: str


class ShardStanding(msgspec.Struct, frozen=True):
    """A shard of the log: where it lies, its key now, the number of its first entry, its entries, whether it is sealed."""

    number: int
    origin: str
    place: str
    vkey: str
    first: int
    size: int
    root: str
    sealed: bool
    since: str


class Consistency(msgspec.Struct, frozen=True):
    """That a shard of `new` entries begins with its own `old` ones: hashes in base64, its newest checkpoint as text, and so
    the statements that the log's key was replaced. `shards` are all of them, the oldest first."""

    old: int
    new: int
    hashes: tuple[str, ...]
    checkpoint: str
    rotations: tuple[str, ...] = ()
    shards: tuple[ShardLink, ...] = ()


class Standing(msgspec.Struct, frozen=True):
    """How the log is: entries committed, entries under the signed checkpoint, and why the last publication failed.

    `quorum` says whether enough witnesses have cosigned that checkpoint; None where the home asks none. `rule` is the
    quorum in words.
    """

    size: int
    signed: int
    failure: str = ""
    quorum: bool | None = None
    rule: str = ""
    witnesses: tuple[WitnessStanding, ...] = ()


class Verification(msgspec.Struct, frozen=True):
    """The published folder and the database, both checked against the signed checkpoint.

    `unsigned` counts the rows that no checkpoint covers yet. `ok` is true only if both reports are.
    """

    ok: bool
    size: int
    root: str
    unsigned: int
    problems: tuple[str, ...]
    folder: Report
    database: Report


def columns_of(entry: Entry) -> tuple[str, ...]:
    """The searchable fields of an entry, in the order of `COLUMNS`."""
    return tuple(getattr(entry, name) for name in COLUMNS)


def fitted(entry: Entry) -> Entry:
    """The entry as it is recorded: plain JSON detail and never more than `MAX_ENTRY` bytes.

    Detail that is too large becomes its digest; a text field that is too long keeps its beginning and
    its digest. Raises `Invalid` for detail that is not JSON.
    """
    try:
        detail_json = canonical_json(entry.detail)
        detail: dict[str, Any] = msgspec.json.decode(detail_json)
        fields = {name: bounded(getattr(entry, name)) for name in COLUMNS}
        fit = Entry(**fields, detail=detail)
        if len(canonical_json(fit)) > MAX_ENTRY:
            fit = Entry(**fields, detail={"sha256": sha256(detail_json), "truncated": True})
        return fit
    except (TypeError, ValueError, msgspec.MsgspecError) as e:
        raise Invalid(
            f"the audit entry for {entry.action} cannot be written as JSON: {e}",
            hint="put only text, numbers, lists and tables into an event's detail",
            code="audit_detail_not_json",
        ) from e


def bounded(text: str) -> str:
    """`text` itself if it is short, else its first 64 characters and its digest."""
    if len(text) <= 64 or len(canonical_json(text)) <= MAX_FIELD:
        return text
    return f"{text[:64]}…{sha256(text.encode())}"


def encode(entry: Entry) -> bytes:
    """The bytes that become the leaf: canonical JSON. Raises `Invalid` above `MAX_ENTRY` bytes; `fitted` never is."""
    data = canonical_json(entry)
    if len(data) > MAX_ENTRY:
        raise Invalid(
            f"an audit entry of {len(data)} bytes is larger than {MAX_ENTRY}",
            hint="refer to large detail by its digest",
            code="audit_entry_too_large",
        )
    return data


def decode(data: bytes) -> Entry:
    """The exact inverse of `encode`. Raises `Integrity` for bytes that `encode` would not have written."""
    try:
        entry = msgspec.json.decode(data, type=Entry)
        if canonical_json(entry) == data:
            return entry
    except (ValueError, msgspec.MsgspecError):
        pass  # the same refusal as for bytes that decode but are not canonical
    raise Integrity(
        "these bytes are not an audit entry",
        hint="run `falaj audit verify` to see which entry",
        code="audit_entry_broken",
    )
