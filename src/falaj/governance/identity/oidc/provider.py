"""One provider: what it says of itself, where browsers are sent, what a code or a device is exchanged for."""

from __future__ import annotations

import base64
import hashlib
import threading
from datetime import datetime, timedelta
from typing import Any

import httpx
import msgspec

from falaj.governance.identity.oidc.http import Asked, Http, unavailable
from falaj.governance.identity.oidc.keys import PublishedKeys
from falaj.governance.identity.oidc.model import Claims, Setup, check_address
from falaj.governance.identity.oidc.tokens import verify
from falaj.kernel.clock import Clock
from falaj.kernel.errors import Denied, Invalid

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_LASTS = timedelta(hours=1)
_SHOWN = 60
_LEAST_WAIT, _MOST_WAIT, _USUAL_WAIT = 1, 60, 5  # seconds between two looks at a device (RFC 8628, 3.2)
_MOST_SECONDS = 1800
_LONGEST = 2000


class Discovered(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0)."""

    authorization: str
    token: str
    keys: str
    device: str
    tells_issuer: bool  # RFC 9207: its answers in the browser name it


class Authorization(msgspec.Struct, frozen=True):
    """What a browser takes to the provider."""

    redirect: str
    state: str
    nonce: str
    verifier: str


class DeviceCode(msgspec.Struct, frozen=True):
    """A device that waits for its person (RFC 8628, 3.2). `code` stays here; the other three are shown."""

    code: str
    user_code: str
    address: str
    complete: str
    interval: int
    seconds: int


class Provider:
    """A provider over HTTP. Everything raises `Unavailable` when it does not answer as one."""

    def __init__(self, setup: Setup, clock: Clock) -> None:
        self.setup = setup
        self._clock = clock
        self._http = Http(setup)
        self._keys = PublishedKeys(lambda: self._fetched(self.discovered().keys), clock)
        self._discovered: Discovered | None = None
        self._at: datetime | None = None
        self._lock = threading.Lock()

    def discovered(self) -> Discovered:
        """What the provider says of itself, at most an hour ago."""
        with self._lock:
            now = self._clock.now()
            if self._discovered is None or self._at is None or not timedelta() <= now - self._at < _LASTS:
                self._discovered = self._discover()
                self._at = now
            return self._discovered

    def sent_to(self, authorization: Authorization) -> str:
        """Where a browser is sent: a code is asked for, bound to `verifier` by S256 (RFC 7636)."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(authorization.verifier.encode()).digest())
        asked = {
            "response_type": "code",
            "client_id": self.setup.client_id,
            "scope": self.setup.scopes,
            "redirect_uri": authorization.redirect,
            "state": authorization.state,
            "nonce": authorization.nonce,
            "code_challenge": challenge.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(self.discovered().authorization).copy_merge_params(asked))

    def exchange(self, code: str, authorization: Authorization) -> Claims:
        """Who a code stands for. Raises `Denied` when the provider does not take it, `Unauthenticated` for a bad token."""
        answer = self._http.form(
            self.discovered().token,
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": authorization.redirect,
                "code_verifier": authorization.verifier,
            },
        )
        if not answer.ok:
            raise said_no(_error(answer))
        return self._claims(answer, authorization.nonce)

    def device(self) -> DeviceCode:
        """Begin a sign-in on another device. Raises `Denied` when the provider offers none."""
        address = self.discovered().device
        if not address:
            raise Denied(
                "the identity provider offers no sign-in by a second device",
                hint="sign in in the console, or use a token: `falaj token create NAME --role ROLE`",
                code="no_device_flow",
            )
        answer = self._http.form(address, {"scope": self.setup.scopes})
        if not answer.ok:
            raise said_no(_error(answer))
        told = answer.json()
        texts = {n: told.get(n) for n in ("device_code", "user_code", "verification_uri")}
        if not all(isinstance(t, str) and 0 < len(t) <= _LONGEST and t.isprintable() for t in texts.values()):
            raise unavailable("what it says of a device is incomplete")
        complete = told.get("verification_uri_complete")
        self._check(texts["verification_uri"])
        if complete is not None:
            self._check(complete)
        return DeviceCode(
            code=str(texts["device_code"]),
            user_code=str(texts["user_code"]),
            address=str(texts["verification_uri"]),
            complete=complete or "",
            interval=max(_LEAST_WAIT, min(_whole(told.get("interval"), _USUAL_WAIT), _MOST_WAIT)),
            seconds=max(_LEAST_WAIT, min(_whole(told.get("expires_in"), _MOST_SECONDS), _MOST_SECONDS)),
        )

    def look(self, device_code: str) -> Claims | str:
        """Who confirmed a device; `authorization_pending` or `slow_down` while nobody has. Raises as `exchange`."""
        answer = self._http.form(self.discovered().token, {"grant_type": DEVICE_GRANT, "device_code": device_code})
        if answer.ok:
            return self._claims(answer, "")
        error = _error(answer)
        if error in ("authorization_pending", "slow_down"):
            return error
        raise said_no(error)

    def _claims(self, answer: Asked, nonce: str) -> Claims:
        token = answer.json().get("id_token")
        if not isinstance(token, str):
            raise unavailable("it gave no ID token; its client may lack the scope openid")
        return verify(token, self.setup, self._keys, nonce, self._clock.now())

    def _discover(self) -> Discovered:
        address = self.setup.issuer.rstrip("/") + "/.well-known/openid-configuration"
        answer = self._http.get(address)
        if not answer.ok:
            raise unavailable(f"{address[:_LONGEST]} answers {answer.status}")
        told = answer.json()
        if told.get("issuer") != self.setup.issuer:
            raise unavailable("it says that its issuer is another one")
        methods = told.get("code_challenge_methods_supported", ["S256"])
        if not isinstance(methods, list) or "S256" not in methods:
            raise unavailable("it does not know PKCE with S256")
        return Discovered(
            authorization=self._endpoint(told, "authorization_endpoint"),
            token=self._endpoint(told, "token_endpoint"),
            keys=self._endpoint(told, "jwks_uri"),
            device=self._endpoint(told, "device_authorization_endpoint")
            if "device_authorization_endpoint" in told
            else "",
            tells_issuer=told.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, told: dict[str, Any], name: str) -> str:
        address = told.get(name)
        self._check(address)
        return str(address)

    def _check(self, address: Any) -> None:
        """Only https leads on from a provider that is asked by https."""
        try:
            if not isinstance(address, str) or len(address) > _LONGEST:
                raise unavailable("an address of it is none")
            check_address(address, "an address of the provider")
        except Invalid as e:
            raise unavailable("an address of it cannot be trusted") from e
        if self.setup.issuer.startswith("https:") and not address.startswith("https:"):
            raise unavailable("an address of it cannot be trusted")

    def _fetched(self, address: str) -> bytes:
        answer = self._http.get(address)
        if not answer.ok:
            raise unavailable(f"its keys answer {answer.status}")
        return answer.body


def said_no(error: str) -> Denied:
    """The provider refused, with one of its own words."""
    return Denied(
        f"the identity provider said no: {error}",
        hint="sign in again; `access_denied` is the person's or the provider's own decision",
        code="provider_said_no",
    )


def word(text: Any) -> str:
    """A provider's error as it is shown: what is no word of the specification is not repeated."""
    known = isinstance(text, str) and 0 < len(text) <= _SHOWN and text.replace("_", "").isalnum() and text.isascii()
    return text if known else "unknown_error"


def _error(answer: Asked) -> str:
    """RFC 6749, 5.2. A status that is no refusal is an outage."""
    if not 400 <= answer.status < 500:  # the client's half of the statuses
        raise unavailable(f"it answers {answer.status}")
    return word(answer.json().get("error"))


def _whole(told: Any, otherwise: int) -> int:
    return told if type(told) is int else otherwise
