"""How a version answered in a window: requests, failures, latency. Pure rules; the size does not depend on the requests."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from falaj.lifecycle.serving.model import LATENCY_SECONDS

_NONE = (0,) * (len(LATENCY_SECONDS) + 1)


class Health(msgspec.Struct, frozen=True):
    """What was counted. `latency` counts answers by bucket of `LATENCY_SECONDS`, those that are slower last."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = _NONE

    def add(self, seconds: float, *, failed: bool) -> Health:
        """With one more request: how long it took (negative: nobody said), and whether the version failed it."""
        if failed or seconds < 0:
            return Health(self.requests + 1, self.errors + failed, self.latency)
        at = bisect_left(LATENCY_SECONDS, seconds)
        latency = tuple(n + (i == at) for i, n in enumerate(self.latency))
        return Health(self.requests + 1, self.errors, latency)

    def __add__(self, other: Health) -> Health:
        latency = tuple(a + b for a, b in zip(self.latency, other.latency, strict=True))
        return Health(self.requests + other.requests, self.errors + other.errors, latency)

    def quantile_ms(self, share: float) -> float | None:
        """The latency that this share of the answers stays below, in ms, linear within its bucket.

        None without an answer; the last bound where it lies in the last bucket, which has none of its own.
        """
        answered = sum(self.latency)
        if not answered:
            return None
        wanted, so_far, low = share * answered, 0, 0.0
        for count, high in zip(self.latency, LATENCY_SECONDS, strict=False):
            if count and so_far + count >= wanted:
                return 1000 * (low + (high - low) * (wanted - so_far) / count)
            so_far, low = so_far + count, high
        return 1000 * LATENCY_SECONDS[-1]
