"""Approvals, the inventory, kills and reviews in SQL; rows are added, and what ends one is written beside it, once."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Row, String, Table, insert, select, update

from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holds import Hold
from falaj.governance.changes.inventory import Fact, Fallback, Kill, Validation
from falaj.governance.changes.model import Approval, Revoked
from falaj.governance.changes.records import Review
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

approvals = Table(
    "approvals",
    metadata,
    Column("id", String, primary_key=True),
    Column("alias", String, nullable=False),
    Column("digest", String, nullable=False, index=True),
    Column("evidence", String, nullable=False),
    Column("principal", String, nullable=False),
    Column("roles", String, nullable=False),
    Column("decision", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", String, nullable=False),
    Column("environment", String, nullable=False),
)
revocations = Table(
    "approval_revocations",
    metadata,
    Column("approval", String, primary_key=True),
    *(Column(name, String, nullable=False) for name in ("principal", "at", "reason")),
)
facts = Table(
    "model_facts",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    *(Column(name, String, nullable=False) for name in ("fact", "value", "by", "at", "reason")),
)
validations = Table(
    "validations",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    *(
        Column(name, String, nullable=False)
        for name in ("alias", "digest", "author", "validator", "outcome", "findings", "at", "until")
    ),
)
kills = Table(
    "kills",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    *(
        Column(name, String, nullable=False)
        for name in (
            "by", "reason", "at", "fallback", "proposed_by", "proposed_at", "proposed_reason", "revived_by", "revived_at",
            "revived_reason",
        )
    ),
)  # fmt: skip
reviews = Table(
    "change_reviews",
    metadata,
    Column("id", String, primary_key=True),
    Column("change", String, nullable=False, index=True),
    *(Column(name, String, nullable=False) for name in ("outcome", "text", "reviewer", "at")),
)
break_glass = Table(
    "break_glass",
    metadata,
    Column("id", String, primary_key=True),
    *(
        Column(name, String, nullable=False)
        for name in (
            "actions", "minutes", "reason", "proposed_by", "proposed_at", "opened_by", "opened_at", "opened_reason", "until",
            "incident", "closed_by", "closed_at",
        )
    ),
)  # fmt: skip
quarantine = Table(
    "quarantine",
    metadata,
    Column("id", String, primary_key=True),
    *(
        Column(name, String, nullable=False)
        for name in ("kind", "name", "by", "reason", "at", "lifted_by", "lifted_at", "lifted_reason")
    ),
)


class SqlApprovalStore:
    """An `ApprovalStore` over the table above."""

    def add(self, tx: Tx, approval: Approval) -> None:
        """Write one down; an id that is there already is an error of SQL."""
        values = {**msgspec.structs.asdict(approval), "roles": " ".join(approval.roles)}
        del values["revoked"]
        tx.execute(insert(approvals).values(values))

    def of(self, tx: Tx, digest: str) -> list[Approval]:
        """Those about a version, oldest first."""
        return self._read(tx, approvals.c.digest == digest)

    def revoke(self, tx: Tx, approval: str, revoked: Revoked) -> None:
        """Write down that one was taken back; the database refuses a second time."""
        tx.execute(insert(revocations).values(approval=approval, **msgspec.structs.asdict(revoked)))

    def revoked(self, tx: Tx) -> list[Approval]:
        """All that were taken back."""
        return [a for a in self._read(tx, approvals.c.id.in_(select(revocations.c.approval))) if a.revoked]

    @staticmethod
    def _read(tx: Tx, condition: ColumnElement[bool]) -> list[Approval]:
        c = revocations.c
        query = select(
            approvals, c.principal.label("revoked_by"), c.at.label("revoked_at"), c.reason.label("revoked_reason")
        )
        joined = query.outerjoin(revocations, c.approval == approvals.c.id).where(condition)
        return [_approval(row) for row in tx.execute(joined.order_by(approvals.c.at, approvals.c.id))]


def _approval(row: Row[Any]) -> Approval:
    values = {str(k): v for k, v in row._mapping.items() if k in Approval.__struct_fields__}
    values["roles"] = tuple(row.roles.split())
    revoked = Revoked(row.revoked_by, row.revoked_at, row.revoked_reason) if row.revoked_at else None
    return Approval(**values, revoked=revoked)


class SqlInventoryStore:
    """Facts and validations."""

    def add(self, tx: Tx, fact: Fact) -> None:
        """Write a fact down."""
        count = len(tx.execute(select(facts.c.id).where(facts.c.model == fact.model)).all())
        values = {**msgspec.structs.asdict(fact), "value": msgspec.json.encode(fact.value).decode()}
        tx.execute(insert(facts).values(id=f"{fact.model}:{count:06d}", **values))

    def facts(self, tx: Tx, model: str) -> list[Fact]:
        """All of a model, oldest first."""
        rows = tx.execute(select(facts).where(facts.c.model == model).order_by(facts.c.id))
        return [Fact(r.model, r.fact, msgspec.json.decode(r.value), r.by, r.at, r.reason) for r in rows]

    def models(self, tx: Tx) -> list[str]:
        """The models of which somebody said something."""
        said = tx.execute(select(facts.c.model).distinct()).scalars()
        return sorted({*said, *tx.execute(select(validations.c.model).distinct()).scalars()})

    def add_validation(self, tx: Tx, validation: Validation) -> None:
        """Write a validation down."""
        values = msgspec.structs.asdict(validation)
        values["findings"] = msgspec.json.encode(validation.findings).decode()
        tx.execute(insert(validations).values(values))

    def validations(self, tx: Tx, model: str) -> list[Validation]:
        """Those of a model, newest first."""
        order = (validations.c.at.desc(), validations.c.id.desc())
        rows = tx.execute(select(validations).where(validations.c.model == model).order_by(*order))
        return [
            Validation(**{**r._mapping, "findings": msgspec.json.decode(r.findings, type=tuple[str, ...])})
            for r in rows
        ]


class SqlKillStore:
    """Kills, who proposed to end them, and who did."""

    def add(self, tx: Tx, kill: Kill) -> None:
        """Write a kill down."""
        values = {**msgspec.structs.asdict(kill), "fallback": msgspec.json.encode(kill.fallback).decode()}
        tx.execute(insert(kills).values(values))

    def propose(self, tx: Tx, kill: Kill) -> None:
        """Write down who proposes to end it."""
        told = {name: getattr(kill, name) for name in ("proposed_by", "proposed_at", "proposed_reason")}
        tx.execute(update(kills).where((kills.c.id == kill.id) & (kills.c.revived_at == "")).values(told))

    def revive(self, tx: Tx, kill: Kill) -> None:
        """Write down who ended it, once."""
        told = {name: getattr(kill, name) for name in ("revived_by", "revived_at", "revived_reason")}
        tx.execute(update(kills).where((kills.c.id == kill.id) & (kills.c.revived_at == "")).values(told))

    def of(self, tx: Tx, model: str) -> list[Kill]:
        """Those of a model, newest first."""
        return self._read(tx, kills.c.model == model)

    def in_force(self, tx: Tx) -> list[Kill]:
        """Those that hold, of all models."""
        return self._read(tx, kills.c.revived_at == "")

    @staticmethod
    def _read(tx: Tx, condition: ColumnElement[bool]) -> list[Kill]:
        rows = tx.execute(select(kills).where(condition).order_by(kills.c.id.desc()))
        return [Kill(**{**r._mapping, "fallback": msgspec.json.decode(r.fallback, type=Fallback)}) for r in rows]


class SqlReviewStore:
    """Reviews of changes."""

    def add(self, tx: Tx, change: str, review: Review) -> None:
        """Write one down; the newest counts."""
        count = len(tx.execute(select(reviews.c.id).where(reviews.c.change == change)).all())
        told = {name: getattr(review, name) for name in ("outcome", "text", "reviewer", "at")}
        tx.execute(insert(reviews).values(id=f"{change}:{count:04d}", change=change, **told))

    def of(self, tx: Tx, change: str) -> Review | None:
        """The newest of a change."""
        row = tx.execute(select(reviews).where(reviews.c.change == change).order_by(reviews.c.id.desc())).first()
        return Review("written", row.outcome, row.text, row.reviewer, row.at) if row else None


class SqlGlassStore:
    """A `GlassStore` over the table above."""

    def add(self, tx: Tx, glass: Glass) -> None:
        """Write one down."""
        tx.execute(insert(break_glass).values(_of_glass(glass)))

    def change(self, tx: Tx, glass: Glass, before: Glass) -> bool:
        """Write down how it stands now; whether it stood as `before`."""
        c = break_glass.c
        stood = (c.id == before.id) & (c.until == before.until) & (c.incident == before.incident)
        stood &= c.closed_at == before.closed_at
        return tx.execute(update(break_glass).where(stood).values(_of_glass(glass))).rowcount == 1

    def all(self, tx: Tx) -> list[Glass]:
        """Newest first."""
        rows = tx.execute(select(break_glass).order_by(break_glass.c.proposed_at.desc(), break_glass.c.id.desc()))
        return [
            Glass(**{**{str(k): v for k, v in r._mapping.items()}, "actions": tuple(r.actions.split()), "minutes": float(r.minutes)})
            for r in rows
        ]  # fmt: skip


def _of_glass(glass: Glass) -> dict[str, Any]:
    return {**msgspec.structs.asdict(glass), "actions": " ".join(glass.actions), "minutes": repr(glass.minutes)}


class SqlHoldStore:
    """What is in quarantine, and was."""

    def add(self, tx: Tx, hold: Hold) -> None:
        """Write one down."""
        tx.execute(insert(quarantine).values(msgspec.structs.asdict(hold)))

    def lift(self, tx: Tx, hold: Hold) -> bool:
        """Write down who let it out, once."""
        told = {name: getattr(hold, name) for name in ("lifted_by", "lifted_at", "lifted_reason")}
        held = (quarantine.c.id == hold.id) & (quarantine.c.lifted_at == "")
        return tx.execute(update(quarantine).where(held).values(told)).rowcount == 1

    def all(self, tx: Tx) -> list[Hold]:
        """Newest first."""
        rows = tx.execute(select(quarantine).order_by(quarantine.c.at.desc(), quarantine.c.id.desc()))
        return [Hold(**{str(k): v for k, v in r._mapping.items()}) for r in rows]
