"""Principals, tokens and console sessions."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.identity.model import (
    IDENTITY_GRANT,
    IDENTITY_REVOKE,
    SIGN_IN,
    SIGN_OUT,
    WITHDRAW,
    check_principal,
    check_project,
    check_scope,
    told,
)
from falaj.governance.identity.ports import External, IdentityStore
from falaj.governance.identity.verify import KnownToken, TokenVerifier, make_token, token_hash
from falaj.kernel.access import SYSTEM, Action, Principal, Resource
from falaj.kernel.clock import Clock, iso, parse_iso
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
    scope: tuple[str, ...] | None = None
    project: str = ""


class Terms(msgspec.Struct, frozen=True):
    """What a token is good for: how many days, and which actions and groups (None: all that the roles
    give), and the project that it is bound to (empty: none); and why it is given (empty: nobody said)."""

    days: int
    scope: tuple[str, ...] | None = None
    project: str = ""
    reason: str = ""


class IdentityService:
    """Who there is, and who a token stands for."""

    def __init__(
        self,
        database: Database,
        store: IdentityStore,
        door: Door,
        pepper: bytes,
        actions: Iterable[Action] = (),
    ) -> None:
        self._scopes = {name for a in actions for name in (a.name, a.group)}
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

    def knows(self, token_id: str) -> bool:
        """Whether a token is good now: neither revoked nor expired."""
        now = self._door.clock.now()
        return any(t.id == token_id and now < parse_iso(t.expires_at) for t in self.known_tokens())

    def holders(self, tx: Tx) -> list[Principal]:
        """Whom the tokens stand for that are good at this point of the transaction, once a token."""
        now = self._door.clock.now()
        return [t.principal_of() for t in self._store.live_tokens(tx) if now < parse_iso(t.expires_at)]

    def grant(
        self,
        actor: Principal,
        principal: Principal,
        terms: int | Terms,
        operation_id: str = "",
        keep: Callable[[str], None] | None = None,
    ) -> NewToken:
        """Create the principal or change its roles, and give it a token on some terms, or for so many days.

        `keep` is handed the token before it is granted: a crash after that must not leave one that nobody knows.
        Raises `Conflict` when the operation was done before: its token was shown then and is not kept.
        """
        check_principal(principal.name, principal.roles)
        terms = terms if isinstance(terms, Terms) else Terms(terms)
        days, scope = terms.days, terms.scope
        check_project(terms.project)
        why = told(terms.reason)
        if scope is not None:
            check_scope(scope, self._scopes)
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
            scope=scope,
            project=terms.project,
        )

        def do(tx: Tx) -> Done[dict[str, str]]:
            self._store.put_principal(tx, principal, iso(now))
            self._store.put_token(tx, known, iso(now))
            return Done({"id": identifier})

        intent = Intent(
            actor, IDENTITY_GRANT, Resource("Account", principal.name), operation_id, detail=_given(known) | why
        )  # fmt: skip
        given = self._door.change(intent, do)["id"]
        if given != identifier:
            raise Conflict(
                f"operation {operation_id} already gave token {given}, which was shown once",
                hint="revoke that token and grant again with a fresh operation id",
                code="token_given",
            )
        self._changed()
        return NewToken(identifier, token, principal.name, principal.roles, known.expires_at, scope, terms.project)

    def revoke(self, actor: Principal, token_id: str, reason: str = "") -> None:
        """A revoked token is refused from now on. Raises `NotFound`, `Invalid` for a reason that is too long."""
        why = told(reason)

        def do(tx: Tx) -> Done[None]:
            if not self._store.revoke(tx, token_id, iso(self._door.clock.now())):
                raise NotFound(
                    f"there is no live token {token_id[:40]}", hint="see `falaj token list`", code="no_such_token"
                )
            return Done(None)

        self._door.change(Intent(actor, IDENTITY_REVOKE, Resource("Account", token_id), detail=why), do)
        self._changed()

    def sign_in(self, person: External, roles: tuple[str, ...], lasts: timedelta) -> NewToken:
        """A token for somebody whom the provider vouches for; from now on they have these roles and no others.

        Raises `Denied` when the name came from another provider: its subjects are not this one's.
        """
        identifier, token = make_token()
        now = self._door.clock.now()
        known = KnownToken(
            identifier, token_hash(token, self._pepper), person.name, "person", roles, iso(now + lasts)
        )  # fmt: skip

        def do(tx: Tx) -> Done[None]:
            earlier = self._store.external(tx, person.name)
            if earlier is not None and earlier.issuer != person.issuer:
                raise Denied(
                    f"{person.name} is known from another identity provider",
                    hint="set oidc_issuer to the provider that this home had, or use a local token",
                    code="another_issuer",
                )
            self._store.put_principal(tx, Principal(person.name, "person", roles), iso(now))
            self._store.put_external(tx, person, iso(now))
            self._store.revoke_all(tx, person.name, iso(now), expired=True)  # nobody else would take them away
            self._store.put_token(tx, known, iso(now))
            return Done(None)

        detail = {"issuer": person.issuer, "roles": list(roles), "token": identifier, "expires_at": known.expires_at}
        self._door.change(Intent(SYSTEM, SIGN_IN, Resource("Account", person.name), detail=detail), do)
        self._changed()
        return NewToken(identifier, token, person.name, roles, known.expires_at)

    def sign_out(self, principal: Principal, token_id: str) -> None:
        """Revoke a token of one's own that a sign-in gave. Raises `NotFound`."""

        def do(tx: Tx) -> Done[None]:
            own = any(t.id == token_id and t.principal == principal.name for t in self._store.live_tokens(tx))
            if not own or self._store.external(tx, principal.name) is None:
                raise NotFound(
                    f"{principal.name} is not signed in by this token",
                    hint="only what `falaj login` or the console's sign-in gave ends so; others: `falaj token revoke ID`",
                    code="not_a_sign_in",
                )
            self._store.revoke(tx, token_id, iso(self._door.clock.now()))
            return Done(None)

        context = {"on_behalf_of": principal.name}
        self._door.change(Intent(SYSTEM, SIGN_OUT, Resource("Account", token_id), context=context), do)
        self._changed()

    def withdraw(self, person: External) -> None:
        """Take roles and tokens from somebody to whom the provider gives none any more; nothing for a stranger."""

        def has(tx: Tx) -> bool:
            earlier, now = self._store.external(tx, person.name), self._store.principal(tx, person.name)
            return earlier is not None and earlier.issuer == person.issuer and now is not None and bool(now.roles)

        def do(tx: Tx) -> Done[None]:
            at = iso(self._door.clock.now())
            self._store.put_principal(tx, Principal(person.name, "person", ()), at)
            return Done(None, {"revoked": self._store.revoke_all(tx, person.name, at, expired=False)})

        if self._database.read(has):
            self._door.change(Intent(SYSTEM, WITHDRAW, Resource("Account", person.name)), do)
            self._changed()

    def display(self, name: str) -> str:
        """What people call a principal: what its provider says, else its name."""
        found = self._database.read(lambda tx: self._store.external(tx, name))
        return found.display if found else name

    def _changed(self) -> None:
        self.refresh()
        for listener in self._listeners:
            listener()


