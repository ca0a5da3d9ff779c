"""What is asked of a provider over HTTP: short waits, small answers, no redirects, JSON in which nothing stands twice."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from falaj.governance.identity.oidc.model import Setup
from falaj.kernel.errors import Unavailable

MAX_ANSWER = 1 << 20
_SECONDS = 10.0
_OK = 200


class Asked:
    """A provider's answer: its status and its bytes, at most `MAX_ANSWER`."""

    def __init__(self, status: int, body: bytes) -> None:
        self.ok = status == _OK
        self.status = status
        self.body = body

    def json(self) -> dict[str, Any]:
        """The object that it is. Raises `Unavailable`."""
        try:
            found = json.loads(self.body.decode("utf-8"), object_pairs_hook=_once)
        except (ValueError, RecursionError) as e:
            raise unavailable("its answer is not JSON") from e
        if not isinstance(found, dict):
            raise unavailable("its answer is no object")
        return found


class Http:
    """Asks one provider. Raises `Unavailable` when it does not answer as a provider does."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        private = urlsplit(setup.issuer).scheme == "http"  # on this machine: whatever proxy is set is for elsewhere
        self._options: dict[str, Any] = {"timeout": _SECONDS, "follow_redirects": False, "trust_env": not private}

    def get(self, address: str) -> Asked:
        """GET."""
        return self._ask("GET", address, {})

    def form(self, address: str, fields: dict[str, str]) -> Asked:
        """POST a form as the client (RFC 6749, 2.3.1): with its secret if it has one, else with its id in the form."""
        setup = self._setup
        if not setup.secret:
            return self._ask("POST", address, {"data": {**fields, "client_id": setup.client_id}})
        login = (quote(setup.client_id, safe=""), quote(setup.secret, safe=""))
        return self._ask("POST", address, {"data": fields, "auth": login})

    def _ask(self, method: str, address: str, more: dict[str, Any]) -> Asked:
        headers = {"Accept": "application/json"}
        body = b""
        try:
            with (
                httpx.Client(**self._options) as http,  # a sign-in is rare, and a client kept would be one to close
                http.stream(method, address, headers=headers, **more) as answer,
            ):
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise unavailable("its answer is too large")
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise unavailable(type(e).__name__) from e
        return Asked(answer.status_code, body)


def unavailable(why: str) -> Unavailable:
    """The provider cannot be used now."""
    return Unavailable(
        f"the identity provider does not answer as one: {why}",
        hint="try again; if it stays, compare oidc_issuer with the provider's address. Local tokens work without it",
        code="provider_unavailable",
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("something stands twice")
    return dict(pairs)
