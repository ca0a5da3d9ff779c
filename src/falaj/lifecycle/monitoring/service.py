"""How what serves is doing."""

from __future__ import annotations

from falaj.lifecycle.monitoring.model import PlaneHealth, health
from falaj.lifecycle.monitoring.ports import DataPlane


class MonitoringService:
    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def plane(self) -> PlaneHealth:
        """The home's data plane, now."""
        return health(self._plane.generation(), tuple(self._plane.workers()))
