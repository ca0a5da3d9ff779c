"""A console over plain objects: a reader with a whole home in it, sessions and a guard that remember what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from falaj.entrypoints.console import routes, security
from falaj.entrypoints.console import sights as s
from falaj.entrypoints.console import views as v
from falaj.entrypoints.console.reader import COOKIE
from falaj.kernel.access import Action, Principal
from falaj.kernel.digests import FileEntry, sha256
from falaj.kernel.errors import Conflict, Denied, NotFound
from falaj.lifecycle.evidence.model import GateSpec, Measurement, Verdict, judge
from falaj.lifecycle.monitoring.reviews.model import Word
from falaj.lifecycle.training.model import Input, JoinKey, ModelContract, Output, Run, ViewUse

NOW = "2013-11-04T08:15:20.000Z"
LATER = "2013-11-07T08:15:20.000Z"
RUN_ID = "run_01hq7d3f9k2m4n6p8r0s2t4v6x"


def d(name: str) -> str:
    return sha256(name.encode())


GOOD, BAD = d("version 2"), d("version 3")
BAD_REF = BAD[7:19]


def refusal() -> v.Refusal:
    return v.Refusal(
        at="2013-11-04T07:58:02.000Z",
        subject=f"flight-delay@{BAD_REF}",
        reason="gate slice carrier roc_auc Failed: carrier HA measures 0.5312, the limit is >= 0.6",
        hint="look at the slice's rows in the evidence, add data or features for it, then train again",
        code="gate_failed",
        action="registry.register",
        principal="huda",
        model="flight-delay",
        reference=BAD_REF,
    )


def overview() -> v.Overview:
    return v.Overview(
        models=(
            v.Served(
                "flight-delay",
                "well",
                alias="flight-delay@2",
                digest=GOOD,
                state="serving",
                task="binary",
                requests=184_203,
                errors=0,
                p50_ms=0.49,
                p99_ms=1.83,
                change="flight-delay@2 approved by omar, all traffic moved to it",
                changed_at="2013-11-04T06:40:00.000Z",
            ),
            v.Served(
                "taxi-out-minutes",
                "attention",
                "12 of the last 1,000 requests failed: a request feature was missing",
                alias="taxi-out-minutes@7",
                digest=d("taxi 7"),
                state="awaiting approval",
                task="regression",
                requests=52_911,
                errors=127,
                p50_ms=0.61,
                p99_ms=12.4,
                change="taxi-out-minutes@8 registered by huda",
                changed_at="2013-11-03T21:10:00.000Z",
            ),
        ),
        plane=v.Plane("current", 14, 14, "2013-11-04T06:40:01.000Z", "2013-11-04T08:15:18.000Z", 2),
        datasets=(
            v.Dataset(
                "flights",
                3,
                4,
                d("flights 3"),
                328_521,
                842,
                {"dep_delay within 24 h": 611, "carrier known": 231},
                "2013-11-04T05:12:40.000Z",
                "us",
            ),
            v.Dataset("weather", 3, 4, d("weather 3"), 26_115, 0, {}, "2013-11-04T05:12:11.000Z", "us"),
        ),
        refusals=(refusal(),),
        checkpoint=v.Checkpoint("falaj.local/home", 412, d("root"), "2013-11-04T08:14:55.000Z"),
    )


def good() -> v.Version:
    return v.Version(
        "flight-delay@2",
        "2",
        GOOD,
        "serving",
        "huda",
        "2013-11-04T06:02:00.000Z",
        RUN_ID,
        (
            v.Approval(
                "omar", "approved", "2013-11-04T06:39:00.000Z", "slices look even, latency is far below its limit"
            ),
        ),
        role="stable",
        weight=100,
    )


def refused() -> v.Version:
    return v.Version(
        f"flight-delay@{BAD_REF}",
        BAD_REF,
        BAD,
        "refused",
        "huda",
        "2013-11-04T07:57:00.000Z",
        RUN_ID,
        reason=refusal().reason,
        hint=refusal().hint,
    )


def learning() -> v.Curve:
    train = tuple((i, 0.69 * 0.985**i + 0.36) for i in range(200))
    valid = tuple((i, 0.66 * 0.987**i + 0.40 + (0.00028 * max(0, i - 120))) for i in range(200))
    return v.Curve("log_loss", (v.Line("train", train), v.Line("valid", valid)))


def model() -> v.ModelPage:
    first = v.Version(
        "flight-delay@1", "1", d("version 1"), "retired", "huda", "2013-10-28T06:02:00.000Z", RUN_ID, (), weight=None
    )
    return v.ModelPage(
        "flight-delay",
        "binary",
        "late",
        "operations",
        stages=(
            v.StageFact("data", "flights v3, weather v3", "354,636 rows"),
            v.StageFact("features", "2 views, 5 from the request", "as of 2013-11-04"),
            v.StageFact("training", "200 iterations", "LightGBM"),
            v.StageFact("evidence", "6 of 7 gates passed", "slice carrier roc_auc", "stopped"),
            v.StageFact("registry", "2 versions", "approved by omar"),
            v.StageFact("rollout", "100 % to @2", "all at once"),
            v.StageFact("serving", "184,203 requests", "p99 1.83 ms"),
        ),
        versions=(refused(), good(), first),
        refusals=(refusal(),),
        run=v.LatestRun(
            RUN_ID, "finished", "2013-11-04T05:58:00.000Z", {"roc_auc": 0.7412, "log_loss": 0.4631}, learning()
        ),
    )


def contract() -> ModelContract:
    return ModelContract(
        model="flight-delay",
        task="binary",
        inputs=(
            Input("distance", "float"),
            Input("carrier", "category", categories=("9E", "AA", "B6", "DL", "HA", "UA")),
            Input("wind_speed", "float", "view", "airport_weather"),
            Input("visib", "float", "view", "airport_weather", null="refuse"),
        ),
        keys=(JoinKey("airport", "origin"),),
        views=(ViewUse("airport_weather", d("view"), "origin", 7200, ("wind_speed", "visib")),),
        outputs=(Output("probability", "FP32", "probabilities", 1),),
        score="probability",
        label="late",
        purpose="operations",
    )


def evidence(version: v.Version) -> v.EvidencePage:
    def gate(spec: GateSpec, value: float | None, mandatory: bool = False, **detail: Any) -> v.Gate:
        problem = "" if value is not None else "the load generator could not reach the plane"
        finding = judge(spec, Measurement(spec.name, value, detail, problem))
        kind = "https://falaj.dev/attestation/gate/v1"
        return v.Gate(finding, d(spec.name), kind, "2013-11-04T06:01:00.000Z", mandatory)

    slices = (
        v.Slice("UA", 12_402, 0.7611, True, Verdict.SUCCESSFUL),
        v.Slice("DL", 9_850, 0.7502, True, Verdict.SUCCESSFUL),
        v.Slice("HA", 211, 0.5312, True, Verdict.FAILED),
        v.Slice("OO", 7, 0.61, False),
    )
    by_carrier = gate(GateSpec("slice", "roc_auc", at_least=0.6, by="carrier"), 0.5312)
    gates = (
        gate(GateSpec("metric", "roc_auc", at_least=0.65), 0.7412, rows=40_000, folds=1),
        v.Gate(
            by_carrier.finding, by_carrier.statement, by_carrier.predicate_type, by_carrier.created_at, False, slices
        ),
        gate(GateSpec("latency", "p99_ms", at_most=5), 1.83, requests=20_000),
        gate(GateSpec("latency", "p50_ms", at_most=1), None),
        gate(GateSpec("parity", "max_abs_difference", at_most=1e-4), 2.1e-7, True),
        gate(GateSpec("scan"), 0, True),
        gate(GateSpec("provenance"), 0, True),
    )
    return v.EvidencePage(
        "flight-delay",
        version,
        Verdict.ERROR,
        gates,
        d("set"),
        v.Signature("OpenSSF model signature, ECDSA P-256", d("key"), d("bundle"), True),
        (v.AdmissionFact("production", "2013-11-04T06:39:30.000Z", "2014-02-02T06:39:30.000Z", d("admission")),),
        (FileEntry("model.onnx", 412_880, d("onnx")), FileEntry("signature.json", 2_911, d("contract"))),
        contract(),
    )


def run() -> v.RunPage:
    done = Run(
        id=RUN_ID,
        model="flight-delay",
        state="finished",
        author="huda",
        params={"learning_rate": 0.05, "num_leaves": 31, "objective": "binary", "early_stopping": True},
        training_set=d("training set"),
        datasets={"flights": 3, "weather": 3},
        views={"airport_weather": d("view")},
        project=d("project"),
        runtime=d("runtime"),
        as_of="2013-11-04T05:13:00.000Z",
        metrics={"roc_auc": 0.7412, "log_loss": 0.4631},
        artifacts={"importance.json": d("importance")},
        started_at="2013-11-04T05:58:00.000Z",
        finished_at="2013-11-04T05:58:41.000Z",
    )
    auc = v.Curve("roc_auc", (v.Line("valid", tuple((i, 0.74 - 0.2 * 0.97**i) for i in range(200))),))
    inputs = (
        v.Input("flights", "dataset", d("flights 3"), 3),
        v.Input("weather", "dataset", d("weather 3"), 3),
        v.Input("airport_weather", "view", d("view")),
    )
    return v.RunPage(done, (learning(), auc), inputs, (good(), refused()))


def log_entries() -> tuple[v.AuditEntry, ...]:
    rows: tuple[tuple[str, str, str, str, str, dict[str, Any]], ...] = (
        ("huda", "registry.register", "model", f"flight-delay@{BAD_REF}", "refused", {"code": "gate_failed"}),
        ("omar", "registry.approve", "model", "flight-delay@2", "done", {"digest": GOOD, "reason": "slices look even"}),
        ("huda", "registry.approve", "model", "flight-delay@2", "denied", {"rules": ["four-eyes"]}),
        ("huda", "training.train", "model", "flight-delay", "done", {"run": RUN_ID}),
        ("falaj", "data.ingest", "dataset", "flights", "done", {}),
    )
    return tuple(
        v.AuditEntry(
            411 - i, f"2013-11-04T0{8 - i}:05:0{i}.000Z", who, what, kind, name, outcome, f"op_{i}", d(what), more
        )
        for i, (who, what, kind, name, outcome, more) in enumerate(rows)
    )


STABLE = s.Named("flight-delay@2", GOOD, "2", "serving")
CHALLENGER = s.Named(f"flight-delay@{BAD_REF}", BAD, BAD_REF, "approved")


def ride() -> s.Ride:
    moved = tuple((float(i), 0.2 + i / 100) for i in range(6))
    steps = (
        s.Reach("shadow", 0, 0, "passed", 200, 436, "on 436 requests it is within every margin", NOW),
        s.Reach("canary", 10, 0, "here", 150, began_at=NOW),
        s.Reach("canary", 50, 10, "ahead", 150),
        s.Reach("promoted", 100, 50, "ahead"),
    )
    figures = (
        s.Figure("error_rate", None, Verdict.INCONCLUSIVE, 0.02, 0.001, 0.002, 329, 0.4, 100, 12.0, 20),
        s.Figure("score_up", 1, Verdict.FAILED, 0.25, 0.44, 0.93, 329, 1e30, 100, 1e-9, 20),
        s.Figure("slow", None, Verdict.SUCCESSFUL, 0.02, None, None, 0, 1.0, 100, 1.0, 20),
    )
    points = tuple((i, y) for i, (_, y) in enumerate(moved))
    lines = (v.Line(STABLE.alias, points), v.Line(CHALLENGER.alias, points[2:]))
    return s.Ride(
        "rol_1", "canary", False, "", CHALLENGER, STABLE, "omar", "", NOW, NOW, 10, steps, 250.0, 787,
        Verdict.FAILED, "worse than the stable version: score_up", figures,
        (v.Curve("requests", lines), v.Curve("score", lines)), "15", "s",
    )  # fmt: skip


def rollout() -> s.RolloutPage:
    trips = (
        s.Trip("flight-delay@3", "slow", 0.24, 0.2, 50, 12, NOW, 6, 1740.0, 6.25),
        s.Trip("flight-delay@3", "errors", 0.9, 0.05, 50, 0, NOW, 5, 3.0, None),
    )
    history = (
        s.Past("rol_1", "canary", CHALLENGER, STABLE, "omar", NOW, "", ""),
        s.Past("rol_0", "aborted", s.Named("0a1b2c3d4e5f", BAD), STABLE, "omar", NOW, NOW, "the guard stopped it"),
    )
    return s.RolloutPage("flight-delay", ride(), trips, history, True)


def drift() -> s.DriftPage:
    def pane(day: str, end: str, verdict: str, quality: float | None) -> s.Pane:
        start = f"2013-10-{day}T00:00:00.000Z"
        return s.Pane(
            f"w-{day}", STABLE, start, f"2013-{end}T00:00:00.000Z", 4992, verdict, "3 of 5 features drifted", 0.31,
            ("wind_speed",), 812 if quality else 0, "roc_auc", quality, quality is None,
        )  # fmt: skip

    windows = (pane("28", "11-04", "Failed", None), pane("21", "10-28", "Successful", 0.7312))
    bars = (
        s.Bars(
            "score", "steady", 0.03, 0.25, 0.011, 0.25, 4992, ("≤ 1", "> 1", "null"), (0.4, 0.6, 0), (0.5, 0.5, 0), True
        ),
        s.Bars(
            "carrier", "drifted", 3.4, 0.25, 0.02, 0.25, 4992, ("AA", "other", "null"), (0.9, 0.1, 0), (0.1, 0.9, 0)
        ),
        s.Bars("wind", "unresolved", 0.3, 0.25, 0.4, 0.4, 12, ("any number", "null"), (0.99, 0.01), (0.9, 0.1)),
    )
    trends = (
        v.Curve("score_psi", (v.Line(STABLE.alias, ((0, 0.02), (7, 0.31))),)),
        v.Curve("roc_auc", (v.Line(STABLE.alias, ((0, 0.7312),)),)),
    )
    return s.DriftPage("flight-delay", windows, windows[0], bars, trends, windows[1].start, "d")


def incidents() -> s.IncidentsPage:
    retrained = s.Followed("rtr_1", "failed", RUN_ID, s.Named("flight-delay@1", BAD, "1", "refused"), "gate_failed: no")
    return s.IncidentsPage(
        (
            s.Trouble(
                "inc_1", "flight-delay", "drift", "open", "3 of 5 features drifted", NOW, "", STABLE, retrained, True
            ),
            s.Trouble(
                "inc_2", "*", "evaluator", "open", "the journal is not read", NOW, may_resolve=True, has_page=False
            ),
        ),
        (s.Trouble("inc_0", "gone", "rollback", "resolved", "worse", NOW, NOW, CHALLENGER, None, False, False),),
    )


def reviews() -> s.ReviewsPage:
    waits = s.Case(
        "rev_1",
        "flight-delay",
        "p_01hq7d3f9k2m4n6p8r0s2t4v6x_8/0",
        "0.512",
        "rule",
        "falaj",
        NOW,
        LATER,
        "pending",
        late=True,
        version=STABLE,
    )
    said = msgspec.structs.replace(
        waits, id="rev_0", because="contested", state="overridden", late=False, decided_by="risk", decided_at=NOW,
        code="missing_context", override="late",
    )  # fmt: skip
    return s.ReviewsPage(1, (waits,), (said,))


def review() -> s.ReviewPage:
    went = (s.Went("origin", "JFK"), s.Went("wind_speed", "12.5", "airport_weather"))
    return s.ReviewPage(reviews().waiting[0], went, ("on time", "late"), ("wrong_input", "house_rule"), True)


class Home:
    """A `ConsoleReader` with one home in it. `reads` remembers what was asked for."""

    def __init__(self) -> None:
        self.glass: tuple[str, ...] = ()
        self.replay: v.Replay | None = v.Replay("2013-11-04T08:00:00.000Z", 60.0)
        self.shown = overview()
        self.model_page = model()
        self.evidence_pages = {"2": evidence(good()), BAD_REF: evidence(refused()), "1": evidence(model().versions[2])}
        self.run_page = run()
        self.rollout_page, self.drift_page, self.incidents_page = rollout(), drift(), incidents()
        self.reviews_page, self.review_page = reviews(), review()
        self.orders: list[tuple[str, ...]] = []
        self.entries = log_entries()
        self.whole = True
        self.broken = False
        self.reads: list[str] = []

    def frame(self) -> v.Frame:
        return v.Frame("flights", "production", NOW, self.replay, self.glass)

    def overview(self, viewer: Principal) -> v.Overview:
        self.reads.append("overview")
        if self.broken:
            raise RuntimeError("secret of the stack trace")
        return self.shown

    def model(self, viewer: Principal, name: str) -> v.ModelPage:
        self.reads.append("model")
        if name not in (self.model_page.name, "taxi-out-minutes"):
            raise NotFound(
                f"there is no model {name}", hint="see the overview for the models there are", code="no_such_model"
            )
        return self.model_page

    def evidence(self, name: str, reference: str) -> v.EvidencePage:
        self.reads.append("evidence")
        if reference not in self.evidence_pages:
            raise NotFound(
                f"there is no version {name}@{reference}", hint="see the model's page", code="no_such_version"
            )
        return self.evidence_pages[reference]

    def run(self, run_id: str) -> v.RunPage:
        self.reads.append("run")
        if run_id != self.run_page.run.id:
            raise NotFound(f"there is no run {run_id}", hint="see the model's page for its runs", code="no_such_run")
        return self.run_page

    def rollout(self, viewer: Principal, name: str) -> s.RolloutPage:
        self.reads.append("rollout")
        return self.rollout_page

    def order(self, viewer: Principal, name: str, rollout: str, what: str) -> None:
        if rollout != "rol_1":
            raise Conflict(
                "that rollout does not run any more", hint="look at the page again", code="rollout_not_running"
            )
        self.orders.append((viewer.name, name, rollout, what))

    def drift(self, name: str, window: str) -> s.DriftPage:
        self.reads.append(f"drift {window}")
        return self.drift_page

    def incidents(self, viewer: Principal) -> s.IncidentsPage:
        self.reads.append("incidents")
        return self.incidents_page

    def resolve(self, viewer: Principal, incident: str) -> None:
        self.orders.append((viewer.name, "resolve", incident))

    def reviews(self, viewer: Principal) -> s.ReviewsPage:
        self.reads.append("reviews")
        return self.reviews_page

    def review(self, viewer: Principal, review: str) -> s.ReviewPage:
        self.reads.append(f"review {review}")
        return self.review_page

    def decide(self, viewer: Principal, review: str, word: Word) -> None:
        self.orders.append((viewer.name, "decide", review, word.to, word.code))

    def audit(self, viewer: Principal, query: v.AuditQuery) -> v.AuditPage:
        self.reads.append("audit")
        texts = ((query.principal, "principal"), (query.action, "action"), (query.subject, "resource_id"))
        found = [
            e
            for e in self.entries
            if all(text in ("", getattr(e, field)) for text, field in texts)
            and query.outcome in ("", e.outcome)
            and (not query.before or e.index < query.before)
        ]
        older = found[2].index if len(found) > 3 else 0
        return v.AuditPage(query, tuple(found), 412, older, self.shown.checkpoint)

    def verify(self) -> v.VerifyReport:
        self.reads.append("verify")
        checks = (
            v.Check("leaves", True, "412 of 412 entries hash to their leaf"),
            v.Check("root", self.whole, "the recomputed root is the signed one" if self.whole else "the roots differ"),
            v.Check("signature", True, "the checkpoint is signed by the home's audit key"),
        )
        hint = "" if self.whole else "stop the home and compare it with a witness's copy"
        return v.VerifyReport(self.whole, 412, d("root"), checks, NOW, 0.042, hint)


class Codes:
    """`Sessions` with one one-time code, `open`, for one person."""

    def __init__(self) -> None:
        self.live: dict[str, Principal] = {"c": Principal("omar", roles=("risk",))}
        self.codes = {"open"}

    def principal(self, request: Request) -> Principal | None:
        return self.live.get(request.cookies.get(COOKIE, ""))

    def login(self, code: str) -> str:
        if code not in self.codes:
            raise Denied("the link was used already, or it has expired", hint="ask for a fresh link", code="code_spent")
        self.codes.remove(code)
        self.live["fresh"] = Principal("huda")
        return "fresh"

    def logout(self, cookie: str) -> None:
        self.live.pop(cookie, None)


class Gatekeeper:
    """A `Guard` that remembers which actions were asked for and forbids those in `forbidden`."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.forbidden: set[str] = set()

    def page(self, action: Action) -> Callable[..., Any]:
        self.pages.append(action.name)

        def allowed(request: Request) -> None:
            assert isinstance(request.state.principal, Principal)
            if action.name in self.forbidden:
                raise Denied(
                    f"omar may not {action.name}", hint="ask a platform administrator", code="denied_by_policy"
                )

        return allowed


class Console:
    """The application, its parts, and a way to ask it."""

    def __init__(self) -> None:
        self.home, self.codes, self.guard = Home(), Codes(), Gatekeeper()
        self.app = FastAPI(openapi_url=None)
        self.app.include_router(routes.build(self.home, self.codes, self.guard))
        self.app.add_middleware(security.SecurityHeaders)

    async def ask(self, method: str, path: str, signed_in: bool = True, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        cookies = {COOKIE: "c"} if signed_in else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://falaj.test", cookies=cookies) as client:
            return await client.request(method, path, **more)


@pytest.fixture
def console() -> Console:
    return Console()
