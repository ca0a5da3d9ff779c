"""The audit log as the console shows it: entries, refusals, the newest checkpoint, verification."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from time import perf_counter
from types import MappingProxyType

import msgspec

from falaj.entrypoints.console.rides import Move
from falaj.entrypoints.console.views import (
    AuditEntry,
    AuditPage,
    AuditQuery,
    Check,
    Checkpoint,
    Refusal,
    VerifyReport,
)
from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import AUDIT_READ, Conditions, Found, Report, encode
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.service import AuditService
from falaj.governance.door import Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.lifecycle.rollout.strategy import ROLLOUT_STEP

LOG = Resource("AuditLog", "*")
OPEN_TYPES = ("Dataset", "FeatureView", "Model", "ModelVersion", "Project")
"""What anyone who may look at the console also sees by other means: refusals of these are shown to everyone.

Refusals of anything else, and all denials, are shown to those who may read the audit log.
"""
_LOOKED_THROUGH = 200
_ASK = "ask someone whose role allows it, or a platform administrator for the role"


class LogBook:
    """Reads the log for the pages."""

    def __init__(self, audit: AuditService, publisher: Publisher, door: Door) -> None:
        self._audit = audit
        self._publisher = publisher
        self._door = door

    def page(self, viewer: Principal, query: AuditQuery) -> AuditPage:
        """Entries of the log; that they were read stands in the log, with what was looked for."""
        conditions = Conditions(
            principal=query.principal or None,
            action=query.action or None,
            resource_id=query.subject or None,
            outcome=query.outcome or None,
            limit=query.limit + 1,
            before_index=query.before or None,
        )
        asked = {k: v for k, v in msgspec.to_builtins(conditions).items() if v is not None}
        self._door.read(Intent(viewer, AUDIT_READ, LOG, detail={"conditions": asked}))
        found = self._audit.search(conditions)
        shown = found[: query.limit]
        return AuditPage(
            query=query,
            entries=tuple(_entry(f) for f in shown),
            size=self._audit.size(),
            older=shown[-1].index if len(found) > len(shown) else 0,
            checkpoint=self.checkpoint(),
        )

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that this process signed or read."""
        newest = self._publisher.newest
        return Checkpoint(self._publisher.origin, newest.size, newest.root, newest.at) if newest else None

    def verify(self) -> VerifyReport:
        """Check the published folder and the database against the signed checkpoint."""
        started = perf_counter()
        found = self._audit.verify()
        named = {*found.folder.problems, *found.database.problems}
        checks = [
            *_checks("published log", "its entries and tiles give the root that the checkpoint signs", found.folder),
            *_checks("database", "every row gives the leaf that is published under the checkpoint", found.database),
            *(Check("checkpoint", False, problem) for problem in found.problems if problem not in named),
        ]
        if found.unsigned:
            checks.append(Check("newest entries", True, f"{found.unsigned} are not under a checkpoint yet"))
        hint = "stop the home and keep a copy of it; `falaj audit verify` names what differs; compare with a backup"
        return VerifyReport(
            passed=found.ok,
            size=found.size,
            root=found.root,
            checks=tuple(checks),
            at=iso(self._door.clock.now()),
            seconds=perf_counter() - started,
            hint="" if found.ok else hint,
        )

    def refusals(self, viewer: Principal, limit: int, models: frozenset[str]) -> tuple[Refusal, ...]:
        """The newest refusals and denials that `viewer` may see. `models` are those that have a page."""
        found = self._refused(viewer, (), limit)
        return tuple(refusal(f, models) for f in found[:limit])

    def refusals_of(self, viewer: Principal, model: str, limit: int) -> tuple[Refusal, ...]:
        """The newest refusals of one model and its versions."""
        found = self._refused(viewer, ("Model", "ModelVersion"), _LOOKED_THROUGH)
        about = [f for f in found if f.entry.resource_id.partition("@")[0] == model]
        return tuple(refusal(f, frozenset((model,))) for f in about[:limit])

    def hint_of(self, alias: str) -> str:
        """What to do next about a version that was refused, as the log has it."""
        conditions = Conditions(resource_type="ModelVersion", resource_id=alias, outcome="refused", limit=1)
        return next((str(f.entry.detail.get("hint", "")) for f in self._audit.search(conditions)), "")

    def last_change(self, model: str, names: Iterable[str]) -> tuple[str, str]:
        """What happened last to a model or to versions of these names, in words, and when."""
        looked = [Conditions(resource_type="Model", resource_id=model, outcome="done", limit=1)]
        looked += (Conditions(resource_type="ModelVersion", resource_id=n, outcome="done", limit=1) for n in names)
        found = [f for conditions in looked for f in self._audit.search(conditions)]
        if not found:
            return "", ""
        newest = max(found, key=lambda f: f.index).entry
        return in_words(newest.action, newest.resource_id, newest.detail), newest.at

    def moves(self, model: str, rollout: str) -> list[Move]:
        """What the log has about a rollout's steps, oldest first. It tells no more than the rollout's page is to show."""
        conditions = Conditions(
            resource_type="Model", resource_id=model, action=ROLLOUT_STEP.name, outcome="done", limit=1000
        )
        found = [f.entry for f in self._audit.search(conditions) if f.entry.detail.get("rollout") == rollout]
        return [Move(e.at, e.detail) for e in reversed(found)]

    def _refused(self, viewer: Principal, types: tuple[str, ...], limit: int) -> list[Found]:
        """Of things of these types, or of any that `viewer` may see; newest first. Reading these few is not audited one by one; reading the log itself is."""
        everything = self._door.allows(Intent(viewer, AUDIT_READ, LOG))
        outcomes = ("refused", "denied") if everything else ("refused",)
        looked = types or (("",) if everything else OPEN_TYPES)
        found = [
            f
            for outcome in outcomes
            for kind in looked
            for f in self._audit.search(Conditions(outcome=outcome, resource_type=kind or None, limit=limit))
        ]
        return sorted(found, key=lambda f: f.index, reverse=True)


