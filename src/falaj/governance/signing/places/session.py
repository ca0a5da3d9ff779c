"""A token, a smart card or an HSM, and the objects of one key in it, named by a URI of RFC 7512.

    pkcs11:token=falaj;object=model?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/secrets/pin

The PIN is read when it is needed, from the file or the variable (`env:NAME`) of `pin-source`; it never stands in the URI itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from falaj.kernel.errors import FalajError, Invalid, Unavailable

try:
    import pkcs11 as pkcs11
    from pkcs11 import exceptions
except ImportError:  # an extra
    pkcs11 = exceptions = None  # type: ignore[assignment]

SCHEME = "pkcs11"
T = TypeVar("T")
_ONE_AT_A_TIME = threading.Lock()
"""A module and its log-ins are the whole process's, and not every module bears several threads at once."""
_PATH = {"token", "serial", "object", "id"}
_QUERY = {"module-path", "pin-source"}


class Session:
    """The objects of one key in one token. It stays open, and is opened again when the token was away."""

    def __init__(self, uri: str, kinds: tuple[str, ...], away: Callable[[str, str], Unavailable]) -> None:
        """`kinds` are the classes of the objects; `away` makes the error, of a text and a hint, when the token does not answer.

        Raises `Invalid` for a URI that does not name one key, its module and where its PIN comes from.
        """
        self._named = _attributes(uri)
        self._kinds = kinds
        self._refusal = away
        self._session: Any = None
        self._objects: tuple[Any, ...] | None = None

    def use(self, work: Callable[..., T]) -> T:
        """Work with the objects, one of each kind; once more with a new session if that failed. Raises `Unavailable`."""
        _check_library()
        with _ONE_AT_A_TIME:
            for last in (False, True):
                try:
                    return work(*(self._objects or self._open()))
                except exceptions.PKCS11Error as e:
                    self._close()
                    if last:
                        raise self._away(e) from e
                except FalajError:
                    self._close()
                    raise
        raise AssertionError  # the loop returns or raises

    def _open(self) -> tuple[Any, ...]:
        token = self._found(pkcs11.lib(self._named["module-path"]).get_tokens(**self._wanted("token")), "token")
        pin = _pin(self._named["pin-source"], self._refusal)
        try:
            self._session = token.open(user_pin=pin)
        except exceptions.UserAlreadyLoggedIn:  # by another key of this process: a login is the whole process's
            self._session = token.open()
        self._objects = tuple(self._object(kind) for kind in self._kinds)
        return self._objects

    def _object(self, kind: str) -> Any:
        wanted = {pkcs11.Attribute.CLASS: getattr(pkcs11.ObjectClass, kind), **self._wanted("key")}
        return self._found(self._session.get_objects(wanted), "key")

    def _close(self) -> None:
        session, self._session, self._objects = self._session, None, None
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

    def _found(self, candidates: Any, what: str) -> Any:
        """The only one. Raises `Unavailable` for none and for several."""
        found = list(candidates)
        if len(found) != 1:
            words = ", ".join(f"{n}={self._named[n]}" for n in ("token", "serial", "object", "id") if n in self._named)
            also = "; a key that signs needs its public half in the token" if len(self._kinds) > 1 else ""
            raise self._refusal(
                f"{len(found)} {what}s answer to {words}",
                f"name exactly one, by token or serial and by object or id{also}",
            )
        return found[0]

    def _away(self, error: Exception) -> Unavailable:
        why = type(error).__name__ + (f": {error}" if str(error) else "")
        return self._refusal(
            f"the token {self._named.get('token', self._named.get('serial'))} does not do it: {why}",
            "see to the token and its PIN; nothing was changed, and it can be tried again",
        )


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


def _pin(source: str, away: Callable[[str, str], Unavailable]) -> str:
    if source.startswith("env:"):
        pin = os.environ.get(source.removeprefix("env:"), "")
    else:
        try:
            pin = Path(source.removeprefix("file:")).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            pin = ""
    if not pin:
        raise away(
            f"the PIN source {source} gives no PIN",
            "pin-source names a file that this process can read, or a variable as env:NAME",
        )
    return pin


def _wrong(why: str) -> Invalid:
    return Invalid(
        f"this pkcs11 URI cannot be used: {why}",
        hint="pkcs11:token=NAME;object=NAME?module-path=/path/to/module.so&pin-source=/path/to/pin (RFC 7512); "
        "a PIN never stands in it",
        code="bad_signer",
    )