def _given(token: KnownToken) -> dict[str, Any]:
    """A grant as the log has it."""
    detail: dict[str, Any] = {"roles": list(token.roles), "token": token.id, "expires_at": token.expires_at}
    if token.scope is not None:
        detail["scope"] = list(token.scope)
    return detail | ({"project": token.project} if token.project else {})


class Opened(msgspec.Struct, frozen=True):
    """What a link or a cookie stands for: a principal within a token's scope, while that token is good.

    `token` is the token's id; empty where no token opened it.
    """

    name: str
    scope: tuple[str, ...] | None
    token: str
    until: datetime
    project: str = ""


class SessionService:
    """Console sessions: a one-time link becomes a cookie. Kept in memory, so a restart ends them all.

    A session may do no more than the token that opened it, and ends with it. `clock` is the machine's: a home that
    replays another day must not end or prolong anyone's session.
    """

    def __init__(self, identity: IdentityService, clock: Clock) -> None:
        self._identity = identity
        self._clock = clock
        self._links: dict[str, Opened] = {}
        self._cookies: dict[str, Opened] = {}
        self._lock = threading.Lock()

    def link(self, principal: Principal, token: str = "") -> str:
        """A code that opens one session for `principal` within ten minutes; `token` is the id of the one that asks."""
        code, now = secrets.token_urlsafe(24), self._clock.now()
        with self._lock:
            self._links = _lasting(self._links, now)
            self._links[code] = Opened(principal.name, principal.scope, token, now + _LINK, principal.project)
        return code

    def open(self, code: str) -> str:
        """Use a code up; returns the cookie's value. Raises `Denied`."""
        now = self._clock.now()
        with self._lock:
            link = self._links.pop(code, None)
            if link is None or now >= link.until:
                raise Denied(
                    "this link was used already, or it is older than ten minutes",
                    hint="get a fresh one: `falaj console`",
                    code="link_used",
                )
            cookie = secrets.token_urlsafe(32)
            self._cookies = _lasting(self._cookies, now)
            self._cookies[cookie] = msgspec.structs.replace(link, until=now + _SESSION)
            return cookie

    def principal(self, cookie: str) -> Principal | None:
        """Whose session it is, with the roles that hold now; None when it or its token has ended."""
        with self._lock:
            session = self._cookies.get(cookie)
        if session is None or self._clock.now() >= session.until:
            return None
        if session.token and not self._identity.knows(session.token):
            return None
        return msgspec.structs.replace(
            self._identity.principal(session.name), scope=session.scope, project=session.project
        )

    def close(self, cookie: str) -> Opened | None:
        """End a session, and say what it was; one that is unknown is no error."""
        with self._lock:
            return self._cookies.pop(cookie, None)


def _lasting(held: dict[str, Opened], now: datetime) -> dict[str, Opened]:
    """Without those that have ended: nobody asks for them again, and they would be kept for ever."""
    return {code: opened for code, opened in held.items() if now < opened.until}
