"""What monitoring watches."""

from __future__ import annotations

from typing import Protocol

from falaj.lifecycle.serving.model import PlaneStatus


class DataPlane(Protocol):
    def workers(self) -> list[PlaneStatus]:
        """What the live workers say of themselves."""
        ...

    def generation(self) -> int:
        """The newest published generation."""
        ...
