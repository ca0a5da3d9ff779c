"""The one way to change anything: authorise → do → audit → commit, in one SQL transaction.

A change names an operation. Doing the same operation again returns the first result and does
nothing, so a replayed flow step is safe. A refusal is audited as well, in a transaction of its own;
if that audit entry cannot be written the caller gets the failure, never the change.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from sqlalchemy import Column, String, Table, bindparam, insert, select

from falaj.kernel.access import WITHIN, Action, Decision, Principal, Question, Resource
from falaj.kernel.clock import Clock, iso
from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Conflict, Denied, FalajError
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx
from falaj.storage.sql.prepared import Prepared
from falaj.storage.sql.schema import metadata

T = TypeVar("T")

operations = Table(
    "operations",
    metadata,
    Column("operation_id", String, primary_key=True),
    Column("action", String, nullable=False),
    Column("principal", String, nullable=False),
    Column("result", String, nullable=False),
    Column("at", String, nullable=False),
)

_earlier = Prepared(select(operations).where(operations.c.operation_id == bindparam("operation")))
_remember = Prepared(insert(operations))


class Authoriser(Protocol):
    """Whoever decides what is allowed."""

    def decide(self, question: Question) -> Decision:
        """Decide; an error in any rule is a denial."""
        ...


class Event(msgspec.Struct, frozen=True):
    """What the auditor is told: who did what to which thing, with which outcome.

    `detail` holds digests, numbers, names of things; never personal data, never a secret.
    """

    at: datetime
    principal: str
    action: str
    resource_type: str
    resource_id: str
    outcome: str  # done | denied | refused
    operation_id: str
    detail: dict[str, Any] = {}


class Auditor(Protocol):
    """Whoever writes down what was done."""

    def record(self, tx: Tx, event: Event) -> int:
        """Append within the transaction and return the entry's index."""
        ...


class Intent(msgspec.Struct, frozen=True):
    """What somebody wants to do. `detail` goes into the audit entry whatever the outcome."""

    actor: Principal
    action: Action
    resource: Resource
    operation_id: str = ""
    context: dict[str, Any] = {}
    detail: dict[str, Any] = {}


class Done(msgspec.Struct, Generic[T], frozen=True):
    """What a change returns: a JSON-able result, and detail that is known only after doing it."""

    result: T
    detail: dict[str, Any] = {}


class Door:
    """Changes go in here and nowhere else."""

    def __init__(self, database: Database, authoriser: Authoriser, auditor: Auditor, clock: Clock) -> None:
        self._database = database
        self._authoriser = authoriser
        self._auditor = auditor
        self.clock = clock

    def check(self, intent: Intent) -> Decision:
        """Authorise without changing; a denial is audited and raised."""
        decision = self._decided(intent)
        if not decision.allowed:
            self._record(
                intent, "denied", {"rules": list(decision.rules), "reason": decision.reason, "hint": decision.hint}
            )
            raise Denied(
                f"{intent.actor.name} may not {intent.action.summary} ({intent.resource.id}): {decision.reason}",
                hint=decision.hint or "ask someone whose role allows it, or a platform administrator for the role",
                code="denied_by_policy",
                details={"rules": list(decision.rules), "errors": list(decision.errors)},
            )
        return decision

    def check_within(self, intent: Intent) -> None:
        """Deny what is not known to belong to the project that a token is bound to, before anything is looked at: who may
        not see a thing is not told whether it is there. Other rules wait until all the facts are known."""
        if intent.actor.project and WITHIN in self._decided(intent).rules:
            self.check(intent)

    def allows(self, intent: Intent) -> bool:
        """Whether `check` would pass, to decide what to offer or to leave out. Nothing is recorded."""
        return self._decided(intent).allowed

    def _decided(self, intent: Intent) -> Decision:
        return self._authoriser.decide(Question(intent.actor, intent.action.name, intent.resource, intent.context))

    def read(self, intent: Intent) -> None:
        """Authorise and audit the reading of something sensitive, before it is read."""
        self._record(intent, "done", _under(self.check(intent)))

    def refuse(self, intent: Intent, error: FalajError) -> None:
        """Audit that something was refused before it came to a change, with the reason."""
        self._record(intent, "refused", {"code": error.code, "reason": error.message[:1000], "hint": error.hint[:500]})

    def change(self, intent: Intent, do: Callable[[Tx], Done[T]]) -> T:
        """Authorise, do, audit and commit. `do` works on the transaction it is given.

        The result must survive JSON: it is stored, and a repeated operation gets the stored one.
        Raises `Denied` by policy; whatever `FalajError` `do` raises is audited as refused.
        """
        intent = (
            intent
            if intent.operation_id
            else msgspec.structs.replace(intent, operation_id=new_id("op", self.clock.now()))
        )
        under = _under(self.check(intent))

        def work(tx: Tx) -> Any:
            earlier = _earlier.execute(tx, [{"operation": intent.operation_id}]).first()
            if earlier is not None:
                return _same(earlier, intent)
            done = do(tx)
            text = canonical_json(done.result).decode()
            operation = {
                "operation_id": intent.operation_id,
                "action": intent.action.name,
                "principal": intent.actor.name,
                "result": text,
                "at": iso(self.clock.now()),
            }
            _remember.execute(tx, [operation])
            self._auditor.record(tx, self._event(intent, "done", {**done.detail, **under}))
            return msgspec.json.decode(text)  # what a repeated operation would get

        try:
            return self._database.change(work)  # type: ignore[no-any-return]
        except FalajError as e:
            self.refuse(intent, e)
            raise

    def result(self, operation_id: str) -> Any | None:
        """What an operation returned, if it was done; None otherwise."""
        found = self._database.read(lambda tx: _earlier.execute(tx, [{"operation": operation_id}]).first())
        return None if found is None else msgspec.json.decode(found.result)

    def _record(self, intent: Intent, outcome: str, detail: dict[str, Any]) -> None:
        self._database.change(lambda tx: self._auditor.record(tx, self._event(intent, outcome, detail)))

    def _event(self, intent: Intent, outcome: str, detail: dict[str, Any]) -> Event:
        context = {k: v for k, v in intent.context.items() if k == "on_behalf_of"}
        return Event(
            at=self.clock.now(),
            principal=intent.actor.name,
            action=intent.action.name,
            resource_type=intent.resource.type,
            resource_id=intent.resource.id,
            outcome=outcome,
            operation_id=intent.operation_id,
            detail={**context, **intent.detail, **detail},
        )


def _under(decision: Decision) -> dict[str, Any]:
    """What the entry of something says that only break-glass allowed."""
    return {"break_glass": decision.under} if decision.under else {}


def _same(earlier: Any, intent: Intent) -> Any:
    if (earlier.action, earlier.principal) != (intent.action.name, intent.actor.name):
        raise Conflict(
            f"operation {intent.operation_id} was already used for {earlier.action} by {earlier.principal}",
            hint="use a fresh operation id for a different change",
            code="operation_reused",
        )
    return msgspec.json.decode(earlier.result)
