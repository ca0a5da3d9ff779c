"""The console over a real home: every page, from services that a control plane has really opened."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from falaj.bootstrap.control_plane import OWNER, ControlPlane
from falaj.entrypoints.console.home import HomeReader
from falaj.entrypoints.console.reader import COOKIE
from falaj.entrypoints.console.views import AuditQuery
from falaj.entrypoints.control_plane import application
from falaj.governance.audit.merkle import leaf_hash
from falaj.governance.audit.model import Conditions, encode
from falaj.governance.identity.service import SessionService
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json, digest_of, short
from falaj.kernel.errors import Denied, NotFound
from falaj.kernel.settings import Settings
from falaj.lifecycle.data.model import FileLoad, IngestOutcome, SourceSpec
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, Verdict, judge
from falaj.lifecycle.evidence.service import Measured
from falaj.lifecycle.features.model import ColumnSpec, EntitySpec, MaterializeOutcome, ViewFilled, ViewSpec
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.registry.model import ModelVersion, PackageTask
from falaj.lifecycle.registry.steps import run as package
from falaj.lifecycle.rollout.model import all_to
from falaj.lifecycle.training.model import (
    QUANTILES,
    FeatureProfile,
    Input,
    JoinKey,
    ModelContract,
    Numbers,
    Output,
    Profile,
    Run,
    TrainOutcome,
    ViewUse,
)
from falaj.lifecycle.training.service import Allowed
from falaj.workflow.reporting import Reporter
from tests.lifecycle.house import stage

OURS = {"Sec-Fetch-Site": "same-origin"}
BROWSER = {"Accept": "text/html,application/xhtml+xml"}
VIEW = digest_of("view")
GATES = (
    GateSpec("metric", "roc_auc", at_least=0.6),
    GateSpec("slice", "roc_auc", at_least=0.55, by="carrier"),
    GateSpec("scan"),
)
PEOPLE = {"huda": "ml-engineer", "omar": "risk-officer", "vera": "viewer"}
CONTRACT = ModelContract(
    model="late",
    task="binary",
    inputs=(Input("distance", "float"), Input("wind", "float", "view", "weather_now")),
    keys=(JoinKey("airport", "origin"),),
    views=(ViewUse("weather_now", VIEW, "origin", 7200, ("wind",)),),
    outputs=(Output("probability", "FP32", "probabilities", 1),),
    score="probability",
    label="late",
    purpose="operations",
)


EVENLY = tuple(i / (len(QUANTILES) - 1) for i in range(len(QUANTILES)))
PROFILE = Profile(
    1000,
    {i.name: FeatureProfile(i.type, 0, None, 0.5, 0.3, EVENLY) for i in CONTRACT.inputs},
    (Numbers(0.5, 0.3, EVENLY),),
)
"""Both features and the score lie evenly between 0 and 1."""


class Quiet(Reporter):
    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Nobody watches."""

    def metric(self, key: str, value: float, step: int) -> None:
        """Nobody watches."""


class Browser:
    """Asks the application and keeps its cookies, as a browser does; it follows no redirect."""

    def __init__(self, app: FastAPI, base: str = "http://127.0.0.1", headers: dict[str, str] | None = None) -> None:
        self._app, self._base, self._headers = app, base, headers or {}
        self.cookies = httpx.Cookies()

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return asyncio.run(self._ask("GET", path, headers=headers))

    def post(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", path, **more))

    async def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(
            transport=transport, base_url=self._base, headers=self._headers, cookies=self.cookies
        ) as client:
            answer = await client.request(method, path, **more)
            self.cookies = client.cookies
            return answer


@pytest.fixture(scope="class")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    folder = tmp_path_factory.mktemp("console")
    opened = ControlPlane(Settings(home=folder / "home", project=folder, region="us"))
    try:
        opened.start()
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="class")
def app(plane: ControlPlane) -> FastAPI:
    return application(plane)


