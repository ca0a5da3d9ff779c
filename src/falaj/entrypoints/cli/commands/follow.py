"""Follow one prediction, the loop, and the prediction journal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.clock import iso

loop_app = App(name="loop", help="Where each model stands in the loop.")
journal_app = App(name="journal", help="The record of everything that was predicted.")

Line = tuple[str, str]


def why(
    prediction: Annotated[str, Parameter(help="A prediction id; with /ROW for a row that is not the first.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Show why a prediction is as it is: inputs, features and their age, version, approvals, data, label, drift."""
    with connect(common.settings()) as client:
        found = client.get(f"/api/v1/predictions/{named(prediction, slashes=True)}/why")
    if common.json:
        render.show_json(found)
        return
    for name, text in explained(found):
        render.line(f"{name:>9}  {text}")
    columns = ("entry", "at", "principal", "action", "subject", "outcome")
    rows = [[e[c] for c in ("index", "at", "principal", "action", "resource_id", "outcome")] for e in found["log"]]
    render.table(columns, rows)


@loop_app.command(name="status")
def loop_status(*, common: Common = DEFAULT) -> None:
    """Show of each model: what serves, rollout, newest window, quality, incidents, retraining, what awaits approval."""
    with connect(common.settings()) as client:
        found = client.get("/api/v1/loop")
    if common.json:
        render.show_json(found)
        return
    for standing in found["models"]:
        for number, (name, text) in enumerate(stands(standing)):
            render.line(f"{'' if number else standing['model']:<24} {name:>9}  {text}")
    for incident in found["incidents"]:
        render.line(f"{incident['id']}  {incident['kind']}: {incident['reason']}")


