"""Records of versions that were carried on: staged, given traffic, or given it back. Each begins with an admission."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from falaj.governance.changes.model import Approval
from falaj.governance.changes.records import Affected, Authority, ChangeRecord, Review, change_id
from falaj.kernel.environments import PRODUCTION
from falaj.kernel.errors import NotFound
from falaj.lifecycle.loop.records.trail import Noted, Trail, steps
from falaj.lifecycle.registry.model import Admission, ModelVersion
from falaj.lifecycle.rollout.strategy import Rollout

ADMITTED, MOVED, PLANNED = "registry.admit_approved", "registry.move", "rollout.set_plan"
STARTED, STEERED = "rollout.start", "rollout.steer"


class Facts(msgspec.Struct, frozen=True):
    """What a record of a release asks of the tables. `version`, `rollout` raise `NotFound`."""

    version: Callable[[str], ModelVersion]
    rollout: Callable[[str], Rollout]
    admissions: Callable[[str], list[tuple[Admission, str]]]
    approvals: Callable[[str], list[Approval]]
    tier: Callable[[str], str]


class Order(msgspec.Struct, frozen=True):
    """Who set a release going, why and when; `back` when it gives the traffic back."""

    by: str
    reason: str
    at: str
    back: bool = False


def anchors(trail: Trail) -> list[Noted]:
    """The first admission, or refusal of one, of each flow that carried a version on."""
    found: dict[str, Noted] = {}
    for note in trail.entries:
        entry = note.entry
        carried = entry.action == ADMITTED and entry.outcome in ("done", "refused")
        if carried and note.flow and entry.detail.get("environment") in ("staging", PRODUCTION):
            found.setdefault(f"{note.flow}:{entry.detail['environment']}", note)
    return list(found.values())


def release(note: Noted, trail: Trail, facts: Facts) -> ChangeRecord:
    """The record of the flow that an admission belongs to."""
    entry, flow = note.entry, note.flow
    version = facts.version(entry.detail["digest"])
    notes = [note, *trail.of_flow(flow)]
    environment = entry.detail["environment"]
    rollout = _rollout(flow, facts) if environment == PRODUCTION else None
    order = _order(note, trail, facts, version)
    plans = [n for n in notes if n.entry.action == PLANNED and n.entry.outcome == "done"]
    replaced = _replaced(note, trail, rollout, facts) if environment == PRODUCTION else None
    state = _state(notes, rollout, environment)
    approvals = _authority(note, facts, version)
    given = [n for n in trail.entries if n.entry.detail.get("approval") in {a.id for a in approvals}]
    back_out, back_to = _back_out(version, replaced, state, environment, order)
    return ChangeRecord(
        id=change_id(note.index),
        type="rollback" if order.back else "promotion",
        kind="emergency" if order.back else "standard" if environment != PRODUCTION else "normal",
        title=f"{version.alias} {'gets the traffic back' if order.back else 'goes to'} {environment if not order.back else ''}".strip(),
        state=state,
        model=version.model,
        initiator=order.by,
        reason=order.reason,
        affected=_affected(version, replaced, environment),
        environments=(environment,),
        risk=f"{entry.detail.get('tier') or facts.tier(version.model)} risk",
        back_out=back_out,
        back_out_to=back_to,
        authority=tuple(Authority(a.principal, a.roles, "approved it", a.at, a.reason) for a in approvals),
        requested_at=order.at,
        started_at=plans[0].entry.at if plans else entry.at,
        finished_at="" if state == "under way" else max(n.entry.at for n in notes),
        history=steps([*notes, *given]),
        review=_review(rollout, state),
    )


def _rollout(flow: str, facts: Facts) -> Rollout | None:
    try:
        return facts.rollout(flow) if flow.startswith("rol_") else None
    except NotFound:
        return None


def _order(note: Noted, trail: Trail, facts: Facts, version: ModelVersion) -> Order:
    """Who wanted it: whoever ordered it by name, else whose approval started it, else in whose name it was planned."""
    flow = note.flow
    for n in trail.entries:
        detail = n.entry.detail
        named = detail.get("flow") == flow or (n.entry.action == STARTED and detail.get("rollout") == flow)
        if named and n.entry.action in (STARTED, STEERED) and n.entry.outcome == "done":
            back = n.entry.action == STEERED
            approved = _started_it(flow, facts, version)
            reason = str(detail.get("reason") or (approved.reason if approved else ""))
            return Order(n.entry.principal, reason, approved.at if approved else n.entry.at, back)
    approved = _started_it(flow, facts, version)
    if approved is not None:
        return Order(approved.principal, approved.reason, approved.at)
    acting = [n.entry.detail.get("on_behalf_of") for n in trail.of_flow(flow) if n.entry.detail.get("on_behalf_of")]
    return Order(str(acting[0]) if acting else note.entry.principal, "", note.entry.at)


def _started_it(flow: str, facts: Facts, version: ModelVersion) -> Approval | None:
    suffix = flow.partition("_")[2]
    return next((a for a in facts.approvals(version.digest) if a.id.partition("_")[2] == suffix), None)


def _replaced(note: Noted, trail: Trail, rollout: Rollout | None, facts: Facts) -> ModelVersion | None:
    """The version that had the traffic before, None where none had."""
    digest = rollout.stable if rollout else ""
    for n in trail.before(note.index, PLANNED) if not digest else ():
        if n.entry.detail.get("environment") == PRODUCTION:
            routes = n.entry.detail.get("routes") or ()
            answering = [r for r in routes if r["role"] != "shadow"]
            digest = max(answering, key=lambda r: (r["role"] == "stable", r["weight"]))["digest"] if answering else ""
            break
    try:
        found = facts.version(digest) if digest else None
    except NotFound:
        return None
    return found if found and found.digest != note.entry.detail["digest"] else None


def _state(notes: list[Noted], rollout: Rollout | None, environment: str) -> str:
    if rollout is not None:
        return {"promoted": "done", "aborted": "backed out"}.get(rollout.stage, "under way")
    if any(n.entry.outcome == "refused" for n in notes) or any(
        n.entry.action == MOVED and n.entry.detail.get("to") == "refused" for n in notes
    ):
        return "refused"
    if environment != PRODUCTION:
        return "done" if any(n.entry.action == "registry.rehearse" for n in notes) else "under way"
    return "done" if any(n.entry.detail.get("to") == "serving" for n in notes) else "under way"


def _affected(version: ModelVersion, replaced: ModelVersion | None, environment: str) -> tuple[Affected, ...]:
    part = "takes the traffic" if environment == PRODUCTION else "is rehearsed"
    found = (Affected(version.alias, version.digest, part),)
    return (*found, Affected(replaced.alias, replaced.digest, "gives it up")) if replaced else found


def _back_out(
    version: ModelVersion, replaced: ModelVersion | None, state: str, environment: str, order: Order
) -> tuple[str, str]:
    """The command that takes it back, and the version that answers then."""
    if environment != PRODUCTION:
        return f"falaj reject {version.alias} --reason '…'", ""
    if replaced is None:
        return f"falaj kill {version.model} --reason '…'", ""
    if state == "under way":
        return f"falaj rollout abort {version.model}", replaced.alias
    if order.back:
        return f"falaj rollout start {replaced.alias} --at-once --reason '…'", replaced.alias
    return f"falaj rollback {version.model} --reason '…'", replaced.alias


def _authority(note: Noted, facts: Facts, version: ModelVersion) -> list[Approval]:
    """The approvals that the admission names; of a refused one, those that there were."""
    given = [a for a in facts.approvals(version.digest) if a.decision == "approved"]
    filed = {envelope: admission for admission, envelope in facts.admissions(version.digest)}
    admission = filed.get(str(note.entry.detail.get("envelope", "")))
    if admission is not None:
        return [a for a in given if a.id in admission.approvals]
    environment = note.entry.detail["environment"]
    return [a for a in given if a.environment == environment and a.at <= note.entry.at]


def _review(rollout: Rollout | None, state: str) -> Review:
    """How a rollout ended says what a review would; a release at once is for a person to review."""
    if rollout is None or not rollout.ended:
        return Review("open")
    outcome = "successful" if state == "done" else "failed"
    return Review("filled", outcome, rollout.reason or rollout.stage, "", rollout.updated_at)
