from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from falaj.governance.door import Intent
from falaj.governance.identity.model import IDENTITY_GRANT, IDENTITY_READ, ROLES, check_principal
from falaj.governance.identity.service import MAX_DAYS, IdentityService, SessionService, Terms
from falaj.governance.identity.store import SqlIdentityStore
from falaj.governance.identity.verify import KnownToken
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.errors import Conflict, Denied, Invalid, NotFound, Unauthenticated
from falaj.storage.sql.database import Tx
from tests.governance.support import ADMIN, ENGINEER, PEPPER, RISK, VIEWER, Desk, StillClock

BOB = Principal("bob", "person", ("viewer", "auditor"))


def test_a_granted_token_stands_for_its_principal(desk: Desk) -> None:
    given = desk.identity.grant(ADMIN, BOB, 30)
    assert desk.identity.authenticate(given.token) == BOB == desk.identity.principal("bob")
    assert (given.principal, given.roles, given.expires_at) == ("bob", BOB.roles, "2026-03-31T12:00:00.000Z")
    assert [t.id for t in desk.identity.known_tokens()] == [given.id]
    (entry,) = desk.entries()
    assert (entry.action, entry.outcome, entry.resource_id) == ("identity.grant", "done", "bob")
    assert entry.detail["token"] == given.id


def test_the_platform_may_create_the_first_principal(desk: Desk) -> None:
    given = desk.identity.grant(SYSTEM, Principal("owner", "person", ("platform-admin",)), 366, "first-principal")
    assert desk.identity.authenticate(given.token).roles == ("platform-admin",)


@pytest.mark.parametrize(
    "actor",
    [
        VIEWER,
        ENGINEER,
        RISK,
        Principal("x", "person", ("auditor",)),
        Principal("x", "service", ("service",)),
        Principal("x"),
    ],
)
def test_only_an_administrator_grants_and_revokes(desk: Desk, actor: Principal) -> None:
    given = desk.identity.grant(ADMIN, BOB, 1)
    with pytest.raises(Denied):
        desk.identity.grant(actor, Principal(actor.name, "person", ("platform-admin",)), 1)
    with pytest.raises(Denied):
        desk.identity.revoke(actor, given.id)
    assert desk.identity.authenticate(given.token) == BOB
    assert [e.outcome for e in desk.entries()] == ["done", "denied", "denied"]
    with pytest.raises(NotFound):
        desk.identity.principal(actor.name)


def test_a_revoked_token_is_refused_at_once_and_for_ever(desk: Desk) -> None:
    first, second = desk.identity.grant(ADMIN, BOB, 1), desk.identity.grant(ADMIN, BOB, 1)
    desk.identity.revoke(ADMIN, first.id)
    with pytest.raises(Unauthenticated):
        desk.identity.authenticate(first.token)
    assert desk.identity.authenticate(second.token) == BOB
    with pytest.raises(NotFound):
        desk.identity.revoke(ADMIN, first.id)
    desk.identity.refresh()
    with pytest.raises(Unauthenticated):
        desk.identity.authenticate(first.token)


class SlowStore(SqlIdentityStore):
    """Reads the tokens, and then dawdles: once, when it is told to."""

    def __init__(self) -> None:
        self.dawdles = False
        self.has_read, self.may_go = threading.Event(), threading.Event()

    def live_tokens(self, tx: Tx) -> list[KnownToken]:
        found = super().live_tokens(tx)
        if self.dawdles:
            self.dawdles = False
            self.has_read.set()
            assert self.may_go.wait(10)
        return found


def test_what_was_read_before_a_revocation_never_counts_after_it(desk: Desk) -> None:
    store = SlowStore()
    identity = IdentityService(desk.database, store, desk.door, PEPPER)
    given = identity.grant(ADMIN, BOB, 1)
    store.dawdles = True
    slow = threading.Thread(target=identity.refresh)
    slow.start()
    assert store.has_read.wait(10)
    revoking = threading.Thread(target=identity.revoke, args=(ADMIN, given.id))
    revoking.start()
    while desk.identity.known_tokens():
        time.sleep(0.01)
    revoking.join(0.5)
    store.may_go.set()
    slow.join()
    revoking.join()
    with pytest.raises(Unauthenticated):
        identity.authenticate(given.token)


