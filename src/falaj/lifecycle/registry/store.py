"""Versions, admissions and rehearsals in SQL. No statement here deletes; a version's files and digest never change."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Index, Integer, Row, String, Table, func, insert, select, update

from falaj.kernel.digests import FileEntry
from falaj.lifecycle.registry.model import Admission, ModelVersion, Rehearsal
from falaj.lifecycle.registry.waiver import Revocation, Signature, Waived, Waiver
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

versions = Table(
    "versions",
    metadata,
    Column("digest", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("author", String, nullable=False),
    Column("run", String, nullable=False),
    Column("files", String, nullable=False),
    Column("signature", String, nullable=False),
    Column("gates", String, nullable=False),
    Column("approvals", Integer, nullable=False),
    Column("approver_roles", String, nullable=False),
    Column("signed_at", String, nullable=False, server_default=""),
    Column("evidence", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("created_at", String, nullable=False),
    Index("ix_versions_model", "model", "number"),
)
admissions = Table(
    "admissions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("digest", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("admission", String, nullable=False),
    Column("envelope", String, nullable=False),
    Index("ix_admissions_digest", "digest", "environment"),
)
rehearsals = Table(
    "rehearsals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("digest", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("rehearsal", String, nullable=False),
    Column("envelope", String, nullable=False),
    Index("ix_rehearsals_digest", "digest", "environment"),
)
waivers_table = Table(
    "waivers",
    metadata,
    Column("id", String, primary_key=True),
    Column("digest", String, nullable=False, index=True),
    *(
        Column(name, String, nullable=False)
        for name in (
            "alias", "model", "author", "evidence", "waived", "reason", "proposed_at", "until", "statement",
            "revoked_by", "revoked_at", "revoked_reason",
        )
    ),
)  # fmt: skip
waiver_signatures = Table(
    "waiver_signatures",
    metadata,
    Column("waiver", String, primary_key=True),
    Column("principal", String, primary_key=True),
    Column("roles", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
)
_v = versions.c
_MOVABLE = {"number", "state", "evidence", "reason"}
_PACKAGED = {"author", "run", "signature", "signed_at", "gates", "approvals", "approver_roles"}


class SqlVersionStore:
    def by_digest(self, tx: Tx, digest: str) -> ModelVersion | None:
        row = tx.execute(select(versions).where(_v.digest == digest)).first()
        return _version(row) if row else None

    def by_number(self, tx: Tx, model: str, number: int) -> ModelVersion | None:
        row = tx.execute(select(versions).where(_v.model == model, _v.number == number)).first() if number else None
        return _version(row) if row else None

    def of_model(self, tx: Tx, model: str) -> list[ModelVersion]:
        rows = tx.execute(select(versions).where(_v.model == model).order_by(_v.created_at, _v.digest))
        return [_version(r) for r in rows]

    def models(self, tx: Tx) -> list[str]:
        return list(tx.execute(select(_v.model).distinct().order_by(_v.model)).scalars())

    def add(self, tx: Tx, version: ModelVersion) -> None:
        tx.execute(insert(versions).values(_values(version)))

    def package_again(self, tx: Tx, version: ModelVersion) -> None:
        values = {name: value for name, value in _values(version).items() if name in _PACKAGED}
        tx.execute(update(versions).where(_v.digest == version.digest).values(values))

    def next_number(self, tx: Tx, model: str) -> int:
        return int(tx.execute(select(func.coalesce(func.max(_v.number), 0)).where(_v.model == model)).scalar_one()) + 1

    def move(self, tx: Tx, digest: str, **values: Any) -> None:
        if not set(values) <= _MOVABLE:
            raise ValueError(f"{sorted(set(values) - _MOVABLE)} of a version cannot change")
        tx.execute(update(versions).where(_v.digest == digest).values(**values))

    def add_admission(self, tx: Tx, admission: Admission, envelope: str) -> None:
        body = msgspec.json.encode(admission).decode()
        values = {"digest": admission.digest, "environment": admission.environment, "admission": body}
        tx.execute(insert(admissions).values(**values, envelope=envelope))

    def admission(self, tx: Tx, digest: str, environment: str) -> tuple[Admission, str] | None:
        c = admissions.c
        query = select(c.admission, c.envelope).where(c.digest == digest, c.environment == environment)
        row = tx.execute(query.order_by(c.id.desc()).limit(1)).first()
        return (msgspec.json.decode(row.admission, type=Admission), row.envelope) if row else None

    def admissions(self, tx: Tx, digest: str) -> list[tuple[Admission, str]]:
        c = admissions.c
        rows = tx.execute(select(c.admission, c.envelope).where(c.digest == digest).order_by(c.id.desc()))
        return [(msgspec.json.decode(row.admission, type=Admission), row.envelope) for row in rows]

    def admitted(self, tx: Tx, environment: str) -> list[str]:
        c = admissions.c
        query = select(c.digest).where(c.environment == environment).group_by(c.digest)
        return list(tx.execute(query.order_by(func.max(c.id))).scalars())

    def add_rehearsal(self, tx: Tx, rehearsal: Rehearsal, envelope: str) -> None:
        body = msgspec.json.encode(rehearsal).decode()
        values = {"digest": rehearsal.digest, "environment": rehearsal.environment, "rehearsal": body}
        tx.execute(insert(rehearsals).values(**values, envelope=envelope))

    def rehearsal(self, tx: Tx, digest: str, environment: str) -> tuple[Rehearsal, str] | None:
        c = rehearsals.c
        query = select(c.rehearsal, c.envelope).where(c.digest == digest, c.environment == environment)
        row = tx.execute(query.order_by(c.id.desc()).limit(1)).first()
        return (msgspec.json.decode(row.rehearsal, type=Rehearsal), row.envelope) if row else None


class SqlWaiverStore:
    """Waivers in SQL. Rows are added; a signed statement and a revocation are each written once."""

    def add(self, tx: Tx, waiver: Waiver) -> None:
        """Write a proposed waiver down, without its signatures."""
        values = msgspec.structs.asdict(waiver.content)
        del values["signatures"]
        values["waived"] = msgspec.json.encode(waiver.content.waived).decode()
        empty = dict.fromkeys(("statement", "revoked_by", "revoked_at", "revoked_reason"), "")
        tx.execute(insert(waivers_table).values(**values, **empty))

    def sign(self, tx: Tx, waiver: str, signature: Signature) -> None:
        """Add a signature."""
        values = {**msgspec.structs.asdict(signature), "roles": " ".join(signature.roles)}
        tx.execute(insert(waiver_signatures).values(waiver=waiver, **values))

    def complete(self, tx: Tx, waiver: str, statement: str) -> None:
        """Write down its signed statement, once."""
        row = (waivers_table.c.id == waiver) & (waivers_table.c.statement == "")
        tx.execute(update(waivers_table).where(row).values(statement=statement))

    def revoke(self, tx: Tx, waiver: str, revocation: Revocation) -> None:
        """Write down who took it back, once."""
        row = (waivers_table.c.id == waiver) & (waivers_table.c.revoked_at == "")
        found = {"revoked_by": revocation.principal, "revoked_at": revocation.at, "revoked_reason": revocation.reason}
        tx.execute(update(waivers_table).where(row).values(found))

    def of(self, tx: Tx, digest: str) -> list[Waiver]:
        """All of a version, newest first."""
        return self._read(tx, waivers_table.c.digest == digest)

    def all(self, tx: Tx) -> list[Waiver]:
        """All, newest first."""
        return self._read(tx, waivers_table.c.id != "")

    @staticmethod
    def _read(tx: Tx, condition: ColumnElement[bool]) -> list[Waiver]:
        c = waiver_signatures.c
        signed: dict[str, list[Signature]] = {}
        for row in tx.execute(select(waiver_signatures).order_by(c.at, c.principal)):
            found = Signature(row.principal, tuple(row.roles.split()), row.reason, row.at)
            signed.setdefault(row.waiver, []).append(found)
        rows = tx.execute(select(waivers_table).where(condition).order_by(waivers_table.c.id.desc()))
        return [_waiver(row, tuple(signed.get(row.id, ()))) for row in rows]


def _waiver(row: Row[Any], signatures: tuple[Signature, ...]) -> Waiver:
    values = {str(k): v for k, v in row._mapping.items() if k in Waived.__struct_fields__}
    values["waived"] = msgspec.json.decode(values["waived"], type=tuple[str, ...])
    revoked = Revocation(row.revoked_by, row.revoked_at, row.revoked_reason) if row.revoked_at else None
    return Waiver(Waived(**values, signatures=signatures), row.statement, revoked)


def _values(version: ModelVersion) -> dict[str, Any]:
    values = msgspec.structs.asdict(version)
    for name in ("files", "gates", "approver_roles"):
        values[name] = msgspec.json.encode(values[name]).decode()
    return values


def _version(row: Row[Any]) -> ModelVersion:
    values = dict(row._mapping)
    values["files"] = msgspec.json.decode(values["files"], type=tuple[FileEntry, ...])
    for name in ("gates", "approver_roles"):
        values[name] = msgspec.json.decode(values[name], type=tuple[str, ...])
    return ModelVersion(**values)