@journal_app.command(name="list")
def journal_list(*, common: Common = DEFAULT) -> None:
    """List the sealed segments, newest first: what they hold, their root in the audit log, their lake versions."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/journal/segments")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("segment", "records", "rows", "from", "to", "root", "tables"),
        [
            (
                *(r[k] for k in ("segment", "records", "rows", "first_at", "last_at")),
                render.digest(r["root"]),
                ", ".join(f"{t['model']}@{t['version']}" for t in r["tables"]) or "–",
            )
            for r in rows
        ],
    )


@journal_app.command(name="seal")
def journal_seal(*, common: Common = DEFAULT) -> None:
    """Let the data plane end its open segments now; they are sealed and shipped within seconds while a control plane runs."""
    with connect(common.settings()) as client:
        answer = client.post("/api/v1/journal/rotations")
    if common.json:
        render.show_json(answer)
    else:
        render.line("the data plane begins new segments; `falaj journal list` shows those that are sealed")


def explained(found: dict[str, Any]) -> Iterator[Line]:
    """An explanation, line by line."""
    p, version, row = found["prediction"], found["version"], found["row"]
    yield "", f"{p['id']}/{row}  {p['model']}  {_moment(p['at'])}"
    yield "answer", p["error"] if "error" in p else _values({k: _at(v, row) for k, v in p["outputs"].items()})
    yield "inputs", _values({k: _at(v, row) for k, v in p["inputs"].items()})
    for f in found["features"]:
        yield "feature", f"{f['view']} of {f['entity']}: {f['status']}, {_age(f)}  {_values(f['values'])}"
    yield (
        "version",
        f"{version['alias']} {render.digest(version['digest'])}, {version['state']} now, by {version['author']}",
    )
    yield from _traffic(found["traffic"])
    run = found["run"]
    if run is None:
        lacking = version["imported"]
        if lacking:
            yield "import", f"{version['run']}; {lacking['words'] or 'nothing is missing'}"
        else:
            yield "run", f"{version['run']} is not known here"
    else:
        read = ", ".join(f"{d['name']}@{d['version']} {render.digest(d['digest'])}" for d in found["datasets"])
        yield "run", f"{run['id']} by {run['author']}, as of {run['as_of']}, on {read}"
    label = found["label"]
    yield "label", f"{label['value']:g}, came {_moment(label['at_us'])}" if label else "has not come"
    if found["review"]:
        yield "review", reviewed(found["review"])
    yield "window", window(found["window"])
    for i in found["incidents"]:
        yield "incident", f"{i['id']} {i['kind']}, {i['opened_at']} to {i['closed_at'] or 'now'}: {i['reason']}"
    if not found["incidents"]:
        yield "incident", "none was open"


def stands(standing: dict[str, Any]) -> Iterator[Line]:
    """Where a model stands, line by line."""
    serving, rollout, last = standing["serving"], standing["rollout"], standing["retraining"]
    yield "serving", f"{serving['alias']} {render.digest(serving['digest'])}" if serving else "nothing"
    if rollout:
        name = rollout["challenger"]["alias"] or render.digest(rollout["challenger"]["digest"])
        yield (
            "rollout",
            f"{name}: {rollout['stage']} {rollout['weight']} % since {rollout['started_at']} ({rollout['id']})",
        )
    if serving:
        yield "window", window(standing["window"])
    for i in standing["incidents"]:
        yield "incident", f"{i['id']} {i['kind']} since {i['opened_at']}: {i['reason']}"
    if last:
        came = last["version"] or last["reason"]
        yield "retrained", f"{last['state']} ({last['flow']}, for {last['incident']}){': ' + came if came else ''}"
    if standing["retrains"]:
        yield "retrain", f"on drift, from {standing['retrain_from'] or 'now'} on"
    for a in standing["awaiting"]:
        yield "approval", f"{a['alias']} awaits it, {a['approvals']} of {a['needed']}"


def reviewed(found: dict[str, Any]) -> str:
    """What people said of an answer, in a line."""
    if found["state"] == "pending":
        return f"waits for a person until {found['due_at']} ({found['because']}, {found['id']})"
    if "decided_by" not in found:  # for whoever may not read what was said
        return f"{found['state']}, {found['id']}"
    instead = f" with {found['override']} ({found['code']})" if found["state"] == "overridden" else ""
    return f"{found['state']}{instead} by {found['decided_by']} on {found['decided_at']}, {found['id']}"


def window(found: dict[str, Any] | None) -> str:
    """A window in a line."""
    if found is None:
        return "none"
    quality = (
        f", {found['metric']} {found['quality']:.3f} on {found['labels']:,} labels"
        if found["quality"] is not None
        else ""
    )
    span = f"{found['start'][:10]} to {found['end'][:10]}, {found['rows']:,} rows"
    return f"{span}: drift {found['verdict']} ({found['reason']}){quality}"


def _traffic(traffic: dict[str, Any]) -> Iterator[Line]:
    share = "" if traffic["weight"] is None else f", {traffic['weight']} %"
    yield "traffic", f"{traffic['role']}{share} in generation {traffic['generation']} of {traffic['published_at']}"
    if traffic["flow"]:
        yield "", f"by {traffic['how']} {traffic['flow']}, since {traffic['since']}"
    if traffic["ordered"]:
        given = traffic["ordered"]
        how = "given back" if given["given_back"] else "started by hand"
        yield "", f"{how} by {given['principal']} on {given['at']}: {given['reason']}"
    for a in traffic["approvals"]:
        yield a["decision"], f"by {a['principal']} on {a['at']}, {a['id']}: {a['reason']}"


def _age(feature: dict[str, Any]) -> str:
    limit = f"at most {_span(feature['ttl_seconds'])}"
    return limit if feature["age_seconds"] is None else f"{_span(feature['age_seconds'])} old, {limit}"


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= length:
            return f"{_number(seconds / length)} {unit}"
    return f"{_number(seconds)} s"


def _values(values: dict[str, Any]) -> str:
    return "  ".join(f"{k} {_value(v)}" for k, v in values.items()) or "–"


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _at(values: list[Any], row: int) -> Any:
    return values[row] if row < len(values) else None


def _moment(us: int) -> str:
    return iso(datetime.fromtimestamp(us / 1e6, UTC))
