"""Records of what people decided about a model: kills, revivals, waivers, approvals taken back, tiers, retirements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from falaj.governance.changes.inventory import Fact, Kill
from falaj.governance.changes.model import Approval
from falaj.governance.changes.records import Affected, Authority, ChangeRecord
from falaj.kernel.environments import PRODUCTION
from falaj.lifecycle.loop.records.making import Word, made
from falaj.lifecycle.loop.records.releases import PLANNED
from falaj.lifecycle.loop.records.trail import Noted, Trail
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.waiver import Waiver

KILLED, REVIVED, RETIRED, SET = "changes.kill", "changes.revive", "changes.retire", "changes.set_inventory"
REVOKED = ("changes.revoke_approval", "changes.withdraw_approval")
WAIVED, UNWAIVED = "registry.sign_waiver", "registry.revoke_waiver"
ACTIONS = (KILLED, REVIVED, RETIRED, SET, *REVOKED, WAIVED, UNWAIVED)


class Facts(msgspec.Struct, frozen=True):
    """What these records ask of the tables."""

    version: Callable[[str], ModelVersion]
    kills: Callable[[str], list[Kill]]
    said: Callable[[str], list[Fact]]
    waivers: Callable[[str], list[Waiver]]
    approvals: Callable[[str], list[Approval]]
    tier: Callable[[str], str]


def anchors(trail: Trail) -> list[Noted]:
    """The entries that began such a change; a fact of the inventory that is neither tier nor use is none."""
    return [n for n in trail.entries if n.entry.outcome == "done" and n.entry.action in ACTIONS and _weighs(n)]


def word(note: Noted, trail: Trail, facts: Facts) -> ChangeRecord:
    """The record of one decision."""
    found = _MAKERS[note.entry.action](note, trail, facts)
    risk = found.risk or f"{facts.tier(trail.model)} risk"
    return made(note, msgspec.structs.replace(found, model=trail.model, risk=risk))


def _weighs(note: Noted) -> bool:
    """A new tier or a new use changes what is asked of the model; who owns it does not."""
    detail = note.entry.detail
    if note.entry.action == SET:
        return "tier" in detail or "regulated" in detail
    return note.entry.action != WAIVED or bool(detail.get("in_force"))


def _kill(note: Noted, trail: Trail, facts: Facts) -> Word:
    kill = next(k for k in facts.kills(trail.model) if k.id == note.entry.detail["kill"])
    after = [n for n in trail.entries if n.entry.detail.get("kill") == kill.id and n.index != note.index]
    answers = kill.fallback.words
    return Word(
        type="kill",
        kind="emergency",
        title=f"{trail.model} is killed: {answers} in its place",
        reason=kill.reason,
        affected=_serving(note, trail, facts, "is killed"),
        back_out=f"falaj revive {trail.model} --reason '…' (two people)",
        state="backed out" if kill.revived_at else "done",
        more=tuple(after),
    )


def _revival(note: Noted, trail: Trail, facts: Facts) -> Word:
    kill = next(k for k in facts.kills(trail.model) if k.id == note.entry.detail["kill"])
    before = [n for n in trail.entries if n.entry.detail.get("kill") == kill.id and n.index < note.index]
    return Word(
        type="revival",
        kind="normal",
        title=f"{trail.model} is revived",
        reason=kill.revived_reason,
        affected=_serving(note, trail, facts, "answers again"),
        back_out=f"falaj kill {trail.model} --reason '…'",
        authority=(
            Authority(kill.proposed_by, (), "proposed it", kill.proposed_at, kill.proposed_reason),
            Authority(kill.revived_by, (), "agreed", kill.revived_at, kill.revived_reason),
        ),
        more=tuple(n for n in before if n.entry.action != KILLED),
    )


def _retirement(note: Noted, trail: Trail, facts: Facts) -> Word:
    retired = bool(note.entry.detail.get("retired"))
    said = _said(note, facts, trail.model, "retired")
    verb = "retired" if retired else "reinstated"
    return Word(
        type="retirement",
        kind="normal",
        title=f"{trail.model} is {verb}",
        reason=said,
        affected=_serving(note, trail, facts, "takes no traffic any more") if retired else (),
        back_out=f"falaj inventory set {trail.model} {'--reinstate' if retired else '--retire'} --reason '…'",
        environments=("dev", "staging", PRODUCTION),
    )


def _inventory(note: Noted, trail: Trail, facts: Facts) -> Word:
    detail: dict[str, Any] = note.entry.detail
    before, tier = detail.get("tier_before", ""), detail.get("tier")
    parts = [f"its tier is {tier}, it was {before}"] if tier else []
    if "regulated" in detail:
        parts.append("its use is regulated" if detail["regulated"] else "its use is not regulated")
    undo = f"--tier {before}" if tier else "--not-regulated" if detail["regulated"] else "--regulated"
    return Word(
        type="inventory",
        kind="normal",
        title=f"{trail.model}: {', '.join(parts)}",
        reason=_said(note, facts, trail.model, "tier" if tier else "regulated"),
        affected=(),
        back_out=f"falaj inventory set {trail.model} {undo} --reason '…'",
        risk=f"{before} risk before, {tier or before} risk after",
    )


def _revocation(note: Noted, trail: Trail, facts: Facts) -> Word:
    detail = note.entry.detail
    version = facts.version(detail["digest"])
    found = next(a for a in facts.approvals(version.digest) if a.id == detail["approval"])
    moved = [
        n
        for n in trail.entries
        if n.index > note.index and n.entry.action == "registry.move" and n.entry.detail.get("digest") == version.digest
    ][:1]
    return Word(
        type="approval revoked",
        kind="emergency" if moved else "normal",
        title=f"the approval of {version.alias} by {found.principal} is revoked",
        reason=found.revoked.reason if found.revoked else "",
        affected=(Affected(version.alias, version.digest, "may lose its traffic"),),
        back_out=f"falaj approve {version.alias} --environment {found.environment} --reason '…'",
        back_out_to=version.alias,
        environments=(found.environment,),
        more=tuple(moved),
    )


def _waiver(note: Noted, trail: Trail, facts: Facts) -> Word:
    detail = note.entry.detail
    version = facts.version(detail["digest"])
    waiver = next(w for w in facts.waivers(version.digest) if w.content.id == detail["waiver"])
    given = note.entry.action == WAIVED
    signed = tuple(Authority(s.principal, s.roles, "signed it", s.at, s.reason) for s in waiver.content.signatures)
    reason = waiver.content.reason if given else waiver.revoked.reason if waiver.revoked else ""
    verb = "waived" if given else "no longer waived"
    about = [n for n in trail.entries if n.entry.detail.get("waiver") == waiver.content.id and n.index <= note.index]
    return Word(
        type="waiver",
        kind="normal" if given else "emergency",
        title=f"{', '.join(waiver.content.waived)} of {version.alias}: missing, {verb}",
        reason=reason,
        affected=(Affected(version.alias, version.digest, "is waived" if given else "may lose its traffic"),),
        back_out=f"falaj waiver revoke {version.alias} --reason '…'"
        if given
        else f"falaj waiver propose {version.alias} --missing '…' --reason '…' --until DATE",
        authority=signed if given else (),
        environments=("staging", PRODUCTION),
        state="backed out" if given and waiver.revoked else "done",
        more=tuple(n for n in about if n.index != note.index) if given else (),
    )


_MAKERS: dict[str, Callable[[Noted, Trail, Facts], Word]] = {
    KILLED: _kill,
    REVIVED: _revival,
    RETIRED: _retirement,
    SET: _inventory,
    WAIVED: _waiver,
    UNWAIVED: _waiver,
    **dict.fromkeys(REVOKED, _revocation),
}


def _serving(note: Noted, trail: Trail, facts: Facts, part: str) -> tuple[Affected, ...]:
    """The versions that had traffic in production when the decision was made."""
    for n in trail.before(note.index, PLANNED):
        if n.entry.detail.get("environment") == PRODUCTION:
            found = (facts.version(r["digest"]) for r in n.entry.detail.get("routes") or ())
            return tuple(Affected(v.alias, v.digest, part) for v in found)
    return ()


def _said(note: Noted, facts: Facts, model: str, fact: str) -> str:
    """The reason that was given with a fact: of those that were said, the last one up to this entry."""
    said = [f for f in facts.said(model) if f.fact == fact and f.at <= note.entry.at and f.by == note.entry.principal]
    return said[-1].reason if said else ""
