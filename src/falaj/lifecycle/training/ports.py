"""Where runs are kept."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.lifecycle.training.model import Run
from falaj.storage.sql.database import Tx


class RunStore(Protocol):
    def get(self, tx: Tx, run_id: str) -> Run | None: ...

    def of_model(self, tx: Tx, model: str) -> list[Run]:
        """Newest first."""
        ...

    def add(self, tx: Tx, run: Run) -> None: ...

    def update(self, tx: Tx, run_id: str, **values: Any) -> None: ...


class Curves(Protocol):
    def curves(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """Learning curves: key → [(step, value)]."""
        ...
