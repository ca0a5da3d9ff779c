"""What is watched and when to train again: `fj.Monitor(window="7d")`, `fj.Retrain(cooldown="14d")`."""

from __future__ import annotations

from dataclasses import dataclass

from falaj.lifecycle.features.model import seconds
from falaj.lifecycle.monitoring.policy import MonitorPolicy, RetrainPolicy


@dataclass(frozen=True)
class Monitor:
    """Windows of this length are compared with the version's reference profile.

    A window has drifted when `features` of its inputs, or its scores, have a PSI above `psi`.
    """

    window: str = "7d"
    psi: float = 0.2
    features: int = 3
    min_rows: int = 200

    def policy(self) -> MonitorPolicy:
        """What monitoring is given: periods in seconds."""
        return MonitorPolicy(seconds(self.window), self.psi, self.features, self.min_rows)


@dataclass(frozen=True)
class Retrain:
    """Train again when drift opens an incident, at most once in `cooldown`."""

    on_drift: bool = True
    cooldown: str = "14d"

    def policy(self) -> RetrainPolicy:
        """What the loop is given: the cooldown in seconds."""
        return RetrainPolicy(self.on_drift, seconds(self.cooldown))
