"""From a verified ID token to a principal and a Falaj token, and back.

A sign-in is a token like any other: it is listed, it expires, it is revoked, and both planes refuse it then. A console
session ends with the token that its sign-in gave, a command line keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import msgspec

from falaj.governance.door import Door, Intent
from falaj.governance.identity.model import SIGN_IN
from falaj.governance.identity.oidc.model import Claims, roles_of
from falaj.governance.identity.oidc.pending import Pending
from falaj.governance.identity.oidc.provider import Provider, said_no, word
from falaj.governance.identity.ports import External
from falaj.governance.identity.service import IdentityService, NewToken
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.errors import Denied, Unauthenticated

T = TypeVar("T")


class Returned(msgspec.Struct, frozen=True):
    """What a browser brought back from the provider (RFC 6749, 4.1.2; RFC 9207)."""

    state: str = ""
    code: str = ""
    issuer: str = ""
    error: str = ""


class Sent(msgspec.Struct, frozen=True):
    """Where a browser goes, and what it keeps until it is back."""

    address: str
    browser: str


class Shown(msgspec.Struct, frozen=True):
    """What a command shows to its person, and the handle that it asks with."""

    handle: str
    user_code: str
    address: str
    complete: str
    interval: int
    seconds: int


class SignIns:
    """Signing in with one provider."""

    def __init__(self, provider: Provider, pending: Pending, identity: IdentityService, door: Door) -> None:
        self._provider = provider
        self._pending = pending
        self._identity = identity
        self._door = door

    def begin(self, console: str) -> Sent:
        """Send a browser to the provider; it comes back to the console at this address. Raises `Unavailable`."""
        begun = self._pending.browser(self._provider.setup.redirect or f"{console}/oidc/callback")
        return Sent(self._provider.sent_to(begun.authorization), begun.browser)

    def finish(self, returned: Returned, browser: str) -> NewToken:
        """A token for whoever the browser came back with. Raises `Denied`, `Unauthenticated`, `Unavailable`."""
        authorization = self._pending.returned(returned.state, browser)
        found = self._provider.discovered()
        if (returned.issuer or found.tells_issuer) and returned.issuer != self._provider.setup.issuer:
            raise Denied(
                "another identity provider answered this sign-in",
                hint="begin again: open the console and press the button there",
                code="other_provider",
            )
        if returned.error or not returned.code:
            raise said_no(word(returned.error))
        return self._admit(self._asked(lambda: self._provider.exchange(returned.code, authorization)))

    def begin_device(self) -> Shown:
        """Begin a sign-in that is confirmed on another device. Raises `Denied`, `Unavailable`."""
        device = self._provider.device()
        handle = self._pending.device(device)
        return Shown(handle, device.user_code, device.address, device.complete, device.interval, device.seconds)

    def look(self, handle: str) -> NewToken | None:
        """The token of a confirmed sign-in, once; None while it waits. Raises `Denied`, `Unauthenticated`, `Unavailable`."""
        device = self._pending.due(handle)
        if device is None:
            return None

        try:
            told = self._asked(lambda: self._provider.look(device.code))
        except (Denied, Unauthenticated):
            self._pending.ended(handle)
            raise
        if isinstance(told, str):
            if told == "slow_down":
                self._pending.slower(handle)
            return None
        self._pending.ended(handle)
        return self._admit(told)

    def end(self, principal: Principal, token_id: str) -> None:
        """Sign out: the token is revoked. Raises `NotFound` when it is not that principal's, or ended already."""
        self._identity.sign_out(principal, token_id)

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except Unauthenticated as e:  # what came from the provider itself is wrong: that is worth an entry in the log
            self._door.refuse(Intent(SYSTEM, SIGN_IN, Resource("Account", "*")), e)
            raise

    def _admit(self, claims: Claims) -> NewToken:
        setup = self._provider.setup
        person = External(claims.principal, claims.issuer, claims.display)
        try:
            roles = roles_of(claims, setup.groups)
        except Denied as e:
            self._identity.withdraw(person)
            self._door.refuse(Intent(SYSTEM, SIGN_IN, Resource("Account", person.name)), e)
            raise
        return self._identity.sign_in(person, roles, timedelta(hours=setup.hours))
