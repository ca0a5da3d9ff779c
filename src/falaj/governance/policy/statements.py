"""A policy's text taken apart, and checked before it may hold: pure rules.

Strict validation against the schema comes from Cedar (https://docs.cedarpolicy.com/policies/validation.html); beyond
it a statement has an `@id` of its own, and a forbid a `@hint`, for whoever it refuses.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

import cedarpy
import msgspec

from falaj.governance.policy.decide import platform_policy
from falaj.governance.policy.schema import cedar_schema
from falaj.kernel.access import Action
from falaj.kernel.environments import ENVIRONMENTS
from falaj.kernel.errors import Invalid

LARGEST = 64 << 10
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SHOWN = 5
_DEEPEST, _OPERATIONS = 30, 150
_SILENT = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*"')
_BRACKETS = re.compile(r"[()\[\]{}]")
_OPERATORS = re.compile(r"[!<>=+*.?|&-]+|\b(?:if|then|else|has|like|in|is)\b")


class Statement(msgspec.Struct, frozen=True):
    """One permit or forbid. `text` is as Cedar writes it; `literals` are the strings that it compares with."""

    id: str
    effect: str  # permit | forbid
    hint: str
    text: str
    literals: tuple[str, ...]


def statements(text: str) -> list[Statement]:
    """The statements of a policy, in their order. Raises `Invalid` for what is no Cedar, or too large for it."""
    _check_size(text)
    try:
        parsed = msgspec.json.decode(cedarpy.policies_to_json_str(text))
        if parsed["templates"]:
            raise _bad("it has a template (a statement with ?principal or ?resource), which decides nothing here")
        policies = parsed["staticPolicies"]
        return [_statement(policies[key]) for key in sorted(policies, key=lambda k: int(k.removeprefix("policy")))]
    except (ValueError, RecursionError) as e:
        raise _bad(f"it cannot be parsed: {e}") from e


def check_policy(text: str, actions: Iterable[Action]) -> list[Statement]:
    """The statements of a home's policy, if it may hold. Raises `Invalid` (`bad_policy`, `platform_rule`)."""
    found = statements(text)
    platform = platform_ids()
    taken = sorted({s.id for s in found} & platform)
    if taken:
        raise Invalid(
            f"{', '.join(taken)}: {'these rules are' if taken[1:] else 'this rule is'} the platform's own",
            hint="leave it out of the file: it always holds beside the home's policy, and nobody can change it",
            code="platform_rule",
        )
    faults = [*unnamed(found), *invalid(text, actions)]
    if faults:
        more = f", and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise _bad("; ".join(faults[:_SHOWN]) + more)
    return found


def utf8(text: str) -> bytes:
    """A policy's bytes. Raises `Invalid` for a text that has none: JSON can carry half a character."""
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        raise _bad(f"it is no text: {e.reason} at character {e.start + 1}") from e


def invalid(text: str, actions: Iterable[Action]) -> list[str]:
    """What strict validation against the schema of the actions finds in a text that can be parsed."""
    result = cedarpy.validate_policies(text, schema_of(tuple(actions)))
    names = result.id_annotations_by_policy_id
    found = [e.error.replace(f"`{e.policy_id}`", f"`{names.get(e.policy_id, e.policy_id)}`") for e in result.errors]
    return found or ([] if result.validation_passed else ["it does not agree with the schema"])


def unnamed(found: list[Statement]) -> Iterator[str]:
    """What is missing of ids and hints: a statement needs an id of its own, a forbid a hint for whoever it refuses."""
    seen: set[str] = set()
    for number, statement in enumerate(found, start=1):
        if not _ID.match(statement.id):
            yield f"statement {number} needs an @id of lower-case words with '-' between them"
        elif statement.id in seen:
            yield f'two statements have the @id "{statement.id}"'
        elif statement.effect == "forbid" and not statement.hint.strip():
            yield f"{statement.id} forbids and needs a @hint: what should whoever it refuses do?"
        seen.add(statement.id)


@functools.lru_cache(maxsize=4)
def schema_of(actions: tuple[Action, ...]) -> cedarpy.Schema:
    """The parsed schema of some actions."""
    return cedarpy.Schema.from_str(cedar_schema(actions))


@functools.cache
def platform_ids() -> frozenset[str]:
    """The ids of the platform's own rules, in any environment."""
    return frozenset(s.id for name in ("", *ENVIRONMENTS) for s in statements(platform_policy(name)))


def _check_size(text: str) -> None:
    """Raise `Invalid` for a text that Cedar's parser would not survive: it recurses, and some thousand levels end the
    process. Strings and comments are left out as Cedar's lexer does it; what it would not take for one is counted."""
    if len(utf8(text)) > LARGEST:
        raise _bad(f"it is larger than {LARGEST >> 10} KiB")
    for number, statement in enumerate(_SILENT.sub(" ", text).split(";"), start=1):
        depth = deepest = 0
        for bracket in _BRACKETS.findall(statement):
            depth = depth + 1 if bracket in "([{" else max(0, depth - 1)
            deepest = max(deepest, depth)
        if deepest > _DEEPEST or len(_OPERATORS.findall(statement)) > _OPERATIONS:
            raise _bad(
                f"statement {number} is too large: at most {_DEEPEST} brackets in each other and {_OPERATIONS} operators"
            )


def _statement(parsed: dict[str, Any]) -> Statement:
    notes = parsed.get("annotations", {})
    alone = {"staticPolicies": {"it": parsed}, "templates": {}, "templateLinks": []}
    text = cedarpy.format_policies(cedarpy.policies_from_json_str(msgspec.json.encode(alone).decode())).strip()
    literals = tuple(dict.fromkeys(_literals(parsed.get("conditions", []))))
    return Statement(notes.get("id", ""), parsed["effect"], notes.get("hint", ""), text, literals)


def _literals(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "Value" and isinstance(value, str):
                yield value
            else:
                yield from _literals(value)
    elif isinstance(node, list):
        for value in node:
            yield from _literals(value)


def _bad(why: str) -> Invalid:
    return Invalid(
        f"the policy cannot hold: {why}",
        hint="mend the file and look at it: `falaj policy plan FILE`; nothing was changed",
        code="bad_policy",
    )
