"""ID tokens, verified strictly: OpenID Connect Core 1.0 section 3.1.3.7, RFC 7515, RFC 8725.

    eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOi…fQ.RkE…
    header {"alg": "RS256", "kid": "1"} · claims {"iss", "aud", "sub", "iat", "exp", "nonce", …} · signature

The library checks signatures. What may be in a token at all is decided here: the header names an algorithm of a short
list and a key by its id and nothing else that could lead to a key; no name stands twice; nothing is coerced.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from falaj.governance.identity.oidc.model import MAX_SUBJECT, Claims, Setup, groups_in
from falaj.kernel.errors import Unauthenticated

LEEWAY = 30.0
"""Seconds that the provider's clock may differ from ours."""
MAX_AGE = 600.0
"""Seconds after which an ID token is too old to sign in with: one comes fresh for each sign-in."""
MAX_TOKEN = 16 << 10
MAX_KEYS = 64
_MAX_GROUPS = 2000
_MAX_NAME = 200
_LEAST_RSA = 2048
_PARTS = 3
_HEADER: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})  # thumbprints are told by some, and not used

# Algorithm → type of key and curve. No HMAC: whoever knows the client's secret is not the provider.
ALGORITHMS: dict[str, tuple[type[Any], str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), (RSAKey, "")),
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
}


class PublishedKey(msgspec.Struct, frozen=True):
    """A public key of the provider; `algorithm` is the one that it is for, empty for any of its type."""

    kid: str
    key: Key
    algorithm: str = ""


Keys = Callable[[str], PublishedKey | None]
"""The published key of an id; None when there is none."""


def verify(token: str, setup: Setup, keys: Keys, nonce: str, now: datetime) -> Claims:
    """What a token says of whoever signed in. `nonce` is the one that was sent; empty where none was (devices).

    Raises `Unauthenticated` with the first thing that is wrong.
    """
    header = _header(token)
    key = keys(header["kid"])
    if key is None:
        raise refused("the provider publishes no key of its id")
    _check_key(header["alg"], key)
    claims = _object(_signed(token, header["alg"], key.key), "its claims")
    _check_parties(claims, setup)
    _check_time(claims, now.timestamp())
    _check_nonce(claims.get("nonce"), nonce)
    subject = claims.get("sub")
    if not (
        isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT and subject.isascii() and subject.isprintable()
    ):
        raise refused("its subject is none")
    told = claims.get("name") or claims.get("preferred_username") or claims.get("email") or subject
    groups = groups_in(claims.get(setup.group_claim))
    if len(groups) > _MAX_GROUPS:
        raise refused(f"it names more than {_MAX_GROUPS:,} groups")
    display = "".join(c for c in str(told)[:_MAX_NAME] if c.isprintable())
    return Claims(setup.issuer, subject, display, groups)


def read_keys(text: bytes) -> dict[str, PublishedKey]:
    """The usable keys of a JWK Set (RFC 7517), by id. Keys for other ends are left out; one that could not be meant for
    publishing (secret, private, two of one id) refuses the set. Raises `Unauthenticated`.
    """
    listed = _object(text, "the provider's key set").get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise refused("the provider's key set is none")
    found: dict[str, PublishedKey] = {}
    for entry in listed:
        if not isinstance(entry, dict) or "d" in entry or "k" in entry:
            raise refused("the provider's key set holds what no public key is")
        key = _public(entry)
        if key is None:
            continue
        if key.kid in found:
            raise refused("two keys of the provider have one id")
        found[key.kid] = key
    return found


