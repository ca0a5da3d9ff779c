"""What a backup came to, and who may take one."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.access import Action

HOME_BACKUP = Action("home.backup", "administration", "Home", "take a backup of the home")
BACKUP_READ = Action("home.read_backup", "read", "Home", "watch a backup that is being taken")
HOME_RESTORE = Action("home.restore", "system", "Home", "bring a home back from a backup")
KEYS_READ = Action("keys.read", "read", "Home", "see the public ids of the home's keys")
KEYS_BACKUP = Action("keys.backup", "administration", "Home", "seal the home's private keys under a recovery code")
KEYS_RESTORE = Action("keys.restore", "administration", "Home", "bring the home's private keys back")
ACTIONS = (HOME_BACKUP, BACKUP_READ, HOME_RESTORE, KEYS_READ, KEYS_BACKUP, KEYS_RESTORE)


class Taken(msgspec.Struct, frozen=True):
    """A backup. `bytes` are those of all files, `written` those that the folder did not hold before; `contents` is the
    digest over all files, `log_size` and `log_root` the audit log's signed checkpoint in it."""

    backup: str
    folder: str
    made_at: str
    files: int
    bytes: int
    written: int
    manifest: str
    contents: str
    log_size: int
    log_root: str


class Progress(msgspec.Struct, frozen=True):
    """How far a backup is; `state` is running, done or failed, `error` a `FalajError` as JSON."""

    id: str
    state: str
    text: str = ""
    done: int = 0
    total: int = 0
    result: Taken | None = None
    error: dict[str, Any] | None = None
