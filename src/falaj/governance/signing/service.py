"""Replace signing keys, and say until when what an earlier one signed counts.

A new key lies beside the old one before anything is committed; the commit says that it holds; then it takes the old
one's place. A crash in between leaves a file that the next start puts into its place, or removes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.model import KEY_REVOKE, KEY_ROTATE
from falaj.governance.signing.ports import KeyStore
from falaj.governance.signing.trust import NEVER, REVOKED, ROTATED, SIGNING, KeyRecord, Trusted, before, trusted
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.clock import iso, written_moment
from falaj.kernel.errors import Conflict, Invalid, NotFound
from falaj.storage.sql.database import Database, Tx

_REASON = 1000  # characters


class Ended(msgspec.Struct, frozen=True):
    """What became of a key: `old` ends at `until`; `new` signs from now on, and is empty where another one did already."""

    name: str
    old: str
    new: str
    until: str
    why: str


class KeyService:
    """The signing keys of a home, those that sign and those that did."""

    def __init__(self, ring: KeyRing, database: Database, store: KeyStore, door: Door) -> None:
        self._ring = ring
        self._database = database
        self._store = store
        self._door = door
        self._changing = threading.Lock()
        self._followers: list[Callable[[], None]] = []
        self._retired = tuple(database.read(store.retired))
        ring.settle({r.fingerprint for r in self._retired})
        self._read()

    # reading

    def records(self) -> tuple[KeyRecord, ...]:
        """Every public key, by name, the one that signs first."""
        return self._records

    def lies(self, record: KeyRecord) -> tuple[str, str]:
        """Where a key lies that signs, and where its successor would come from; both empty for the home, and for one that ended."""
        name = record.name
        return ("", "") if record.until else (self._ring.place(name), self._ring.asked(name))

    def keys(self, *names: str) -> LiveKeys:
        """The keys of these names as they are whenever somebody looks."""
        return LiveKeys(self, names)

    def trusted(self, name: str) -> tuple[Trusted, ...]:
        """The keys of one name as they are now."""
        return self._trusted[name]

    def revoked(self) -> tuple[KeyRecord, ...]:
        """The keys that somebody else may hold."""
        return tuple(r for r in self._retired if r.revoked)

    def on_change(self, follow: Callable[[], None]) -> None:
        """Call this after each change of the keys."""
        self._followers.append(follow)

    # changing

    def rotate(self, actor: Principal, name: str, reason: str) -> Ended:
        """Let a new key take a key's place; what the old one signed before now counts on.

        Raises `Invalid` for a key that is none of these or without a reason, `Denied`.
        """
        self._door.check(Intent(actor, KEY_ROTATE, Resource("Key", name[:80])))
        why = _why(reason)
        with self._changing:
            current = self._current(name)
            return self._end(actor, KEY_ROTATE, _ended(current, iso(self._door.clock.now()), ROTATED, why))

    def revoke(self, actor: Principal, key: str, since: str, reason: str) -> Ended:
        """Let nothing count that a key signed at `since` or later (RFC 3339; empty: nothing that it ever signed).

        `key` is a fingerprint, or a name for the one that signs now, which gets a successor at once. Raises `NotFound`,
        `Invalid` for a moment that is still to come, `Conflict` when it ended as early already, `Denied`.
        """
        self._door.check(Intent(actor, KEY_REVOKE, Resource("Key", key[:80])))
        now = iso(self._door.clock.now())
        until = written_moment(since) if since else NEVER
        if before(now, until):
            raise Invalid(
                f"{until} is still to come", hint="name the moment from which on it may have leaked", code="bad_moment"
            )
        why = _why(reason)
        with self._changing:
            record = self._found(key)
            earlier = next((r for r in self._retired if r.fingerprint == record.fingerprint), None)
            if earlier is not None and earlier.revoked and not before(until, earlier.until):
                raise Conflict(
                    f"{earlier.fingerprint} is revoked already, since {earlier.until}",
                    hint="nothing to do; name an earlier moment to revoke more",
                    code="revoked_already",
                )
            if earlier is not None and before(earlier.until, until):
                until = earlier.until
            return self._end(actor, KEY_REVOKE, _ended(record, until, REVOKED, why))

    def _end(self, actor: Principal, action: Action, record: KeyRecord) -> Ended:
        detail = {"key": record.name, "old": record.fingerprint, "until": record.until, "reason": record.reason}
        intent = Intent(actor, action, Resource("Key", record.name), detail=detail)
        signs = self._current(record.name).fingerprint == record.fingerprint
        new = self._ring.prepare(record.name) if signs else ""
        ended = Ended(record.name, record.fingerprint, new, record.until, record.why)

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._store.retire(tx, record)
            at = self._ring.asked(record.name) if signs else ""
            return Done(msgspec.to_builtins(ended), {"new": new} | ({"at": at} if at else {}))

        self._door.change(intent, do)
        if signs:
            self._ring.take_over(record.name)
        self._retired = tuple(self._database.read(self._store.retired))
        self._read()
        for follow in self._followers:
            follow()
        return ended

    def _read(self) -> None:
        current = self._ring.records()
        gone = [r for r in self._retired if r.fingerprint not in {c.fingerprint for c in current}]
        self._records = tuple(r for name in SIGNING for r in (*current, *gone) if r.name == name)
        self._trusted = {name: trusted(self._records, name) for name in SIGNING}

    def _current(self, name: str) -> KeyRecord:
        found = next((r for r in self._ring.records() if r.name == name), None)
        if found is None:
            raise Invalid(
                f"{name[:40]!r} is no key that can be replaced like this",
                hint=f"name one of {', '.join(SIGNING)}; the log's key is rotated and not revoked: tell whoever holds its vkey"
                if name == "log"
                else f"name one of {', '.join(SIGNING)}",
                code="no_such_signing_key",
            )
        return found

    def _found(self, key: str) -> KeyRecord:
        if not key.startswith("sha256:"):
            return self._current(key)
        found = next((r for r in self._records if r.fingerprint == key), None)
        if found is None:
            raise NotFound(
                f"no key {key[:80]} ever signed here",
                hint="`falaj keys show` lists those that sign and those that did",
                code="no_such_key",
            )
        return found


class LiveKeys(Sequence[Trusted]):
    """The keys of some names, as they are whenever somebody looks."""

    def __init__(self, service: KeyService, names: Sequence[str]) -> None:
        self._service = service
        self._names = tuple(names)

    @overload
    def __getitem__(self, index: int) -> Trusted: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trusted]: ...
    def __getitem__(self, index: int | slice) -> Trusted | Sequence[Trusted]:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> tuple[Trusted, ...]:
        return tuple(key for name in self._names for key in self._service.trusted(name))


class LiveFingerprints(Mapping[str, str]):
    """Name → fingerprint of the key that signs now, for some names."""

    def __init__(self, service: KeyService, names: Sequence[str]) -> None:
        self._service = service
        self._names = tuple(names)

    def __getitem__(self, name: str) -> str:
        if name not in self._names:
            raise KeyError(name)
        return next(r.fingerprint for r in self._service.records() if r.name == name and not r.until)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _ended(record: KeyRecord, until: str, why: str, reason: str) -> KeyRecord:
    return msgspec.structs.replace(record, until=until, why=why, reason=reason)


def _why(reason: str) -> str:
    text = reason.strip()
    if not text or len(text) > _REASON:
        raise Invalid(
            f"a reason of 1 to {_REASON} characters is needed", hint="say why: --reason '…'", code="no_reason"
        )
    return text
