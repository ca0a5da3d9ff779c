"""Where runs and imports are kept, and what begins an import."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.kernel.access import Principal
from falaj.lifecycle.training.foreign import Import
from falaj.lifecycle.training.model import Run
from falaj.storage.sql.database import Tx


class RunStore(Protocol):
    """Rows of training runs."""

    def get(self, tx: Tx, run_id: str) -> Run | None:
        """One run; None when there is none of this id."""
        ...

    def of_model(self, tx: Tx, model: str) -> list[Run]:
        """Newest first."""
        ...

    def add(self, tx: Tx, run: Run) -> None:
        """Write a new run down."""
        ...

    def update(self, tx: Tx, run_id: str, **values: Any) -> None:
        """Change what a run has come to, such as its state and metrics."""
        ...


class ImportStore(Protocol):
    """Rows of imports."""

    def get(self, tx: Tx, import_id: str) -> Import | None:
        """One import; None when there is none of this id."""
        ...

    def of_model(self, tx: Tx, model: str) -> list[Import]:
        """Newest first."""
        ...

    def put(self, tx: Tx, record: Import) -> None:
        """Write an import down, in the place of what was known of it before."""
        ...


class Blobs(Protocol):
    """Bytes by their digest."""

    def put(self, plain: bytes) -> str:
        """Keep bytes; returns their digest."""
        ...


class Imports(Protocol):
    """Begins imports; implemented by the loop, which knows the project's models."""

    def check(self, actor: Principal, model: str) -> None:
        """Authorise an import before it starts. Raises `Denied`, `Invalid`."""
        ...


class Curves(Protocol):
    """What runs logged while they trained."""

    def curves(self, run: str) -> dict[str, list[tuple[int, float]]]:
        """Learning curves: key → [(step, value)]."""
        ...
