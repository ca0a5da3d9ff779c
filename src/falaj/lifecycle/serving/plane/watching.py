"""What one worker sees of a challenger, and when it has seen enough.

Every request that the plan sent to a challenger adds an entry to its `Window`; the `Watch` judges the
window by the plan's guard after each. A trip takes effect in this worker with the statement that sets
it: routing looks at `Watch.trip`. `trips` carries it to the other workers and over restarts.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from falaj.kernel.clock import Clock, iso
from falaj.lifecycle.rollout.model import Guard, certain_shift
from falaj.lifecycle.serving.model import GuardReport
from falaj.lifecycle.training.model import ModelContract

FINE, ERROR, NON_FINITE, SLOW, SERVED = 0, 1, 2, 4, 8
"""What became of a request; SERVED: the caller got the challenger's own answer."""

_BITS = {"errors": ERROR, "non_finite": NON_FINITE, "slow": SLOW, "score_shift": SERVED}
_LOOK_EVERY = 8  # requests; comparing two samples costs more than counting


class Challenger(msgspec.Struct, frozen=True):
    """Who is watched: in which role, in the plan of which generation."""

    model: str
    alias: str
    digest: str
    role: str
    generation: int


class Latest:
    """The stable version's last score, to be compared with a challenger's next one."""

    __slots__ = ("serial", "value")

    def __init__(self) -> None:
        self.serial = 0
        self.value = 0.0

    def put(self, score: float | None) -> None:
        """Remember a score; None is passed over."""
        if score is not None:
            self.value = score
            self.serial += 1


class Window:
    """The last requests of a challenger: what became of each and when, and pairs of scores.

    A pair is one score of the challenger and the stable version's last one before it, so both samples
    are of the same hours, however uneven the weights are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._codes = bytearray(size)
        self._moments = array("q", bytes(8 * size))  # µs since 1970
        self._scores = np.zeros((2, size))
        self.total = 0
        self.pairs = 0
        self._counted = dict.fromkeys(_BITS.values(), 0)

    @property
    def count(self) -> int:
        """How many requests it holds."""
        return min(self.total, self._size)

    def add(self, code: int, moment: int) -> None:
        """Add a request: what became of it, and when (µs since 1970)."""
        at = self.total % self._size
        before = self._codes[at]
        if code != before:
            for bit in self._counted:
                self._counted[bit] += bool(code & bit) - bool(before & bit)
        self._codes[at] = code
        self._moments[at] = moment
        self.total += 1

    def add_pair(self, score: float, stable: float) -> None:
        """Add a score of the challenger and the stable version's last one."""
        self._scores[:, self.pairs % self._size] = score, stable
        self.pairs += 1

    def share(self, bit: int) -> float:
        """Of the requests in the window, how many have a bit."""
        return self._counted[bit] / self.count

    def shift(self) -> float:
        """The certain Kolmogorov–Smirnov distance between the scores in the window."""
        pairs = min(self.pairs, self._size)
        ours, theirs = np.sort(self._scores[:, :pairs], axis=1)
        both = np.concatenate((ours, theirs))
        apart = np.searchsorted(ours, both, side="right") - np.searchsorted(theirs, both, side="right")
        return certain_shift(float(np.abs(apart).max()) / pairs, pairs)

    def having(self, bit: int) -> tuple[int, int]:
        """(how many requests in the window have a bit, when the first of them came: µs since 1970, 0 if none)."""
        found = [self._moments[i] for i in range(self.count) if self._codes[i] & bit]
        return len(found), min(found, default=0)


