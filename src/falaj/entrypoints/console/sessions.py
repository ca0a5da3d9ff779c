"""Who looks at the console, and what they may see: by the home's own sessions and its door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from fastapi import Request

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.console.reader import COOKIE
from falaj.governance.door import Door, Intent
from falaj.governance.identity.oidc.model import PREFIX
from falaj.governance.identity.peers import check_bearer
from falaj.kernel.access import Action, Principal, Resource
from falaj.kernel.errors import NotFound


class HomeSessions:
    """`Sessions` over the home's own; whose tokens were all revoked is out, whatever the cookie says."""

    def __init__(self, plane: ControlPlane) -> None:
        self._p = plane

    def principal(self, request: Request) -> Principal | None:
        """Who asks; None without a session, or when every token of theirs was revoked."""
        found = self._p.sessions.principal(request.cookies.get(COOKIE, ""))
        if found is None or all(t.principal != found.name for t in self._p.identity.known_tokens()):
            return None
        check_bearer(getattr(request.state, "peer", None), found.name)
        return found

    def login(self, code: str) -> str:
        """A cookie for a one-time code. Raises `Denied`."""
        return self._p.sessions.open(code)

    def logout(self, cookie: str) -> None:
        """End the session of a cookie, and the sign-in that it came from."""
        ended = self._p.sessions.close(cookie)
        if ended is not None and ended.name.startswith(PREFIX):
            with contextlib.suppress(NotFound):  # it was revoked before
                self._p.identity.sign_out(self._p.identity.principal(ended.name), ended.token)


class ConsoleGuard:
    """`Guard` by the door: the same actions on the same resources as over the API; a denial is audited."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def page(self, action: Action) -> Callable[[Request], None]:
        """The dependency that runs before a page of this action. Changes are authorised by the door, as the API's are, where all
        the facts about their resource are known."""

        def check(request: Request) -> None:
            if action.group not in ("read", "audit"):
                return
            name = next(iter(request.path_params.values()), "*")
            self._door.check(Intent(request.state.principal, action, Resource(action.resource, str(name))))

        return check