def _public(entry: dict[str, Any]) -> PublishedKey | None:
    kid, algorithm = entry.get("kid"), entry.get("alg", "")
    kinds: dict[str, type[Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    kind = kinds.get(str(entry.get("kty")))
    operations = entry.get("key_ops", ["verify"])
    signs = entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
    known = isinstance(algorithm, str) and (not algorithm or algorithm in ALGORITHMS)
    if not (kind and signs and known and isinstance(kid, str) and kid):
        return None
    if kind is RSAKey and _bits(entry.get("n")) < _LEAST_RSA:
        return None
    wanted = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[entry["kty"]]
    try:  # only what the key is made of: nothing else that stands there can lead anywhere
        key = kind.import_key({"kty": entry["kty"], **{name: entry[name] for name in wanted}})
        key.raw_value  # noqa: B018  # the library reads it when it is first asked
    except (JoseError, KeyError, ValueError, TypeError, AttributeError) as e:
        raise refused("a key of the provider cannot be read") from e
    return PublishedKey(kid, key, algorithm)


def _bits(modulus: Any) -> int:
    return int.from_bytes(_bytes(modulus), "big").bit_length() if isinstance(modulus, str) else 0


def refused(why: str) -> Unauthenticated:
    """The one error of this file."""
    return Unauthenticated(
        f"the provider's ID token is not accepted: {why}",
        hint="sign in again; if it stays, compare the provider's client with the oidc_ settings of this home",
        code="bad_id_token",
    )


def _header(token: str) -> dict[str, str]:
    if not (isinstance(token, str) and token.isascii() and len(token) <= MAX_TOKEN):
        raise refused("it is too long, or no text")
    parts = token.split(".")
    if len(parts) != _PARTS or not all(parts):
        raise refused("it has not three parts")
    decoded = [_bytes(p) for p in parts]
    header = _object(decoded[0], "its header")
    if more := sorted(header.keys() - _HEADER):
        raise refused(f"its header has {more[0][:40]!r}")
    if not (isinstance(header.get("alg"), str) and header["alg"] in ALGORITHMS):
        raise refused("its algorithm is not one that is accepted")
    if not (isinstance(header.get("kid"), str) and header["kid"]):
        raise refused("it names no key")
    if str(header.get("typ", "JWT")).upper() != "JWT":
        raise refused("it is a token for something else")
    return header


def _bytes(part: str) -> bytes:
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError as e:
        raise refused("it is not base64url") from e
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise refused("it is not base64url")
    return raw


def _object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice, at any depth, and no number is none."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise refused(f"{what} say something twice")
        return dict(pairs)

    def number(_text: str) -> Any:
        raise ValueError

    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=once, parse_constant=number)
    except (ValueError, RecursionError) as e:
        raise refused(f"{what} cannot be read") from e
    if not isinstance(found, dict):
        raise refused(f"{what} are no object")
    return found


def _check_key(algorithm: str, key: PublishedKey) -> None:
    kind, curve = ALGORITHMS[algorithm]
    if not isinstance(key.key, kind) or (key.algorithm and key.algorithm != algorithm):
        raise refused("its key is for another algorithm")
    if curve and key.key.curve_name != curve:
        raise refused("its key is for another algorithm")


def _signed(token: str, algorithm: str, key: Key) -> bytes:
    try:
        return jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
    except (JoseError, ValueError) as e:
        raise refused("its signature does not hold") from e


def _check_parties(claims: dict[str, Any], setup: Setup) -> None:
    if claims.get("iss") != setup.issuer:
        raise refused("another issuer made it")
    told = claims.get("aud")
    audience = [told] if isinstance(told, str) else told
    if not (isinstance(audience, list) and audience and all(isinstance(a, str) for a in audience)):
        raise refused("it is for nobody")
    if setup.audience not in audience or not setup.audiences.issuperset(audience):
        raise refused("it is for somebody else")
    if ("azp" in claims or len(audience) > 1) and claims.get("azp") != setup.client_id:
        raise refused("it was given to another client")


def _check_time(claims: dict[str, Any], now: float) -> None:
    for name in ("exp", "iat", "nbf"):
        if name not in claims and name == "nbf":
            continue
        if type(claims.get(name)) not in (int, float) or not 0 <= claims[name] < 1 << 40:
            raise refused(f"its {name} is no time")
    if now >= claims["exp"] + LEEWAY:
        raise refused("it has expired")
    if max(claims["iat"], claims.get("nbf", 0)) > now + LEEWAY:
        raise refused("it comes from the future")
    if claims["iat"] < now - MAX_AGE:
        raise refused("it is too old")


def _check_nonce(told: Any, sent: str) -> None:
    if not sent and told is None:
        return
    if not (sent and isinstance(told, str) and hmac.compare_digest(told.encode(), sent.encode())):
        raise refused("it answers another sign-in")
