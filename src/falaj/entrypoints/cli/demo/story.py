"""The acts, in the channel's order: data, features, training, evidence, approval, serving, refusals, proof."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from falaj.entrypoints.cli.commands.build import project_files
from falaj.entrypoints.cli.demo import flights, traffic
from falaj.entrypoints.cli.demo.rolling import ride
from falaj.entrypoints.cli.demo.stage import MINUTES, MODEL, Followed, Stage, days_after, timed
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Unavailable
from falaj.statistics.ranking import roc_auc

FIRST_DAY = date(2013, 4, 1)
LAST_DAY = date(2013, 12, 30)
DAYS = 3
MORNING = 8  # o'clock in UTC: four in New York, an hour before the first departure
MONTHS = [1, 2, 3]
LABELLED = 0.95
"""The share of landed flights whose label arrives; the others' never does."""


def morning(day: date) -> datetime:
    """When the day's flights are asked for."""
    return datetime(day.year, day.month, day.day, MORNING, tzinfo=UTC)


def data(stage: Stage) -> None:
    """Real files become versioned tables; dirty rows go to quarantine; a broken feed is refused; nothing lands twice."""
    stage.begin("data", "Data", "recorded flights, weather and aircraft → contracts → Delta tables")
    with timed() as seconds:
        flights.write_data(stage.folder, MONTHS, [])
        stage.note("recorded files are written: January to March 2013", seconds=round(seconds(), 2))
    with timed() as seconds:
        answer = stage.client("engineer").post("/api/v1/definition", {"files": project_files(stage.folder)})
        stage.done(f"project applied: {len(answer['changes'])} definitions changed", answer["digest"], seconds())
    sources = ("flights", "weather", "planes")
    for name, load in zip(sources, ingest(stage, *sources), strict=True):
        tell_load(stage, name, load)
    again = ingest(stage, "flights")[0]
    stage.done(
        f"flights once more: {again.result['added'] if again.result['files'] else 0} rows added, the files are known",
        seconds=again.seconds,
    )
    broken = flights.write_broken(stage.folder)
    try:
        ingest(stage, "flights")
        raise Unavailable("a broken feed was let through", hint="this is a fault: please report it")
    except FalajError as e:
        if e.code != "contract_breach":
            raise
        stage.refused("a feed that lost its tail numbers", e)
        stage.facts.setdefault("refusals", []).append(("a broken feed", "ingestion", e.message))
    finally:
        broken.unlink(missing_ok=True)


def tell_load(stage: Stage, name: str, load: Followed) -> None:
    """One line for a load, with the reasons of what was quarantined; checks that no row was lost."""
    version = load.result
    if not version["files"]:
        stage.done(
            f"{name}@{version['version']}: nothing new, {version['rows']:,} rows are there",
            version["digest"],
            load.seconds,
        )
        return
    arrived = sum(f["rows"] for f in version["files"])
    if arrived != version["added"] + version["quarantined"]:
        raise Unavailable(
            f"{name}: {arrived} rows came, {version['added']} + {version['quarantined']} are kept",
            hint="report this fault",
        )
    reasons = [f"{count:,} × {reason}" for reason, count in version["reasons"].items()]
    text = f"{name}@{version['version']}: {arrived:,} rows in = {version['added']:,} stored + {version['quarantined']:,} quarantined"
    stage.done(text, version["digest"], load.seconds, lines=reasons, steps=load.steps)


def features(stage: Stage) -> None:
    """The online store as of now: nothing that was not known yet."""
    stage.begin("features", "Features", "four views over three entities, joined by knowledge time")
    materialize(stage)
    for view, key in (("airport_weather", "JFK"), ("carrier_delay", "UA")):
        value = stage.client("engineer").get(f"/api/v1/features/{view}/values/{key}")
        known = ", ".join(f"{k} {v:.4g}" for k, v in list(value["values"].items())[:3] if isinstance(v, float))
        stage.note(f"{view} of {key}: {known} ({value['status']}, {value['age_seconds'] / 60:.0f} min old)")


def materialize(stage: Stage) -> None:
    """Fill the online store for the present moment."""
    filled = stage.flow("/api/v1/features/materializations", {})
    keys = ", ".join(f"{v['view']} {v['keys']:,}" for v in filled.result["views"])
    stage.done(
        f"online store filled as of {filled.result['as_of'][:16]}: {keys} keys",
        seconds=filled.seconds,
        steps=filled.steps,
    )


