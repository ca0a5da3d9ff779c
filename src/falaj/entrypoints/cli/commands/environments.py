"""The environments of a home: list them, compare two, keep staging's data plane running."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.serve import standing
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.plane import plane_address, start_plane, stop_plane
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.environments import PRODUCTION, STAGING

env_app = App(name="env", help="dev, staging and production: what each holds, and how two differ.")

Name = Annotated[str, Parameter(help="dev, staging or production.")]


@env_app.command(name="list")
def env_list(*, common: Common = DEFAULT) -> None:
    """List the environments: key, approvals, data plane, and the versions that stand there."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/environments")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("environment", "after", "key", "approvals", "rehearsal", "data plane", "versions"),
        [
            (
                r["name"],
                r["after"] or "–",
                render.digest(r["key"]),
                _asked(r),
                "yes" if r["rehearsal"] else "no",
                r["plane"]["address"] or r["plane"]["state"],
                ", ".join(s["alias"] for s in r["serving"] or r["admitted"]) or "–",
            )
            for r in rows
        ],
    )


@env_app.command(name="diff")
def env_diff(first: Name, second: Name, /, *, common: Common = DEFAULT) -> None:
    """Show which models differ between two environments and why the second lacks them, and how one gets into each."""
    with connect(common.settings()) as client:
        found = client.get(f"/api/v1/environments/{named(first)}/differences/{named(second)}")
    if common.json:
        render.show_json(found)
        return
    render.table(
        ("model", first, second, "why"),
        [(m["model"], _stands(m["first"]), _stands(m["second"]), m["why"] or "–") for m in found["models"]],
        empty=f"{first} and {second} hold the same versions",
    )
    for hint in dict.fromkeys(m["hint"] for m in found["models"] if m["hint"]):
        render.line(f"next: {hint}")
    render.table(
        ("what", first, second),
        [(d["what"], _short(d["first"]), _short(d["second"])) for d in found["differences"]],
        empty="",
    )


@env_app.command(name="up")
def env_up(name: Name, /, *, common: Common = DEFAULT) -> None:
    """Keep an environment's data plane running; staging's is started for each rehearsal otherwise."""
    settings = common.settings()
    environment = standing(name)
    with connect(settings):  # a home that was never opened has no keys, and no bundle for its data planes
        address = plane_address(settings, environment) or start_plane(settings, environment)
    if common.json:
        render.show_json({"environment": environment, "data_plane": address})
        return
    render.line(f"{environment:<13}  {address}")
    option = "" if environment == PRODUCTION else f" --environment {environment}"
    render.line(f"ask it         falaj predict MODEL --data -{option}")


@env_app.command(name="down")
def env_down(name: Name = STAGING, /, *, common: Common = DEFAULT) -> None:
    """Stop an environment's data plane; what is in flight is finished first."""
    settings = common.settings()
    stopped = "stopped" if stop_plane(settings, standing(name)) else "was not running"
    if common.json:
        render.show_json({"environment": name, "data_plane": stopped})
    else:
        render.line(f"{name}: {stopped}")


def _asked(row: dict[str, Any]) -> str:
    return " ".join([str(row["approvals"]), *row["roles"]])


def _stands(found: dict[str, Any] | None) -> str:
    return f"{found['alias']} {render.digest(found['digest'])}" if found else "–"


def _short(text: str) -> str:
    return render.digest(text) if text.startswith("sha256:") else text or "–"
