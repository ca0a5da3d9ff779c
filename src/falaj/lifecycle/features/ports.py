"""What the stage needs from others."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from falaj.lifecycle.data.model import DatasetVersion
from falaj.lifecycle.features.model import Materialization, ViewSpec
from falaj.storage.sql.database import Tx


class Views(Protocol):
    """The applied definition, as this stage sees it."""

    def views(self) -> tuple[ViewSpec, ...]:
        """Every feature view of the project."""
        ...

    def code(self) -> str:
        """The folder with the applied project's code."""
        ...


class Datasets(Protocol):
    """Versions of datasets, from the stage before."""

    def head(self, name: str) -> DatasetVersion:
        """Raises `NotFound` before the first load."""
        ...

    def table(self, name: str) -> Path:
        """The folder of a dataset's Delta table."""
        ...


class MaterializationStore(Protocol):
    """What was written to the online store, and when."""

    def add(self, tx: Tx, rows: list[Materialization]) -> None:
        """Write materializations down."""
        ...

    def newest(self, tx: Tx) -> list[Materialization]:
        """The newest of each view."""
        ...

    def log(self, tx: Tx, view: str) -> list[Materialization]:
        """A view's materializations, newest first."""
        ...
