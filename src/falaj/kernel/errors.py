"""Every error a person can meet.

    FalajError
    ├── NotFound      there is no such thing                     404   exit 1
    ├── Conflict      it is not in the state that this needs     409   exit 1
    ├── Invalid       the input is not acceptable                422   exit 2 from the command line's own checks, else 1
    ├── Denied        a rule, a gate or a policy says no         403   exit 1
    ├── Unavailable   it cannot be reached or is busy            503   exit 3
    └── Integrity     bytes are not what they were signed to be  500   exit 4

Each carries a `hint`: the next step for the person who reads it.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FalajError(Exception):
    """The base of all errors raised on purpose.

    `code` is stable and names the error in `--json`, in the log and in `falaj errors`; where an error is raised it is a
    literal, so that the reference can be made from the code. `details` holds JSON-able facts for machines.
    What was sent may be told again: half a surrogate pair, which no UTF-8 can hold, is told by its number.
    """

    kind: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    received = False  # whether a server said it: what it finds invalid is refused input, not wrong usage

    def __init__(self, message: str, *, hint: str, code: str, details: dict[str, Any] | None = None) -> None:
        self.message = _utf8(message)
        super().__init__(self.message)
        self.hint = _utf8(hint)
        self.code = code
        self.details = details or {}

    def as_dict(self) -> dict[str, Any]:
        """The error as it travels over HTTP and in `--json`."""
        return {
            "error": self.message,
            "kind": self.kind,
            "code": self.code,
            "hint": self.hint,
            "details": self.details,
        }


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class NotFound(FalajError):
    """There is no such thing."""

    kind, status = "not_found", 404


class Conflict(FalajError):
    """It is not in the state that this needs."""

    kind, status = "conflict", 409


class Invalid(FalajError):
    """The input is not acceptable."""

    kind, status = "invalid", 422


class Denied(FalajError):
    """A rule, a gate or a policy says no."""

    kind, status = "denied", 403


class Unauthenticated(Denied):
    """A `Denied` that a valid token would mend; HTTP has its own status for it."""

    status = 401


class Unavailable(FalajError):
    """It cannot be reached or is busy."""

    kind, status, exit_code = "unavailable", 503, 3


class Integrity(FalajError):
    """Bytes are not what they were signed to be."""

    kind, status, exit_code = "integrity", 500, 4


KINDS: dict[str, type[FalajError]] = {c.kind: c for c in (NotFound, Conflict, Invalid, Denied, Unavailable, Integrity)}


def from_dict(body: dict[str, Any]) -> FalajError:
    """Rebuild an error from `as_dict`; an unknown kind becomes `Unavailable`, never a success."""
    kind, details = KINDS.get(str(body.get("kind")), Unavailable), body.get("details")
    error = kind(
        str(body.get("error") or "the server answered with an error that it did not explain"),
        hint=str(body.get("hint") or "look at the server's log in the home's run folder"),
        code=str(body.get("code") or "unexplained"),
        details=details if isinstance(details, dict) else {},
    )
    error.received = True
    return error
