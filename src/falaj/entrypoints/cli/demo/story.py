"""The acts, in the channel's order: data, features, training, evidence, approval, serving, refusals, proof."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from falaj.entrypoints.cli.commands.build import project_files
from falaj.entrypoints.cli.demo import flights
from falaj.entrypoints.cli.demo.stage import Followed, Stage, days_after, timed
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, Unavailable
from falaj.statistics.ranking import roc_auc

FIRST_DAY = date(2013, 4, 1)
DAYS = 3
MORNING = 8  # o'clock in UTC: four in New York, an hour before the first departure
MONTHS = [1, 2, 3]
MODEL, MINUTES = "flight-delay", "flight-delay-minutes"
_CONNECTIONS = 16


def morning(day: date) -> datetime:
    """When the day's flights are asked for."""
    return datetime(day.year, day.month, day.day, MORNING, tzinfo=UTC)


def data(stage: Stage) -> None:
    """Real files become versioned tables; dirty rows go to quarantine; a broken feed is refused; nothing lands twice."""
    stage.begin("data", "1  Data", "recorded flights, weather and aircraft → contracts → Delta tables")
    with timed() as seconds:
        flights.write_data(stage.folder, MONTHS, [])
        stage.note("recorded files are written: January to March 2013", seconds=round(seconds(), 2))
    with timed() as seconds:
        answer = stage.client("engineer").post("/api/v1/definition", {"files": project_files(stage.folder)})
        stage.done(f"project applied: {len(answer['changes'])} definitions changed", answer["digest"], seconds())
    sources = ("flights", "weather", "planes")
    for name, load in zip(sources, _ingest(stage, *sources), strict=True):
        tell_load(stage, name, load)
    again = _ingest(stage, "flights")[0]
    stage.done(
        f"flights once more: {again.result['added'] if again.result['files'] else 0} rows added, the files are known",
        seconds=again.seconds,
    )
    broken = flights.write_broken(stage.folder)
    try:
        _ingest(stage, "flights")
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
    stage.begin("features", "2  Features", "four views over three entities, joined by knowledge time")
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
        "3  Training and evidence",
        "own process, clean environment → ONNX → gates measured → signed statements",
    )
    as_of = iso(stage.now())
    for model in (MODEL, MINUTES):
        built = stage.flow(f"/api/v1/models/{model}/builds", {"as_of": as_of})
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
    stage.begin("registry", "4  Approval and release", "four eyes, bound to the digest and its evidence")
    for model in (MODEL, MINUTES):
        version, number = stage.facts[model]["version"], stage.facts[model]["version"].rpartition("@")[2]
        if stage.facts[model]["state"] != "awaiting approval":
            stage.note(f"{version} is {stage.facts[model]['state']} already: these very bytes were approved before")
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
        with timed() as seconds:
            released = stage.client("risk-officer").follow(answer["flow"], lambda _event: None)
        stage.done(
            f"{version} approved by risk-officer, admitted, published as generation {released['generation']}, loaded",
            released["digest"],
            seconds(),
        )


def serving(stage: Stage) -> None:
    """Three mornings: the day before lands in the lake, the online store is filled, the day's flights are asked over HTTP."""
    stage.begin("serving", "5  Serving", "data plane: verify → load → look up → predict → journal → answer")
    first = FIRST_DAY if stage.new else stage.now().date() + timedelta(days=1)
    for day in days_after(first, DAYS):
        if day > FIRST_DAY:
            stage.set_clock(morning(day))
            flights.write_data(stage.folder, [], [day - timedelta(days=1)])
            loads = _ingest(stage, "flights", "weather")
            added = " and ".join(
                f"{load.result['added']:,} of {name}" for name, load in zip(("flights", "weather"), loads, strict=True)
            )
            stage.note(f"{day}: yesterday's rows landed, {added}")
            materialize(stage)
        _predict_day(stage, day)


def _predict_day(stage: Stage, day: date) -> None:
    asked = flights.day_of(stage.folder, day)
    with timed() as seconds:
        answers = asyncio.run(_ask_all(stage, [a.row for a in asked]))
        took = seconds()
    scored = [
        (a["outputs"][0]["data"][0], f.delay > flights.LATE_MINUTES)
        for a, f in zip(answers, asked, strict=True)
        if f.delay is not None
    ]
    counts: dict[str, int] = {}
    for answer in answers:
        for status, n in answer["parameters"]["features"].items():
            counts[status] = counts.get(status, 0) + n
    quality = roc_auc((float(score), late) for score, late in scored)
    stage.facts["prediction"] = answers[-1]["parameters"]["prediction_id"]
    stage.facts["predictions"] = stage.facts.get("predictions", 0) + len(answers)
    looked = ", ".join(f"{n:,} {status}" for status, n in counts.items() if n)
    stage.done(
        f"{day}: {len(answers):,} flights predicted at {len(answers) / took:,.0f} a second; looked up {looked}; ROC AUC {quality:.3f} once they had landed",
        answers[-1]["parameters"]["version_digest"],
        took,
        roc_auc=quality,
        features=counts,
    )


async def _ask_all(stage: Stage, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One request a flight, over a few connections; any refusal ends the demo."""
    import httpx  # 200 ms to import, and only the demo needs it

    headers = {"Authorization": f"Bearer {stage.token('timetable')}"}
    limits = httpx.Limits(max_connections=_CONNECTIONS)
    async with httpx.AsyncClient(base_url=stage.plane, headers=headers, limits=limits, timeout=30) as http:
        wanted = (await http.get(f"/v2/models/{MODEL}")).json()["inputs"]
        gate = asyncio.Semaphore(_CONNECTIONS)

        async def ask(row: dict[str, Any]) -> dict[str, Any]:
            inputs = [
                {"name": w["name"], "datatype": w["datatype"], "shape": [1], "data": [row[w["name"]]]} for w in wanted
            ]
            async with gate:
                answer = await http.post(f"/v2/models/{MODEL}/infer", content=msgspec.json.encode({"inputs": inputs}))
            body: dict[str, Any] = msgspec.json.decode(answer.content)
            if answer.status_code != 200:
                raise Unavailable(
                    f"the data plane answered {answer.status_code}: {body.get('error')}",
                    hint=str(body.get("hint", "see its log")),
                )
            return body

        return list(await asyncio.gather(*(ask(row) for row in rows)))


def _ingest(stage: Stage, *sources: str) -> list[Followed]:
    return stage.flows([(f"/api/v1/datasets/{s}/loads", {}) for s in sources])
