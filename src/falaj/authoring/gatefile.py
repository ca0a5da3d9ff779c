"""Gates in a small TOML file, for a model that no Falaj project declares.

task = "binary"
label = "late"
score = "probability"
champion = "probability_now"

[[gate]]
metric = "roc_auc"
at_least = 0.65

[[gate]]
metric = "roc_auc"
by = "carrier"
at_least = 0.55

[[gate]]
metric = "roc_auc"
not_worse_than_champion = 0.005
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from falaj.authoring import gate
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import GateSpec
from falaj.lifecycle.training.model import METRICS, TASKS


class GateLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[gate]]`: a metric with a limit, of all rows or by a column's values; or a comparison with the champion."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    by: str = ""
    min_rows: int = 200
    not_worse_than_champion: float | None = None
    better_than_champion: float | None = None

    def spec(self) -> GateSpec:
        """The gate that it says. Raises `Invalid`."""
        compared = [x for x in (self.not_worse_than_champion, self.better_than_champion) if x is not None]
        if compared and (len(compared) > 1 or self.by or self.at_least is not None or self.at_most is not None):
            raise Invalid(
                f"a gate on {self.metric} compares with the champion and has another limit too",
                hint="write two gates",
                code="wrong_gate",
            )
        if self.not_worse_than_champion is not None:
            return gate.not_worse_than_champion(self.metric, margin=self.not_worse_than_champion)
        if self.better_than_champion is not None:
            return gate.better_than_champion(self.metric, by=self.better_than_champion)
        if self.by:
            return gate.slice(
                self.by, self.metric, at_least=self.at_least, at_most=self.at_most, min_rows=self.min_rows
            )
        return gate.metric(self.metric, at_least=self.at_least, at_most=self.at_most)


class GateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says. `score` and `champion` are columns: one, or for multiclass one for each of `classes`."""

    task: str
    label: str
    score: str | tuple[str, ...]
    gate: tuple[GateLine, ...]
    champion: str | tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    positive: str = "true"

    def gates(self) -> tuple[GateSpec, ...]:
        """The gates, each once. Raises `Invalid`."""
        found = tuple(line.spec() for line in self.gate)
        names = [g.name for g in found]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise Invalid(f"there is the gate {twice[0]} twice", hint="keep the stricter one", code="wrong_gate")
        for g in found:
            if g.metric not in METRICS[self.task]:
                raise Invalid(
                    f"{g.metric} is not measured for {self.task}",
                    hint=f"use one of {', '.join(METRICS[self.task])}",
                    code="wrong_gate",
                )
        return found


def read_gates(path: Path) -> GateFile:
    """A file of gates. Raises `Invalid` for what it does not say, or says wrongly."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), GateFile)
    except OSError as e:
        raise Invalid(f"{path} cannot be read: {e.strerror}", hint="name a file of gates", code="no_such_file") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as e:
        raise Invalid(
            f"{path.name} is no file of gates: {e}",
            hint="it says task, label and score, and has a [[gate]] for each gate",
            code="bad_gate_file",
        ) from e
    if found.task not in TASKS:
        raise Invalid(
            f"{path.name} names the task {found.task[:40]!r}",
            hint=f"use one of {', '.join(TASKS)}",
            code="bad_gate_file",
        )
    found.gates()
    return found
