"""Principals, tokens and console sessions."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.model import IDENTITY_GRANT, IDENTITY_REVOKE, check_principal
from falaj.governance.identity.ports import IdentityStore
from falaj.governance.identity.verify import KnownToken, TokenVerifier, make_token, token_hash
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import Clock, iso
from falaj.kernel.errors import Conflict, Denied, Invalid, NotFound
from falaj.storage.sql.database import Database, Tx

MAX_DAYS = 366
_LINK = timedelta(minutes=10)
_SESSION = timedelta(hours=12)


class NewToken(msgspec.Struct, frozen=True):
    """A token, shown this once."""

    id: str
    token: str
    principal: str
    roles: tuple[str, ...]
    expires_at: str


class IdentityService:
    """Who there is, and who a token stands for."""

    def __init__(self, database: Database, store: IdentityStore, door: Door, pepper: bytes) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._pepper = pepper
        self._listeners: list[Callable[[], None]] = []
        self._refreshing = threading.Lock()
        self._verifier = TokenVerifier((), pepper)
        self.refresh()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after tokens or roles changed, so that it can be projected."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Take in tokens that were granted or revoked."""
        with self._refreshing:  # from reading on: what was read before a revocation must not come after it
            self._verifier = TokenVerifier(self.known_tokens(), self._pepper)

    def authenticate(self, token: str) -> Principal:
        """Whom a token stands for. Raises `Unauthenticated`."""
        return self._verifier.verify(token, self._door.clock.now())

    def principal(self, name: str) -> Principal:
        """Who is called that now. Raises `NotFound`."""
        if name == SYSTEM.name:
            return SYSTEM
        found = self._database.read(lambda tx: self._store.principal(tx, name))
        if found is None:
            raise NotFound(
                f"there is no principal {name}",
                hint="see `falaj token list`, or create one: `falaj token create`",
                code="no_such_principal",
            )
        return found

    def principals(self) -> list[Principal]:
        """Everybody, by name."""
        return self._database.read(self._store.principals)

    def known_tokens(self) -> list[KnownToken]:
        """Tokens that are not revoked, as keyed hashes with their principals."""
        return self._database.read(self._store.live_tokens)

    def grant(
        self,
        actor: Principal,
        principal: Principal,
        days: int,
        operation_id: str = "",
        keep: Callable[[str], None] | None = None,
    ) -> NewToken:
        """Create the principal or change its roles, and give it a token that lasts `days`.

        `keep` is handed the token before it is granted: a crash after that must not leave one that nobody knows.
        Raises `Conflict` when the operation was done before: its token was shown then and is not kept.
        """
        check_principal(principal.name, principal.roles)
        if not 1 <= days <= MAX_DAYS:
            raise Invalid(
                f"a token cannot last {days} days", hint=f"choose 1 to {MAX_DAYS} days", code="bad_token_days"
            )
        identifier, token = make_token()
        if keep is not None:
            keep(token)
        now = self._door.clock.now()
        known = KnownToken(
            id=identifier,
            hash=token_hash(token, self._pepper),
            principal=principal.name,
            kind=principal.kind,
            roles=principal.roles,
            expires_at=iso(now + timedelta(days=days)),
        )

        def do(tx: Tx) -> Done[dict[str, str]]:
            self._store.put_principal(tx, principal, iso(now))
            self._store.put_token(tx, known, iso(now))
            return Done({"id": identifier})

        detail = {"roles": list(principal.roles), "token": identifier, "expires_at": known.expires_at}
        intent = Intent(actor, IDENTITY_GRANT, Resource("Account", principal.name), operation_id, detail=detail)
        given = self._door.change(intent, do)["id"]
        if given != identifier:
            raise Conflict(
                f"operation {operation_id} already gave token {given}, which was shown once",
                hint="revoke that token and grant again with a fresh operation id",
                code="token_given",
            )
        self._changed()
        return NewToken(identifier, token, principal.name, principal.roles, known.expires_at)

    def revoke(self, actor: Principal, token_id: str) -> None:
        """A revoked token is refused from now on. Raises `NotFound`."""

        def do(tx: Tx) -> Done[None]:
            if not self._store.revoke(tx, token_id, iso(self._door.clock.now())):
                raise NotFound(
                    f"there is no live token {token_id[:40]}", hint="see `falaj token list`", code="no_such_token"
                )
            return Done(None)

        self._door.change(Intent(actor, IDENTITY_REVOKE, Resource("Account", token_id)), do)
        self._changed()

    def _changed(self) -> None:
        self.refresh()
        for listener in self._listeners:
            listener()


class SessionService:
    """Console sessions: a one-time link becomes a cookie. Kept in memory, so a restart ends them all.

    `clock` is the machine's: a home that replays another day must not end or prolong anyone's session.
    """

    def __init__(self, identity: IdentityService, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock
        self._links: dict[str, tuple[str, datetime]] = {}
        self._cookies: dict[str, tuple[str, datetime]] = {}
        self._lock = threading.Lock()

    def link(self, principal: Principal) -> str:
        """A code that opens one session for `principal` within ten minutes."""
        code, now = secrets.token_urlsafe(24), self._clock.now()
        with self._lock:
            self._links = _lasting(self._links, now)
            self._links[code] = (principal.name, now + _LINK)
        return code

    def open(self, code: str) -> str:
        """Use a code up; returns the cookie's value. Raises `Denied`."""
        now = self._clock.now()
        with self._lock:
            name, until = self._links.pop(code, ("", now))
            if not name or now >= until:
                raise Denied(
                    "this link was used already, or it is older than ten minutes",
                    hint="get a fresh one: `falaj console`",
                    code="link_used",
                )
            cookie = secrets.token_urlsafe(32)
            self._cookies = _lasting(self._cookies, now)
            self._cookies[cookie] = (name, now + _SESSION)
            return cookie

    def principal(self, cookie: str) -> Principal | None:
        """Whose session it is, with the roles that hold now; None when it has ended."""
        now = self._clock.now()
        with self._lock:
            name, until = self._cookies.get(cookie, ("", now))
        if not name or now >= until:
            return None
        return self._identity.principal(name)

    def close(self, cookie: str) -> None:
        """End a session; one that is unknown is no error."""
        with self._lock:
            self._cookies.pop(cookie, None)


def _lasting(held: dict[str, tuple[str, datetime]], now: datetime) -> dict[str, tuple[str, datetime]]:
    """Without those that have ended: nobody asks for them again, and they would be kept for ever."""
    return {code: (name, until) for code, (name, until) in held.items() if now < until}
