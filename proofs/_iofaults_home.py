"""Homes for `proofs/iofaults.py`: the SQL half of a home with its publisher and a witness, and what is done in it.

A story is played in a process of its own. Each of the four that write does so in one thread of its own, so that strace
can be put on one of them and count its calls: `opener` (opens and closes), `writer` (the one SQL writer), `publisher`,
`witness`. What was acknowledged to somebody is told over a socket, which none of the traced calls touches.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select, text

from falaj.bootstrap.control_plane import actions
from falaj.governance.audit import note, tiles
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.quorum import parse_policy
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.audit.witness import Witness, create
from falaj.governance.audit.witnessing import Answer, Witnesses
from falaj.governance.door import Done, Door, Event, Intent, operations
from falaj.governance.identity.model import IDENTITY_REVOKE
from falaj.governance.policy.decide import CedarAuthoriser, default_policy
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Denied, FalajError
from falaj.kernel.log import configure
from falaj.storage.sql.migrate import migrate
from falaj.storage.sql.sqlite import SqliteDatabase

ROLES = ("opener", "writer", "publisher", "witness")
STORIES = ("first", "grow", "recover")
"""An audit folder that is not there yet; a log that outgrows a tile and a write-ahead log that is summed up; a
publication that was interrupted between head and checkpoint."""
CONTROLS = ("early", "in-place")
"""Test builds: one acknowledges a change within its transaction, one writes the published files in their place."""
SEEDED = "seeded"
_ADMIN = Principal("owner", "person", ("platform-admin",))
_VIEWER = Principal("guest", "person", ("viewer",))
_ORIGIN = "falaj.local/audit"
_ROUNDS = 3
_BEFORE = 253  # entries of `grow`, so that its second round fills a tile
_PAGES = 990  # of the write-ahead log of `grow`: SQLite sums it up at 1,000
_PAGE = 4096 + 24
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class Home:
    """A home's SQL and audit log over a folder, as the control plane puts them together."""

    def __init__(self, folder: Path, witness: ThreadPoolExecutor) -> None:
        clock, store = SystemClock(), SqlAuditStore()
        self.folder = folder
        self.database = SqliteDatabase(folder / "falaj.db")
        self.publisher = Publisher(self.database, store, folder / "audit", _key(), _ORIGIN, clock)
        self.witness = Witness(folder / "witness", clock)
        self.publisher.cosigners = Witnesses(
            parse_policy(f"witness one {self.witness.vkey} http://one\nquorum one\n".encode()),
            lambda _url, body: witness.submit(self._asked, body).result(),
        )
        self.audit = AuditService(self.database, store, self.publisher)
        self._door = Door(self.database, CedarAuthoriser(default_policy(), actions()), self.audit, clock)

    def change(self, name: str, within: Callable[[], None] = lambda: None) -> None:
        """A change, named so that its entry and its stored operation can be found."""
        self._door.change(self._intent(_ADMIN, name), lambda _tx: Done({"ok": within()}))

    def denied(self, name: str) -> None:
        """Something that policy denies; returns once the denial is in the log."""
        try:
            self._door.change(self._intent(_VIEWER, name), lambda _tx: Done({}))
        except Denied:
            return

    def operations(self) -> set[str]:
        """The ids of the operations that are stored as done."""
        return set(self.database.read(lambda tx: tx.execute(select(operations.c.operation_id)).scalars().all()))

    def remembered(self) -> int:
        """The size at which the witness cosigned this log last."""
        return max((seen.size for seen in self.witness.logs()), default=0)

    def _asked(self, body: bytes) -> Answer:
        reply = self.witness.add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)

    def _intent(self, actor: Principal, name: str) -> Intent:
        return Intent(actor, IDENTITY_REVOKE, Resource("Account", name), operation_id=name)


