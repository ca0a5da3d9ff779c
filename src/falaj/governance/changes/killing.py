"""The kill switch: a model is killed by one person at once, and revived by two.

A kill is a row; it leaves traffic plans as they are. Whoever makes the data plane's bundle asks which models are killed
and puts their fallback in place of the plan, so no flow that is under way can bring the model back, and to revive it
nothing has to be remembered.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

from falaj.governance.changes.inventory import KILL, REVIVE, REVIVE_PROPOSE, Fallback, Kill
from falaj.governance.changes.ports import KillStore
from falaj.governance.changes.service import check_reason
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import Conflict, Unavailable
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx

PROPOSED = timedelta(days=7)
"""How long a proposal to revive a model waits for somebody else."""


class KillService:
    """Models killed and revived."""

    def __init__(self, database: Database, store: KillStore, door: Door) -> None:
        self._database = database
        self._store = store
        self._door = door

    def in_force(self) -> dict[str, Kill]:
        """The kills that hold, by model."""
        return {k.model: k for k in self._database.read(self._store.in_force)}

    def of(self, model: str) -> list[Kill]:
        """A model's kills, newest first."""
        return self._database.read(lambda tx: self._store.of(tx, model))

    def check(self, model: str) -> None:
        """Raises `Unavailable` for a model that is killed."""
        kill = self.in_force().get(model)
        if kill is not None:
            raise model_killed(model)

    def kill(self, actor: Principal, model: str, fallback: Fallback, reason: str) -> Kill:
        """Write down that a model is killed. Raises `Conflict` when it is already, `Invalid` without a reason."""
        told = check_reason(reason)
        now = self._door.clock.now()
        kill = Kill(new_id("kil", now), model, actor.name, told, iso(now), fallback)

        def do(tx: Tx) -> Done[str]:
            if any(not k.revived_at for k in self._store.of(tx, model)):
                raise Conflict(
                    f"{model} is killed already",
                    hint=f"`falaj inventory show {model}` says what answers; two people revive it: `falaj revive {model}`",
                    code="killed_already",
                )
            self._store.add(tx, kill)
            return Done(kill.id)

        detail = {"kill": kill.id, "fallback": fallback.kind}
        self._door.change(Intent(actor, KILL, Resource("Model", model), detail=detail), do)
        return kill

    def revive(self, actor: Principal, model: str, reason: str) -> Kill:
        """Propose to revive a model or, when somebody else has proposed it, do it.

        Raises `Conflict` for a model that is not killed, `Denied` for whoever proposed it.
        """
        told = check_reason(reason)
        now = self._door.clock.now()
        kill = self.in_force().get(model)
        if kill is None:
            raise Conflict(
                f"{model} is not killed", hint=f"`falaj inventory show {model}` says how it stands", code="not_killed"
            )
        waits = bool(kill.proposed_at) and now < parse_iso(kill.proposed_at) + PROPOSED
        if waits:
            moved = msgspec.structs.replace(kill, revived_by=actor.name, revived_at=iso(now), revived_reason=told)
            proposer = {"__entity": {"type": "Principal", "id": kill.proposed_by}}
            resource = Resource("Model", model, {"proposed_by": proposer})
            intent = Intent(actor, REVIVE, resource, detail={"kill": kill.id, "proposed_by": kill.proposed_by})
        else:
            moved = msgspec.structs.replace(kill, proposed_by=actor.name, proposed_at=iso(now), proposed_reason=told)
            intent = Intent(actor, REVIVE_PROPOSE, Resource("Model", model), detail={"kill": kill.id})

        def do(tx: Tx) -> Done[str]:
            if next((k for k in self._store.of(tx, model) if not k.revived_at), None) != kill:
                raise Conflict("the kill changed meanwhile", hint="look at it again", code="changed_meanwhile")
            if waits:
                self._store.revive(tx, moved)
            else:
                self._store.propose(tx, moved)
            return Done(kill.id)

        self._door.change(intent, do)
        return moved


def model_killed(model: str) -> Unavailable:
    """Why a model does not answer, and will not until two people say so."""
    return Unavailable(
        f"{model} was killed: it answers nobody now",
        hint=f"ask whoever owns it (`falaj inventory show {model}`); two people revive it: `falaj revive {model} --reason '…'`",
        code="model_killed",
    )
