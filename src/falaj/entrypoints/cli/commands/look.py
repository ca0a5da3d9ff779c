"""Look at versions, runs, evidence and lineage."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.naming import named, reference, shown
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import Conflict, Invalid, NotFound

evidence_app = App(name="evidence", help="What speaks for a version.")
runs_app = App(name="runs", help="Training runs.")


def versions(model: Annotated[str, Parameter(help="A model.")], /, *, common: Common = DEFAULT) -> None:
    """List a model's versions: state, environments, digest, author, and why it was refused."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{named(model)}/versions")
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
                "; ".join(filter(None, (r["reason"], imported(r), marked(r)))),
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
    for told in filter(None, (imported(found), marked(found))):
        render.line(told)
    render.table(
        ("gate", "verdict", "statement", "reason"),
        [(r["gate"], r["verdict"], render.digest(r["envelope"]), r["reason"]) for r in rows],
    )


def imported(row: dict[str, Any]) -> str:
    """What is missing of a version that was imported, in words; empty for one that was trained here."""
    found = row.get("imported")
    return f"imported; {found['words']}" if found and found["words"] else ""


def marked(row: dict[str, Any]) -> str:
    """How a version was let in, where that is marked for good; empty where it is not."""
    return "marked one-person: its author alone approved it" if "one-person" in row["marks"] else ""


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


def published(release: dict[str, Any]) -> str:
    """Where a release has come to, in words."""
    where = " and loaded" if release["loaded"] else "; the data plane loads it when it starts (`falaj up`)"
    return f"generation {release['generation']} is published{where}"


@runs_app.command(name="list")
def runs_list(model: Annotated[str, Parameter(help="A model.")], /, *, common: Common = DEFAULT) -> None:
    """List a model's runs, newest first."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{named(model)}/runs")
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
        row = client.get(f"/api/v1/runs/{named(run)}")
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
        graph = client.get(f"/api/v1/lineage/{named(name, slashes=True)}", down=down)
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


def find_version(client: Client, version: str) -> dict[str, Any]:
    """A version by MODEL@N, or by MODEL@ and the start of its digest. Raises `NotFound`, `Invalid` for one that names two."""
    model, rest = reference(version)
    rows: list[dict[str, Any]] = client.get(f"/api/v1/models/{named(model)}/versions")
    found = [r for r in rows if r["alias"] == version]
    if not found and len(rest) >= 8:
        found = [r for r in rows if r["digest"].removeprefix("sha256:").startswith(rest)]
    if len(found) > 1:
        raise Invalid(
            f"{shown(version)} names more than one version: {', '.join(r['alias'] for r in found[:5])}",
            hint="write its number, or more of its digest",
            code="bad_version_name",
        )
    if found:
        return found[0]
    there = ", ".join([r["alias"] for r in rows if r["number"]][:5])
    raise NotFound(
        f"there is no version {shown(version)}",
        hint=f"there is {there}; `falaj versions {model}` lists them" if there else f"make one: `falaj train {model}`",
        code="no_such_version",
    )


def find_numbered(client: Client, version: str) -> dict[str, Any]:
    """A version that was registered. Raises `NotFound`, and `Conflict` for a candidate that got no number."""
    found = find_version(client, version)
    if not found["number"]:
        raise Conflict(
            f"{found['alias']} is {found['state']}{': ' + found['reason'] if found['reason'] else ''}",
            hint=f"it was never registered, so nothing can be decided about it: see `falaj evidence show {found['alias']}`, "
            "and train a better one",
            code="not_registered",
        )
    return found