def visitor(app: FastAPI, plane: ControlPlane, name: str = OWNER) -> Browser:
    """A browser in which `name` has opened a one-time link."""
    client = Browser(app, "http://127.0.0.1:8080", headers=BROWSER)
    code = plane.sessions.link(plane.identity.principal(name))
    assert client.get(f"/login?code={code}").status_code == 200
    answer = client.post("/login", data={"code": code}, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.cookies.get(COOKIE)
    return client


def recorded(plane: ControlPlane, **conditions: str) -> int:
    return len(plane.audit.search(Conditions(limit=1000, **conditions)))  # type: ignore[arg-type]


class TestAFreshHome:
    def test_every_page_stands_before_there_is_anything_to_show(self, plane: ControlPlane, app: FastAPI) -> None:
        browser = visitor(app, plane)
        overview = browser.get("/")
        assert overview.status_code == 200
        for words in ("Nothing has been trained yet", "No data has been taken in yet", "Nothing was refused lately"):
            assert words in overview.text
        assert "not running" in overview.text
        for path in ("/models/late", "/models/late/1/evidence", "/runs/run_x"):
            answer = browser.get(path)
            assert answer.status_code == 404 and "Next step" in answer.text, path
        assert "identity.grant" in browser.get("/audit").text
        verified = browser.post("/audit/verify", headers=OURS)
        assert verified.status_code == 200 and "The log is whole" in verified.text

    def test_a_link_works_once_and_signing_out_ends_the_session(self, plane: ControlPlane, app: FastAPI) -> None:
        code = plane.sessions.link(plane.identity.principal(OWNER))
        client = Browser(app, "http://localhost", headers=BROWSER)
        assert client.get("/").headers["location"] == "/login"
        assert client.post("/login", data={"code": code}, headers=OURS).status_code == 303
        cookie = client.cookies[COOKIE]
        again = Browser(app, "http://localhost", headers=BROWSER)
        used = again.post("/login", data={"code": code}, headers=OURS)
        assert used.status_code == 403 and COOKIE not in again.cookies
        client.post("/logout", headers=OURS)
        assert plane.sessions.principal(cookie) is None

    @pytest.mark.parametrize(
        "host",
        [
            "evil.test",
            "127.0.0.1.evil.test",
            "localhost.evil.test:80",
            "evil.test:127",
            "[::2]",
            "127.0.0.2",
            "",
            "::1",
        ],
    )
    @pytest.mark.parametrize("path", ["/", "/login", "/health", "/api/v1/whoami", "/static/console.css"])
    def test_a_name_that_is_not_ours_is_refused_everywhere(self, app: FastAPI, host: str, path: str) -> None:
        answer = Browser(app, "http://127.0.0.1").get(path, headers={"Host": host})
        assert answer.status_code == 403 and answer.json()["code"] == "foreign_host"
        assert answer.headers["x-frame-options"] == "DENY"

    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:1", "[::1]", "[::1]:65535"]
    )
    def test_our_own_names_are_answered(self, app: FastAPI, host: str) -> None:
        assert Browser(app, "http://127.0.0.1").get("/health", headers={"Host": host}).status_code == 200

    def test_the_api_stays_as_it_was_beside_the_console(self, plane: ControlPlane, app: FastAPI) -> None:
        assert plane.guard.undeclared(app) == []
        client = Browser(app, "http://127.0.0.1")
        token = (plane.layout.tokens / OWNER).read_text().strip()
        me = client.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})
        assert me.status_code == 200 and me.json()["name"] == OWNER
        assert client.get("/api/v1/whoami").status_code == 401
        cookie = visitor(app, plane).cookies[COOKIE]
        assert client.get("/api/v1/whoami", headers={"Cookie": f"{COOKIE}={cookie}"}).status_code == 401

    def test_an_unknown_address_is_a_page_for_people_and_json_for_programs(self, app: FastAPI) -> None:
        client = Browser(app, "http://127.0.0.1")
        page = client.get("/nowhere/at/all", headers=BROWSER)
        assert page.status_code == 404 and "No page has this address" in page.text
        for path, headers in (("/nowhere", {}), ("/api/v1/nowhere", BROWSER)):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 404 and answer.json()["code"] == "no_route"
        assert client.get("/logout").status_code == 405

    def test_a_replayed_home_says_so_and_keeps_its_visitors(self, plane: ControlPlane, app: FastAPI) -> None:
        browser = visitor(app, plane)
        plane.clock.set(datetime(2013, 4, 1, tzinfo=UTC), 60.0)
        try:
            page = browser.get("/")
            assert page.status_code == 200 and "Replay clock." in page.text and "2013-04-01" in page.text
            plane.clock.set(datetime(2040, 1, 1, tzinfo=UTC), 1.0)
            deadline = time.monotonic() + 5
            while plane.clock.now().year != 2040 and time.monotonic() < deadline:
                time.sleep(0.02)  # the clock looks at its file at most every 50 ms
            assert plane.sessions.principal(browser.cookies[COOKIE]) is not None
        finally:
            plane.clock.set(datetime.now(UTC), 1.0)

    def test_whose_tokens_are_revoked_is_signed_out(self, plane: ControlPlane, app: FastAPI) -> None:
        owner = plane.identity.principal(OWNER)
        plane.identity.grant(owner, Principal("mallory", "person", ("viewer",)), 1)
        browser = visitor(app, plane, "mallory")
        assert browser.get("/").status_code == 200
        for token in [t for t in plane.identity.known_tokens() if t.principal == "mallory"]:
            plane.identity.revoke(owner, token.id)
        assert browser.get("/").headers["location"] == "/login"


