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
