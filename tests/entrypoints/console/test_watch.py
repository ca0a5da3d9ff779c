"""Rollout, drift and incidents over a real home: journal, windows, the log, the guard's report, a retraining."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from fastapi import FastAPI

from falaj.bootstrap.control_plane import OWNER, ControlPlane
from falaj.entrypoints.console.home import HomeReader
from falaj.entrypoints.control_plane import application
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.errors import Conflict, NotFound
from falaj.kernel.locks import take
from falaj.kernel.settings import Settings
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring.model import ExternalModel, ReferenceOutcome
from falaj.lifecycle.monitoring.policy import MonitorPolicy, RetrainPolicy
from falaj.lifecycle.rollout.model import Route, TrafficPlan
from falaj.lifecycle.rollout.strategy import Limits, Rollout, Strategy
from falaj.lifecycle.serving.model import GuardReport, PlaneStatus
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from tests.entrypoints.console.test_home import OURS, PEOPLE, define, recorded, train, version_of, visitor
from tests.lifecycle.serving.plane.fleet import overflow_contract, profile_of

PAGE = "/models/late/rollout"
ROWS = 240
STRATEGY = Strategy(shadow=50, steps=(10, 50), requests=60, limits=Limits(least=10))


class Built(NamedTuple):
    """A home in which version 2 is a canary beside version 1; both have answered, and labels have come."""

    plane: ControlPlane
    app: FastAPI
    stable: str
    challenger: str
    rollout: Rollout


def answer(journal: Journal, plane: ControlPlane, digest: str, score: float, wind: float, later_us: int) -> Prediction:
    arm = "canary" if score < 0.5 else "stable"
    record = Prediction(
        id=journal.next_id, at=int(plane.clock.now().timestamp() * 1e6) + later_us, model="late", version="late@1",
        digest=digest, principal="timetable", generation=2, worker="w0", rows=1,
        inputs={"distance": [score], "origin": ["JFK"]}, outputs={"probability": [score]}, features={"wind": [wind]},
        statuses={"weather_now": ["present"]}, duration=900, role=arm,
    )  # fmt: skip
    journal.append(record)
    return record


def told(plane: ControlPlane, rollout: Rollout) -> None:
    """The steps of the rollout as its flow writes them down."""
    shadow = msgspec.structs.replace(rollout, stage="shadow")
    plane.rollout.move(shadow, "begun-1", {"generation": 2})
    plane.rollout.move(rollout, "move-1", {"verdict": "Successful", "reason": "shadow was fine", "requests": 77})
    plane.rollout.move(rollout, "begun-2", {"generation": 3})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("watch")
    plane = ControlPlane(Settings(home=folder / "home", project=folder, region="us"))
    try:
        plane.start()
        yield build(plane, folder)
    finally:
        plane.close()


def build(plane: ControlPlane, folder: Path) -> Built:
    owner = plane.identity.principal(OWNER)
    for name, role in PEOPLE.items():
        plane.identity.grant(owner, Principal(name, "person", (role,)), 30)
    define(plane, monitor=MonitorPolicy(features=1, min_rows=50), retrain=RetrainPolicy(on_drift=True))
    digests = []
    for number, name in enumerate(("one", "two"), 1):
        digest = version_of(plane, train(plane, name), folder, 0.61)
        version = plane.registry.by_digest(digest)
        plane.changes.decide(plane.identity.principal("omar"), plane.registry.subject(version), True, "even slices")
        plane.registry.move(digest, "approved", "", "omar", f"approved-{number}")
        plane.registry.admit(digest, "production", SYSTEM, f"admit-{number}")
        digests.append(digest)
    stable, challenger = digests
    plane.registry.move(stable, "serving", "", "omar", "serving")
    plan = TrafficPlan("late", (Route(stable, 90), Route(challenger, 10, "canary")))
    plane.rollout.set_plan(plan, "omar", "plan")
    start = iso(plane.clock.now() - timedelta(seconds=2))
    rollout = Rollout(
        "rol_1", "late", challenger, stable, STRATEGY, "canary", 0, 2, "omar", "", start, start
    )  # fmt: skip
    plane.rollout.start(plane.identity.principal("omar"), rollout, "start")
    told(plane, rollout)
    journal = Journal(plane.layout.plane / "journal", plane.clock)
    try:
        records = [
            answer(journal, plane, digest, (i % 10) / 20 + (0.5 if digest == stable else 0), 0.9, i)
            for i in range(ROWS)
            for digest in digests
        ]
    finally:
        journal.close()
    wait_for(lambda: sum(w.rows for w in plane.quality.windows("late")) == 2 * ROWS)
    labels = [(r.id, float(i % 2 < 1)) for i, r in enumerate(records) if r.digest == stable and i % 4 == 0]
    labels += [(r.id, 0.0) for i, r in enumerate(records) if r.digest == stable and i % 4 == 2]
    plane.quality.push(owner, "late", labels)
    return Built(plane, application(plane), stable, challenger, rollout)


def wait_for(done: Any) -> None:
    deadline = time.monotonic() + 15
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def order(what: str, rollout: str = "rol_1") -> dict[str, Any]:
    return {"headers": OURS, "data": {"order": what, "rollout": rollout}}


class TestRollout:
    def test_both_versions_stand_side_by_side(self, built: Built) -> None:
        page = HomeReader(built.plane).rollout(built.plane.identity.principal("omar"), "late")
        ride = page.ride
        assert ride is not None and page.may_steer and not ride.problem
        assert (ride.stable.alias, ride.challenger.alias, ride.weight) == ("late@1", "late@2", 10)
        states = [(r.stage, r.weight, r.state) for r in ride.reaches]
        assert states == [
            ("shadow", 0, "passed"), ("canary", 10, "here"), ("canary", 50, "ahead"), ("promoted", 100, "ahead"),
        ]  # fmt: skip
        assert (ride.reaches[0].requests, ride.reaches[0].reason) == (77, "shadow was fine")
        figures = {f.metric: f for f in ride.figures}
        up, errors = figures["score_up"], figures["error_rate"]
        assert up.stable == pytest.approx(0.725, abs=0.01) and up.challenger == pytest.approx(0.225, abs=0.01)
        assert figures["score_down"].verdict is Verdict.FAILED and ride.verdict is Verdict.FAILED
        assert (errors.stable, errors.challenger, errors.pairs) == (0, 0, ROWS)
        assert "score_down" in ride.judged and ride.requests == ROWS

    def test_the_curves_are_those_of_the_recorded_predictions(self, built: Built) -> None:
        ride = HomeReader(built.plane).rollout(built.plane.identity.principal("vera"), "late").ride
        assert ride is not None
        asked, scored = ride.curves
        assert [line.name for line in asked.lines] == ["late@1", "late@2"]
        assert [sum(y for _, y in line.points) for line in asked.lines] == [ROWS, ROWS]
        means = [sum(y for _, y in line.points) / len(line.points) for line in scored.lines]
        assert means[0] - means[1] == pytest.approx(0.5, abs=0.1)

    def test_the_page_offers_what_one_may_do_and_no_more(self, built: Built) -> None:
        may = visitor(built.app, built.plane, "omar").get(PAGE)
        assert may.status_code == 200 and "Promote late@2 now" in may.text and "go back to late@1" in may.text
        may_not = visitor(built.app, built.plane, "vera").get(PAGE)
        assert may_not.status_code == 200 and "Promote" not in may_not.text and "late@2" in may_not.text

    def test_who_may_not_steer_is_refused_and_that_is_audited(self, built: Built) -> None:
        before = recorded(built.plane, action="rollout.steer", outcome="denied")
        for who in ("vera", "huda"):
            refused = visitor(built.app, built.plane, who).post(PAGE, **order("promote"))
            assert refused.status_code == 403 and "Next step" in refused.text
        assert recorded(built.plane, action="rollout.steer", outcome="denied") == before + 2
        assert built.plane.rollout.rollout("rol_1").order == ""

    def test_a_page_elsewhere_steers_nothing(self, built: Built) -> None:
        forged = visitor(built.app, built.plane, "omar").post(
            PAGE, data=order("abort")["data"], headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert forged.status_code == 403 and built.plane.rollout.rollout("rol_1").order == ""

    def test_the_guard_says_what_it_did(self, built: Built) -> None:
        now = built.plane.clock.now()
        trip = GuardReport(
            built.challenger, "late@2", iso(now), "slow", 0.24, 0.2, 50, 12, iso(now - timedelta(seconds=1)), iso(now),
            iso(now + timedelta(milliseconds=8)), "late", 3,
        )  # fmt: skip
        status = PlaneStatus("w0", os.getpid(), 3, "production", "", "", (), "", "", iso(now), guards=(trip,))
        file = built.plane.layout.plane / "status" / "w0.json"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(msgspec.json.encode(status))
        lock = take(file.with_suffix(".lock"))
        assert lock is not None
        try:
            text = visitor(built.app, built.plane, "vera").get(PAGE).text
        finally:
            os.close(lock)
            file.unlink()
        for fact in ("Answers that took too long", "1,000 ms", "8.00 ms", "0.24 on 50 requests"):
            assert fact in text, fact

    def test_an_order_is_taken_for_the_rollout_that_was_seen(self, built: Built) -> None:
        browser = visitor(built.app, built.plane, "omar")
        stale = browser.post(PAGE, **order("abort", "rol_0"))
        assert stale.status_code == 409 and "rollout_not_running" in stale.text
        done = browser.post(PAGE, **order("abort"))
        assert (done.status_code, done.headers["location"]) == (303, PAGE)
        assert built.plane.rollout.rollout("rol_1").order == "abort"
        assert "takes the traffic back now" in browser.get(PAGE).text
        assert recorded(built.plane, action="rollout.steer", outcome="done", principal="omar") == 1

    def test_the_model_page_leads_here_and_says_where_it_stands(self, built: Built) -> None:
        text = visitor(built.app, built.plane, "vera").get("/models/late").text
        assert f'href="{PAGE}"' in text and 'href="/models/late/drift"' in text
        page = HomeReader(built.plane).model(built.plane.identity.principal("vera"), "late")
        stages = {s.stage: s for s in page.stages}
        assert (stages["rollout"].headline, stages["rollout"].detail) == ("canary @2 at 10 %", "90 % to @1")
        assert stages["monitoring"].headline.startswith("drifted, ") and "wind" in stages["monitoring"].detail

    def test_when_it_has_ended_its_figures_stay_and_nothing_is_steered(self, built: Built) -> None:
        plane, reader = built.plane, HomeReader(built.plane)
        omar = plane.identity.principal("omar")
        running = reader.rollout(omar, "late").ride
        ended = msgspec.structs.replace(plane.rollout.rollout("rol_1"), stage="aborted", reason="it was told to")
        plane.rollout.move(ended, "move-2", {"verdict": "Failed", "reason": "worse", "requests": 99})
        ride = reader.rollout(omar, "late").ride
        assert ride is not None and running is not None and ride.figures == running.figures
        assert [r.state for r in ride.reaches] == ["passed", "passed", "skipped", "here"]
        assert (ride.reaches[1].requests, ride.reaches[-1].reason) == (99, "it was told to")
        assert ride.updated_at == plane.rollout.rollout("rol_1").updated_at
        assert 'name="order"' not in visitor(built.app, plane, "omar").get(PAGE).text
        with pytest.raises(Conflict, match="does not run any more"):
            reader.order(omar, "late", "rol_1", "promote")
        with pytest.raises(NotFound):
            reader.rollout(omar, "early")


class TestDrift:
    def test_windows_have_their_verdict_their_bins_and_their_quality(self, built: Built) -> None:
        page = HomeReader(built.plane).drift("late", "")
        assert {w.version.alias for w in page.windows} == {"late@1", "late@2"} and page.selected == page.windows[0]
        stable = next(w for w in page.windows if w.version.alias == "late@1")
        shown = HomeReader(built.plane).drift("late", stable.key)
        assert shown.selected == stable and (stable.verdict, stable.rows, stable.open) == ("Failed", ROWS, True)
        assert stable.labels == ROWS and stable.metric == "roc_auc" and stable.quality is not None
        bars = {b.name: b for b in shown.bars}
        assert [b.name for b in shown.bars] == ["score", "wind", "distance"] and bars["score"].score
        wind = bars["wind"]
        assert wind.state == "drifted" and max(wind.current) == 1 and sum(wind.reference) == pytest.approx(1)
        assert len(wind.labels) == len(wind.reference) == len(wind.current)
        assert wind.psi > wind.threshold >= max(wind.limit, wind.floor) and wind.limit == 0.2
        with pytest.raises(NotFound, match="no window"):
            HomeReader(built.plane).drift("late", "another")

    def test_the_page_shows_them_to_who_may_read(self, built: Built) -> None:
        browser = visitor(built.app, built.plane, "vera")
        page = browser.get("/models/late/drift")
        assert page.status_code == 200 and page.text.count('class="chart pairs"') == 3
        assert browser.get("/models/late/drift?window=none").status_code == 404
        assert browser.get("/models/none/drift").status_code == 404

    def test_the_overview_links_to_the_windows_of_a_model_that_somebody_else_serves(self, built: Built) -> None:
        plane, model = built.plane, ExternalModel("churn", "regression", "value", {"x": "float"}, served_by="elsewhere")
        contract = overflow_contract()
        frozen = ReferenceOutcome(
            built.stable, 60, 0, msgspec.json.encode(contract).decode(), profile_of(contract).decode()
        )
        plane.external.declare(plane.identity.principal(OWNER), model, frozen, "declared")
        browser = visitor(built.app, plane, "vera")
        assert '"/models/churn/drift"' in browser.get("/").text
        page = browser.get("/models/churn/drift")
        assert page.status_code == 200 and "Watched, not governed." in page.text and "elsewhere" in page.text

    def test_slots_count_requests_once_and_rows_apart(self, built: Built) -> None:
        day = 86_400_000_000
        now = int(built.plane.clock.now().timestamp() * 1e6)
        slots = built.plane.quality.slots("late", [built.stable], (now - day, now + day), day)
        assert sum(s.requests for s in slots) == ROWS and {s.digest for s in slots} == {built.stable}
        first = parse_iso(built.rollout.started_at).timestamp() * 1e6
        assert built.plane.quality.slots("late", [built.stable], (0, int(first) - day), day) == []


class TestIncidents:
    def test_what_followed_from_an_incident_stands_beside_it(self, built: Built) -> None:
        plane = built.plane
        incident = plane.incidents.open("late", "drift", built.stable, "wind moved <b>away</b>")
        plane.incidents.open("*", "data_plane", "", "nothing answers")
        browser = visitor(built.app, plane, "huda")
        flow = f"rtr_{incident.id.partition('_')[2]}"
        wait_for(lambda: plane.workflows.state(flow).state == "failed")  # the home has no code to train with
        page = HomeReader(plane).incidents(plane.identity.principal("huda"))
        drifted = next(i for i in page.open if i.kind == "drift")
        assert drifted.followed is not None and drifted.version is not None and drifted.version.alias == "late@1"
        assert (drifted.followed.flow, drifted.followed.state, drifted.followed.version) == (flow, "failed", None)
        assert drifted.followed.reason and drifted.may_resolve
        text = browser.get("/incidents").text
        assert flow in text and "wind moved &lt;b&gt;away&lt;/b&gt;" in text and "every model" in text
        assert "2 open incidents" in browser.get("/").text

    def test_only_who_may_resolves(self, built: Built) -> None:
        plane, incident = built.plane, built.plane.incidents.open_of("late")[0]
        path = f"/incidents/{incident.id}/resolve"
        viewer = visitor(built.app, plane, "vera")
        assert path not in viewer.get("/incidents").text
        assert viewer.post(path, headers=OURS).status_code == 403
        engineer = visitor(built.app, plane, "huda")
        assert path in engineer.get("/incidents").text
        assert engineer.post(path, headers={"Origin": "http://evil.test"}).status_code == 403
        assert plane.incidents.open_of("late") == [incident]
        assert engineer.post(path, headers=OURS).headers["location"] == "/incidents"
        assert plane.incidents.open_of("late") == []
        assert recorded(plane, action="monitoring.resolve_incident", outcome="done", principal="huda") == 1
        assert engineer.post("/incidents/inc_none/resolve", headers=OURS).status_code == 404
        page = HomeReader(plane).incidents(plane.identity.principal("huda"))
        assert [(i.id, i.may_resolve) for i in page.resolved] == [(incident.id, False)]
