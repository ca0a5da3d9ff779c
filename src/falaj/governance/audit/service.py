"""What the platform does with its log: record, search, verify."""

from __future__ import annotations

from collections.abc import Sequence

from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import (
    Conditions,
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
from falaj.governance.audit.publisher import Publisher, all_rows
from falaj.governance.audit.verify import verify_database_entries, verify_folder
from falaj.governance.door import Event
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Integrity
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

    def size(self) -> int:
        """How many entries are committed."""
        return self._database.read(self._store.size)

    def standing(self) -> Standing:
        """How the log is now, by what is known without checking it."""
        failure = self._publisher.failure
        return Standing(self.size(), self._publisher.signed_size, failure.message if failure else "")

    def verify(self) -> Verification:
        """Publish what is committed, then check folder and rows from their bytes against the signed checkpoint.

        Never raises for what it finds: every difference is a line in `problems`.
        """
        with self._publisher.held():
            problems: list[str] = []
            try:
                self._publisher.publish()
            except FalajError as e:
                problems.append(e.message)
            folder, vkey = self._publisher.folder, self._publisher.vkey
            published = verify_folder(folder, vkey)
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
