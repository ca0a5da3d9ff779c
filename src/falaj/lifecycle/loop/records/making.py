"""What one decision was about, made into its record."""

from __future__ import annotations

import msgspec

from falaj.governance.changes.records import Affected, Authority, ChangeRecord, Review, change_id
from falaj.kernel.environments import PRODUCTION
from falaj.lifecycle.loop.records.trail import Noted, steps


class Word(msgspec.Struct, frozen=True):
    """What one decision was about, as far as it differs from another's. `more` are entries that belong to it."""

    type: str
    kind: str
    title: str
    reason: str
    affected: tuple[Affected, ...]
    back_out: str
    authority: tuple[Authority, ...] = ()
    environments: tuple[str, ...] = (PRODUCTION,)
    state: str = "done"
    back_out_to: str = ""
    more: tuple[Noted, ...] = ()
    risk: str = ""
    model: str = ""
    initiator: str = ""


def made(note: Noted, found: Word, roles: tuple[str, ...] = ()) -> ChangeRecord:
    """The record; where nobody else let it be made, on the authority of whoever did it, with the roles held then."""
    entry, notes = note.entry, [note, *found.more]
    own = Authority(entry.principal, roles, "decided it", entry.at, found.reason)
    return ChangeRecord(
        id=change_id(note.index),
        type=found.type,
        kind=found.kind,
        title=found.title,
        state=found.state,
        model=found.model,
        initiator=found.initiator or entry.principal,
        reason=found.reason,
        affected=found.affected,
        environments=found.environments,
        risk=found.risk,
        back_out=found.back_out,
        back_out_to=found.back_out_to,
        authority=found.authority or (own,),
        requested_at=min(n.entry.at for n in notes),
        started_at=entry.at,
        finished_at="" if found.state == "under way" else max(n.entry.at for n in notes),
        history=steps(notes),
        review=Review("open"),
    )