def refusal(found: Found, models: frozenset[str]) -> Refusal:
    """An entry with the outcome refused or denied, as people read it."""
    entry, detail = found.entry, found.entry.detail
    named = entry.resource_type in ("Model", "ModelVersion")
    model, _, reference = entry.resource_id.partition("@") if named else ("", "", "")
    subject = entry.resource_id if entry.resource_id != "*" else ""
    if entry.resource_type not in ("Dataset", "Model", "ModelVersion"):
        subject = f"{entry.resource_type} {subject}".strip()
    denied = entry.outcome == "denied"
    return Refusal(
        at=entry.at,
        subject=subject or entry.resource_type,
        reason=str(detail.get("reason", "")) or entry.outcome,
        hint=str(detail.get("hint", "")) or (_ASK if denied else ""),
        code=str(detail.get("code", "")) or ("denied_by_policy" if denied else ""),
        action=entry.action,
        principal=str(detail.get("on_behalf_of", "")) or entry.principal,
        model=model if model in models else "",
        reference=reference if model in models else "",
    )


def _entry(found: Found) -> AuditEntry:
    entry = found.entry
    return AuditEntry(
        index=found.index,
        at=entry.at,
        principal=entry.principal,
        action=entry.action,
        resource_type=entry.resource_type,
        resource_id=entry.resource_id,
        outcome=entry.outcome,
        operation_id=entry.operation_id,
        leaf=base64.b64encode(leaf_hash(encode(entry))).decode(),
        detail=entry.detail,
    )


def _checks(name: str, whole: str, report: Report) -> list[Check]:
    if report.ok:
        return [Check(name, True, f"{whole} ({report.checked_bytes:,} bytes read)")]
    return [Check(name, False, problem) for problem in report.problems or ("there is no checkpoint to check it by",)]


class _Told(dict[str, object]):
    """What words may name; what an entry does not say is left out."""

    def __missing__(self, key: str) -> str:
        return ""


IN_WORDS = MappingProxyType(
    {
        "changes.approve": "{subject} was approved",
        "changes.approve_own": "{subject} was approved by its author alone",
        "changes.kill": "{subject} was killed",
        "changes.propose_revival": "somebody proposed to revive {subject}",
        "changes.reject": "{subject} was rejected",
        "changes.retire": "it was said whether {subject} is retired",
        "changes.revive": "{subject} was revived",
        "changes.revoke_approval": "an approval of {subject} was taken back",
        "changes.set_inventory": "what the inventory says of {subject} changed",
        "changes.validate": "a validation of {subject} was written down",
        "changes.withdraw_approval": "an approval of {subject} was taken back",
        "evidence.export": "the evidence of {subject} was handed out",
        "evidence.record": "{subject} was measured",
        "loop.build": "a build of {subject} started",
        "monitoring.backtest": "{subject} was tried on recorded traffic",
        "monitoring.push_labels": "{accepted} labels of {subject} came",
        "registry.admit": "{subject} was admitted to {environment}",
        "registry.admit_approved": "{subject} was admitted to {environment}",
        "registry.move": "{subject} is {to}",
        "registry.package": "{subject} was packaged",
        "registry.promote": "{subject} was carried on to {environment}",
        "registry.propose_waiver": "somebody proposed to waive what {subject} is missing",
        "registry.register": "{version} was registered",
        "registry.rehearse": "{subject} was rehearsed in {environment}",
        "registry.revoke_waiver": "a waiver of {subject} was revoked",
        "registry.sign_waiver": "a waiver of {subject} was signed",
        "rollout.set_plan": "the traffic of {subject} was moved",
        "rollout.start": "the rollout of a challenger of {subject} started",
        "rollout.steer": "the rollout of {subject} was told: {order}",
        "rollout.step": "the rollout of {subject} is at {stage} {weight} %",
        "serving.load": "a data plane loaded {subject}",
        "serving.score": "{subject} scored a table",
        "training.finish": "training run {run} ended",
        "training.finish_import": "an import of {subject} ended",
        "training.import": "an import of {subject} began",
        "training.start": "training run {run} started",
    }
)


def in_words(action: str, subject: str, detail: dict[str, object]) -> str:
    """An entry's change, short. An action without words of its own is named as it is."""
    told = _Told({"version": subject, "order": "back", "accepted": 0, "weight": 0, **detail, "subject": subject})
    by = detail.get("on_behalf_of", "")
    return IN_WORDS.get(action, f"{action} {{subject}}").format_map(told) + (f", asked by {by}" if by else "")
