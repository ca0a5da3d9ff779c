"""Flows that are under way: see them, stop one."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import FalajError

flow_app = App(name="flow", help="What is under way: loads, trainings, rehearsals, rollouts.")


@flow_app.command(name="list")
def flow_list(*, common: Common = DEFAULT) -> None:
    """List the flows that have not ended, oldest first."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/flows")
    if common.json:
        render.show_json(rows)
        return
    columns = ("flow", "what", "started")
    render.table(columns, [(r["id"], r["name"], r["started_at"]) for r in rows], empty="nothing is under way")


@flow_app.command(name="cancel")
def flow_cancel(
    flow: Annotated[str, Parameter(help="A flow's id.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Stop a flow: its step process is ended, and what it had not committed is dropped."""
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/flows/{named(flow)}/cancellation", {"reason": reason})
        try:
            client.follow(flow, lambda _event: None)
        except FalajError as e:  # the end that was asked for, or another that it came to first
            answer["ended"] = e.as_dict()
    if common.json:
        render.show_json(answer)
    elif answer.get("ended", {}).get("code") == "flow_cancelled":
        render.line(f"{flow} ({answer['name']}) is cancelled")
    else:
        render.line(f"{flow} ({answer['name']}) had come to its end: {answer.get('ended', {}).get('error', 'done')}")
