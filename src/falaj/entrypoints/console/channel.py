"""Where each version of a model stands between data and monitoring: pure rules."""

from __future__ import annotations

import msgspec

from falaj.entrypoints.console.views import StageFact, Version
from falaj.lifecycle import STAGES

_STANDS = {
    "candidate": "evidence",
    "refused": "evidence",
    "registered": "registry",
    "awaiting approval": "registry",
    "approved": "registry",
    "rejected": "registry",
    "serving": "serving",
    "killed": "serving",
    "in its place": "serving",
    "retired": "registry",
    "rolled back": "rollout",
}

MOST = 3
"""Versions drawn at one stage; the list below the channel has them all."""


class Reach(msgspec.Struct, frozen=True):
    """One stage of the channel as it is drawn: its fact, the versions that stand there, and how many more.

    `through`: something has passed this stage before, whatever is held up at it now.
    """

    stage: str
    fact: StageFact
    versions: tuple[Version, ...]
    more: int = 0
    through: bool = False


def stands_at(version: Version) -> str:
    """The stage where a version stands: by its place in the traffic, then by its state."""
    if version.role in ("canary", "shadow"):
        return "rollout"
    return _STANDS.get(version.state, "training")


def draw(facts: tuple[StageFact, ...], versions: tuple[Version, ...]) -> tuple[Reach, ...]:
    """All stages in their order. A stage without a fact is dry; `versions` come newest first and stay so."""
    known = {f.stage: f for f in facts}
    flowing = [i for i, stage in enumerate(STAGES) if stage in known and known[stage].state == "flowing"]
    reaches = []
    for i, stage in enumerate(STAGES):
        here = tuple(v for v in versions if stands_at(v) == stage)
        fact = known.get(stage, StageFact(stage, "", state="dry"))
        reaches.append(Reach(stage, fact, here[:MOST], max(0, len(here) - MOST), any(f > i for f in flowing)))
    return tuple(reaches)
