"""The model inventory kept: what people say of models, validations, and what follows for each model now."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.changes.inventory import (
    INVENTORY_SET,
    MODEL_RETIRE,
    MODEL_VALIDATE,
    Fact,
    Governed,
    Known,
    Validation,
    check_fact,
    check_validation,
    governed,
)
from falaj.governance.changes.ports import Declarations, InventoryStore, KillStore
from falaj.governance.changes.service import check_reason
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso, written_moment
from falaj.kernel.errors import FalajError, Invalid
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx


class Ports(msgspec.Struct, frozen=True):
    """What the inventory works with. `default_tier` is that of models which nobody has put into one."""

    database: Database
    store: InventoryStore
    kills: KillStore
    declarations: Declarations
    default_tier: str
    approval_days: int


class Examined(msgspec.Struct, frozen=True):
    """A version that somebody validated, and what they say: outcome, findings, until when (a day or a moment)."""

    model: str
    alias: str
    digest: str
    author: str
    outcome: str
    findings: tuple[str, ...]
    until: str


class InventoryService:
    """What is known of each model, and what follows."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    # reading

    def known(self, model: str) -> Known:
        """Everything that was said of a model, by its project and by people."""
        p = self._p
        facts, validations, kills = p.database.read(
            lambda tx: (p.store.facts(tx, model), p.store.validations(tx, model), p.kills.of(tx, model))
        )
        newest = {f.fact: f for f in facts}
        since = newest["tier"].at if "tier" in newest else ""
        return Known(
            model=model,
            declared=p.declarations.oversight(model),
            tiers=p.declarations.tiers(model, since),
            facts=newest,
            validations=tuple(validations),
            kill=next((k for k in kills if not k.revived_at), None),
        )

    def history(self, model: str) -> list[Fact]:
        """All that people said of a model, oldest first."""
        return self._p.database.read(lambda tx: self._p.store.facts(tx, model))

    def governed(self, model: str) -> Governed:
        """What follows for a model now."""
        return self._governed(self.known(model))

    def models(self) -> list[str]:
        """The models of which somebody said something."""
        return self._p.database.read(self._p.store.models)

    # changing

    def set(self, actor: Principal, model: str, said: dict[str, Any], reason: str) -> Known:
        """Write down what a person says of a model: fact → value. Raises `Invalid` for what cannot be kept."""
        told = check_reason(reason)
        now = iso(self._door.clock.now())
        retires = "retired" in said
        intent = Intent(actor, MODEL_RETIRE if retires else INVENTORY_SET, Resource("Model", model))
        try:
            if not said:
                raise Invalid(
                    "nothing is said of the model",
                    hint="give at least one option: `falaj inventory set --help`",
                    code="bad_inventory_fact",
                )
            kept = self._checked(model, said)
        except FalajError as e:
            self._door.check(intent)
            self._door.refuse(intent, e)
            raise
        before = self._governed(self.known(model)).tier.name
        intent.detail.update({name: value for name, value in kept.items() if name in _TOLD}, tier_before=before)
        if "revalidate_by" in kept:
            intent.detail["revalidate_by"] = kept["revalidate_by"]

        def do(tx: Tx) -> Done[None]:
            for fact, value in kept.items():
                self._p.store.add(tx, Fact(model, fact, value, actor.name, now, told))
            return Done(None, {"said": sorted(kept)})

        self._door.change(intent, do)
        return self.known(model)

    def validate(self, actor: Principal, examined: Examined) -> Validation:
        """Write down that somebody who is not the author has validated a model. Raises `Denied` for the author, `Invalid`."""
        now = self._door.clock.now()
        known = self.known(examined.model)
        validation = Validation(
            id=new_id("val", now),
            model=examined.model,
            alias=examined.alias,
            digest=examined.digest,
            author=examined.author,
            validator=actor.name,
            outcome=examined.outcome,
            findings=tuple(f.strip() for f in examined.findings),
            at=iso(now),
            until=_moment(examined.until),
        )
        author = {"__entity": {"type": "Principal", "id": examined.author}}
        detail = {
            "validation": validation.id, "digest": examined.digest, "outcome": examined.outcome,
            "findings": len(validation.findings), "until": validation.until,
        }  # fmt: skip
        resource = Resource("ModelVersion", examined.alias, {"author": author})
        intent = Intent(actor, MODEL_VALIDATE, resource, detail=detail)
        self._door.check(intent)
        try:
            check_validation(validation, known, self._governed(known).tier)
        except FalajError as e:
            self._door.refuse(intent, e)
            raise

        def do(tx: Tx) -> Done[None]:
            self._p.store.add_validation(tx, validation)
            return Done(None)

        self._door.change(intent, do)
        return validation

    def _checked(self, model: str, said: dict[str, Any]) -> dict[str, Any]:
        """What is said, as it is kept; each is held against what is known with the others taken in."""
        told = {fact: _moment(value) if fact == "revalidate_by" else value for fact, value in said.items()}
        known = self.known(model)
        facts = {fact: Fact(model, fact, value, "", "", "") for fact, value in told.items()}
        together = msgspec.structs.replace(known, facts={**known.facts, **facts})
        return {fact: check_fact(fact, value, together) for fact, value in told.items()}

    def _governed(self, known: Known) -> Governed:
        return governed(known, self._p.default_tier, self._p.approval_days, self._door.clock.now())


_TOLD = ("tier", "regulated", "retired")
"""Facts whose values go into the log; the others are free text, which may name people."""


def _moment(text: str) -> str:
    """A day or a moment as it is kept. Raises `Invalid`."""
    return written_moment(f"{text}T00:00:00Z" if len(text) == 10 else text)
