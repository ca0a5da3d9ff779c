"""What answers in place of a killed model: its fallback, made from what there is now. See `governance.changes.killing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from falaj.governance.changes.inventory import ANSWER, PREVIOUS, REFUSE, VERSION, Fallback, Kill
from falaj.kernel.clock import Clock, parse_iso
from falaj.kernel.errors import FalajError
from falaj.lifecycle.registry.model import Admission, ModelVersion
from falaj.lifecycle.serving.model import Constant, Killed
from falaj.lifecycle.training.model import ModelContract


class KillsInForce(Protocol):
    """The kills that hold."""

    def in_force(self) -> dict[str, Kill]:
        """By model."""
        ...


class Versions(Protocol):
    """What a fallback asks the registry."""

    def versions(self, model: str) -> list[ModelVersion]:
        """All of a model."""
        ...

    def contract(self, digest: str) -> ModelContract:
        """Raises `NotFound`, `Integrity`."""
        ...

    def proven_admission(self, digest: str, environment: str) -> Admission | None:
        """The newest that verifies."""
        ...


class Ports(msgspec.Struct, frozen=True):
    """What fallbacks are made of. `champion` is the digest that a model's own plan names first; `served_last` orders
    versions that served before, the one that did last first."""

    kills: KillsInForce
    versions: Versions
    champion: Callable[[str, str], str]
    served_last: Callable[[str, Iterable[ModelVersion]], list[ModelVersion]]
    environment: str
    clock: Clock


class Fallbacks:
    """Kills as the data plane is told them. What cannot answer any more becomes a refusal, with the reason."""

    def __init__(self, ports: Ports) -> None:
        self._p = ports

    def killed(self) -> dict[str, Killed]:
        """What answers in place of each killed model now."""
        return {model: self.of(model, kill.fallback)[0] for model, kill in self._p.kills.in_force().items()}

    def of(self, model: str, fallback: Fallback) -> tuple[Killed, str]:
        """What would answer in place of a model, and why it is less than was declared (empty: it is not)."""
        if fallback.kind == ANSWER:
            return self._answer(model, fallback)
        if fallback.kind in (PREVIOUS, VERSION):
            return self._version(model, fallback)
        return Killed(model, REFUSE), ""

    def _version(self, model: str, fallback: Fallback) -> tuple[Killed, str]:
        versions = self._p.versions.versions(model)
        if fallback.kind == VERSION:
            found = [v for v in versions if v.number == fallback.number]
        else:
            found = self._p.served_last(model, [v for v in versions if v.state == "retired"])
        if not found:
            return Killed(model, REFUSE), f"there is no {fallback.words.removeprefix('the ')}"
        chosen = found[0]
        if fallback.kind == VERSION and chosen.digest == self._p.champion(model, self._p.environment):
            return Killed(model, REFUSE), f"{chosen.alias} is what serves, and is killed"
        admission = self._p.versions.proven_admission(chosen.digest, self._p.environment)
        if admission is None or parse_iso(admission.expires_at) <= self._p.clock.now():
            return Killed(model, REFUSE), f"{chosen.alias} is not admitted to {self._p.environment}"
        return Killed(model, VERSION, chosen.digest), ""

    def _answer(self, model: str, fallback: Fallback) -> tuple[Killed, str]:
        """The constant answer with the datatypes of the model's own outputs."""
        digest = self._p.champion(model, self._p.environment)
        try:
            if not digest:
                return Killed(model, REFUSE), f"no version of {model} serves whose outputs it could have"
            contract = self._p.versions.contract(digest)
        except FalajError as e:
            return Killed(model, REFUSE), f"its outputs cannot be read: {e.message}"
        if set(fallback.answer) != {o.name for o in contract.outputs}:
            names = " and ".join(o.name for o in contract.outputs)
            return Killed(model, REFUSE), f"the model answers with {names}, the constant answer with something else"
        values = tuple(Constant(o.name, o.datatype, fallback.answer[o.name]) for o in contract.outputs)
        wrong = [v.name for v in values if v.datatype.startswith(("INT", "UINT")) and not _whole(v.value)]
        if wrong:
            return Killed(model, REFUSE), f"the constant {wrong[0]} is no whole number"
        return Killed(model, ANSWER, answer=values), ""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
