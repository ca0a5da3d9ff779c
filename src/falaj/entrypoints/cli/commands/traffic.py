"""Rollouts, drift, incidents and labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.look import find_numbered, published
from falaj.entrypoints.cli.commands.serve import read_rows
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import Invalid

rollout_app = App(name="rollout", help="A challenger on its way into traffic.")
incidents_app = App(name="incidents", help="What is not as it should be.")
labels_app = App(name="labels", help="What became true of predictions.")

Model = Annotated[str, Parameter(help="A model.")]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How a version gets its traffic, and why."""

    reason: Annotated[str, Parameter(help="Why.")] = ""
    at_once: Annotated[bool, Parameter(negative=(), help="Give it all traffic now, without steps.")] = False
    shadow: Annotated[int | None, Parameter(help="Requests to mirror before it answers any; 0 for no shadow.")] = None
    canary: Annotated[str, Parameter(help="The steps in percent of the traffic, such as 10,50.")] = ""
    requests: Annotated[int | None, Parameter(help="How many requests each step needs of it.")] = None
    again: Annotated[
        bool, Parameter(negative=(), help="Also if it was rolled back before: what stopped it is gone.")
    ] = False

    def body(self) -> dict[str, Any]:
        """As the control plane wants to be told. Raises `Invalid`."""
        steps = [s.strip().removesuffix("%") for s in self.canary.split(",")] if self.canary else []
        if not all(s.isascii() and s.isdigit() for s in steps):
            raise Invalid(
                f"{self.canary[:60]!r} are no steps",
                hint="write percents, ascending: --canary 10,50",
                code="bad_canary_steps",
            )
        return {**asdict(self), "canary": [int(s) for s in steps]}


_AS_DECLARED = How()


@rollout_app.command(name="start")
def rollout_start(
    version: Annotated[str, Parameter(help="MODEL@N, approved.")],
    /,
    *,
    how: How = _AS_DECLARED,
    common: Common = DEFAULT,
) -> None:
    """Start an approved version's way into traffic: by steps if another version serves, else at once.

    An approval starts it by itself, unless it was given with --hold. A retired version gets the traffic back so. What
    no option says is as the model's own rollout says. Started again while it runs, it goes on as it is.
    """
    with connect(common.settings()) as client:
        found = find_numbered(client, version)
        path = f"/api/v1/models/{found['model']}/versions/{found['number']}/rollouts"
        answer = client.post(path, how.body())
        if not answer["rollout"]:
            with render.progress(quiet=common.json) as show:
                answer["release"] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
        return
    if not answer["rollout"]:
        render.line(f"{version} takes all traffic: generation {answer['release']['generation']} is published")
        return
    steps = ", ".join(f"{s} %" for s in answer["strategy"]["steps"])
    began = "is on its way already" if answer["already"] else "is on its way"
    shadow = "shadow, " if answer["strategy"]["shadow"] else ""
    render.line(f"{version} {began}: {shadow}{steps}, then all (falaj rollout status {found['model']})")


@rollout_app.command(name="status")
def rollout_status(model: Model, /, *, common: Common = DEFAULT) -> None:
    """Show a model's rollouts, newest first, and how the running one does."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{named(model)}/rollouts")
    if common.json:
        render.show_json(rows)
        return
    columns = ("rollout", "challenger", "stage", "weight", "started", "reason")
    render.table(
        columns,
        [(r["id"], render.digest(r["challenger"]), r["stage"], r["weight"], r["started_at"], _why(r)) for r in rows],
    )


@rollout_app.command(name="promote")
def rollout_promote(model: Model, /, *, common: Common = DEFAULT) -> None:
    """Give the challenger all traffic now."""
    _order(model, "promote", common)


@rollout_app.command(name="abort")
def rollout_abort(model: Model, /, *, common: Common = DEFAULT) -> None:
    """Take the challenger's traffic away now."""
    _order(model, "abort", common)


def rollback(
    model: Model, /, *, reason: Annotated[str, Parameter(help="Why.")] = "rolled back by hand", common: Common = DEFAULT
) -> None:
    """Give all traffic back to the version that served before; aborts a running rollout."""
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/models/{named(model)}/rollback", {"reason": reason})
        if answer["flow"].startswith("rel_"):  # else a running rollout was told to end, and says itself how it did
            with render.progress(quiet=common.json) as show:
                answer["release"] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{model}: the traffic goes back to {render.digest(answer['digest'])} ({answer['flow']})")
    if "release" in answer:
        render.line(published(answer["release"]))


def drift(model: Model, /, *, common: Common = DEFAULT) -> None:
    """List a model's windows: rows, errors, latency, drift of inputs and scores, quality where labels have come."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/models/{named(model)}/drift")
    if common.json:
        render.show_json(rows)
        return
    columns = ("from", "version", "rows", "errors", "p99 ms", "verdict", "score psi", "labels", "quality", "drifted")
    render.table(
        columns,
        [
            (
                r["start"][:10],
                render.digest(r["digest"]) if r["claims"] is None else f"{r['claims'] or '–'} (claimed)",
                r["rows"],
                r["errors"],
                "–" if r["p99_ms"] is None else f"{r['p99_ms']:.2g}",
                r["verdict"],
                r["score_psi"],
                r["labels"],
                "–" if r["quality"] is None else f"{r['metric']} {r['quality']:.3f}",
                ", ".join(r["drifted"]) or "–",
            )
            for r in rows
        ],
    )


@incidents_app.command(name="list")
def incidents_list(*, common: Common = DEFAULT) -> None:
    """List incidents, newest first."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/incidents")
    if common.json:
        render.show_json(rows)
        return
    columns = ("incident", "model", "kind", "state", "opened", "reason")
    render.table(columns, [(r["id"], r["model"], r["kind"], r["state"], r["opened_at"], r["reason"]) for r in rows])


@incidents_app.command(name="resolve")
def incidents_resolve(
    incident: Annotated[str, Parameter(help="An incident's id.")], /, *, common: Common = DEFAULT
) -> None:
    """Resolve an incident."""
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/incidents/{named(incident)}/resolution")
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{incident} is resolved")


@labels_app.command(name="push")
def labels_push(
    model: Model,
    /,
    *,
    data: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="JSON rows with `prediction` and `value`: a file, or - for standard input.",
        ),
    ],
    common: Common = DEFAULT,
) -> None:
    """Send what became true; a label that comes again corrects the first."""
    rows = read_rows(data)
    if not all({"prediction", "value"} <= row.keys() for row in rows):
        raise Invalid(
            "a label has `prediction` and `value`", hint='such as {"prediction": "p_…", "value": 1}', code="bad_label"
        )
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/models/{named(model)}/labels", {"labels": rows})
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{answer['accepted']:,} labels taken, {answer['unknown']:,} of predictions that nobody made")


def _order(model: str, order: str, common: Common) -> None:
    with connect(common.settings()) as client:
        answer = client.post(f"/api/v1/models/{named(model)}/rollouts/orders", {"order": order})
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{answer['id']}: {order} is ordered")


def _why(rollout: dict[str, Any]) -> str:
    return str((rollout.get("analysis") or {}).get("reason") or rollout["reason"])
