"""Break-glass: in an emergency, more than one's roles allow."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common

glass_app = App(
    name="break-glass", help="In an emergency, for hours: what no role of yours allows, let by somebody else."
)

Why = Annotated[str, Parameter(help="Why.")]
Id = Annotated[str, Parameter(help="The id that `falaj break-glass list` shows.")]


@glass_app.command(name="list")
def glass_list(*, common: Common = DEFAULT) -> None:
    """List every time that somebody was allowed more, newest first. None is ever removed."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/glass")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("id", "who", "what", "asked", "let by", "until", "state", "reason"),
        [
            (
                r["id"], r["proposed_by"], ", ".join(r["actions"]), r["proposed_at"][:16], r["opened_by"] or "–",
                r["until"][:16] or "–", _state(r), r["reason"],
            )
            for r in rows
        ],
        empty="nobody ever broke glass here",
    )  # fmt: skip


@glass_app.command(name="ask")
def glass_ask(
    actions: Annotated[list[str], Parameter(help="The actions that are needed, such as rollout.steer.", negative="")],
    /,
    *,
    reason: Why,
    hours: Annotated[float, Parameter(help="For how long, at most 4.")] = 1.0,
    common: Common = DEFAULT,
) -> None:
    """Ask for actions that no role of yours allows. Nothing is allowed until somebody else opens it."""
    with connect(common.settings()) as client:
        row = client.post("/api/v1/glass", {"actions": actions, "hours": hours, "reason": reason})
    if common.json:
        render.show_json(row)
        return
    render.line(f"{row['proposed_by']} asks for {', '.join(row['actions'])}, for {hours:g} h")
    render.line(f"next: somebody else, within the hour: falaj break-glass open {row['id']} --reason '…' --as NAME")


@glass_app.command(name="open")
def glass_open(glass: Id, /, *, reason: Why, common: Common = DEFAULT) -> None:
    """Allow somebody else what they asked for. An incident opens, and a banner stands until it ends."""
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/glass/{glass}/opening", {"reason": reason})
    if common.json:
        render.show_json(row)
        return
    render.line(
        f"{row['proposed_by']} may {', '.join(row['actions'])} until {row['until'][:16]}, let by {row['opened_by']}"
    )
    render.line(f"incident {row['incident']}; it ends by itself, or now: falaj break-glass close {row['id']}")


@glass_app.command(name="close")
def glass_close(glass: Id, /, *, common: Common = DEFAULT) -> None:
    """End it before its time, or refuse what was asked."""
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/glass/{glass}/closing", {})
    if common.json:
        render.show_json(row)
    else:
        render.line(f"{row['id']} is closed by {row['closed_by']}")


def _state(row: dict[str, Any]) -> str:
    if row["holds"]:
        return "HOLDS"
    return f"ended by {row['closed_by']}" if row["closed_at"] else "ended" if row["until"] else "asked"
