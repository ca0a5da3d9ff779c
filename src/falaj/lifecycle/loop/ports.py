"""What the loop needs from others."""

from __future__ import annotations

from typing import Protocol

from falaj.kernel.access import Principal
from falaj.lifecycle.loop.model import Applied
from falaj.lifecycle.rollout.strategy import Strategy
from falaj.storage.sql.database import Tx


class DefinitionStore(Protocol):
    """Definitions that were applied."""

    def newest(self, tx: Tx) -> Applied | None:
        """The one that holds; None before the first."""
        ...

    def number(self, tx: Tx) -> int:
        """The number of the one that holds; 0 before the first."""
        ...

    def log(self, tx: Tx) -> list[Applied]:
        """All of them, newest first."""
        ...

    def get(self, tx: Tx, number: int) -> Applied | None:
        """One of them; None when there is none of this number."""
        ...

    def body(self, tx: Tx, number: int) -> str:
        """One as it was written down, JSON; empty when there is none of this number."""
        ...

    def add(self, tx: Tx, applied: Applied) -> None:
        """Write the next one down."""
        ...


class Builds(Protocol):
    """Whether somebody may build."""

    def check(self, actor: Principal, model: str) -> None:
        """Authorise a build before it starts. Raises `Denied`, `NotFound`."""
        ...


class Strategies(Protocol):
    """How challengers get their traffic."""

    def strategy(self, name: str) -> Strategy | None:
        """How a challenger of this model gets its traffic; None: at once."""
        ...


class Retrainings(Protocol):
    """What drift sets off."""

    def next_of(self, model: str) -> tuple[bool, str]:
        """(whether drift starts a retraining of this model, when the next may start: empty for now, or for never)."""
        ...

    def flow_of(self, incident: str) -> str:
        """The id of the flow that an incident starts, if it starts one."""
        ...