class TestSessions:
    def test_time_is_the_one_that_was_handed_in(self) -> None:
        hours = [datetime(2026, 1, 1, tzinfo=UTC)]
        clock = SimpleNamespace(now=lambda: hours[0])
        identity = SimpleNamespace(principal=Principal)
        sessions = SessionService(identity, clock)  # type: ignore[arg-type]
        late, code = sessions.link(Principal("huda")), sessions.link(Principal("huda"))
        cookie = sessions.open(code)
        hours[0] += timedelta(minutes=11)
        with pytest.raises(Denied):
            sessions.open(late)
        assert sessions.principal(cookie) == Principal("huda")
        hours[0] += timedelta(hours=12)
        assert sessions.principal(cookie) is None


def define(plane: ControlPlane, **more: Any) -> None:
    """Apply the project; `more` is put into its model."""
    source = SourceSpec(
        "flights", "csv", "data/*.csv", "scheduled_at", "arrived_at", region="us", purposes=("operations",)
    )
    weather = msgspec.structs.replace(source, name="weather", files="weather/*.csv")
    airport = EntitySpec("airport", "origin")
    view = ViewSpec(
        "weather_now", airport, "weather", "at", "known_at", 7200, (ColumnSpec("wind", "float"),), "m:f", VIEW
    )
    model = ModelDefinition(
        name="late",
        task="binary",
        label="late",
        spine="flights",
        at="decided_at",
        inputs=CONTRACT.inputs,
        keys=CONTRACT.keys,
        views=CONTRACT.views,
        gates=GATES,
        train="m:train",
        code=digest_of("train"),
        purpose="operations",
    )
    model = msgspec.structs.replace(model, **more)
    project = ProjectDefinition("skies", digest_of("code"), (source, weather), (airport,), (view,), (model,))
    plane.definitions.apply(plane.identity.principal("huda"), project)


def load(plane: ControlPlane, name: str, version: int, rows: int, reasons: dict[str, int]) -> None:
    bad = sum(reasons.values())
    outcome = IngestOutcome(
        name=name,
        version=version,
        digest=digest_of([name, version]),
        rows=rows,
        added=rows,
        quarantined=bad,
        reasons=reasons,
        files=(FileLoad(f"{version}.csv", digest_of(f"{name}{version}"), rows + bad, rows, bad),),
        skipped=0,
        operation_id=f"load-{name}-{version}",
        base_version=version - 1,
    )
    plane.data.commit(plane.identity.principal("huda"), outcome, outcome.operation_id)


def train(plane: ControlPlane, name: str) -> Run:
    run = Run(
        id=f"run_{name}",
        model="late",
        state="running",
        author="huda",
        params={"num_leaves": 31},
        training_set="",
        datasets={"flights": 1, "weather": 0},
        views={"weather_now": VIEW},
        project=digest_of("code"),
        runtime=digest_of("runtime"),
        as_of=iso(plane.clock.now()),
        metrics={},
        artifacts={},
        started_at=iso(plane.clock.now()),
    )
    allowed = Allowed("operations", ("operations",))
    plane.training.start(plane.identity.principal("huda"), run, allowed, f"start-{name}")
    for step in range(3):
        for part in ("train", "validation"):
            key = f"{part}_log_loss"
            plane.events.append(
                name, {"type": "metric", "run": run.id, "key": key, "step": step, "value": 0.7 - step / 10}
            )
    plane.events.append(name, {"type": "metric", "run": run.id, "key": "lr", "step": 0, "value": None})  # was NaN
    metrics = {"validation_roc_auc": 0.71}
    outcome = TrainOutcome((), "", {}, {"train": 10}, metrics, digest_of("set"), CONTRACT, "lightgbm", 1.0)
    plane.training.finish(run, outcome, {}, f"finish-{name}")
    return run


