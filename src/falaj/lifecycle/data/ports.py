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
    """Dataset versions and the files that each came from."""

    def head(self, tx: Tx, name: str) -> DatasetVersion | None:
        """The newest version; None before the first load."""
        ...

    def log(self, tx: Tx, name: str) -> list[DatasetVersion]:
        """All versions, newest first."""
        ...

    def heads(self, tx: Tx) -> list[DatasetVersion]:
        """The newest version of each dataset, by name."""
        ...

    def known_files(self, tx: Tx, name: str) -> list[str]:
        """The SHA-256 of every file that was loaded into it, sorted."""
        ...

    def known_paths(self, tx: Tx, name: str) -> dict[str, tuple[str, ...]]:
        """The same by the names that the files had below the project."""
        ...

    def add(self, tx: Tx, version: DatasetVersion) -> None:
        """Write a new version down, with its files."""
        ...
