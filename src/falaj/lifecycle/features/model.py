"""Entities, feature views and what a request brings: frozen types and pure rules."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid

FEATURES_READ = Action("features.read", "read", "FeatureView", "see feature views and what was materialised")
FEATURES_GET = Action("features.get", "engineering", "FeatureView", "read a value from the online store")
FEATURES_MATERIALIZE = Action("features.materialize", "engineering", "FeatureView", "fill the online store")
ACTIONS = (FEATURES_READ, FEATURES_GET, FEATURES_MATERIALIZE)
MATERIALIZE = "materialize"
"""The name of the flow that fills the online store."""


class EntitySpec(msgspec.Struct, frozen=True):
    """The thing features describe; `key` is the column (the join key) that names one."""

    name: str
    key: str


class ColumnSpec(msgspec.Struct, frozen=True):
    """A feature's name and type: float, integer, boolean or category."""

    name: str
    type: str


class ViewSpec(msgspec.Struct, frozen=True):
    """A named group of features of one entity, computed by project code from one source.

    `digest` names this version of the view: its code, schema and source. `ttl_seconds` counts back
    from the row that is enriched. With `lookback_seconds` a value depends on no row of the source that became known
    (its column `source_known_at`) earlier than that before the value's own time.
    """

    name: str
    entity: EntitySpec
    source: str
    event_time: str
    known_at: str
    ttl_seconds: int
    columns: tuple[ColumnSpec, ...]
    transform: str  # module:name
    digest: str
    lookback_seconds: int = 0
    source_known_at: str = ""


class RequestFeature(msgspec.Struct, frozen=True):
    """A feature that the caller sends with the request."""

    name: str
    type: str


class Materialization(msgspec.Struct, frozen=True):
    """One filling of the online store for one view."""

    view: str
    digest: str
    as_of: str
    keys: int
    datasets: dict[str, int]  # dataset → version read
    operation_id: str
    created_at: str


class MaterializeTask(msgspec.Struct, frozen=True):
    """What a step process needs to fill the online store: one JSON object.

    `tables` are folders of Delta tables and `versions` the version to read, both by source name;
    `online` is the online store's folder; `as_of` is RFC 3339: nothing known later goes in.
    """

    views: tuple[ViewSpec, ...]
    tables: dict[str, str]
    versions: dict[str, int]
    as_of: str
    online: str
    operation_id: str


class ViewFilled(msgspec.Struct, frozen=True):
    """One view in the online store: how many keys, and the span of their event times (RFC 3339; empty for none)."""

    view: str
    digest: str
    keys: int
    datasets: dict[str, int]
    event_from: str = ""
    event_to: str = ""


class MaterializeOutcome(msgspec.Struct, frozen=True):
    """What a filling came to, view by view, in the order of the task."""

    as_of: str
    operation_id: str
    views: tuple[ViewFilled, ...]


_DURATION = re.compile(r"(\d+)(s|m|h|d)\Z")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """'90s', '15m', '2h', '7d' in seconds. Raises `Invalid` for anything else."""
    match = _DURATION.match(text)
    if not match:
        raise Invalid(
            f"{text!r} is not a duration",
            hint="write a whole number and s, m, h or d, such as '2h'",
            code="bad_duration",
        )
    return int(match[1]) * _UNIT[match[2]]


def fresh(age: timedelta, ttl_seconds: int) -> bool:
    """Whether a value of this age may still be used: 0 ≤ age ≤ TTL."""
    return timedelta(0) <= age <= timedelta(seconds=ttl_seconds)


class FrameTask(msgspec.Struct, frozen=True):
    """Which rows to enrich with which views, each as it was known at the row's own time.

    `spine` is the source whose rows are enriched, `at` its column with the moment of decision,
    `known_at` its column with the moment when the outcome was known; rows whose outcome was not known
    at `as_of` (RFC 3339) are left out, and so are those whose `at` is more than `history_seconds` before it (0: none
    is). `tables` and `versions` are by source name.
    """

    spine: str
    at: str
    known_at: str
    as_of: str
    views: tuple[ViewSpec, ...]
    tables: dict[str, str]
    versions: dict[str, int]
    history_seconds: int = 0
