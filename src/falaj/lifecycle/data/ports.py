"""What the stage needs: the applied definition, and a place to remember versions."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.data.model import DatasetVersion, SourceSpec
from falaj.storage.sql.database import Tx


class Sources(Protocol):
    """The applied definition, as this stage sees it."""

    def source(self, name: str) -> SourceSpec:
        """Raises `NotFound`."""
        ...

    def code(self) -> str:
        """The folder with the applied project's code. Raises `Conflict` when nothing is applied."""
        ...


class DatasetStore(Protocol):
    def head(self, tx: Tx, name: str) -> DatasetVersion | None: ...

    def log(self, tx: Tx, name: str) -> list[DatasetVersion]: ...

    def heads(self, tx: Tx) -> list[DatasetVersion]: ...

    def known_files(self, tx: Tx, name: str) -> list[str]: ...

    def add(self, tx: Tx, version: DatasetVersion) -> None: ...
