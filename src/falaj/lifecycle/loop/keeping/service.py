"""Take backups, one at a time, in a thread: no flow, for a flow would be in the backup and be carried on from it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import Clock
from falaj.kernel.errors import Conflict, FalajError, Invalid, NotFound, Unavailable
from falaj.kernel.ids import new_id
from falaj.kernel.log import logger
from falaj.lifecycle.loop.keeping.model import HOME_BACKUP, KEYS_BACKUP, KEYS_RESTORE, Progress, Taken
from falaj.storage.sql.database import Tx

_KEPT = 20  # backups that one can still ask about
_HOME = Resource("Home", "*")
_log = logger(__name__)

Tell = Callable[[str, int, int], None]


class Copier(Protocol):
    """Copies the open home."""

    def take(self, backup: str, folder: Path, tell: Tell) -> Taken:
        """Write a backup of one moment; `tell` is asked to say how far it is, and may raise to end it."""
        ...


class BackupService:
    """`clock` is the machine's: the newest backup is the one taken last, whatever day the home replays."""

    def __init__(self, door: Door, copier: Copier, home: Path, clock: Clock) -> None:
        self._door = door
        self._copier = copier
        self._home = home
        self._clock = clock
        self._news = threading.Condition()
        self._known: dict[str, Progress] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self, actor: Principal, to: str) -> str:
        """Begin a backup into the folder `to` (absolute); returns its id.

        That it began is audited before anything is read, that it is done after. Raises `Denied`, `Invalid` for a folder
        in the home, `Conflict` while another is taken.
        """
        folder = Path(to)
        if "\0" in to or not folder.is_absolute() or folder.resolve().is_relative_to(self._home):
            raise Invalid(
                f"{to[:200]} cannot hold a backup of this home",
                hint="name a folder outside of the home, on another disk if there is one",
                code="backup_in_home",
            )
        backup = new_id("bak", self._clock.now())
        with self._news:
            if self._thread is not None and self._thread.is_alive():
                raise Conflict(
                    "another backup of this home is being taken",
                    hint="wait until it is done, then take this one",
                    code="backup_under_way",
                )
            self._door.read(self._intent(actor, {"backup": backup, "to": to, "state": "begun"}))
            self._known[backup] = Progress(backup, "running", "beginning")
            for old in list(self._known)[:-_KEPT]:
                del self._known[old]
            self._thread = threading.Thread(target=self._take, args=(actor, backup, folder), name="backup", daemon=True)
            self._thread.start()
        return backup

    def state(self, backup: str, seconds: float = 0.0) -> Progress:
        """How far a backup of this process is; waits up to `seconds` for it to end. Raises `NotFound`."""
        with self._news:
            self._news.wait_for(lambda: self._known.get(backup, _ENDED).state != "running", seconds)
            found = self._known.get(backup)
        if found is None:
            raise NotFound(
                f"no backup {backup[:60]} is being taken here",
                hint="the folder of the backup holds those that are done",
                code="no_backup",
            )
        return found

    def stop(self) -> None:
        """End a backup that is being taken; it is none then."""
        self._stopping.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _take(self, actor: Principal, backup: str, folder: Path) -> None:
        def tell(text: str, done: int, total: int) -> None:
            if self._stopping.is_set():
                raise Unavailable(
                    "the backup was not finished: the control plane stops",
                    hint="take it again; what was copied is not copied twice",
                    code="backup_interrupted",
                )
            with self._news:
                self._known[backup] = Progress(backup, "running", text, done, total)

        try:
            taken = self._copier.take(backup, folder, tell)
            self._record(actor, taken)
            ended = Progress(backup, "done", "done", taken.files, taken.files, taken)
        except FalajError as e:
            ended = self._failed(actor, backup, e)
        except Exception as e:  # a fault of any kind ends as a failed backup, and never as a thread that died unheard
            _log.error("backup_failed", error=f"{type(e).__name__}: {e}")
            told = Unavailable(f"the backup failed: {e}", hint="take it again; see the log", code="backup_failed")
            ended = self._failed(actor, backup, told)
        with self._news:
            self._known[backup] = ended
            self._news.notify_all()

    def _record(self, actor: Principal, taken: Taken) -> None:
        facts: dict[str, Any] = msgspec.to_builtins(taken)

        def do(_tx: Tx) -> Done[dict[str, Any]]:
            return Done({"backup": taken.backup})

        self._door.change(self._intent(actor, {**facts, "state": "done"}, f"{taken.backup}:done"), do)

    def _failed(self, actor: Principal, backup: str, error: FalajError) -> Progress:
        try:
            self._door.refuse(self._intent(actor, {"backup": backup, "state": "failed"}), error)
        except FalajError as e:
            _log.error("backup_not_audited", error=e.message)
        return Progress(backup, "failed", error=error.as_dict())

    def _intent(self, actor: Principal, detail: dict[str, Any], operation_id: str = "") -> Intent:
        return Intent(actor, HOME_BACKUP, _HOME, operation_id, detail=detail)


class KeysService:
    """What may be known of the keys, and that they were sealed or brought back. No secret comes here."""

    def __init__(self, door: Door, ids: dict[str, str]) -> None:
        self._door = door
        self.ids = ids

    def sealed(self, actor: Principal, archive: str) -> dict[str, Any]:
        """Authorise and audit that the keys were sealed into a file with digest `archive`."""
        return self._note(Intent(actor, KEYS_BACKUP, _HOME, detail={"archive": archive, "keys": self.ids}))

    def restored(self, actor: Principal, names: list[str]) -> dict[str, Any]:
        """Audit that the keys with these names were brought back."""
        detail = {"restored": names, "keys": {n: i for n, i in self.ids.items() if n in names}}
        return self._note(Intent(actor, KEYS_RESTORE, _HOME, detail=detail))

    def _note(self, intent: Intent) -> dict[str, Any]:
        def do(_tx: Tx) -> Done[dict[str, Any]]:
            return Done({"keys": self.ids})

        return self._door.change(intent, do)


_ENDED = Progress("", "unknown")