def version_of(plane: ControlPlane, run: Run, folder: Path, by_carrier: float) -> str:
    """Sign a model folder, measure it by hand and register it; returns its digest."""
    model = folder / run.id
    model.mkdir()
    (model / "model.onnx").write_bytes(run.id.encode() * 100)
    (model / "signature.json").write_bytes(msgspec.json.encode(CONTRACT))
    (model / "profile.json").write_bytes(canonical_json(PROFILE))
    packed = package(PackageTask(str(model), str(plane.keys.model_path)), Quiet())
    for file in packed.files:
        plane.blobs.put((model / file.path).read_bytes())
    version = ModelVersion(
        model="late",
        number=0,
        digest=packed.digest,
        state="candidate",
        author="huda",
        run=run.id,
        files=packed.files,
        signature=plane.blobs.put(msgspec.json.encode(packed.signature)),
        gates=tuple(g.name for g in GATES),
        created_at=iso(plane.clock.now()),
    )
    plane.registry.package(version, "huda", f"package-{run.id}")
    slices = {
        "AA": {"rows": 900, "judged": True, "value": 0.66},
        "HA": {"rows": 300, "judged": True, "value": by_carrier},
        "OO": {"rows": 7, "judged": False, "problem": "one class only"},
    }
    readings = (
        Measurement(GATES[0].name, 0.71, {"rows": 1207}),
        Measurement(GATES[1].name, by_carrier, {"worst": "HA", "slices": slices}),
        Measurement(GATES[2].name, 0),
    )
    found = tuple(judge(g, m) for g, m in zip(GATES, readings, strict=True))
    now = iso(plane.clock.now())
    measured = Measured(version.alias, packed.digest, found, BuildFacts(run=run.id), now, now)
    plane.evidence.record(measured, "huda", f"evidence-{run.id}")
    plane.registry.register(packed.digest, "huda", f"register-{run.id}")
    stage(plane, packed.digest)
    return packed.digest


