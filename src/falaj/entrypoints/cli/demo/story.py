"""The first acts, in the channel's order: data, features, training with its evidence, approval, serving."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from falaj.entrypoints.cli.commands.build import project_files
from falaj.entrypoints.cli.demo import flights, traffic
from falaj.entrypoints.cli.demo.flights import FIRST_DAY
from falaj.entrypoints.cli.demo.rolling import Rollout
from falaj.entrypoints.cli.demo.stage import MINUTES, MODEL, Followed, Stage, timed
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Unavailable
from falaj.statistics.ranking import roc_auc

FIRST = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, 8, tzinfo=UTC)
"""When the story begins: four in the morning in New York, an hour before the first departure is asked for."""
EVERY, FILLINGS = timedelta(hours=3), 6
MONTHS = [1, 2, 3]


def data(stage: Stage) -> None:
    """Real files become versioned tables; dirty rows go to quarantine; a broken feed is refused; nothing lands twice."""
    stage.begin("data", "Data", "recorded flights, weather and aircraft → contracts → Delta tables")
    with timed() as seconds:
        flights.write_data(stage.folder, stage.variation, MONTHS, [])
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
        raise Unavailable("a broken feed was let through", hint="this is a fault: please report it", code="demo_fault")
    except FalajError as e:
        if e.code != "contract_breach":
            raise
        stage.refused("a feed that lost its tail numbers", e)
        stage.keep_refusal("a broken feed", "ingestion", e.message)
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
            code="demo_fault",
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
    rehearsal = result.get("rehearsal")
    if rehearsal:
        stage.done(
            f"{result['version']} rehearsed in staging, on its own data plane: {rehearsal['requests']} requests like those of "
            f"{'production' if rehearsal['source'] == 'journal' else 'the holdout'}, {rehearsal['failures']} failed, "
            f"p99 {rehearsal['p99_ms']:.1f} ms",
            result["digest"],
            rehearsal=rehearsal,
        )
    stage.done(f"{result['version']} is {result['state']}", result["digest"])


def approval(stage: Stage) -> None:
    """The author's own approval is refused; another person's is bound to digest and evidence, and starts the release."""
    stage.begin(
        "registry", "Approval and release", "dev → staging → production: the same digest, other keys, four eyes"
    )
    _lacking(stage)
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
                stage.keep_refusal("the author's own approval", "approval", e.message)
        answer = stage.client("risk-officer").post(
            path, {"reason": "evidence read: quality, slices, latency and parity pass"}
        )
        if answer["rollout"]:
            Rollout(stage, version, answer["flow"]).ride(stage.last_flights())
            continue
        with timed() as seconds:
            released = stage.client("risk-officer").follow(answer["flow"], lambda _event: None)
        stage.done(
            f"{version} approved by risk-officer, admitted, published as generation {released['generation']}, loaded",
            released["digest"],
            seconds(),
        )


def _lacking(stage: Stage) -> None:
    """What staging has and production lacks, and that nobody gets past the approval."""
    found = stage.client("engineer").get("/api/v1/environments/staging/differences/production")
    for row in found["models"]:
        if row["first"] is not None:
            stage.note(f"staging has {row['first']['alias']}, production does not: {row['why']}")
    result = stage.facts[MODEL]
    if result["state"] == "awaiting approval":
        number = result["version"].rpartition("@")[2]
        try:
            path = f"/api/v1/models/{MODEL}/versions/{number}/promotions"
            stage.client("engineer").post(path, {"to": "production"})
        except FalajError as e:
            stage.refused(f"the engineer promotes {result['version']} to production", e)
            stage.keep_refusal("a promotion past the approval", "promotion", e.message)


def serving(stage: Stage) -> None:
    """A day: what has landed comes in, the online store is filled, and the flights of the next hours are asked over HTTP."""
    stage.begin("serving", "Serving", "data plane: verify → load → look up → predict → journal → answer")
    if not stage.new:
        last = traffic.ask(stage, stage.last_flights(), f"again-{stage.now().isoformat()}")
        _tell_day(stage, [last], 0)
        return
    answered, rows = [], 0
    for moment in (FIRST + n * EVERY for n in range(FILLINGS)):
        rows += live(stage, moment)
        answered.append(traffic.ask(stage, stage.timetable.between(moment, moment + EVERY), moment.isoformat()))
        traffic.keep(stage, moment, answered[-1])
    _tell_day(stage, answered, rows)


def live(stage: Stage, moment: datetime) -> int:
    """Move the clock: what became known since lands in the lake, the online store is filled, labels arrive.

    Returns how many rows of flights came in.
    """
    if moment > stage.now():
        stage.set_clock(moment)
    stage.timetable.report(moment)
    landed, _ = ingest(stage, "flights", "weather")
    stage.flow("/api/v1/features/materializations", {})
    stage.waiting = traffic.push_labels(stage, stage.waiting, moment)
    return int(landed.result["added"])


def _tell_day(stage: Stage, answered: list[traffic.Answered], rows: int) -> None:
    if failed := sum(a.failed for a in answered):
        raise Unavailable(
            f"{failed} requests failed",
            hint="see the data plane's log in the home's plane folder",
            code="requests_failed",
        )
    looked: Counter[str] = Counter()
    for part in answered:
        looked.update(part.features)
    outcomes = [o for part in answered for o in part.outcomes(stage.variation.late_minutes)]
    last, count = answered[-1].answers[-1][0]["parameters"], sum(len(a.answers) for a in answered)
    seconds = sum(a.seconds for a in answered)
    told = ", ".join(f"{n:,} {status}" for status, n in looked.items() if n)
    quality = roc_auc((o.score, o.late) for o in outcomes)
    stage.facts["prediction"] = last["prediction_id"]
    if rows:
        stage.note(
            f"a day on the clock: the online store filled {len(answered)} times, {rows:,} flights landed meanwhile"
        )
    stage.done(
        f"{count:,} flights predicted at {count / seconds:,.0f} a second; looked up {told}; "
        f"ROC AUC {quality:.3f} once they had landed",
        last["version_digest"],
        seconds,
        roc_auc=quality,
        features=dict(looked),
    )


def ingest(stage: Stage, *sources: str) -> list[Followed]:
    """Load what is new in some sources, together."""
    return stage.flows([(f"/api/v1/datasets/{s}/loads", {}) for s in sources])
