"""What the loop needs from others."""

from __future__ import annotations

from typing import Protocol

from falaj.kernel.access import Principal
from falaj.lifecycle.loop.model import Applied
from falaj.storage.sql.database import Tx


class DefinitionStore(Protocol):
    def newest(self, tx: Tx) -> Applied | None: ...

    def log(self, tx: Tx) -> list[Applied]: ...

    def add(self, tx: Tx, applied: Applied) -> None: ...


class Builds(Protocol):
    def check(self, actor: Principal, model: str) -> None:
        """Authorise a build before it starts. Raises `Denied`, `NotFound`."""
        ...
