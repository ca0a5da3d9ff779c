"""Dataset versions in SQL: the newest row names the Delta version that readers use."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, Integer, Row, String, Table, func, insert, select

from falaj.lifecycle.data.model import DatasetVersion, FileLoad
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("name", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("digest", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("added", Integer, nullable=False),
    Column("quarantined", Integer, nullable=False),
    Column("reasons", String, nullable=False),
    Column("files", String, nullable=False),
    Column("operation_id", String, nullable=False),
    Column("created_at", String, nullable=False),
)
ingested_files = Table(
    "ingested_files",
    metadata,
    Column("name", String, primary_key=True),
    Column("sha256", String, primary_key=True),
    Column("path", String, nullable=False),
    Column("version", Integer, nullable=False),
)
_d = dataset_versions.c


class SqlDatasetStore:
    def head(self, tx: Tx, name: str) -> DatasetVersion | None:
        row = tx.execute(select(dataset_versions).where(_d.name == name).order_by(_d.version.desc()).limit(1)).first()
        return _version(row) if row else None

    def log(self, tx: Tx, name: str) -> list[DatasetVersion]:
        rows = tx.execute(select(dataset_versions).where(_d.name == name).order_by(_d.version.desc()))
        return [_version(r) for r in rows]

    def heads(self, tx: Tx) -> list[DatasetVersion]:
        newest = select(_d.name, func.max(_d.version).label("version")).group_by(_d.name).subquery()
        match = (newest.c.name == _d.name) & (newest.c.version == _d.version)
        return [_version(r) for r in tx.execute(select(dataset_versions).join(newest, match).order_by(_d.name))]

    def known_files(self, tx: Tx, name: str) -> list[str]:
        query = select(ingested_files.c.sha256).where(ingested_files.c.name == name)
        return list(tx.execute(query.order_by(ingested_files.c.sha256)).scalars())

    def known_paths(self, tx: Tx, name: str) -> dict[str, tuple[str, ...]]:
        """The SHA-256 of every file that was loaded into it, by the name that the file had below the project."""
        columns = ingested_files.c
        query = select(columns.path, columns.sha256).where(columns.name == name)
        found: dict[str, tuple[str, ...]] = {}
        for path, sha256 in tx.execute(query.order_by(columns.path, columns.version)):
            found[path] = (*found.get(path, ()), sha256)
        return found

    def add(self, tx: Tx, version: DatasetVersion) -> None:
        values = msgspec.structs.asdict(version)
        values["reasons"] = msgspec.json.encode(version.reasons).decode()
        values["files"] = msgspec.json.encode(version.files).decode()
        tx.execute(insert(dataset_versions).values(values))
        for file in version.files:
            row = {"name": version.name, "sha256": file.sha256, "path": file.path, "version": version.version}
            tx.execute(insert(ingested_files).values(row))


def _version(row: Row[Any]) -> DatasetVersion:
    values = dict(row._mapping)
    values["reasons"] = msgspec.json.decode(values["reasons"], type=dict[str, int])
    values["files"] = msgspec.json.decode(values["files"], type=tuple[FileLoad, ...])
    return DatasetVersion(**values)
