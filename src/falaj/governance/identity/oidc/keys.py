"""A provider's published keys: kept for a while, and fetched again when a token names one that is unknown.

An unknown id may be a rotation or an attack: it makes us ask the provider at most once in `AGAIN`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from falaj.governance.identity.oidc.tokens import PublishedKey, read_keys
from falaj.kernel.clock import Clock

LASTS = timedelta(minutes=5)
"""How long keys are used without asking again: a key that the provider withdrew is good for no longer."""
AGAIN = timedelta(seconds=10)


class PublishedKeys:
    """`Keys` by what `fetch` brings: a JWK Set as bytes. Raises what `fetch` raises, `Unauthenticated` for a bad set."""

    def __init__(self, fetch: Callable[[], bytes], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: dict[str, PublishedKey] = {}
        self._fetched: datetime | None = None
        self._wondered: datetime | None = None  # when an unknown id last made us ask
        self._lock = threading.Lock()

    def __call__(self, kid: str) -> PublishedKey | None:
        """The key of an id; None when the provider publishes none."""
        with self._lock:
            now = self._clock.now()
            if self._fetched is None or not timedelta() <= now - self._fetched < LASTS:
                self._refresh(now)
            elif kid not in self._known and (self._wondered is None or not timedelta() <= now - self._wondered < AGAIN):
                self._wondered = now
                self._refresh(now)
            return self._known.get(kid)

    def _refresh(self, now: datetime) -> None:
        self._known = read_keys(self._fetch())
        self._fetched = now
