"""Quarantine: what may not be used for now."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common

quarantine_app = App(name="quarantine", help="Datasets and versions that may not be used for now: put there, let out.")

Why = Annotated[str, Parameter(help="Why.")]


@quarantine_app.command(name="list")
def quarantine_list(*, common: Common = DEFAULT) -> None:
    """List what is in quarantine and what was, newest first."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/quarantine")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("id", "what", "name", "since", "by", "reason", "let out"),
        [
            (r["id"], r["kind"], r["name"], r["at"], r["by"], r["reason"], f"{r['lifted_at'][:10]} by {r['lifted_by']}" if r["lifted_at"] else "–")
            for r in rows
        ],
        empty="nothing is in quarantine",
    )  # fmt: skip


@quarantine_app.command(name="put")
def quarantine_put(
    name: Annotated[str, Parameter(help="A version MODEL@N; with --dataset, a dataset from its version NAME@N on.")],
    /,
    *,
    reason: Why,
    dataset: Annotated[bool, Parameter(negative=(), help="It is a dataset's version.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Put a version or a dataset into quarantine: nothing is trained, approved, admitted or scored with it any more."""
    body = {"kind": "dataset" if dataset else "version", "name": name, "reason": reason}
    with connect(common.settings()) as client:
        held = client.post("/api/v1/quarantine", body)
    if common.json:
        render.show_json(held)
        return
    out = held["taken_out"]
    render.line(f"{name} is in quarantine" + (f"; it takes no traffic any more in {' and '.join(out)}" if out else ""))
    if held["affected"]:
        render.line(f"trained on it: {', '.join(held['affected'])}")
    render.line(f"next: somebody else lets it out: falaj quarantine lift {held['id']} --reason '…' --as NAME")


@quarantine_app.command(name="lift")
def quarantine_lift(
    hold: Annotated[str, Parameter(help="The id that `falaj quarantine list` shows.")],
    /,
    *,
    reason: Why,
    common: Common = DEFAULT,
) -> None:
    """Let something out that somebody else put into quarantine."""
    with connect(common.settings()) as client:
        row = client.post(f"/api/v1/quarantine/{hold}/lifting", {"reason": reason})
    if common.json:
        render.show_json(row)
    else:
        render.line(f"{row['name']} is out of quarantine, let out by {row['lifted_by']}")