def test_a_token_expires(desk: Desk) -> None:
    given = desk.identity.grant(ADMIN, BOB, 1)
    desk.clock.forward(days=1, milliseconds=-1)
    assert desk.identity.authenticate(given.token) == BOB
    desk.clock.forward(milliseconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        desk.identity.authenticate(given.token)


def test_a_token_has_the_roles_that_hold_now(desk: Desk) -> None:
    given = desk.identity.grant(ADMIN, BOB, 1)
    desk.identity.grant(ADMIN, Principal("bob", "person", ("risk-officer",)), 1)
    assert desk.identity.authenticate(given.token).roles == ("risk-officer",)
    assert [p.name for p in desk.identity.principals()] == ["bob"]


def test_whoever_listens_hears_of_changes_and_of_nothing_else(desk: Desk) -> None:
    heard: list[int] = []
    desk.identity.on_change(lambda: heard.append(len(desk.identity.known_tokens())))
    given = desk.identity.grant(ADMIN, BOB, 1)
    desk.identity.revoke(ADMIN, given.id)
    with pytest.raises(Denied):
        desk.identity.grant(VIEWER, BOB, 1)
    assert heard == [1, 0]


def test_a_repeated_grant_gives_no_token_that_nobody_knows(desk: Desk) -> None:
    given = desk.identity.grant(ADMIN, BOB, 1, "op_1")
    with pytest.raises(Conflict) as refused:
        desk.identity.grant(ADMIN, BOB, 1, "op_1")
    assert refused.value.code == "token_given"
    assert given.id in refused.value.message
    assert desk.identity.authenticate(given.token) == BOB


@pytest.mark.parametrize("days", [0, -1, MAX_DAYS + 1])
def test_no_token_lasts_for_ever(desk: Desk, days: int) -> None:
    with pytest.raises(Invalid, match="cannot last"):
        desk.identity.grant(ADMIN, BOB, days)


NAMES = ["", "falaj", "Bob", "a b", "a/b", "../x", "-a", "a-", "é", "a\n", "x" * 65, "a'b", '"', "a\0b", "ａ"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_what_cannot_name_a_principal(desk: Desk, name: str) -> None:
    with pytest.raises(Invalid, match="cannot name"):
        desk.identity.grant(ADMIN, Principal(name, "person", ("viewer",)), 1)


@pytest.mark.parametrize("name", ["a", "7", "ann", "ann.b@example.com", "svc-1_x", "x" * 64])
def test_what_can(name: str) -> None:
    check_principal(name, ROLES)


@pytest.mark.parametrize("roles", [(), ("system",), ("viewer", "system"), ("Viewer",), ("viewer auditor",), ("",)])
def test_roles_that_nobody_can_grant(desk: Desk, roles: tuple[str, ...]) -> None:
    with pytest.raises(Invalid, match="no such role"):
        desk.identity.grant(ADMIN, Principal("bob", "person", roles), 1)
    assert desk.identity.principals() == []


def test_a_dump_of_the_database_holds_no_usable_token(desk: Desk, tmp_path: Path) -> None:
    given = desk.identity.grant(ADMIN, BOB, 1)
    with sqlite3.connect(tmp_path / "falaj.db") as stranger:
        dump = "\n".join(stranger.iterdump())
    stranger.close()
    assert given.id in dump
    assert given.token not in dump
    assert given.token.split("_", 2)[2].rsplit("_", 1)[0] not in dump


# sessions


@pytest.fixture
def sessions(desk: Desk) -> SessionService:
    desk.identity.grant(ADMIN, BOB, 1)
    return SessionService(desk.identity, desk.clock)


def test_a_link_opens_one_session(desk: Desk, sessions: SessionService) -> None:
    code = sessions.link(BOB)
    cookie = sessions.open(code)
    assert sessions.principal(cookie) == BOB
    with pytest.raises(Denied) as refused:
        sessions.open(code)
    assert refused.value.code == "link_used"
    assert sessions.principal(cookie) == BOB
    assert len({code, cookie, sessions.link(BOB)}) == 3


@pytest.mark.parametrize("code", ["", "guess", "None"])
def test_a_guessed_link_or_cookie_opens_nothing(sessions: SessionService, code: str) -> None:
    sessions.link(BOB)
    with pytest.raises(Denied):
        sessions.open(code)
    assert sessions.principal(code) is None


def test_a_link_is_no_cookie_and_a_cookie_no_link(sessions: SessionService) -> None:
    code = sessions.link(BOB)
    assert sessions.principal(code) is None
    with pytest.raises(Denied):
        sessions.open(sessions.open(code))


def test_a_link_lasts_ten_minutes_and_a_session_half_a_day(desk: Desk, sessions: SessionService) -> None:
    late, early = sessions.link(BOB), sessions.link(BOB)
    desk.clock.forward(minutes=10, seconds=-1)
    cookie = sessions.open(early)
    desk.clock.forward(seconds=1)
    with pytest.raises(Denied):
        sessions.open(late)
    desk.clock.forward(hours=12, seconds=-2)
    assert sessions.principal(cookie) == BOB
    desk.clock.forward(seconds=1)
    assert sessions.principal(cookie) is None


def test_what_has_ended_is_not_kept(desk: Desk, sessions: SessionService) -> None:
    for _ in range(3):
        sessions.link(BOB)
        sessions.open(sessions.link(BOB))
        desk.clock.forward(hours=13)
    sessions.open(sessions.link(BOB))
    assert (len(sessions._links), len(sessions._cookies)) == (0, 1)


def test_a_session_has_the_roles_that_hold_now(desk: Desk, sessions: SessionService) -> None:
    cookie = sessions.open(sessions.link(BOB))
    desk.identity.grant(ADMIN, Principal("bob", "person", ("viewer",)), 1)
    found = sessions.principal(cookie)
    assert found is not None and found.roles == ("viewer",)


def test_a_closed_session_is_over(sessions: SessionService) -> None:
    cookie, other = sessions.open(sessions.link(BOB)), sessions.open(sessions.link(BOB))
    sessions.close(cookie)
    sessions.close("unknown")
    assert sessions.principal(cookie) is None
    assert sessions.principal(other) == BOB


# tokens that are good for some actions only


def may(desk: Desk, token: str, action: Action) -> bool:
    who = desk.identity.authenticate(token)
    return desk.door.allows(Intent(who, action, Resource(action.resource, "*")))


def test_a_token_does_no_more_than_its_scope(desk: Desk) -> None:
    admin = Principal("ada", "person", ("platform-admin",))
    whole = desk.identity.grant(SYSTEM, admin, 30)
    by_group = desk.identity.grant(SYSTEM, admin, Terms(30, ("read",)))
    by_name = desk.identity.grant(SYSTEM, admin, Terms(30, ("identity.grant", "audit")))
    able = [[may(desk, t.token, a) for a in (IDENTITY_READ, IDENTITY_GRANT)] for t in (whole, by_group, by_name)]
    assert able == [[True, True], [True, False], [False, True]]
    assert desk.identity.authenticate(by_name.token).scope == ("identity.grant", "audit") == by_name.scope
    assert [t.scope for t in desk.identity.known_tokens() if t.id == whole.id] == [None]
    assert desk.entries()[-1].detail["scope"] == ["identity.grant", "audit"]
    with pytest.raises(Denied, match="within-the-tokens-scope") as refusal:
        desk.identity.grant(desk.identity.authenticate(by_group.token), admin, 1)
    assert "--scope" in refusal.value.hint


def test_a_scope_gives_nothing_that_the_roles_do_not(desk: Desk) -> None:
    given = desk.identity.grant(SYSTEM, Principal("vic", "person", ("viewer",)), Terms(1, ("identity.grant", "read")))
    assert may(desk, given.token, IDENTITY_READ) and not may(desk, given.token, IDENTITY_GRANT)


@pytest.mark.parametrize(
    "scope", [(), ("identity.granted",), ("read", ""), ("*",), ("Read",), ("platform-admin",), ("read identity.grant",)]
)
def test_what_is_no_scope(desk: Desk, scope: tuple[str, ...]) -> None:
    with pytest.raises(Invalid) as refusal:
        desk.identity.grant(SYSTEM, BOB, Terms(1, scope))
    assert refusal.value.code == "bad_token_scope"
    assert desk.identity.known_tokens() == []


def test_a_session_does_no_more_than_the_token_that_opened_it_and_ends_with_it(desk: Desk) -> None:
    admin = Principal("ada", "person", ("platform-admin",))
    other, given = desk.identity.grant(SYSTEM, admin, 30), desk.identity.grant(SYSTEM, admin, Terms(1, ("read",)))
    sessions = SessionService(desk.identity, desk.clock)
    cookie = sessions.open(sessions.link(desk.identity.authenticate(given.token), given.id))
    lasting = sessions.open(sessions.link(desk.identity.authenticate(other.token), other.id))
    who = sessions.principal(cookie)
    assert who is not None and (who.name, who.roles, who.scope) == ("ada", ("platform-admin",), ("read",))
    assert not desk.door.allows(Intent(who, IDENTITY_GRANT, Resource("Account", "*")))
    desk.identity.revoke(ADMIN, given.id)
    assert sessions.principal(cookie) is None, "although ada has another token"
    assert sessions.principal(lasting) == admin
    late = sessions.link(admin, other.id)
    desk.identity.revoke(ADMIN, other.id)
    assert sessions.principal(sessions.open(late)) is None


def test_a_session_ends_when_its_token_expires(desk: Desk) -> None:
    given = desk.identity.grant(SYSTEM, BOB, 1)
    still = SessionService(desk.identity, StillClock())
    cookie = still.open(still.link(BOB, given.id))
    assert still.principal(cookie) == BOB
    desk.clock.forward(days=1)
    assert still.principal(cookie) is None
