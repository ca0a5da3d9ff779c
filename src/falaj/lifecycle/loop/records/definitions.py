"""Records of another definition of a project."""

from __future__ import annotations

from typing import Any

from falaj.governance.changes.records import Affected
from falaj.kernel.environments import ENVIRONMENTS
from falaj.lifecycle.loop.model import Change, ProjectDefinition, changes
from falaj.lifecycle.loop.records.facts import HomeFacts
from falaj.lifecycle.loop.records.making import Word
from falaj.lifecycle.loop.records.trail import Noted, Trail

APPLIED = "loop.apply"


def applied(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """A definition took the place of the one before it."""
    detail, acts = note.entry.detail, trail.acts(APPLIED)
    number = [n.index for n in acts].index(note.index) + 1  # they are counted from 1, and each has its entry
    before = acts[number - 2 : number - 1] if number > 1 else []
    held = str(before[0].entry.detail["definition"]) if before else ""
    new = facts.definition(number, str(detail["definition"]))
    old = facts.definition(number - 1, held) if before else None
    found = changes(old, new) if new is not None and (old is not None or not before) else None
    back = [n for n in acts[number:] if _leads_back(n, note, held)][:1]
    return Word(
        type="definition",
        kind="normal",
        title=f"definition {number} of {note.entry.resource_id} holds: {_counted(detail)}",
        reason=str(detail.get("reason") or ""),
        affected=(
            Affected(f"definition {number}", str(detail["definition"]), "holds from now on"),
            *([Affected(f"definition {number - 1}", held, "gives way")] if before else []),
            *(Affected(f"{c.kind} {c.name}", "", _part(c)) for c in found or ()),
        ),
        back_out=f"falaj apply --number {number - 1} --reason '…'" if before else "",
        back_out_to=f"definition {number - 1}" if old is not None else "",
        environments=ENVIRONMENTS,
        state="backed out" if back else "done",
        more=tuple(back),
        risk="not known: the database has another one than the log names"
        if found is None or new is None
        else _risk(found, new, facts),
    )


def _leads_back(later: Noted, note: Noted, held: str) -> bool:
    """Whether what held before this one was made to hold again: by name, or by applying the project as it was."""
    detail, same = later.entry.detail, later.entry.resource_id == note.entry.resource_id
    return bool(held) and (detail.get("again") == held or (same and detail["definition"] == held))


def _counted(detail: dict[str, Any]) -> str:
    """What the log says of it: how much was added, changed, removed."""
    told = [f"{detail[part]} {part}" for part in ("added", "changed", "removed") if detail.get(part)]
    return ", ".join(told) or "all as before"


def _part(change: Change) -> str:
    return f"is {change.change}" + (f": {', '.join(change.fields)}" if change.fields else "")


def _risk(found: tuple[Change, ...], new: ProjectDefinition, facts: HomeFacts) -> str:
    """Which models are trained, gated or watched otherwise from now on, each with its tier. What serves is not touched."""
    named = {(c.kind, c.name) for c in found}
    concerned = [
        m.name
        for m in new.models
        if ("model", m.name) in named
        or ("source", m.spine) in named
        or any(("view", v.name) in named for v in m.views)
        or any(("source", v.source) in named for v in new.views if v.name in {u.name for u in m.views})
    ]
    gone = [c.name for c in found if (c.kind, c.change) == ("model", "removed")]
    told = [f"{name} ({facts.tier(name)} risk) is trained, judged or watched otherwise" for name in concerned]
    told += [f"{name} ({facts.tier(name)} risk) is trained and watched no more" for name in gone]
    return "; ".join([*told, "what serves goes on"]) if told else "no model is concerned"
