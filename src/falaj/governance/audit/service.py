"""What the platform does with its log: record, search, verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec

from falaj.governance.audit import merkle, note, rotation, tiles
from falaj.governance.audit.export import Snapshot, taken
from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import (
    MAX_FOUND,
    Conditions,
    Consistency,
    Entry,
    Found,
    ShardLink,
    ShardStanding,
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
from falaj.governance.audit.publisher import Publisher, Tree, all_rows
from falaj.governance.audit.sharded import verify_log, verify_rows
from falaj.governance.audit.shards import link_of, next_of
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
        return self._publisher.checkpoint or self._signed_now().checkpoint

    def tree(self, number: int) -> Tree:
        """A published shard, counted from 1. Raises `NotFound` for one that there is not."""
        with self._publisher.held():
            if not self._publisher.checkpoint:
                self._publisher.publish()
            found = self._publisher.trees()
        if not 1 <= number <= len(found):
            raise NotFound(
                f"the log has no shard {number}",
                hint="they are counted from 1; `falaj audit shards` lists them",
                code="no_such_shard",
            )
        return found[number - 1]

    def shards(self) -> tuple[ShardStanding, ...]:
        """Every shard, the oldest first, over everything that is committed."""
        with self._publisher.held():
            self._publisher.publish()
            found = self._publisher.trees()
        heads = [note.unsigned(tree.checkpoint) for tree in found]
        return tuple(
            ShardStanding(
                tree.shard.number, tree.shard.origin, tree.shard.place, tree.vkey, tree.shard.first, tree.size,
                head.text.split("\n")[2], bool(next_of(head)), tree.shard.at,
            )
            for tree, head in zip(found, heads, strict=True)
        )  # fmt: skip

    def tile(self, name: tiles.Name, number: int = 1) -> bytes | None:
        """A tile or entry bundle of a signed shard; None for one that it does not have (yet)."""
        with self._publisher.held():
            tree = self.tree(number)
            return tiles.read_tile(tree.folder, name, tree.size)

    def prove(self, index: int) -> bytes:
        """A proof file of an entry, under a checkpoint of now and with what its witnesses say, checked before it leaves.

        Raises `NotFound` for an entry that there is not, `Integrity` for one that cannot be proven.
        """
        with self._publisher.held():
            self._signed_now()
            trees = self._publisher.trees()
            size = trees[-1].shard.first + trees[-1].size
            if not 0 <= index < size:
                raise NotFound(
                    f"there is no entry {index}: the log has {size}",
                    hint="`falaj audit log` lists entries with their numbers",
                    code="no_such_entry",
                )
            tree = next(t for t in reversed(trees) if t.shard.first <= index)
            position = index - tree.shard.first
            hashes = merkle.inclusion_proof(tiles.stored_nodes(tree.folder, tree.size), position, tree.size)
            rows = self._database.read(lambda tx: self._store.entries(tx, index, 1))
        proof = Proof(position, hashes, tree.checkpoint, rows[0].data if rows else b"")
        check_proof(proof, tree.vkey, rotations=rotation.stored(tree.folder))
        return encode_proof(proof)

    def consistency(self, old: int, new: int | None = None, origin: str | None = None) -> Consistency:
        """The proof that a shard (the first, if none is named) of `new` entries (all, if None) begins with that of `old`,
        and what leads from it to all others. Raises `Invalid`."""
        with self._publisher.held():
            self._signed_now()
            trees = self._publisher.trees()
            tree = next((t for t in trees if t.shard.origin == (origin or trees[0].shard.origin)), None)
            end = (tree.size if tree else 0) if new is None else new
            if tree is None or end > tree.size:
                raise Invalid(
                    f"the log has {tree.size} entries, not {end}" if tree else f"the log has no shard {origin}",
                    hint="ask for sizes of checkpoints of this log; if you hold one of this size, the log went back",
                    code="no_such_proof",
                )
            hashes = merkle.consistency_proof(tiles.stored_nodes(tree.folder, tree.size), old, end)
            links = tuple(_link(t) for t in trees)
        this = links[tree.shard.number - 1]
        return Consistency(old, end, tuple(encode_path(hashes)), this.checkpoint, this.rotations, links)

    def statement(self, number: int, shard: int = 1) -> bytes | None:
        """The statement of a shard's first, second, … change of its key; None for one that there was not."""
        found = rotation.stored(self.tree(shard).folder)
        return found[number - 1] if 1 <= number <= len(found) else None

    def snapshot(self) -> Snapshot:
        """The published log at this moment: what is replaced as it grows by its bytes, full tiles by their paths."""
        with self._publisher.held():
            self._signed_now()
            trees = [(t.shard.place, t.size) for t in self._publisher.trees()]
            return taken(self._publisher.base, trees)

    def _signed_now(self) -> Tree:
        """The newest shard over everything committed, cosigned as far as witnesses answer."""
        with self._publisher.held():
            self._publisher.publish()
            self._publisher.witnessed()
            return self._publisher.trees()[-1]

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
            folder, vkey = self._publisher.base, self._publisher.vkey
            cosigners = self._publisher.cosigners
            published = verify_log(folder, vkey, cosigners.policy if cosigners else None)
            rows, committed = self._database.read(
                lambda tx: (
                    verify_rows(partial(all_rows, self._store, tx), folder, vkey),
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


def _link(tree: Tree) -> ShardLink:
    """What a shard hands out so that it can be followed."""
    link = link_of(tree.folder, tree.checkpoint) if tree.shard.number > 1 else b""
    statements = tuple(s.decode() for s in rotation.stored(tree.folder))
    return ShardLink(tree.shard.origin, tree.checkpoint.decode(), statements, link.decode())


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
