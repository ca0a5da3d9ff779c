"""What monitoring watches."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.serving.model import LoadReport, PlaneStatus


class DataPlane(Protocol):
    def workers(self) -> list[PlaneStatus]:
        """What the live workers say of themselves."""
        ...

    def generation(self) -> int:
        """The newest published generation."""
        ...

    def project(self) -> None:
        """Write the newest bundle where the data plane reads it, unless it lies there already."""
        ...

    def record_refusal(self, report: LoadReport, generation: int, on_behalf_of: str) -> None:
        """Audit that a version was not loaded, once."""
        ...
