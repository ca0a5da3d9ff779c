"""Records of who may act: roles and tokens given and taken away."""

from __future__ import annotations

from falaj.governance.changes.records import Affected
from falaj.kernel.access import SYSTEM
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.errors import NotFound
from falaj.lifecycle.loop.records.facts import HomeFacts
from falaj.lifecycle.loop.records.making import Word
from falaj.lifecycle.loop.records.trail import Noted, Trail

GRANTED, REVOKED = "identity.grant", "identity.revoke"
SIGNED_IN, WITHDRAWN = "identity.sign_in", "identity.withdraw"
_NAMED = 6
_PROVIDER = "the groups at the identity provider say so"


def roles_before(trail: Trail, name: str, index: int) -> tuple[str, ...]:
    """The roles that somebody had when the entry `index` was written; none for a stranger."""
    for n in reversed(trail.entries):
        entry = n.entry
        if n.index < index and entry.resource_id == name and entry.action in (GRANTED, SIGNED_IN, WITHDRAWN):
            return tuple(entry.detail.get("roles") or ())
    return ()


def weighs(note: Noted, trail: Trail) -> bool:
    """Each token that somebody gives is a change; a sign-in only where it brings other roles than before."""
    entry = note.entry
    if entry.action != SIGNED_IN:
        return True
    return set(entry.detail.get("roles") or ()) != set(roles_before(trail, entry.resource_id, note.index))


def granted(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """Somebody got a token, and perhaps other roles."""
    entry, detail = note.entry, note.entry.detail
    name, token = entry.resource_id, str(detail.get("token", ""))
    before, roles = roles_before(trail, name, note.index), tuple(detail.get("roles") or ())
    others = set(before) != set(roles)
    ended = [n for n in trail.acts(REVOKED) if n.entry.resource_id == token]
    limits = [f"only {', '.join(detail['scope'])}"] if detail.get("scope") else []
    limits += [f"within {detail['project']}"] if detail.get("project") else []
    good = ", ".join([f"is good until {detail.get('expires_at', '')}", *limits])
    back = f"falaj token revoke {token}"
    if others and before:
        back = f"{_create(name, before, facts)} && {back}"
    return Word(
        type="access",
        kind="standard" if entry.principal == SYSTEM.name else "normal",
        title=_title(name, before, roles),
        reason=str(detail.get("reason") or ""),
        affected=(Affected(name, "", _part(before, roles)), Affected(f"token {token}", "", good)),
        back_out="" if ended else back,
        environments=ENVIRONMENTS,
        state="backed out" if ended and not (others and before) else "done",
        more=tuple(ended[:1]),
        risk=_risk(before, roles, facts),
    )


def signed_in(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """The identity provider's groups gave somebody other roles."""
    name, detail = note.entry.resource_id, note.entry.detail
    before, roles = roles_before(trail, name, note.index), tuple(detail.get("roles") or ())
    return Word(
        type="access",
        kind="standard",
        title=_title(name, before, roles),
        reason=_PROVIDER,
        affected=(Affected(name, "", _part(before, roles)),),
        back_out=f"other groups for {name} at {detail.get('issuer', 'the identity provider')}, and another sign-in",
        environments=ENVIRONMENTS,
        risk=_risk(before, roles, facts),
    )


def withdrawn(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """The identity provider gives somebody no role any more."""
    name = note.entry.resource_id
    before = roles_before(trail, name, note.index)
    return Word(
        type="access",
        kind="standard",
        title=f"{name} has no role any more, and no token",
        reason=_PROVIDER,
        affected=(Affected(name, "", _part(before, ())),),
        back_out=f"groups for {name} at the identity provider, and another sign-in",
        environments=ENVIRONMENTS,
        risk=_risk(before, (), facts),
    )


def revoked(note: Noted, trail: Trail, facts: HomeFacts) -> Word:
    """A token was revoked."""
    token = note.entry.resource_id
    given = next((n for n in trail.entries if n.entry.detail.get("token") == token), None)
    holder = given.entry.resource_id if given else ""
    roles = roles_before(trail, holder, note.index)
    person = (Affected(holder, "", f"loses this token; has {', '.join(roles) or 'no role'}"),) if holder else ()
    return Word(
        type="access",
        kind="normal",
        title=f"token {token} of {holder or 'somebody unknown'} is revoked",
        reason=str(note.entry.detail.get("reason") or ""),
        affected=(Affected(f"token {token}", "", "is refused from now on"), *person),
        back_out=_create(holder, roles, facts) if holder and roles else "",
        environments=ENVIRONMENTS,
        risk=f"{holder or 'its holder'} may be without a token",
    )


def _title(name: str, before: tuple[str, ...], roles: tuple[str, ...]) -> str:
    if set(before) == set(roles):
        return f"{name} gets a token"
    return f"{name} is {', '.join(roles) or 'nothing'}" + (f", was {', '.join(before)}" if before else "")


def _part(before: tuple[str, ...], roles: tuple[str, ...]) -> str:
    if set(before) == set(roles):
        return f"keeps {', '.join(roles)}"
    return f"has {', '.join(roles) or 'no role'}, had {', '.join(before) or 'none'}"


def _risk(before: tuple[str, ...], roles: tuple[str, ...], facts: HomeFacts) -> str:
    """What may be done that could not, and no longer, by the policy that holds now."""
    more, less = facts.gained(before, roles), facts.gained(roles, before)
    told = [f"{verb}: {_spelled(found)}" for verb, found in (("may do more", more), ("may do less", less)) if found]
    return "; ".join(told) or "the roles allow no more and no less than before"


def _spelled(actions: tuple[str, ...]) -> str:
    return ", ".join(actions[:_NAMED]) + (f" and {len(actions) - _NAMED} more" if actions[_NAMED:] else "")


def _create(name: str, roles: tuple[str, ...], facts: HomeFacts) -> str:
    try:
        service = " --service" if facts.principal(name).kind == "service" else ""
    except NotFound:
        service = ""
    return f"falaj token create {name} {' '.join(f'--role {r}' for r in roles)}{service} --reason '…'"
