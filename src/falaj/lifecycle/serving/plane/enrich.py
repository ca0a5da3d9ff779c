"""Feature values for the rows of a request: looked up by join key, used only while they are fresh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from falaj.lifecycle.training.model import ModelContract

PRESENT, EXPIRED, MISSING = "present", "expired", "missing"
_SECOND = 1_000_000  # µs


class OnlineValues(Protocol):
    """The online store, as the data plane reads it (`storage.online.lmdb_store.OnlineReader`)."""

    def get_each(self, wanted: Sequence[tuple[str, str]]) -> Sequence[tuple[int, Sequence[Any]] | None]:
        """For each (view digest, key): (event time in µs since 1970, values), or None."""
        ...

    def hold(self, keys: tuple[bytes, ...]) -> None:
        """Open values with these keys from now on."""
        ...


class Features(msgspec.Struct, frozen=True, gc=False):
    """What was looked up: by feature one value a row (None where nothing could be used), by view one
    status and the event time of what was found (µs since 1970) a row, and how often each status occurred."""

    values: dict[str, list[Any]]
    statuses: dict[str, list[str]]
    counts: dict[str, int]
    event_times: dict[str, list[int | None]] = {}


NOTHING = Features({}, {}, {PRESENT: 0, EXPIRED: 0, MISSING: 0})


def look_up(store: OnlineValues, contract: ModelContract, columns: Mapping[str, list[Any]], now: int) -> Features:
    """The view features of every row at `now` (µs since 1970).

    A value is used if 0 ≤ now − event time ≤ the view's TTL: older ones are expired, and so are ones
    from the future. A null key finds nothing. All values of a request come from one snapshot.
    Raises `Unavailable` when the store cannot be read.
    """
    if not contract.views:
        return NOTHING
    wanted = [(v.digest, str(key)) for v in contract.views for key in columns[v.key] if key is not None]
    found = iter(store.get_each(wanted) if wanted else ())
    values: dict[str, list[Any]] = {}
    statuses: dict[str, list[str]] = {}
    times: dict[str, list[int | None]] = {}
    counts = {PRESENT: 0, EXPIRED: 0, MISSING: 0}
    for view in contract.views:
        ttl = view.ttl_seconds * _SECOND
        rows: list[Sequence[Any]] = []
        said: list[str] = []
        seen_at: list[int | None] = []
        nothing = (None,) * len(view.columns)
        for key in columns[view.key]:
            entry = None if key is None else next(found)
            if entry is None or len(entry[1]) != len(nothing):
                status, row = MISSING, nothing
            elif 0 <= now - entry[0] <= ttl:
                status, row = PRESENT, entry[1]  # type: ignore[assignment]
            else:
                status, row = EXPIRED, nothing
            rows.append(row)
            said.append(status)
            seen_at.append(None if entry is None else entry[0])
            counts[status] += 1
        statuses[view.name] = said
        times[view.name] = seen_at
        if len(rows) == 1:
            for name, value in zip(view.columns, rows[0], strict=True):
                values[name] = [value]
            continue
        for name, column in zip(view.columns, zip(*rows, strict=True), strict=True):
            values[name] = list(column)
    return Features(values, statuses, counts, times)
