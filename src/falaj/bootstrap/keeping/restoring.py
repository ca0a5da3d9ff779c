"""A home from a backup and its keys.

Everything happens in a folder beside the place: the manifest's signature by the home's own key, every digest, the
databases, the audit log from its bytes; then the restored home notes what it is. Only then the folder gets its name, so a
home that is there is whole.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from falaj.bootstrap.encryption import unlock
from falaj.bootstrap.keeping import layout
from falaj.bootstrap.witnessed import origin_of
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.service import AuditService
from falaj.governance.audit.store import SqlAuditStore
from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.model import ACTIONS as IDENTITY_ACTIONS
from falaj.governance.identity.service import MAX_DAYS, IdentityService
from falaj.governance.identity.store import SqlIdentityStore
from falaj.governance.policy.decide import EnvironmentAuthoriser
from falaj.governance.signing import recovery
from falaj.governance.signing.dsse import verify_envelope
from falaj.governance.signing.kek import FILE, key_of
from falaj.governance.signing.keys import KeyRing
from falaj.governance.signing.storekeys import BACKUPS, unwrapped
from falaj.kernel import locks
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import HomeClock, parse_iso
from falaj.kernel.disk import refusal
from falaj.kernel.errors import Conflict, Integrity, NotFound, Unavailable
from falaj.kernel.files import flush, write_private
from falaj.lifecycle.loop.keeping.model import HOME_RESTORE
from falaj.lifecycle.loop.keeping.service import Tell
from falaj.storage.archive import reading
from falaj.storage.archive.manifest import BACKUP_TYPE, Manifest, contents
from falaj.storage.lake.places import check_place
from falaj.storage.sql import snapshot
from falaj.storage.sql.database import Tx
from falaj.storage.sql.migrate import migrate
from falaj.storage.sql.sqlite import SqliteDatabase
from falaj.workflow import moving

NOTE = "restored.json"
"""In a restored home: what it is a copy of."""
_OWNER = "owner"


class Restoring(msgspec.Struct, frozen=True):
    """What to restore: the backups' folder, which one (the newest if empty), the keys, and where to."""

    folder: Path
    keys: dict[str, bytes]
    home: Path
    backup: str = ""


class Restored(msgspec.Struct, frozen=True):
    """A restored home. `log_size` entries are those that it came back to, `flows` go on when it is opened, `tokens` are
    valid in it, `twin` is the process that has the home open which this is a copy of (0: none on this machine)."""

    backup: str
    made_at: str
    home: str
    of: str
    files: int
    bytes: int
    log_size: int
    log_root: str
    flows: int
    tokens: int
    twin: int
    warnings: tuple[str, ...]


class Note(msgspec.Struct, frozen=True):
    """`restored.json`."""

    backup: str
    made_at: str
    of: str
    host: str
    log_size: int


def restore(asked: Restoring, tell: Tell) -> Restored:
    """Make a home of a backup. Raises `Conflict` when the place is taken, `Integrity` that names what differs."""
    _check_place(check_place(asked.home))
    making = asked.home.with_name(f".{asked.home.name}.restoring-{secrets.token_hex(4)}")
    try:
        manifest = _manifest(asked.folder, asked.keys, asked.backup)
        making.mkdir(parents=True, mode=0o700)
        recovery.install(asked.keys, making / "keys")
        reading.lay_out(asked.folder, manifest, making, tell, _object_keys(asked.keys, manifest))
        tell("checking the databases", 0, 0)
        for name in layout.DATABASES:
            if (making / name).exists():
                snapshot.check(making / name)
        flows = _flows(making, Path(manifest.home), asked.home)
        tell("checking the audit log", 0, 0)
        tokens = _opened(making, manifest)
        _note(making, manifest)
        _place(making, asked.home)
    except OSError as e:
        raise refusal(e, asked.home) or Unavailable(
            f"the home cannot be restored: {e.strerror or e}",
            hint="check the disk and the rights of the folder; nothing is left there",
            code="restore_failed",
        ) from e
    finally:
        shutil.rmtree(making, ignore_errors=True)
    twin = twin_of(manifest.home, manifest.host, asked.home)
    return Restored(
        backup=manifest.id,
        made_at=manifest.made_at,
        home=str(asked.home),
        of=manifest.home,
        files=len(manifest.files),
        bytes=manifest.size,
        log_size=manifest.standing.log_size,
        log_root=manifest.standing.log_root,
        flows=flows,
        tokens=tokens,
        twin=twin,
        warnings=tuple(_warnings(manifest, twin, tokens)),
    )


def check_backup(folder: Path, keys: dict[str, bytes], backup: str, tell: Tell) -> Manifest:
    """Verify a backup and leave it where it is: signature by one of these keys, every digest. Raises `Integrity`.

    Nothing is written: a backup may lie on a disk that is read-only, or that must not see a key.
    """
    manifest = _manifest(folder, keys, backup)
    reading.check(folder, manifest, tell, _object_keys(keys, manifest))
    return manifest


def twin_of(home: str, host: str, here: Path) -> int:
    """The process that has another home with these keys open on this machine; 0 for none that can be seen."""
    lock = Path(home) / "lock"
    if host != socket.gethostname() or Path(home) == here or not locks.held(lock):
        return 0
    return locks.holder(lock)


def read_note(home: Path) -> Note | None:
    """What a home is a copy of; None for one that was never restored."""
    try:
        return msgspec.json.decode((home / NOTE).read_bytes(), type=Note)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _check_place(home: Path) -> None:
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise Conflict(
            f"{home} is there already, and not empty",
            hint="restore into a new folder, look at it, and then let it take the other's place",
            code="folder_not_empty",
        )


