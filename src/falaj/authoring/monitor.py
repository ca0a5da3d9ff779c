"""What is watched, when to train again, what people look at: `fj.Monitor(window="7d")`, `fj.Retrain(cooldown="14d")`,
`fj.Review(between=(0.4, 0.6))`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from falaj.kernel.errors import Invalid
from falaj.lifecycle.features.model import seconds
from falaj.lifecycle.monitoring.policy import MonitorPolicy, RetrainPolicy, ReviewPolicy

_CODE = re.compile(r"[a-z][a-z0-9_]{0,59}\Z")


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


@dataclass(frozen=True)
class Review:
    """Which answers people look at. Each rule is enough; without one, only answers that somebody asks about.

    `between=(low, high)`: a probability or a value from low to high. `unsure=p`: a classifier's chosen class is less probable than
    p. `every=True`: all answers. One that waits longer than `within` opens an incident. `codes` are the reasons that an
    override may have; short names, so that nothing about a person is written into them.
    """

    between: tuple[float, float] | None = None
    unsure: float | None = None
    every: bool = False
    within: str = "72h"
    codes: Sequence[str] = ReviewPolicy().codes

    def policy(self, model: str, task: str) -> ReviewPolicy:
        """What monitoring is given: the time in seconds. Raises `Invalid` for a rule that the task cannot have."""
        if self.between is not None and not self._is_span(task):
            raise _wrong(
                model,
                f"between={self.between!r}",
                "give two numbers, the lower first; several classes have `unsure` instead",
            )
        if self.unsure is not None and (task == "regression" or not _number(self.unsure) or not 0 < self.unsure <= 1):
            raise _wrong(model, f"unsure={self.unsure!r}", "give a probability above 0; a value has `between` instead")
        codes = () if isinstance(self.codes, str) else tuple(self.codes)
        if not codes or not all(isinstance(code, str) and _CODE.match(code) for code in codes):
            raise _wrong(model, f"codes={self.codes!r}", "give short names such as ('wrong_input', 'exceptional_case')")
        within = seconds(self.within)
        if not within:
            raise _wrong(model, f"within={self.within!r}", "give some time, such as '72h'")
        return ReviewPolicy(self.between, self.unsure, bool(self.every), within, codes)

    def _is_span(self, task: str) -> bool:
        ends = self.between
        return (
            task != "multiclass"
            and isinstance(ends, tuple)
            and len(ends) == 2
            and all(_number(end) for end in ends)
            and ends[0] <= ends[1]
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(model: str, what: str, hint: str) -> Invalid:
    return Invalid(f"{model} is reviewed by {what}, which is no rule for it", hint=hint, code="wrong_definition")
