"""Bring a home's `falaj.db` to this release's schema, forwards only."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from falaj.kernel.errors import Conflict
from falaj.kernel.files import flush
from falaj.storage.sql import snapshot
from falaj.storage.sql.database import Database

_FOLDER = Path(__file__).parent / "migrations"


def revisions() -> list[str]:
    """Revision numbers, oldest first."""
    return sorted(p.name[:4] for p in (_FOLDER / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))


def migrate(database: Database, keep: Path | None = None) -> None:
    """Run what is missing, in one transaction; what was there before is copied beside the file `keep` first.

    Raises `Conflict` for a home of a newer release.
    """
    current, known = database.read(_revision), revisions()
    if current == known[-1]:
        return
    if current and current not in known:
        raise Conflict(
            f"this home was written by a newer release (schema {current}, this release knows {known[-1]})",
            hint="use that release or a newer one; nothing was changed",
            code="home_is_newer",
        )
    if current and keep is not None:
        _copy_before(keep, current)
    database.change(_upgrade)


def _copy_before(database: Path, schema: str) -> None:
    """The database as the older release left it, as `falaj-schema-0001.db`; the first copy of a schema stays."""
    copied = database.with_name(f"{database.stem}-schema-{schema}.db")
    if not copied.exists():
        temporary = copied.with_name(f".{copied.name}")
        temporary.unlink(missing_ok=True)
        snapshot.copy(database, temporary, flush=True)
        temporary.replace(copied)
        flush(copied.parent)


def _revision(tx: Connection) -> str:
    if not inspect(tx).has_table("alembic_version"):
        return ""
    return str(tx.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _upgrade(tx: Connection) -> None:
    from alembic import command  # 30 MB that only a new or an old home needs
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = tx
    command.upgrade(config, "head")
