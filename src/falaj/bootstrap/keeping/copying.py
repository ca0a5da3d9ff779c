"""A backup of an open home: one moment of its databases, and everything that they name.

The one SQL writer is held for as long as it takes to begin reading the databases; one in rollback mode is copied meanwhile.
A flow's step commits its effect in `falaj.db` before the engine notes the step as done, so no flow in the copy believes
in an effect that is not there: a step that is done again finds its operation, and each effect happens once.
"""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

import msgspec

import falaj
from falaj.bootstrap.keeping import layout
from falaj.governance.audit.export import Snapshot, taken
from falaj.governance.audit.model import Published
from falaj.governance.audit.publisher import Publisher
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.governance.signing.storekeys import BACKUPS, StoreKeys
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import Unavailable
from falaj.lifecycle.loop.keeping.model import Taken
from falaj.lifecycle.loop.keeping.service import Tell
from falaj.storage.archive.manifest import BACKUP_TYPE, FORMAT, Manifest, Standing, contents
from falaj.storage.archive.writing import Writer
from falaj.storage.sql import snapshot
from falaj.storage.sql.migrate import revisions
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow.engine import FLOW_SHAPE


class Parts(msgspec.Struct, frozen=True):
    """What of an open home a backup is made from. `online` copies the online store into a folder; `clock` is the
    machine's, so that backups lie in the order in which they were taken; `keys` are public ids by name."""

    home: Path
    database: SqliteDatabase
    publisher: Publisher
    signer: EnvelopeSigner
    keys: dict[str, str]
    online: Callable[[Path], bool]
    clock: Clock
    store_keys: StoreKeys


class HomeCopier:
    """A `Copier` over an open home."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts

    def take(self, backup: str, folder: Path, tell: Tell) -> Taken:
        """See `Copier.take`."""
        made_at = self._p.clock.now()
        writer = Writer(folder, self._p.store_keys.in_order(BACKUPS))
        try:
            tell("taking the databases' moment", 0, 0)
            published, log = self._databases(writer, tell)
            self._log(writer, log)
            if self._p.online(_made(writer.scratch / "online")):
                writer.add(layout.ONLINE, writer.scratch / "online" / "data.mdb")
            for wanted in (0, 1, 2):
                self._files(writer, wanted, tell)
            manifest = self._manifest(backup, made_at, published, writer)
            tell("signing the manifest", len(manifest.files), len(manifest.files))
            digest = writer.finish(manifest, lambda body: self._p.signer.sign(BACKUP_TYPE, body))
        except sqlite3.Error as e:
            raise Unavailable(
                f"a database cannot be copied: {e}", hint="see `falaj doctor`, then take it again", code="backup_failed"
            ) from e
        finally:
            writer.abandon()
        return Taken(
            backup=backup,
            folder=str(folder),
            made_at=manifest.made_at,
            files=len(manifest.files),
            bytes=manifest.size,
            written=writer.written,
            manifest=digest,
            contents=contents(manifest.files),
            log_size=published.entries,
            log_root=published.root,
        )

    def _databases(self, writer: Writer, tell: Tell) -> tuple[Published, Snapshot]:
        """Copy the three databases as they are at one moment, at which the log is signed as far as it says."""
        home, at_once = self._p.home, list[str]()
        with ExitStack() as open_until_copied:

            def pin(_tx: object) -> list[snapshot.Pinned]:
                pinned = []
                for name in layout.DATABASES:
                    if snapshot.is_wal(home / name):
                        pinned.append(snapshot.Pinned(home / name))
                        open_until_copied.callback(pinned[-1].close)
                    else:
                        snapshot.copy(home / name, writer.scratch / name)
                        at_once.append(name)
                return pinned

            with self._p.publisher.held():
                published = self._p.publisher.publish()
                trees = [(t.shard.place, t.size) for t in self._p.publisher.trees()]
                log = taken(self._p.publisher.base, trees, heads=True)
                pinned = self._p.database.change(pin)
            for number, one in enumerate(pinned):
                tell(f"copying {one.path.name}", number, len(pinned))
                copied = writer.scratch / one.path.name
                one.copy(copied)
                writer.add(one.path.name, copied)
        for name in at_once:
            writer.add(name, writer.scratch / name)
        return published, log

    def _log(self, writer: Writer, log: Snapshot) -> None:
        for name, data in log.edge.items():
            writer.put(f"{layout.AUDIT}/{name}", data)
        for name in log.lasting():
            writer.add(f"{layout.AUDIT}/{name}", log.folder / name)

    def _files(self, writer: Writer, wanted: int, tell: Tell) -> None:
        names = list(layout.files(self._p.home, wanted))
        for number, name in enumerate(names):
            tell(f"copying {name}", number, len(names))
            with suppress(FileNotFoundError):  # it passed away while it was listed: nothing that SQL names does
                writer.add(name, self._p.home / name)

    def _manifest(self, backup: str, made_at: datetime, published: Published, writer: Writer) -> Manifest:
        return Manifest(
            format=FORMAT,
            id=backup,
            made_at=iso(made_at),
            release=falaj.__version__,
            host=socket.gethostname(),
            home=str(self._p.home),
            standing=Standing(revisions()[-1], FLOW_SHAPE, published.entries, published.root),
            keys=self._p.keys,
            files=tuple(sorted(writer.files.values())),
            sealed=self._p.store_keys.wrapped(BACKUPS),
        )


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder
