"""Answers about many things, for tokens that are bound to a project: what is left is what the token could ask for one by one.

A route is open to them only if it says which thing each row is (`Guard.router(…).shared`). The rows are then asked about with the
rule that decides about a single thing, so a list shows nothing that a look-up would refuse.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from fastapi import Request

from falaj.governance.door import Door, Intent
from falaj.kernel.access import WITHIN, Action, Principal, Resource

Own = Callable[[str, str], bool]
"""(type, id) → whether whoever asks may see that thing."""
Narrow = Callable[[Any, Own], Any]
"""(answer, own) → what is left of the answer."""


class Asking(Protocol):
    """Knows whoever asks."""

    def own(self, request: Request, action: Action) -> Own | None:
        """What they may see; None for a token that is bound to no project."""
        ...


def rows(kind: str, key: str = "") -> Narrow:
    """Of a list: the rows whose thing is one's own. `key` holds its name; without one the row is the name itself."""

    def narrow(found: list[Any], own: Own) -> list[Any]:
        return [row for row in found if own(kind, str(row[key] if key else row))]

    return narrow


def apart(who: Principal) -> Principal:
    """The same one with a token that is bound to none: whether a list may be asked for at all is for their roles to say."""
    return msgspec.structs.replace(who, project="")


class Within:
    """`Own` for one request: asks about each thing once. Nothing is recorded."""

    def __init__(self, door: Door, who: Principal, action: Action) -> None:
        self._door = door
        self._who = who
        self._action = action
        self._known: dict[tuple[str, str], bool] = {}

    def __call__(self, kind: str, name: str) -> bool:
        """Whether the thing of this type and id may be seen."""
        if (kind, name) not in self._known:
            self._known[kind, name] = self._door.allows(Intent(self._who, self._action, Resource(kind, name)))
        return self._known[kind, name]


def narrowed(endpoint: Callable[..., Any], action: Action, narrow: Narrow, asking: Asking) -> Callable[..., Any]:
    """The endpoint, whose answer to a bound token is narrowed. One that counts or turns pages takes `own` as a parameter,
    and leaves out beforehand what must not be counted.
    """
    signature = inspect.signature(endpoint, eval_str=True)
    parameters = {name: p for name, p in signature.parameters.items() if name != "own"}
    counts, takes = "own" in signature.parameters, "request" in parameters
    if not takes:
        parameters["request"] = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)

    @functools.wraps(endpoint)
    def answer(**given: Any) -> Any:
        request: Request = given["request"] if takes else given.pop("request")
        own = asking.own(request, action)
        found = endpoint(**given, **({"own": own} if counts else {}))
        return found if own is None else narrow(found, own)

    by_name = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters.values()]
    answer.__signature__ = signature.replace(parameters=by_name)  # type: ignore[attr-defined]
    return answer


def discreet(told: dict[str, Any]) -> dict[str, Any]:
    """A refusal for a bound token: hints and details may name what else there is, so only those of a rule stay."""
    if told.get("details", {}).get("rules") and not told["details"].get("errors"):
        return told
    return {**told, "hint": f"`falaj errors {told['code']}` says what it means and what to do", "details": {}}


def within(rules: Any) -> bool:
    """Whether something was denied because it is another project's, or nobody's."""
    return isinstance(rules, list) and WITHIN in rules
