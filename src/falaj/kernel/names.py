"""What things may be called: one rule for whatever ends in a path or an address, one for columns of data.

Lower case only, so that two names never mean one folder on a disk that does not tell the cases apart.
"""

from __future__ import annotations

import re

from falaj.kernel.errors import Invalid

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?\Z")
NAME_RULE = "use 1 to 80 lower-case letters, digits, '.', '_' and '-', starting and ending with a letter or digit"
COLUMN_RULE = "use 1 to 100 printable characters in any script, no space at either end, none of \" , : [ ] { } / \\ and no '_' to begin with"
_LONGEST = 100
_SIGNS = frozenset('",:[]{}/\\')  # they end a name in JSON, in LightGBM's own text and in a path


def check_name(kind: str, name: object) -> str:
    """Return the name of a project, source, entity, feature view or model if it can be one; raise `Invalid` otherwise."""
    if not isinstance(name, str) or not NAME.match(name):
        raise Invalid(f"{_shown(name)} cannot name {_article(kind)} {kind}", hint=NAME_RULE, code="bad_name")
    return name


def check_column(kind: str, name: object) -> str:
    """Return the name of a feature or a key, which is a column of data, if it can be one; raise `Invalid` otherwise."""
    good = (
        isinstance(name, str)
        and 0 < len(name) <= _LONGEST
        and name.isprintable()
        and name == name.strip()
        and not name.startswith("_")
        and not _SIGNS & set(name)
    )
    if not isinstance(name, str) or not good:
        raise Invalid(
            f"{_shown(name)} cannot name {_article(kind)} {kind}",
            hint=f"{COLUMN_RULE}; `prepare` can rename a column",
            code="bad_column_name",
        )
    return name


def _shown(name: object) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
