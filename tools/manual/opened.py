"""A home of its own, opened once: what its application serves, and which flows it knows."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.routing import BaseRoute

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.control_plane import application
from falaj.kernel.settings import Settings
from falaj.workflow.engine import DbosWorkflows
from falaj.workflow.flow import Flow


class Opened(msgspec.Struct, frozen=True):
    """The routes of the control plane, and its flows by name."""

    routes: Sequence[BaseRoute]
    flows: dict[str, Flow]


@functools.cache
def opened() -> Opened:
    """Open a home, look, and close it."""
    flows: dict[str, Flow] = {}
    register = DbosWorkflows.register

    def noted(engine: DbosWorkflows, name: str, flow: Flow) -> None:
        flows[name] = flow
        register(engine, name, flow)

    with tempfile.TemporaryDirectory(prefix="falaj-reference-") as folder:
        DbosWorkflows.register = noted  # type: ignore[method-assign, assignment]  # to see what is registered; put back below
        try:
            home = ControlPlane(Settings(home=Path(folder) / "home", project=Path(folder)))
        finally:
            DbosWorkflows.register = register  # type: ignore[method-assign]
        try:
            return Opened(application(home).routes, flows)
        finally:
            home.close()
