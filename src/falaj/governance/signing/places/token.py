"""`pkcs11:`: a key in a token, a smart card or an HSM, named by a URI of RFC 7512.

    pkcs11:token=falaj;object=model?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/secrets/pin

ECDSA P-256 by CKM_ECDSA, Ed25519 by CKM_EDDSA where the module knows it. The PIN is read when it is needed, from the file
or the variable (`env:NAME`) of `pin-source`; it never stands in the URI itself.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from falaj.governance.signing.dsse import PublicKey
from falaj.kernel.errors import FalajError, Invalid, Unavailable

try:
    import pkcs11
    from pkcs11 import exceptions
except ImportError:  # an extra
    pkcs11 = exceptions = None  # type: ignore[assignment]

SCHEME = "pkcs11"
T = TypeVar("T")
_ONE_AT_A_TIME = threading.Lock()
"""A module and its log-ins are the whole process's, and not every module bears several threads at once."""
_PATH = {"token", "serial", "object", "id"}
_QUERY = {"module-path", "pin-source"}
_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")  # CKA_EC_PARAMS: the OID, or the curve's name
_POINT, _RAW = 65, 32  # bytes of a public key


class Token:
    """One key in one token. The session stays open, and is opened again when the token was away."""

    def __init__(self, uri: str) -> None:
        """Raises `Invalid` for a URI that does not name one key, its module and where its PIN comes from."""
        self._uri = uri
        self._named = _attributes(uri)
        self._session: Any = None
        self._pairs: tuple[Any, Any] | None = None

    def public(self) -> tuple[str, PublicKey]:
        """See `Place.public`."""
        return self._uri, self._with_keys(lambda public, _: _public(public))

    def sign(self, data: bytes) -> bytes:
        """See `Place.sign`."""
        return self._with_keys(lambda public, private: _signed(_public(public), private, data))

    def _with_keys(self, use: Callable[[Any, Any], T]) -> T:
        """Use the pair (public, private); once more with a new session if that failed."""
        _check_library()
        with _ONE_AT_A_TIME:
            for last in (False, True):
                try:
                    return use(*(self._pairs or self._open()))
                except exceptions.PKCS11Error as e:
                    self._close()
                    if last:
                        raise _away(self._named, e) from e
                except FalajError:
                    self._close()
                    raise
        raise AssertionError  # the loop returns or raises

    def _open(self) -> tuple[Any, Any]:
        token = _found(pkcs11.lib(self._named["module-path"]).get_tokens(**self._wanted("token")), "token", self._named)
        try:
            self._session = token.open(user_pin=_pin(self._named["pin-source"]))
        except exceptions.UserAlreadyLoggedIn:  # by another key of this process: a login is the whole process's
            self._session = token.open()
        kinds = (pkcs11.ObjectClass.PUBLIC_KEY, pkcs11.ObjectClass.PRIVATE_KEY)
        one, other = (
            _found(self._session.get_objects({pkcs11.Attribute.CLASS: kind, **self._wanted("key")}), "key", self._named)
            for kind in kinds
        )
        self._pairs = (one, other)
        return self._pairs

    def _close(self) -> None:
        session, self._session, self._pairs = self._session, None, None
        if session is not None:
            with suppress(exceptions.PKCS11Error):  # it may be gone already
                session.close()

    def _wanted(self, what: str) -> dict[Any, Any]:
        named = self._named
        if what == "token":
            found: dict[Any, Any] = {"token_label": unquote(named["token"])} if "token" in named else {}
            return found | ({"token_serial": unquote_to_bytes(named["serial"])} if "serial" in named else {})
        found = {pkcs11.Attribute.LABEL: unquote(named["object"])} if "object" in named else {}
        return found | ({pkcs11.Attribute.ID: unquote_to_bytes(named["id"])} if "id" in named else {})


def _check_library() -> None:
    """Raises `Unavailable` where python-pkcs11 is not installed."""
    if pkcs11 is None:
        raise Unavailable(
            "keys in tokens need python-pkcs11, which is not installed",
            hint="pip install 'falaj[pkcs11]'",
            code="signer_library_missing",
        )


def _attributes(uri: str) -> dict[str, str]:
    path, _, query = uri.removeprefix(f"{SCHEME}:").partition("?")
    named: dict[str, str] = {}
    for part, known in [(p, _PATH) for p in path.split(";")] + [(q, _QUERY) for q in query.split("&")]:
        name, _, value = part.partition("=")
        if name not in known or not value or name in named:
            raise _wrong(f"{name[:20]!r} is not understood there, or stands twice")
        named[name] = value
    if not {"object", "id"} & named.keys() or not {"token", "serial"} & named.keys():
        raise _wrong("it does not name a token and a key in it")
    if named.keys() & _QUERY != _QUERY:
        raise _wrong("it does not say which module to load, and where the PIN comes from")
    named |= {name: unquote(named[name]) for name in _QUERY}
    if not named["module-path"].startswith("/"):
        raise _wrong("its module-path is not absolute")
    return named


def _pin(source: str) -> str:
    if source.startswith("env:"):
        pin = os.environ.get(source.removeprefix("env:"), "")
    else:
        try:
            pin = Path(source.removeprefix("file:")).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            pin = ""
    if not pin:
        raise Unavailable(
            f"the PIN source {source} gives no PIN",
            hint="pin-source names a file that this process can read, or a variable as env:NAME",
            code="signer_unavailable",
        )
    return pin


def _found(candidates: Any, what: str, named: dict[str, str]) -> Any:
    """The only one. Raises `Unavailable` for none and for several."""
    found = list(candidates)
    if len(found) != 1:
        words = ", ".join(f"{n}={named[n]}" for n in ("token", "serial", "object", "id") if n in named)
        raise Unavailable(
            f"{len(found)} {what}s answer to {words}",
            hint="name exactly one, by token or serial and by object or id; a key needs its public half in the token",
            code="signer_unavailable",
        )
    return found[0]


def _public(key: Any) -> PublicKey:
    kind, point = bytes(key[pkcs11.Attribute.EC_PARAMS]), bytes(key[pkcs11.Attribute.EC_POINT])
    try:
        if kind == _P256:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point[-_POINT:])
        if kind in _ED25519:
            return Ed25519PublicKey.from_public_bytes(point[-_RAW:])
    except ValueError:
        pass  # the same refusal as for another curve
    raise Invalid(
        "the key in the token is neither ECDSA P-256 nor Ed25519",
        hint="make one of these: `pkcs11-tool --keypairgen --key-type EC:prime256v1`",
        code="signer_key_type",
    )


def _signed(public: PublicKey, private: Any, data: bytes) -> bytes:
    if isinstance(public, Ed25519PublicKey):
        return bytes(private.sign(data, mechanism=pkcs11.Mechanism.EDDSA))
    raw = bytes(private.sign(hashlib.sha256(data).digest(), mechanism=pkcs11.Mechanism.ECDSA))
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _away(named: dict[str, str], error: Exception) -> Unavailable:
    why = type(error).__name__ + (f": {error}" if str(error) else "")
    return Unavailable(
        f"the token {named.get('token', named.get('serial'))} does not sign: {why}",
        hint="see to the token and its PIN; nothing was signed, and it can be tried again",
        code="signer_unavailable",
    )


def _wrong(why: str) -> Invalid:
    return Invalid(
        f"this pkcs11 URI cannot be used: {why}",
        hint="pkcs11:token=NAME;object=NAME?module-path=/path/to/module.so&pin-source=/path/to/pin (RFC 7512); "
        "a PIN never stands in it",
        code="bad_signer",
    )
