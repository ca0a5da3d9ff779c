"""Take a person's decision about a version."""

from __future__ import annotations

from typing import Any

from falaj.governance.changes.model import APPROVE, REJECT, Approval, Subject, counting
from falaj.governance.changes.ports import ApprovalStore
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import Conflict, Invalid
from falaj.kernel.ids import new_id
from falaj.storage.sql.database import Database, Tx


class ChangeService:
    """Approvals and rejections, each by somebody, about a digest and its evidence."""

    def __init__(self, database: Database, store: ApprovalStore, door: Door) -> None:
        self._database = database
        self._store = store
        self._door = door

    def decide(self, actor: Principal, subject: Subject, approve: bool, reason: str) -> Approval:
        """Record a decision. Raises `Denied` for the author, `Conflict` for a second decision by the
        same person about the same evidence and environment, `Invalid` without a reason."""
        if not reason.strip() or len(reason) > 1000:
            raise Invalid(
                "a decision needs a reason of 1 to 1000 characters", hint="say why: --reason '…'", code="no_reason"
            )
        now = self._door.clock.now()
        approval = Approval(
            id=new_id("apr", now),
            alias=subject.alias,
            digest=subject.digest,
            evidence=subject.evidence,
            principal=actor.name,
            decision="approved" if approve else "rejected",
            reason=reason.strip(),
            at=iso(now),
            roles=actor.roles,
            environment=subject.environment,
        )

        def do(tx: Tx) -> Done[dict[str, Any]]:
            for earlier in self._store.of(tx, subject.digest):
                told = (earlier.principal, earlier.evidence, earlier.environment)
                if told == (actor.name, subject.evidence, subject.environment):
                    raise Conflict(
                        f"{actor.name} already {earlier.decision} {subject.alias}",
                        hint="nothing more to do; a second pair of eyes must be another person's",
                        code="already_decided",
                    )
            self._store.add(tx, approval)
            return Done({"id": approval.id})

        author = {"__entity": {"type": "Principal", "id": subject.author}}
        resource = Resource("ModelVersion", subject.alias, {"author": author, "environment": subject.environment})
        detail = {
            "digest": subject.digest, "evidence": subject.evidence, "environment": subject.environment, "approval": approval.id,
        }  # fmt: skip
        self._door.change(Intent(actor, APPROVE if approve else REJECT, resource, detail=detail), do)
        return approval

    def of(self, digest: str) -> list[Approval]:
        """What was decided about a version, oldest first."""
        return self._database.read(lambda tx: self._store.of(tx, digest))

    def counting(self, subject: Subject) -> list[Approval]:
        """The approvals that count for this subject now."""
        return counting(self.of(subject.digest), subject)