def training(stage: Stage) -> None:
    """One code path, two tasks: will it be late, and by how much."""
    stage.begin(
        "training",
        "Training and evidence",
        "own process, clean environment → ONNX → gates measured → signed statements",
    )
    as_of = iso(stage.now())
    for model in (MODEL, MINUTES):
        try:
            built = stage.flow(f"/api/v1/models/{model}/builds", {"as_of": as_of})
        except FalajError as e:
            if stage.new or e.code != "gate_failed":
                raise
            stage.facts[model] = {"version": model, "state": "refused"}
            stage.refused(f"{model} trained again", e)
            continue
        stage.facts[model] = built.result
        tell_build(stage, model, built)


def tell_build(stage: Stage, model: str, built: Followed) -> None:
    """What a build came to: a run, its gates, a version."""
    result = built.result
    metrics = result["metrics"]
    shown = ", ".join(
        f"{k.removeprefix('validation_')} {v:.4g}" for k, v in metrics.items() if k.startswith("validation_")
    )
    points = sum(e.get("type") == "metric" for e in built.events)
    stage.done(
        f"{model}: run {result['run'][-6:]} ({shown}; {points} points of its curves kept)",
        seconds=built.seconds,
        steps=built.steps,
    )
    for event in built.events:
        if event.get("type") == "gate":
            stage.note(f"{event['gate']}: {event['verdict']}, {event['reason']}", verdict=event["verdict"])
    stage.done(f"{result['version']} is {result['state']}", result["digest"])


def approval(stage: Stage) -> None:
    """The author's own approval is refused; another person's is bound to digest and evidence, and starts the release."""
    stage.begin("registry", "Approval and release", "four eyes, bound to the digest and its evidence")
    for model in (MODEL, MINUTES):
        version, number = stage.facts[model]["version"], stage.facts[model]["version"].rpartition("@")[2]
        if stage.facts[model]["state"] != "awaiting approval":
            stage.note(f"{version} is {stage.facts[model]['state']}: there is nothing to approve")
            continue
        path = f"/api/v1/models/{model}/versions/{number}/approvals"
        if model == MODEL:
            try:
                stage.client("engineer").post(path, {"reason": "my own work looks good to me"})
            except FalajError as e:
                stage.refused(f"the author approves {version}", e)
                stage.facts.setdefault("refusals", []).append(("the author's own approval", "approval", e.message))
        answer = stage.client("risk-officer").post(
            path, {"reason": "evidence read: quality, slices, latency and parity pass"}
        )
        if answer["rollout"]:
            ride(stage, version, answer["flow"], stage.now().date())
            continue
        with timed() as seconds:
            released = stage.client("risk-officer").follow(answer["flow"], lambda _event: None)
        stage.done(
            f"{version} approved by risk-officer, admitted, published as generation {released['generation']}, loaded",
            released["digest"],
            seconds(),
        )


def serving(stage: Stage) -> None:
    """Three mornings: the day before lands in the lake, the online store is filled, the day's flights are asked over HTTP."""
    stage.begin("serving", "Serving", "data plane: verify → load → look up → predict → journal → answer")
    first = FIRST_DAY if stage.new else stage.now().date() + timedelta(days=1)
    for day in [d for d in days_after(first, DAYS) if d <= LAST_DAY] or [stage.now().date()]:
        if day > FIRST_DAY:
            stage.set_clock(morning(day))
            flights.write_data(stage.folder, [], [day - timedelta(days=1)])
            loads = ingest(stage, "flights", "weather")
            added = " and ".join(
                f"{load.result['added']:,} of {name}" for name, load in zip(("flights", "weather"), loads, strict=True)
            )
            stage.note(f"{day}: yesterday's rows landed, {added}")
            materialize(stage)
        _predict_day(stage, day)


def _predict_day(stage: Stage, day: date) -> None:
    answered = traffic.ask_day(stage, day, day.isoformat())
    if answered.failed:
        raise Unavailable(
            f"{answered.failed} requests failed", hint="see the data plane's log in the home's plane folder"
        )
    quality = roc_auc(answered.scored())
    last = answered.answers[-1][0]["parameters"]
    stage.facts["prediction"] = last["prediction_id"]
    stage.facts["predictions"] = stage.facts.get("predictions", 0) + len(answered.answers)
    stage.facts["waiting"] = answered.labels(LABELLED)
    looked = ", ".join(f"{n:,} {status}" for status, n in answered.features.items() if n)
    rate = len(answered.answers) / answered.seconds
    stage.done(
        f"{day}: {len(answered.answers):,} flights predicted at {rate:,.0f} a second; looked up {looked}; "
        f"ROC AUC {quality:.3f} once they had landed",
        last["version_digest"],
        answered.seconds,
        roc_auc=quality,
        features=answered.features,
    )


def ingest(stage: Stage, *sources: str) -> list[Followed]:
    """Load what is new in some sources, together."""
    return stage.flows([(f"/api/v1/datasets/{s}/loads", {}) for s in sources])