class Watch:
    """One challenger under one plan's guard. Added to by the one thread that runs the challenger."""

    def __init__(
        self,
        challenger: Challenger,
        guard: Guard | None,
        clock: Clock,
        tell: Callable[[Watch], None],
        before: Watch | None = None,
    ) -> None:
        """`tell` hears of a trip. The window of the same challenger `before` goes on if its guard was the same."""
        self.challenger = challenger
        self.guard = guard
        self.trip: GuardReport | None = None
        self.in_flight = 0
        self.last_at = 0.0  # when the last request was answered
        self.bad_after = 0
        self._clock = clock
        self._tell = tell
        self._seen = 0
        goes_on = before is not None and before.guard == guard and before.challenger.role == challenger.role
        size = max(guard.window, guard.min_count) if guard else 1
        self.window: Window = before.window if before is not None and goes_on else Window(size)
        limit = guard.max_latency_ms if guard else None
        self.patience = None if limit is None else limit / 1000
        """Seconds after which a request is slow."""

    def begin(self) -> None:
        """A request begins."""
        self.in_flight += 1

    def end(self) -> None:
        """A request was answered."""
        self.last_at = self._clock.now().timestamp()
        self.in_flight -= 1

    def pair(self, score: float | None, stable: float | None) -> None:
        """A score of the challenger, and the stable version's for the same request or the same moment."""
        if score is not None and stable is not None and self.trip is None and self.guard is not None:
            self.window.add_pair(score, stable)

    def unused(self, latest: Latest | None) -> float | None:
        """The stable version's last score, unless it was given out before."""
        if latest is None or latest.serial == self._seen:
            return None
        self._seen = latest.serial
        return latest.value

    def add(self, code: int, moment: int) -> None:
        """Count a request that came at `moment` (µs), and judge."""
        guard = self.guard
        if guard is None:
            return
        if self.trip is not None:
            self.bad_after += bool(code & _BITS.get(self.trip.reason, 0))
            return
        window = self.window
        window.add(code, moment)
        if window.count < guard.min_count:
            return
        broken = self._broken(guard)
        if broken is not None:
            self._stop(*broken)

    def close(self, report: GuardReport) -> None:
        """Send the challenger nothing any more, because another worker, or this one before, has said so."""
        self.last_at = max(self.last_at, self._clock.now().timestamp())
        self.trip = report

    def bad(self) -> tuple[int, str]:
        """(bad answers that this worker gave, when the first came): complete when nothing is under way any more."""
        reason = self.trip.reason if self.trip else ""
        count, first = self.window.having(_BITS.get(reason, 0))
        served = reason in ("slow", "score_shift") and self.challenger.role != "shadow"
        return (count + self.bad_after) * served, _iso(first)

    def _broken(self, guard: Guard) -> tuple[str, float, float] | None:
        """(reason, observed, limit) of the first limit that is broken."""
        share = self.window.share
        for reason, limit in (
            ("errors", guard.max_error_share),
            ("non_finite", guard.max_non_finite_share),
            ("slow", guard.max_slow_share),
        ):
            if limit is not None and share(_BITS[reason]) > limit:
                return reason, share(_BITS[reason]), limit
        limit, pairs = guard.max_score_shift, self.window.pairs
        if limit is not None and pairs >= guard.min_count and self.window.total % _LOOK_EVERY == 0:
            shift = self.window.shift()
            if shift > limit:
                return "score_shift", shift, limit
        return None

    def _stop(self, reason: str, observed: float, limit: float) -> None:
        who, now = self.challenger, iso(self._clock.now())
        self.trip = GuardReport(
            who.digest,
            who.alias,
            tripped_at=now,
            reason=reason,
            observed=round(observed, 6),
            limit=limit,
            count=self.window.count,
            bad_answers=0,
            first_bad_at=_iso(self.window.having(_BITS[reason])[1]),
            verdict_at=now,
            zero_traffic_at="",
            model=who.model,
            generation=who.generation,
            role=who.role,
        )
        self._tell(self)


def score_of(contract: ModelContract, outputs: dict[str, list[Any]]) -> float | None:
    """One number for an answer: its first row's score. None when that is no number.

    A list of class probabilities becomes the index of the greatest plus that probability, so both
    another class and another confidence show. One number a request, so a batch weighs no more than a row.
    """
    values = outputs.get(contract.score)
    value = values[0] if values else None
    if isinstance(value, list):
        if not value or not all(isinstance(v, (int, float)) for v in value):
            return None
        greatest = max(value)
        return float(value.index(greatest)) + min(max(float(greatest), 0.0), 0.999999)
    return float(value) if isinstance(value, (int, float)) else None


def _iso(moment: int) -> str:
    """µs since 1970 as RFC 3339; empty for 0."""
    return iso(datetime.fromtimestamp(moment / 1_000_000, UTC)) if moment else ""
