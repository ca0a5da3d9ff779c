"""Purposes: pure rules."""

from __future__ import annotations

from collections.abc import Iterable


def allowed_purposes(sources: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The purposes that every source allows; of no source, none.

    A source that declares no purpose allows none: silence is not consent.
    """
    sets = [set(s) for s in sources]
    return tuple(sorted(set.intersection(*sets))) if sets else ()
