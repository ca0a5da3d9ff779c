"""The whole channel on real flights."""

from __future__ import annotations

from cyclopts import App


def register(app: App) -> None:
    """Add this command."""
    _ = app
