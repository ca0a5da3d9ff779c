"""Health: pure rules."""

from __future__ import annotations

import msgspec

from falaj.kernel.access import Action
from falaj.lifecycle.serving.model import PlaneStatus

HEALTH_READ = Action("monitoring.read", "read", "DataPlane", "see how what serves is doing")
ACTIONS = (HEALTH_READ,)


class PlaneHealth(msgspec.Struct, frozen=True):
    """A data plane in one word and why.

    current: runs the published bundle · behind: an older one · refusing: it refused the newest · absent: none runs.
    """

    state: str
    reason: str
    generation: int
    published: int
    workers: tuple[PlaneStatus, ...]


def health(published: int, workers: tuple[PlaneStatus, ...]) -> PlaneHealth:
    """Judge a data plane by its slowest worker."""
    if not workers:
        return PlaneHealth("absent", "no data plane runs for this home", 0, published, workers)
    generation = min(w.generation for w in workers)
    refused = next((w.refused_bundle for w in workers if w.refused_bundle), "")
    if refused:
        return PlaneHealth("refusing", refused, generation, published, workers)
    if generation < published:
        return PlaneHealth(
            "behind", f"it serves generation {generation} of {published}", generation, published, workers
        )
    return PlaneHealth("current", f"it serves generation {generation}", generation, published, workers)
