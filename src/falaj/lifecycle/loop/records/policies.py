"""Records of another policy of the home."""

from __future__ import annotations

from falaj.governance.changes.records import Affected
from falaj.governance.policy.model import PolicyVersion, Shift, compare
from falaj.governance.policy.statements import statements
from falaj.kernel.digests import sha256
from falaj.kernel.environments import ENVIRONMENTS
from falaj.lifecycle.loop.records.facts import HomeFacts
from falaj.lifecycle.loop.records.making import Word
from falaj.lifecycle.loop.records.trail import Noted, Trail

APPLIED = "policy.apply"
_NAMED = 6  # decisions that a record spells out


def applied(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """A version took the place of the one before it."""
    detail = note.entry.detail
    number = int(detail["version"])
    new, old = facts.policy(number), facts.policy(number - 1)
    known = _is(new, detail["digest"]) and _is(old, detail["before"])
    rules = _rules(old, new) if known else ()
    taken_back = [n for n in trail.acts(APPLIED) if n.index > note.index and n.entry.detail["digest"] == old.digest][:1]
    return Word(
        type="policy",
        kind="normal",
        title=f"version {number} of the policy holds: {_counted(rules) if known else 'what it changed is not known'}",
        reason=new.reason,
        affected=(
            Affected(f"policy {number}", detail["digest"], "holds from now on"),
            Affected(f"policy {number - 1}", detail["before"], "gives way"),
            *rules,
        ),
        back_out=f"falaj policy apply --version {number - 1} --reason '…'",
        back_out_to=f"policy {number - 1}" if known else "",
        environments=ENVIRONMENTS,
        state="backed out" if taken_back else "done",
        more=tuple(taken_back),
        risk=_risk(facts.shifts(old.text, new.text))
        if known
        else "not known: the texts are not those that were applied",
    )


def _is(version: PolicyVersion, digest: str) -> bool:
    """Whether its text is the one that the log names: number 0 is another one in another release."""
    return sha256(version.text.encode()) == digest


def _rules(old: PolicyVersion, new: PolicyVersion) -> tuple[Affected, ...]:
    added, removed, changed = compare(statements(old.text), statements(new.text))
    parts = (("is added", added), ("is removed", removed), ("is changed", changed))
    return tuple(Affected(f"rule {name}", "", part) for part, names in parts for name in names)


def _counted(rules: tuple[Affected, ...]) -> str:
    parts = [r.part.removeprefix("is ") for r in rules]
    counts = [f"{parts.count(p)} {p}" for p in ("added", "removed", "changed") if p in parts]
    return f"rules {', '.join(counts)}" if counts else "no rule is another one"


def _risk(shifts: tuple[Shift, ...]) -> str:
    """What single roles may do that they could not, and no longer may, by the actions that there are now."""
    more, less = ([s for s in shifts if s.after is after] for after in (True, False))
    if not shifts:
        return "no role alone may do more or less"
    return "; ".join(f"permits {verb}: {_spelled(found)}" for verb, found in (("more", more), ("less", less)) if found)


def _spelled(shifts: list[Shift]) -> str:
    told = [f"{s.action} for {s.role}" + (f" ({s.environment})" if s.environment else "") for s in shifts]
    return ", ".join(told[:_NAMED]) + (f" and {len(told) - _NAMED} more" if told[_NAMED:] else "")