def _manifest(folder: Path, keys: dict[str, bytes], backup: str) -> Manifest:
    """A backup's manifest, signed by one of these keys, which must be all that the home had. Raises `Integrity`."""
    key = recovery.attestation_key(keys)
    if key is None:
        raise Integrity(
            "the key attestation.pem, which signs backups, is not among these keys",
            hint="name the keys backup or the keys folder of the home that was backed up",
            code="key_missing",
        )

    def verify(envelope: dict[str, Any]) -> bytes:
        try:
            return verify_envelope(envelope, BACKUP_TYPE, (key,))
        except Integrity as e:
            raise Integrity(
                "the backup is not signed by the key of the home that these keys are of",
                hint="use the keys of the same home; if they are, somebody changed the backup: take another copy",
                code="backup_not_signed",
            ) from e

    manifest = reading.read_manifest(folder, backup, verify)
    given = recovery.public_ids(keys)
    other = sorted(name for name, public in manifest.keys.items() if given.get(name) != public)
    if other:
        raise Integrity(
            f"the keys are not those that the home had: {', '.join(other)}",
            hint="use the keys backup that belongs to this home",
            code="keys_of_another_home",
        )
    return manifest


def _object_keys(keys: dict[str, bytes], manifest: Manifest) -> tuple[bytes, ...]:
    """What opens a backup's objects, oldest first; nothing for one of 0.1, whose objects are in clear.

    Raises `Integrity`, and `Unavailable` when the key-encryption key lies elsewhere and is away.
    """
    return unwrapped(key_of(keys[FILE]), BACKUPS, manifest.sealed) if manifest.sealed else ()


def _flows(home: Path, old: Path, new: Path) -> int:
    """Move what flows remember of the old place; returns how many go on."""
    flows = home / "flows.db"
    if not flows.exists():
        return 0
    with suppress(sqlite3.OperationalError):  # a backup of 0.1 has no such keys, and nothing that needs them
        unlock(home)
    moving.move(flows, old, new)
    return len(moving.under_way(flows))


def _opened(home: Path, manifest: Manifest) -> int:
    """Open what was laid out far enough to check the log and to add to it; returns how many tokens are valid."""
    keys, clock, store = KeyRing(home / "keys"), HomeClock(home), SqlAuditStore()
    database = SqliteDatabase(home / "falaj.db")
    try:
        migrate(database)
        publisher = Publisher(database, store, home / layout.AUDIT, keys.log, origin_of(home / layout.AUDIT), clock)
        audit = AuditService(database, store, publisher)
        report = audit.verify()
        if not report.ok or report.size < manifest.standing.log_size:
            why = report.problems[0] if report.problems else f"it ends at {report.size}"
            raise Integrity(
                f"the audit log in the backup does not hold: {why}",
                hint="take an older backup, and find out who could write to this one's home",
                code="audit_broken",
                details={"problems": list(report.problems)},
            )
        door = Door(database, EnvironmentAuthoriser((HOME_RESTORE, *IDENTITY_ACTIONS)), audit, clock)
        _record(door, manifest)
        identity = IdentityService(database, SqlIdentityStore(), door, keys.pepper)
        now = clock.now()
        tokens = sum(parse_iso(token.expires_at) > now for token in identity.known_tokens())
        _own_token(home, identity)
        publisher.publish()
    finally:
        database.close()
    return tokens


def _record(door: Door, manifest: Manifest) -> None:
    detail = {
        "backup": manifest.id,
        "made_at": manifest.made_at,
        "contents": contents(manifest.files),
        "log_size": manifest.standing.log_size,
        "log_root": manifest.standing.log_root,
        "of": manifest.home,
        "host": socket.gethostname(),
    }

    def do(_tx: Tx) -> Done[dict[str, Any]]:
        return Done({"backup": manifest.id})

    door.change(Intent(SYSTEM, HOME_RESTORE, Resource("Home", "*"), detail=detail), do)


def _own_token(home: Path, identity: IdentityService) -> None:
    """Whoever holds the keys is the platform: the owner gets a token, for those of the backup are known by hash only."""
    try:
        owner = identity.principal(_OWNER)
    except NotFound:
        owner = Principal(_OWNER, "person", ("platform-admin",))
    token = identity.grant(SYSTEM, owner, MAX_DAYS).token
    (home / "tokens").mkdir(mode=0o700)
    write_private(home / "tokens" / _OWNER, f"{token}\n".encode())


def _note(home: Path, manifest: Manifest) -> None:
    note = Note(manifest.id, manifest.made_at, manifest.home, manifest.host, manifest.standing.log_size)
    (home / NOTE).unlink(missing_ok=True)  # of a restored home that was backed up in turn
    write_private(home / NOTE, msgspec.json.encode(note))


def _place(made: Path, home: Path) -> None:
    for folder in (made / "tokens", made):
        flush(folder)
    try:
        made.rename(home)
    except OSError as e:
        if home.exists() and any(home.iterdir()):
            _check_place(home)
        raise e
    flush(home.parent)


def _warnings(manifest: Manifest, twin: int, tokens: int) -> list[str]:
    open_now = f", and it is open now (pid {twin})" if twin else ""
    return [
        f"this home signs with the same keys as {manifest.home} on {manifest.host}{open_now}: let only one of the two run,"
        " for each would go on from the same log, and both would serve",
        f"it knows nothing that was done after {manifest.made_at}: {tokens} tokens are valid as they were then, also those"
        " that were revoked since (`falaj token list`), and versions serve as they did",
    ]
