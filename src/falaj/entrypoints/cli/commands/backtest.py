"""What another version would have answered."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.build import run_flow
from falaj.entrypoints.cli.commands.look import find_numbered
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.lifecycle.training.model import LOWER_IS_BETTER


def backtest(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    /,
    *,
    since: Annotated[
        str, Parameter(name="--from", help="The first day, or a moment; the first answer, if not given.")
    ] = "",
    until: Annotated[
        str, Parameter(help="The day or moment to stop before; after the last answer, if not given.")
    ] = "",
    by: Annotated[str, Parameter(help="day, week or month.")] = "month",
    common: Common = DEFAULT,
) -> None:
    """Let a version answer the recorded requests, and show its quality by the labels beside that of what was answered."""
    with connect(common.settings()) as client:
        known = find_numbered(client, version)
        path = f"/api/v1/models/{known['model']}/versions/{known['number']}/backtests"
        found = run_flow(client, path, {"since": since, "until": until, "by": by}, common)
    if common.json:
        render.show_json(found)
        return
    total = found["total"]
    metrics = [f["metric"] for f in total["figures"]]
    render.line(f"{version} on what was answered from {found['first_at'][:10]} to {found['last_at'][:10]} (UTC)")
    render.line("as served → by it (difference); ↑ more is better, ↓ less is")
    render.table(
        (
            found["by"],
            "rows",
            "labelled",
            *(f"{m} {'↓' if m in LOWER_IS_BETTER else '↑'}" for m in metrics),
            "answered by",
        ),
        [*(_row(p, p["start"]) for p in found["periods"]), _row(total, "all")],
    )
    for text in remarks(found):
        render.line(text)


def remarks(found: dict[str, Any]) -> Iterator[str]:
    """What one has to know to read the figures."""
    for period in (*found["periods"], {**found["total"], "start": "all"}):
        for problem, figures in groupby(period["figures"], key=itemgetter("problem")):
            if problem:
                yield f"{period['start']}: {', '.join(f['metric'] for f in figures)} cannot be measured: {problem}"
    name, own, total = found["version"], found["reproduced"], found["total"]
    if own["rows"]:
        within = f"within {own['largest_difference']:.1g}" if own["largest_difference"] else "exactly"
        yield f"recomputed equals recorded {within} on the {own['rows']:,} rows that {name} answered itself"
    else:
        yield f"{name} answered none of these rows: there is nothing recorded to check its recomputed answers against"
    if total["seen"]:
        yield f"* {total['seen']:,} rows are from before {found['as_of'][:10]}, what it was trained as of: it may have learnt from them"
    if total["refused"]:
        yield f"{total['refused']:,} rows have no answer from it and are in no figure"
    if found["unanswered"]:
        yield f"{found['unanswered']:,} rows got no answer when they were asked and are in no figure"
    if found["views_changed"]:
        views = ", ".join(found["views_changed"])
        yield f"recorded were other versions of its views {views}: it would have looked up other values"


def _row(period: dict[str, Any], name: str) -> tuple[object, ...]:
    answered = ", ".join(f"{alias}: {rows:,}" for alias, rows in period["answered_by"].items())
    return (
        f"{name} *" if period["seen"] else name,
        period["rows"],
        period["labelled"],
        *(figure(f) for f in period["figures"]),
        answered,
    )


def figure(found: dict[str, Any]) -> str:
    """A figure in a cell: `0.712 → 0.695 (-0.017)`."""
    if found["problem"]:
        return "–"
    return f"{found['served']:.4g} → {found['version']:.4g} ({found['difference']:+.2g})"
