"""How a challenger gets its traffic: `fj.Shadow(requests=200) >> fj.Canary(steps=[10, 50])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from falaj.lifecycle.rollout.strategy import Limits, Strategy, check_strategy

__all__ = ["Canary", "Limits", "Shadow"]


@dataclass(frozen=True)
class Shadow:
    """Mirror so many requests to the challenger before it answers any; its answers are discarded."""

    requests: int = 200

    def __rshift__(self, then: Canary) -> Canary:
        return Canary(then.steps, then.requests, then.limits, self.requests, then.labels)


@dataclass(frozen=True)
class Canary:
    """Give it more of the traffic step by step, in percent; each step needs `requests` and an analysis that holds.

    `labels`: a step also waits until so many of the challenger's answers in it have their label.
    """

    steps: Sequence[int] = (10, 50)
    requests: int = 200
    limits: Limits = field(default_factory=Limits)
    shadow: int = 0
    labels: int = 0

    def strategy(self) -> Strategy:
        """The strategy, checked. Raises `Invalid`."""
        return check_strategy(Strategy(self.shadow, tuple(self.steps), self.requests, self.limits, self.labels))