def prepare(root: Path) -> None:
    """The homes with which the stories begin, as a process that died would leave them."""
    with ThreadPoolExecutor(1) as thread:
        made = root / "made"
        made.mkdir()
        create(made / "witness", "one")
        database = SqliteDatabase(made / "falaj.db")
        migrate(database)
        database.close()
        Witness(made / "witness", SystemClock()).trust(vkey())
        shutil.copytree(made, root / "first")
        home = Home(made, thread)
        at = SystemClock().now()
        events = [Event(at, "owner", "loop.build", "Model", SEEDED, "done", f"bld_{n}") for n in range(_BEFORE)]
        home.database.change(lambda tx: home.audit.record_many(tx, events))
        home.publisher.publish()
        home.publisher.witnessed()
        home.database.close()
        shutil.copytree(made, root / "recover")
        home = Home(made, thread)
        touch = text("UPDATE alembic_version SET version_num = version_num")
        while (made / "falaj.db-wal").stat().st_size < _PAGES * _PAGE:
            home.database.change(lambda tx: tx.execute(touch).rowcount)
        for name in ("falaj.db", "falaj.db-wal", "witness", "audit"):
            _copy(made / name, root / "grow" / name)
        home.change(SEEDED)
        home.publisher.publish()
        home.database.close()
        # The head is there, the signature is not: what comes after the head is whatever there was before.
        _copy(made / "falaj.db", root / "recover" / "falaj.db")
        _copy(made / "audit" / "head", root / "recover" / "audit" / "head")
        (root / "recover" / "audit" / f"checkpoint{tiles.TEMPORARY}").write_bytes(b"half of a che")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def vkey() -> str:
    """The key by which the log of every story is verified."""
    return note.verifier_of(_ORIGIN, _key().public_key()).vkey


class Teller:
    """The other end of a socket: what was acknowledged, and when the thread of a role is there to be traced."""

    def __init__(self, told: socket.socket, role: str) -> None:
        self._told = told
        self._role = role
        self._lock = threading.Lock()

    def __call__(self, kind: str, *more: Any) -> None:
        with self._lock:
            self._told.sendall(msgspec.json.encode([kind, *more]) + b"\n")  # no `write`, which may be made to fail

    def there(self, role: str) -> None:
        """Called in a role's own thread: waits until it is traced, if it is this one's turn."""
        if role == self._role:
            self("trace", threading.get_native_id())
            self._told.recv(1)


def play(folder: str, story: str, role: str, control: str, told: socket.socket) -> None:
    """Play a story to its end, whatever fails; what is no refusal of ours ends the process with a trace."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    os.dup2(os.open(f"{folder}.stderr", os.O_WRONLY | os.O_CREAT, 0o600), 2)
    configure("proof", "error")
    if control == "in-place":
        tiles.write_files = _in_place  # type: ignore[assignment]
    tell = Teller(told, role)
    with ThreadPoolExecutor(1) as publisher, ThreadPoolExecutor(1) as witness:
        publisher.submit(tell.there, "publisher").result()
        witness.submit(tell.there, "witness").result()
        tell.there("opener")
        try:
            home = Home(Path(folder), witness)
        except FalajError as e:
            tell("failed", "open", e.code)
        else:
            home.database.change(lambda _tx: tell.there("writer"))
            publisher.submit(_publish, home, tell).result()
            for number in range(_ROUNDS if story == "grow" else 1):
                _change(home, f"{story}-{number}", tell, early=control == "early")
                _deny(home, f"{story}-{number}-denied", tell)
                publisher.submit(_publish, home, tell).result()
            home.database.close()
    tell("end")


def _change(home: Home, name: str, tell: Teller, *, early: bool) -> None:
    try:
        if early:
            home.change(name, lambda: tell("acknowledged", name))
            return
        home.change(name)
    except FalajError as e:
        tell("refused", name, e.code)
    else:
        tell("acknowledged", name)


def _deny(home: Home, name: str, tell: Teller) -> None:
    try:
        home.denied(name)
    except FalajError as e:
        tell("failed", name, e.code)
    else:
        tell("denied", name)


def _publish(home: Home, tell: Teller) -> None:
    try:
        home.publisher.publish()
        tell("published", home.publisher.checkpoint.decode())
        if home.publisher.witnessed():
            tell("cosigned", home.publisher.signed_size)
    except FalajError as e:
        tell("failed", "publish", e.code)


def _in_place(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def _key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b"i" * 32)
