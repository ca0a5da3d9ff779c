"""What the platform does with its log: record, search, verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from falaj.governance.audit import merkle, rotation, tiles
from falaj.governance.audit.export import Snapshot
from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import (
    MAX_FOUND,
    Conditions,
    Consistency,
    Entry,
    Found,
    Standing,
    Stored,
    Verification,
    columns_of,
    decode,
    encode,
    fitted,
)
from falaj.governance.audit.ports import AuditStore
from falaj.governance.audit.proof import Proof, check_proof, encode_path, encode_proof
from falaj.governance.audit.publisher import Publisher, all_rows
from falaj.governance.audit.verify import CHECKPOINT, VKEY, verify_database_entries, verify_folder
from falaj.governance.door import Event
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Integrity, Invalid, NotFound
from falaj.storage.sql.database import Database, Tx


class AuditService:
    """The door's `Auditor`, and the reading half of the log. Who may read is decided before it is asked."""

    def __init__(self, database: Database, store: AuditStore, publisher: Publisher) -> None:
        self._database = database
        self._store = store
        self._publisher = publisher

    def record(self, tx: Tx, event: Event) -> int:
        """Append within the transaction and return the entry's index. Raises `Invalid` for detail that is not JSON."""
        return self.record_many(tx, (event,)).start

    def record_many(self, tx: Tx, events: Sequence[Event]) -> range:
        """Append several events at once, which costs a fraction of one by one; returns their indices."""
        entries = [fitted(_entry(event)) for event in events]
        indices = self._store.append_many(tx, [(encode(entry), entry) for entry in entries])
        self._publisher.poke()
        return indices

    def search(self, conditions: Conditions) -> tuple[Found, ...]:
        """The entries that meet all conditions, newest first, read from their bytes.

        Raises `Integrity` if a row that was found contradicts itself.
        """
        signed = self._publisher.signed_size
        rows = self._database.read(lambda tx: self._store.search(tx, conditions))
        return tuple(Found(row.index, _believed(row), row.index < signed) for row in rows)

    def search_within(self, conditions: Conditions, wanted: Callable[[Entry], bool]) -> tuple[Found, ...]:
        """As `search`, of the entries that are `wanted`: what is not wanted takes no place on the page."""
        found: list[Found] = []
        page = msgspec.structs.replace(conditions, limit=MAX_FOUND)
        while len(found) < conditions.limit:
            looked = self.search(page)
            found += (f for f in looked if wanted(f.entry))
            if len(looked) < MAX_FOUND:
                break
            page = msgspec.structs.replace(page, before_index=looked[-1].index)
        return tuple(found[: conditions.limit])

    def entry(self, index: int) -> Entry | None:
        """One entry; None for one that there is not. Raises `Integrity` if its row contradicts itself."""
        rows = self._database.read(lambda tx: self._store.entries(tx, index, 1)) if index < self.size() else []
        return _believed(rows[0]) if rows else None

    def size(self) -> int:
        """How many entries are committed."""
        return self._database.read(self._store.size)

    def standing(self) -> Standing:
        """How the log is now, by what is known without checking it; of a home that was just opened, once it was signed."""
        if self._publisher.newest is None and self._publisher.failure is None:
            with suppress(FalajError):  # it stands in `failure`
                self._publisher.publish()
        failure, cosigners = self._publisher.failure, self._publisher.cosigners
        return Standing(
            size=self.size(),
            signed=self._publisher.signed_size,
            failure=failure.message if failure else "",
            quorum=self._publisher.quorum,
            rule=cosigners.policy.rule if cosigners else "",
            witnesses=cosigners.standing() if cosigners else (),
        )

    def watched(self) -> Standing:
        """As `standing`, after publishing what is committed and asking the witnesses."""
        self._signed_now()
        return self.standing()

    def checkpoint(self) -> bytes:
        """The newest signed checkpoint."""
        return self._publisher.checkpoint or self._signed_now()[0]

    def vkey(self) -> str:
        """The key that signs it."""
        return self._publisher.vkey

    def tile(self, name: tiles.Name) -> bytes | None:
        """A tile or entry bundle of the signed log; None for one that it does not have (yet)."""
        with self._publisher.held():
            return tiles.read_tile(self._publisher.folder, name, self._publisher.signed_size)

    def prove(self, index: int) -> bytes:
        """A proof file of an entry, under a checkpoint of now and with what its witnesses say, checked before it leaves.

        Raises `NotFound` for an entry that there is not, `Integrity` for one that cannot be proven.
        """
        with self._publisher.held():
            raw, size = self._signed_now()
            if not 0 <= index < size:
                raise NotFound(
                    f"there is no entry {index}: the log has {size}",
                    hint="`falaj audit log` lists entries with their numbers",
                    code="no_such_entry",
                )
            hashes = merkle.inclusion_proof(tiles.stored_nodes(self._publisher.folder, size), index, size)
            rows = self._database.read(lambda tx: self._store.entries(tx, index, 1))
        proof = Proof(index, hashes, raw, rows[0].data if rows else b"")
        check_proof(proof, self._publisher.vkey, rotations=self._publisher.statements)
        return encode_proof(proof)

    def consistency(self, old: int, new: int | None = None) -> Consistency:
        """The proof that the log of `new` entries (all, if None) begins with that of `old`. Raises `Invalid`."""
        with self._publisher.held():
            raw, size = self._signed_now()
            end = size if new is None else new
            if end > size:
                raise Invalid(
                    f"the log has {size} entries, not {end}",
                    hint="ask for sizes of checkpoints of this log; if you hold one of this size, the log went back",
                    code="no_such_proof",
                )
            hashes = merkle.consistency_proof(tiles.stored_nodes(self._publisher.folder, size), old, end)
        statements = tuple(s.decode() for s in self._publisher.statements)
        return Consistency(old, end, tuple(encode_path(hashes)), raw.decode(), statements)

    def statement(self, number: int) -> bytes | None:
        """The statement of the log's first, second, … change of its key; None for one that there was not."""
        found = self._publisher.statements
        return found[number - 1] if 1 <= number <= len(found) else None

    def snapshot(self) -> Snapshot:
        """The published log at this moment: what is replaced as it grows by its bytes, full tiles by their paths."""
        with self._publisher.held():
            raw, size = self._signed_now()
            folder = self._publisher.folder
            growing = [name for name in tiles.paths(size) if tiles.partial_of(name)]
            edge = {CHECKPOINT: raw, VKEY: f"{self._publisher.vkey}\n".encode()}
            edge |= {rotation.path(n): told for n, told in enumerate(self._publisher.statements, 1)}
            edge |= {name: (folder / name).read_bytes() for name in growing}
        return Snapshot(folder, size, edge)

    def _signed_now(self) -> tuple[bytes, int]:
        """The checkpoint over everything committed, cosigned as far as witnesses answer, and its size."""
        with self._publisher.held():
            size = self._publisher.publish().size
            self._publisher.witnessed()
            return self._publisher.checkpoint, size

    def verify(self) -> Verification:
        """Publish what is committed, then check folder and rows from their bytes against the signed checkpoint.

        Never raises for what it finds: every difference is a line in `problems`.
        """
        with self._publisher.held():
            problems: list[str] = []
            try:
                self._signed_now()
            except FalajError as e:
                problems.append(e.message)
            folder, vkey = self._publisher.folder, self._publisher.vkey
            cosigners = self._publisher.cosigners
            published = verify_folder(folder, vkey, cosigners.policy if cosigners else None)
            rows, committed = self._database.read(
                lambda tx: (
                    verify_database_entries(all_rows(self._store, tx), folder, vkey),
                    self._store.size(tx),
                )
            )
        problems += published.problems
        problems += (text for text in rows.problems if text not in problems)
        return Verification(
            ok=published.ok and rows.ok and not problems,
            size=published.size,
            root=published.root,
            unsigned=max(0, committed - published.size),
            problems=tuple(problems),
            folder=published,
            database=rows,
        )


def _entry(event: Event) -> Entry:
    return Entry(
        at=iso(event.at),
        principal=event.principal,
        action=event.action,
        resource_type=event.resource_type,
        resource_id=event.resource_id,
        outcome=event.outcome,
        operation_id=event.operation_id,
        detail=event.detail,
    )


def _believed(row: Stored) -> Entry:
    entry = decode(row.data)
    if leaf_hash(row.data) != row.leaf or columns_of(entry) != row.columns:
        raise Integrity(
            f"entry {row.index} was changed in the database",
            hint="run `falaj audit verify` to see what differs",
            code="audit_entry_changed",
        )
    return entry