@pytest.fixture(scope="class")
def filled(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A home with data, runs, a version that serves and one that was refused; returns their digests."""
    folder = tmp_path_factory.mktemp("models")
    owner = plane.identity.principal(OWNER)
    for name, role in PEOPLE.items():
        plane.identity.grant(owner, Principal(name, "person", (role,)), 30)
    define(plane)
    load(plane, "weather", 0, 500, {})
    load(plane, "flights", 0, 1000, {"tailnum: not_nullable": 12})
    load(plane, "flights", 1, 1500, {"tailnum: not_nullable": 3, "late > -1 h": 40})
    views = (ViewFilled("weather_now", VIEW, 3, {"weather": 0}),)
    plane.features.commit(plane.identity.principal("huda"), MaterializeOutcome("2013-04-01T00:00:00Z", "m", views), "m")
    good = version_of(plane, train(plane, "good"), folder, 0.61)
    with pytest.raises(Denied):
        plane.decisions.approve(plane.identity.principal("huda"), plane.registry.by_digest(good), "mine is fine")
    version = plane.registry.by_digest(good)
    plane.changes.decide(plane.identity.principal("omar"), plane.registry.subject(version), True, "slices look even")
    plane.registry.move(good, "approved", "", "omar", "approved")
    plane.registry.admit(good, "production", SYSTEM, "admit")
    plane.registry.move(good, "serving", "", "omar", "serving")
    plane.rollout.set_plan(all_to("late", good), "omar", "plan")
    with pytest.raises(Denied, match="not registered"):
        version_of(plane, train(plane, "bad"), folder, 0.51)
    bad = next(v.digest for v in plane.registry.versions("late") if v.state == "refused")
    with pytest.raises(Denied):
        plane.data.check_ingest(plane.identity.principal("vera"), "flights")
    return good, bad


class TestAFilledHome:
    def test_the_overview_tells_what_serves_and_what_was_refused(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        good, bad = filled
        text = visitor(app, plane).get("/").text
        assert "late@1" in text and short(good) in text and "no data plane runs for this home" in text
        assert "1,500" in text and "late &gt; -1 h" in text
        assert "forbidden by" in text and "gate_failed" in text and "denied_by_policy" in text
        assert f'href="/models/late/{short(bad)}/evidence"' in text
        shown = HomeReader(plane).overview(plane.identity.principal(OWNER))
        flights = next(d for d in shown.datasets if d.name == "flights")
        assert (flights.version, flights.versions, flights.rows, flights.quarantined) == (1, 2, 1500, 55)
        assert list(flights.reasons.items()) == [("late > -1 h", 40), ("tailnum: not_nullable", 15)]
        assert [r.action for r in shown.refusals][:2] == ["data.ingest", "registry.register"]
        assert [r.principal for r in shown.refusals][:2] == ["vera", "huda"]
        (served,) = shown.models
        assert (served.alias, served.health, served.state) == ("late@1", "down", "refused")

    def test_reading_the_overview_writes_nothing(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        browser, before = visitor(app, plane), plane.audit.size()
        assert filled and browser.get("/").status_code == 200
        assert plane.audit.size() == before

    def test_who_may_not_read_the_log_sees_no_denials(self, plane: ControlPlane, filled: tuple[str, str]) -> None:
        reader = HomeReader(plane)
        assert filled
        seen = {
            who: {r.code for r in reader.overview(plane.identity.principal(who)).refusals} for who in ("vera", "omar")
        }
        assert seen == {"vera": {"gate_failed"}, "omar": {"gate_failed", "denied_by_policy"}}
        for who, codes in seen.items():
            assert {r.code for r in reader.model(plane.identity.principal(who), "late").refusals} == codes

    def test_the_channel_stands_where_the_services_say(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        answer = visitor(app, plane).get("/models/late")
        assert answer.status_code == 200 and "late@1" in answer.text and short(filled[1]) in answer.text
        page = HomeReader(plane).model(plane.identity.principal(OWNER), "late")
        stages = {s.stage: s for s in page.stages}
        assert {name: s.state for name, s in stages.items()} == {
            "data": "flowing",
            "features": "flowing",
            "training": "flowing",
            "evidence": "stopped",
            "registry": "flowing",
            "rollout": "flowing",
            "serving": "waiting",
            "monitoring": "dry",
        }
        assert stages["data"].headline == "flights v1, weather v0"
        assert "slice carrier roc_auc: Failed" in stages["evidence"].detail
        assert stages["evidence"].headline == "2 of 3 gates passed"
        assert stages["registry"].detail == "@1 has 1 approval"
        assert stages["rollout"].headline == "100 % to @1"
        assert page.run is not None and page.run.curve is not None
        assert [line.name for line in page.run.curve.lines] == ["train", "validation"]
        assert [(v.state, v.weight) for v in page.versions] == [("refused", None), ("serving", 100)]

    def test_evidence_is_what_the_signed_statements_say(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        good, bad = filled
        browser = visitor(app, plane)
        for reference, digest in (("1", good), (good[7:19], good), (short(bad), bad)):
            answer = browser.get(f"/models/late/{reference}/evidence")
            assert answer.status_code == 200 and digest in answer.text, reference
        page = HomeReader(plane).evidence("late", "1")
        assert page.verdict is Verdict.SUCCESSFUL and len(page.gates) == 3 and all(g.statement for g in page.gates)
        assert [g.mandatory for g in page.gates] == [False, False, True]
        assert page.signature is not None and page.signature.verified is True
        assert [a.environment for a in page.admissions] == ["production", "staging", "dev"]
        assert page.version.environments == ("dev", "staging", "production")
        assert page.version.rehearsal is not None and page.version.rehearsal.passed
        assert "rehearsed with 200 requests, p99 2.00 ms" in browser.get("/models/late/1/evidence").text
        assert "dev → staging → production" in browser.get("/models/late").text
        assert page.contract == CONTRACT and len(page.files) == 3
        assert [a.principal for a in page.version.approvals] == ["omar"]
        refused = HomeReader(plane).evidence("late", short(bad))
        assert refused.verdict is Verdict.FAILED and "improve the data" in refused.version.hint
        slices = refused.gates[1].slices
        assert [(s.name, s.judged, s.verdict) for s in slices] == [
            ("AA", True, Verdict.SUCCESSFUL),
            ("HA", True, Verdict.FAILED),
            ("OO", False, None),
        ]
        for reference in ("2", "0", "abc", "1e", "z" * 12, "1" * 10, "0" * 12):
            with pytest.raises(NotFound):
                HomeReader(plane).evidence("late", reference)

    def test_a_broken_statement_is_an_error_and_the_rest_still_stands(
        self, plane: ControlPlane, filled: tuple[str, str]
    ) -> None:
        envelope = next(s.envelope for s in plane.evidence.statements(filled[0]) if s.gate == GATES[0].name)
        path = plane.layout.blobs / envelope[7:9] / envelope[7:]
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        try:
            page = HomeReader(plane).evidence("late", "1")
        finally:
            path.write_bytes(whole)
        verdicts = {g.finding.gate.name: g.finding.verdict for g in page.gates}
        assert verdicts[GATES[0].name] is Verdict.ERROR and page.verdict is Verdict.ERROR
        assert verdicts[GATES[1].name] is Verdict.SUCCESSFUL
        assert "does not hold" in page.gates[0].finding.reason

    def test_a_run_shows_its_curves_and_what_it_read(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        assert visitor(app, plane).get("/runs/run_good").status_code == 200
        page = HomeReader(plane).run("run_good")
        (curve,) = page.curves
        assert curve.metric == "log_loss" and [len(line.points) for line in curve.lines] == [3, 3]
        read = {i.name: (i.kind, i.version, i.digest) for i in page.inputs}
        assert read["flights"] == ("dataset", 1, digest_of(["flights", 1]))
        assert read["weather_now"] == ("view", None, VIEW)
        assert [v.digest for v in page.versions] == [filled[0]]

    def test_reading_the_log_is_an_entry_of_the_log(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        assert filled
        browser = visitor(app, plane, "omar")
        before = recorded(plane, action="audit.read", principal="omar")
        part = browser.get("/audit?action=changes.approve&outcome=denied")
        assert part.status_code == 200 and len(re.findall('class="detail"', part.text)) == 1
        assert recorded(plane, action="audit.read", principal="omar") == before + 1
        assert len(re.findall('class="detail"', browser.get("/audit?action=changes").text)) == 0
        newest = plane.audit.search(Conditions(action="audit.read", principal="omar", limit=1))[0]
        assert newest.entry.detail["conditions"]["action"] == "changes"
        leaf = base64.b64encode(leaf_hash(encode(newest.entry))).decode()
        assert leaf in browser.get("/audit").text

    def test_pages_of_the_log_join_without_a_gap(self, plane: ControlPlane, filled: tuple[str, str]) -> None:
        reader, owner = HomeReader(plane), plane.identity.principal(OWNER)
        assert filled
        page = reader.audit(owner, AuditQuery(limit=7))
        seen = [e.index for e in page.entries]
        while page.older:
            page = reader.audit(owner, AuditQuery(limit=7, before=page.older))
            seen += [e.index for e in page.entries]
        assert len(seen) > 14 and seen == list(range(seen[0], -1, -1))

    def test_a_forbidden_page_is_refused_and_audited(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        browser, before = visitor(app, plane, "vera"), recorded(plane, action="audit.read", outcome="denied")
        assert filled and browser.get("/audit").status_code == 403
        assert recorded(plane, action="audit.read", outcome="denied") == before + 1
        assert browser.get("/models/late").status_code == 200
        assert browser.post("/audit/verify", headers=OURS).status_code == 200

    def test_a_changed_row_is_found_and_explained(
        self, plane: ControlPlane, app: FastAPI, filled: tuple[str, str]
    ) -> None:
        browser = visitor(app, plane)
        assert filled and HomeReader(plane).verify().passed
        table = "UPDATE audit_entries SET principal = ? WHERE idx = 0"
        plane.database.change(lambda tx: tx.exec_driver_sql(table, ("nobody",)))
        try:
            text = browser.post("/audit/verify", headers=OURS).text
            assert "The log does not hold" in text and "entry 0" in text and "Next step" in text
        finally:
            plane.database.change(lambda tx: tx.exec_driver_sql(table, ("falaj",)))
        assert HomeReader(plane).verify().passed
