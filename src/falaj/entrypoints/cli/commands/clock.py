"""The home's clock, which may show another time than the machine's: for records of the past."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common


def clock(
    shows: Annotated[
        str, Parameter(help="What the clock shall show, such as 2013-04-01T08:00Z; as it is, if not given.")
    ] = "",
    /,
    *,
    rate: Annotated[float, Parameter(help="How many times as fast as the machine's it shall run.")] = 1.0,
    common: Common = DEFAULT,
) -> None:
    """Show the home's clock, or set it. Records of the past are as old as this clock says."""
    with connect(common.settings()) as client:
        if shows:
            client.post("/api/v1/clock", {"shows": shows, "rate": rate})
        now = client.get("/api/v1/status")["now"]
    if common.json:
        render.show_json({"now": now})
        return
    render.line(f"the home's clock shows {now}")
