"""What a project asks of monitoring: frozen types."""

from __future__ import annotations

import msgspec


class MonitorPolicy(msgspec.Struct, frozen=True):
    """Window length in seconds; PSI above which a feature or the score has drifted; how many features make a window drift."""

    window_seconds: int = 7 * 86400
    psi: float = 0.2
    features: int = 3
    min_rows: int = 200


class RetrainPolicy(msgspec.Struct, frozen=True):
    """Whether drift starts a retraining, and the least time between two, in seconds."""

    on_drift: bool = False
    cooldown_seconds: int = 14 * 86400


class ReviewPolicy(msgspec.Struct, frozen=True):
    """Which answers people look at, and within how many seconds. Any of the three rules is enough.

    `between`: a score from the first to the second, both counted. `unsure`: the chosen class is less probable. `codes` are the
    reasons that an override may have.
    """

    between: tuple[float, float] | None = None
    unsure: float | None = None
    every: bool = False
    within_seconds: int = 72 * 3600
    codes: tuple[str, ...] = ("wrong_input", "missing_context", "exceptional_case", "unfair_outcome", "model_error")

    @property
    def rules(self) -> bool:
        """Whether any answer comes to people by itself."""
        return self.every or self.between is not None or self.unsure is not None
