"""What answers when a model is killed: `fj.Fallback.answer({"probability": 0.5, "class": 0})`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from falaj.governance.changes import inventory
from falaj.kernel.errors import Invalid


@dataclass(frozen=True)
class Fallback:
    """Made by one of its four functions: `previous`, `version`, `answer`, `refuse`."""

    kind: str = inventory.REFUSE
    number: int = 0
    values: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def previous(cls) -> Fallback:
        """The version that served before, if its admission still holds."""
        return cls(inventory.PREVIOUS)

    @classmethod
    def version(cls, number: int) -> Fallback:
        """This version, if its admission still holds: a simple one that everybody knows."""
        return cls(inventory.VERSION, number)

    @classmethod
    def answer(cls, values: Mapping[str, Any]) -> Fallback:
        """The same answer to everybody: each output of the model with its value (binary: probability and class;
        multiclass: probabilities and class; regression: value)."""
        return cls(inventory.ANSWER, 0, tuple(values.items()))

    @classmethod
    def refuse(cls) -> Fallback:
        """Nobody answers: callers get 503 with the code `model_killed`."""
        return cls()

    def spec(self, task: str) -> inventory.Fallback:
        """Its frozen form. Raises `Invalid` unless it can answer for a model of this task."""
        values = {n: list(v) if isinstance(v, tuple) else v for n, v in self.values}
        return inventory.check_fallback(inventory.Fallback(self.kind, self.number, values), task)


def check_fallback(name: str, found: object) -> None:
    """Raise `Invalid` for what is no fallback."""
    if found is not None and not isinstance(found, Fallback):
        raise Invalid(
            f"the fallback of {name} is {found!r}"[:200],
            hint="write fj.Fallback.previous(), .version(3), .answer({…}) or .refuse()",
            code="wrong_definition",
        )
