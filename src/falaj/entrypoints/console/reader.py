"""What the console needs from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from starlette.requests import Request

from falaj.entrypoints.console.sights import DriftPage, IncidentsPage, ReviewPage, ReviewsPage, RolloutPage
from falaj.entrypoints.console.views import (
    AuditPage,
    AuditQuery,
    EvidencePage,
    Frame,
    ModelPage,
    Overview,
    RunPage,
    VerifyReport,
)
from falaj.governance.identity.oidc.signin import Returned, Sent
from falaj.kernel.access import Action, Principal
from falaj.lifecycle.monitoring.reviews.model import Word

COOKIE = "falaj_session"
"""The cookie that `Sessions` reads and that the console sets and clears."""


class ConsoleReader(Protocol):
    """Everything the pages show. Each method may raise any `FalajError`; `viewer` is who
    looks, where what is shown or written down depends on it.

    Methods are called in worker threads, so they may block.
    """

    def frame(self) -> Frame:
        """The home, its environment and its clock."""
        ...

    def overview(self, viewer: Principal) -> Overview:
        """What is in production and whether it is well."""
        ...

    def model(self, viewer: Principal, name: str) -> ModelPage:
        """A model with its versions, newest first. Raises `NotFound`."""
        ...

    def evidence(self, name: str, reference: str) -> EvidencePage:
        """The evidence of one version: `reference` is its number or the start of its digest. Raises `NotFound`."""
        ...

    def run(self, run_id: str) -> RunPage:
        """A training run. Raises `NotFound`."""
        ...

    def rollout(self, viewer: Principal, name: str) -> RolloutPage:
        """The running rollout of a model or its last, and the history. Raises `NotFound`."""
        ...

    def order(self, viewer: Principal, name: str, rollout: str, what: str) -> None:
        """`promote` or `abort` the rollout of this id. Raises `Denied`, `Conflict` when it does not run any more."""
        ...

    def drift(self, name: str, window: str) -> DriftPage:
        """A model's windows; `window` selects one by its key, empty the newest. Raises `NotFound`."""
        ...

    def incidents(self, viewer: Principal) -> IncidentsPage:
        """What is not as it should be, and what was not."""
        ...

    def resolve(self, viewer: Principal, incident: str) -> None:
        """Resolve an incident; again changes nothing. Raises `Denied`, `NotFound`."""
        ...

    def reviews(self, viewer: Principal) -> ReviewsPage:
        """Which answers wait for a person, and what was decided; the reading is audited. Raises `Denied`."""
        ...

    def review(self, viewer: Principal, review: str) -> ReviewPage:
        """One of them, with what went into the answer; the reading is audited. Raises `NotFound`, `Denied`."""
        ...

    def decide(self, viewer: Principal, review: str, word: Word) -> None:
        """Confirm the answer, or override it. Raises `Denied`, `NotFound`, `Conflict`, `Invalid`."""
        ...

    def audit(self, viewer: Principal, query: AuditQuery) -> AuditPage:
        """Entries of the audit log, newest first. The reading itself is audited by whoever implements it."""
        ...

    def verify(self) -> VerifyReport:
        """Recompute the audit log and compare it with its newest checkpoint."""
        ...


class Sessions(Protocol):
    """Who is looking."""

    def principal(self, request: Request) -> Principal | None:
        """The holder of the request's cookie (named `COOKIE`), or None. Never raises for a bad cookie."""
        ...

    def login(self, code: str) -> str:
        """Use up a one-time code and return the cookie's value. Raises `Denied` when used, expired or unknown."""
        ...

    def logout(self, cookie: str) -> None:
        """End the session of a cookie's value; one that is unknown is no error."""
        ...


class SignInDesk(Protocol):
    """Signing in with an identity provider."""

    def begin(self, console: str) -> Sent:
        """Where to send a browser that asked at this address for the console, and what it must bring back."""
        ...

    def finish(self, returned: Returned, browser: str) -> str:
        """The session cookie's value for whoever came back. Raises any `FalajError`."""
        ...


class Guard(Protocol):
    """Authorisation of pages."""

    def page(self, action: Action) -> Callable[..., Any]:
        """A FastAPI dependency: raises `Denied` unless `request.state.principal` may do `action` to what the path names.

        The principal is set before it runs. Actions are those of the API, so one rule holds for both.
        """
        ...
