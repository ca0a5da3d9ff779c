"""Records of keys that were replaced or revoked, of break-glass, and of quarantine."""

from __future__ import annotations

from falaj.governance.changes.glass import Glass
from falaj.governance.changes.holds import VERSION, Hold
from falaj.governance.changes.records import Affected, Authority
from falaj.governance.signing.trust import NEVER
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.errors import NotFound
from falaj.lifecycle.loop.records.access import roles_before
from falaj.lifecycle.loop.records.facts import HomeFacts
from falaj.lifecycle.loop.records.making import Word
from falaj.lifecycle.loop.records.trail import Noted, Trail

ROTATED, REVOKED = "keys.rotate", "keys.revoke"
ASKED, OPENED, CLOSED, ENDED = "changes.propose_glass", "changes.open_glass", "changes.close_glass", "changes.end_glass"
HELD, LIFTED = "changes.quarantine", "changes.lift_quarantine"
_KEK = "kek"
_SIGNED_ALONE = ("dev", "staging", "production")


def key_ended(note: Noted, _trail: Trail, _facts: HomeFacts) -> Word:
    """A key was replaced, or revoked."""
    entry, detail = note.entry, note.entry.detail
    name, revoked = entry.resource_id, entry.action == REVOKED
    old, new, until = (str(detail.get(k) or "") for k in ("old", "new", "until"))
    since = "nothing that it ever signed counts" if until == NEVER else f"what it signed before {until} counts on"
    after = "wraps nothing any more" if name == _KEK else since
    takes = "wraps the keys of the stores" if name == _KEK else "signs from now on"
    successor = (Affected(f"key {name}", new, takes),) if new else ()
    return Word(
        type="key",
        kind="emergency" if revoked else "normal",
        title=f"the key {name} is {'revoked: ' + since if revoked else 'replaced'}",
        reason=str(detail.get("reason") or ""),
        affected=(Affected(f"key {name}", old, after), *successor),
        back_out="none: what counts no more has to be signed again by the key that signs now"
        if revoked
        else f"falaj keys rotate {name} --reason '…' (the old key does not come back)",
        environments=(name,) if name in _SIGNED_ALONE else ENVIRONMENTS,
        risk="whoever holds the old key can sign in this home's name until everybody knows"
        if revoked
        else "signatures of before count on; whoever pins the key has to learn the new one"
        if name != _KEK
        else "a backup of the keys from before does not open what is written from now on",
    )


def opened(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """Somebody was allowed more for some hours."""
    glass = facts.glass(note.entry.resource_id)
    about = [n for n in trail.entries if n.entry.resource_id == glass.id]
    over = [n for n in about if n.entry.action in (CLOSED, ENDED)]
    asked = next((n for n in about if n.entry.action == ASKED), note)
    done = facts.during(note, glass.proposed_by, glass.id)
    return Word(
        type="break-glass",
        kind="emergency",
        title=f"break-glass: {glass.proposed_by} may {', '.join(glass.actions)} for {glass.minutes / 60:g} h",
        reason=glass.reason,
        affected=tuple(
            Affected(a, "", f"is allowed to {glass.proposed_by} until {glass.until}") for a in glass.actions
        ),
        back_out=f"falaj break-glass close {glass.id}" if not over else "",
        authority=_both(glass, asked, note, trail),
        environments=ENVIRONMENTS,
        state="done" if over else "under way",
        more=(asked, *done, *over),
        risk=f"beyond the roles: {len(done)} {'thing was' if len(done) == 1 else 'things were'} done by it",
        initiator=glass.proposed_by,
    )


def held(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """A version or a dataset was put into quarantine."""
    hold = facts.hold(note.entry.resource_id)
    lifted = [n for n in trail.acts(LIFTED) if n.entry.resource_id == hold.id]
    return Word(
        type="quarantine",
        kind="emergency",
        title=f"{hold.name} is in quarantine",
        reason=hold.reason,
        affected=(Affected(hold.name, _digest(hold, facts), "may not be used"),),
        back_out="" if lifted else f"falaj quarantine lift {hold.id} --reason '…' (somebody else)",
        back_out_to="" if lifted else hold.name,
        environments=ENVIRONMENTS,
        state="backed out" if lifted else "done",
        more=tuple(lifted),
        risk="what answers from it is taken out of the traffic; nothing new is made of it",
        model=_model(hold),
    )


def lifted(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """Quarantine ended."""
    hold = facts.hold(note.entry.resource_id)
    put = [n for n in trail.acts(HELD) if n.entry.resource_id == hold.id]
    dataset = "" if hold.kind == VERSION else " --dataset"
    return Word(
        type="quarantine",
        kind="normal",
        title=f"{hold.name} is out of quarantine",
        reason=hold.lifted_reason,
        affected=(Affected(hold.name, _digest(hold, facts), "may be used again"),),
        back_out=f"falaj quarantine put {hold.name}{dataset} --reason '…'",
        environments=ENVIRONMENTS,
        more=tuple(put),
        risk=f"what was feared may be true: {hold.reason}",
        model=_model(hold),
    )


def _both(glass: Glass, asked: Noted, note: Noted, trail: Trail) -> tuple[Authority, ...]:
    return tuple(
        Authority(who, roles_before(trail, who, n.index), what, n.entry.at, reason)
        for who, what, n, reason in (
            (glass.proposed_by, "asked for it", asked, glass.reason),
            (glass.opened_by, "allowed it", note, glass.opened_reason),
        )
    )


def _digest(hold: Hold, facts: HomeFacts) -> str:
    try:
        return facts.digest(hold.name) if hold.kind == VERSION else ""
    except NotFound:
        return ""


def _model(hold: Hold) -> str:
    return hold.name.partition("@")[0] if hold.kind == VERSION else ""
