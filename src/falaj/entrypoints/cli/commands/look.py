"""Look at versions, runs, evidence and lineage."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import NotFound

evidence_app = App(name="evidence", help="What speaks for a version.")
runs_app = App(name="runs", help="Training runs.")


def versions(model: Annotated[str, Parameter(help="A model.")], /, *, common: Common = DEFAULT) -> None:
    """List a model's versions: state, environments, digest, author, and why it was refused."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{model}/versions")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("version", "state", "in", "digest", "author", "created", "reason"),
        [
            (
                r["alias"],
                r["state"],
                ", ".join(r["environments"]) or "–",
                render.digest(r["digest"]),
                r["author"],
                r["created_at"],
                r["reason"],
            )
            for r in rows
        ],
    )


@evidence_app.command(name="show")
def evidence_show(version: Annotated[str, Parameter(help="MODEL@N.")], /, *, common: Common = DEFAULT) -> None:
    """Show each gate: verdict, what was measured, the limit, and the signed statement's digest."""
    with connect(common.settings()) as client:
        found = find_version(client, version)
        rows = client.get(f"/api/v1/evidence/{found['digest']}")
    if common.json:
        render.show_json({"version": found, "statements": rows})
        return
    render.line(f"{found['alias']} {found['digest']}")
    render.line(f"in {', '.join(found['environments']) or 'no environment'}; {rehearsed(found['rehearsal'])}")
    render.table(
        ("gate", "verdict", "statement", "reason"),
        [(r["gate"], r["verdict"], render.digest(r["envelope"]), r["reason"]) for r in rows],
    )


def rehearsed(found: dict[str, Any] | None) -> str:
    """A rehearsal in words."""
    if found is None:
        return "not rehearsed"
    if not found["passed"]:
        return f"its rehearsal failed: {found['reason']}"
    looked = ", ".join(f"{n:,} {status}" for status, n in found["statuses"].items() if n) or "nothing"
    return (
        f"rehearsed with {found['requests']} requests ({found['source']}), none failed, p99 {found['p99_ms']:.3g} ms, "
        f"looked up {looked}"
    )


@runs_app.command(name="list")
def runs_list(model: Annotated[str, Parameter(help="A model.")], /, *, common: Common = DEFAULT) -> None:
    """List a model's runs, newest first."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{model}/runs")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("run", "state", "author", "started", "reason"),
        [(r["id"], r["state"], r["author"], r["started_at"], r["reason"]) for r in rows],
    )


@runs_app.command(name="show")
def runs_show(run: Annotated[str, Parameter(help="A run's id.")], /, *, common: Common = DEFAULT) -> None:
    """Show a run: parameters, metrics, what it read."""
    with connect(common.settings()) as client:
        row = client.get(f"/api/v1/runs/{run}")
    if common.json:
        render.show_json(row)
        return
    for key in (
        "id",
        "model",
        "state",
        "author",
        "as_of",
        "started_at",
        "finished_at",
        "training_set",
        "project",
        "runtime",
    ):
        render.line(f"{key:>13}  {row[key]}")
    render.table(("parameter", "value"), row["params"].items(), empty="")
    render.table(("metric", "value"), row["metrics"].items(), empty="")
    render.table(("dataset", "version"), row["datasets"].items(), empty="")


def lineage(
    name: Annotated[str, Parameter(help="A prediction id, MODEL@N, DATASET@VERSION or KIND:ID.")],
    /,
    *,
    down: Annotated[
        bool, Parameter(negative="", help="What was made from it, instead of what it was made from.")
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Show what something was made from."""
    with connect(common.settings()) as client:
        graph = client.get(f"/api/v1/lineage/{name}", down=down)
    if common.json:
        render.show_json(graph)
        return
    root = f"{graph['root']['kind']}:{graph['root']['id']}"
    for depth, node in tree(root, graph["edges"], down):
        render.line("  " * depth + node)


def tree(root: str, edges: list[dict[str, str]], down: bool) -> list[tuple[int, str]]:
    """A graph as indented lines; a node that stands twice is drawn out once."""
    start, end = ("parent", "child") if down else ("child", "parent")
    seen: set[str] = set()
    lines: list[tuple[int, str]] = []

    def draw(node: str, depth: int) -> None:
        again = node in seen and any(e[start] == node for e in edges)
        lines.append((depth, node + (" (above)" if again else "")))
        if again:
            return
        seen.add(node)
        for edge in edges:
            if edge[start] == node:
                draw(edge[end], depth + 1)

    draw(root, 0)
    return lines


def find_version(client: Client, reference: str) -> dict[str, Any]:
    """A version by MODEL@N, or by MODEL@ and the start of its digest. Raises `NotFound`."""
    model, _, rest = reference.partition("@")
    rows: list[dict[str, Any]] = client.get(f"/api/v1/models/{model}/versions")
    for row in rows:
        if row["alias"] == reference or (
            rest and row["digest"].removeprefix("sha256:").startswith(rest) and len(rest) >= 8
        ):
            return row
    raise NotFound(
        f"there is no version {reference}", hint=f"`falaj versions {model}` lists them", code="no_such_version"
    )
