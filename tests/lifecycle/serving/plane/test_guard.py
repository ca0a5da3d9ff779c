"""Challengers in a running data plane: weights, shadows, and the guard. There is no control plane anywhere here."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.clock import iso, parse_iso
from falaj.lifecycle.rollout.model import Guard
from falaj.lifecycle.serving.model import GuardReport
from falaj.lifecycle.serving.plane.journal import read_record
from tests.lifecycle.serving.plane.challenge import GUARD, INFER, Callers, Challenge, request
from tests.lifecycle.serving.plane.fleet import Home, Plane, eventually
from tests.lifecycle.serving.plane.test_generations import generations

Start = Callable[..., tuple[Challenge, Plane]]
QUIET = msgspec.structs.replace(GUARD, max_latency_ms=None, max_slow_share=None)


@pytest.fixture
def start(home: Home) -> Iterator[Start]:
    """Start a data plane with a stable version and one challenger."""
    started: list[Plane] = []

    def begin(challenger: str, weight: int, guard: Guard | None = GUARD, role: str = "canary", workers: int = 1) -> Any:
        challenge = Challenge(home, challenger)
        challenge.publish(1, weight, guard, role)
        started.append(Plane(home, workers))
        eventually(lambda: len(statuses(home)) == workers, "a worker does not report")
        return challenge, started[-1]

    yield begin
    for plane in started:
        plane.stop()


def statuses(home: Home) -> list[dict[str, Any]]:
    return [msgspec.json.decode(p.read_bytes()) for p in sorted((home.plane / "status").glob("[0-9]*.json"))]


def weights(plane: Plane) -> set[int]:
    """The challenger's weight in each worker."""
    return {v["weight"] for s in statuses(plane.home) for v in s["versions"] if v["alias"].endswith("@2")}


def report(home: Home) -> GuardReport | None:
    path = home.plane / "guard.json"
    if not path.exists():
        return None
    (found,) = msgspec.convert(msgspec.json.decode(path.read_bytes())["trips"], list[GuardReport])
    return found


def settled(home: Home) -> bool:
    found = report(home)
    return found is not None and bool(found.zero_traffic_at)


def apart(earlier: str, later: str) -> float:
    return (parse_iso(later) - parse_iso(earlier)).total_seconds()


def figures(challenger: str, found: GuardReport, callers: Callers) -> None:
    """For who runs this with -s."""
    sys.stdout.write(
        f"\n{challenger}: {found.reason} {found.observed:.3f} over {found.limit}, {found.count} judged; "
        f"{found.bad_answers} bad answers, first bad → verdict {apart(found.first_bad_at, found.verdict_at):.3f} s, "
        f"verdict → zero traffic {apart(found.verdict_at, found.zero_traffic_at):.3f} s; "
        f"{len(callers.answers)} answered, {len(callers.failures)} failed, slowest {max(callers.seconds):.3f} s\n"
    )


def later(text: str) -> str:
    """Half a second later: a worker that says something then has been serving for a while."""
    return iso(parse_iso(text) + timedelta(milliseconds=500))


# Weights and keys


def test_weights_hold_within_chance_and_keys_stay_while_the_canary_grows(start: Start) -> None:
    challenge, plane = start("equal", 20, QUIET)
    callers = Callers(plane, challenge.headers)
    callers.until(lambda: len(callers.answers) >= 1500, eventually, "too few answers")
    count, got = len(callers.answers), callers.versions().count("2")
    assert abs(got / count - 0.2) < 5 * math.sqrt(0.2 * 0.8 / count)
    assert {(a["model_version"], a["parameters"]["role"]) for a in callers.answers} == {
        ("1", "stable"),
        ("2", "canary"),
    }
    loaded = {r["alias"]: r["seconds"] for r in plane.status()["releases"]}
    assert min(loaded.values()) > 0

    keyed = Callers(plane, challenge.headers, keys=True)
    before: dict[str, set[str]] = {}
    for generation, weight in ((2, 50), (3, 75)):
        challenge.publish(generation, weight, QUIET)
        eventually(lambda wanted=generation: plane.status()["generation"] == wanted, "not taken")  # type: ignore[misc]
        seen = {k: asked(plane, challenge, f"caller {k}") for k in range(40)}
        assert all(len(v) == 1 for v in seen.values())
        on = {str(k) for k, v in seen.items() if v == {"2"}}
        assert on >= set(before.get("on", set()))
        before["on"] = on
    keyed.stop()
    assert not callers.failures + keyed.failures
    assert len(before["on"]) > 20


def asked(plane: Plane, challenge: Challenge, key: str) -> set[str]:
    return {
        plane.http.post(INFER, json=request(i, key), headers=challenge.headers).json()["model_version"] for i in (1, 2)
    }


def test_a_new_weight_loads_nothing(home: Home) -> None:
    challenge = Challenge(home, "equal")
    challenge.publish(1, 10)
    found = generations(home)
    model = found.state.model("flight-delay")
    before = {model.named(v).version for v in ("1", "2")}
    for generation, weight, role in ((2, 50, "canary"), (3, 40, "shadow"), (4, 90, "canary")):
        challenge.publish(generation, weight, GUARD, role)
        found.poll()
        assert {r.version for r in found.state.served()} == before
    assert found.state.model("flight-delay").weights == (90, 10)


# Shadows


def test_a_shadow_changes_no_answer_and_is_written_down(start: Start) -> None:
    challenge, plane = start("shifted", 60, None, "shadow")
    answers = [plane.http.post(INFER, json=request(i), headers=challenge.headers).json() for i in range(200)]
    assert {a["model_version"] for a in answers} == {"1"}

    def all_run() -> bool:
        status = plane.status()
        count = sum(int(v["requests"]) for v in status["versions"])
        return count == len(challenge.records()) > 250

    eventually(all_run, "shadows were not recorded")
    primaries = {a["parameters"]["prediction_id"]: a for a in answers}
    shadows = [r for r in challenge.records() if r.role == "shadow"]
    assert abs(len(shadows) / 200 - 0.6) < 5 * math.sqrt(0.24 / 200)
    for record in shadows:
        answer = primaries[record.primary]
        mirrored = read_record(plane.home.plane / "journal", record.primary)
        assert (record.version, mirrored.version, mirrored.role) == ("flight-delay@2", "flight-delay@1", "stable")
        assert (record.inputs, record.features, record.principal) == (mirrored.inputs, mirrored.features, "shop")
        assert record.outputs["probability"] != mirrored.outputs["probability"] == answer["outputs"][0]["data"]
        assert read_record(plane.home.plane / "journal", record.id) == record
    named = plane.http.post("/v2/models/flight-delay/versions/2/infer", json=request(1), headers=challenge.headers)
    assert named.status_code == 404  # a shadow answers nobody


def test_a_shadow_that_does_not_keep_up_is_left_behind_and_counted(start: Start) -> None:
    challenge, plane = start("slow", 100, None, "shadow")
    callers = Callers(plane, challenge.headers)

    def dropped() -> int:
        return next(int(v["dropped"]) for v in plane.status()["versions"] if v["role"] == "shadow")

    callers.until(lambda: dropped() > 50, eventually, "nothing was dropped")
    assert not callers.failures
    assert set(callers.versions()) == {"1"}
    run = sum(r.role == "shadow" for r in challenge.records())
    assert run + dropped() <= len(callers.answers) + 1, "each answer is mirrored once, or left out"
    metrics = plane.http.get("/metrics", headers=challenge.viewer).text
    line = next(x for x in metrics.splitlines() if x.startswith("falaj_shadow_dropped_total") and "@2" in x)
    assert int(line.split()[-1]) >= dropped()


def test_a_shadow_that_fails_harms_nobody_and_is_stopped(start: Start) -> None:
    challenge, plane = start("picky", 100, GUARD, "shadow")
    callers = Callers(plane, challenge.headers, count=2)
    callers.until(lambda: settled(plane.home), eventually, "the shadow was not stopped")
    found = report(plane.home)
    assert found is not None
    assert (found.reason, found.role, found.bad_answers, found.observed) == ("errors", "shadow", 0, 1.0)
    assert not callers.failures
    failed = [r for r in challenge.records() if r.role == "shadow"]
    assert all(r.error and r.primary and not r.outputs for r in failed)
    assert len(failed) >= GUARD.min_count


# The guard


@pytest.mark.parametrize(
    ("challenger", "guard", "reason"),
    [
        ("nan", GUARD, "non_finite"),
        ("picky", GUARD, "errors"),
        ("shifted", GUARD, "score_shift"),
        ("slow", msgspec.structs.replace(GUARD, max_latency_ms=25), "slow"),
    ],
)
def test_a_bad_challenger_loses_its_traffic_and_no_request_fails(
    start: Start, challenger: str, guard: Guard, reason: str
) -> None:
    challenge, plane = start(challenger, 50, guard)
    callers = Callers(plane, challenge.headers, keys=True)
    callers.until(lambda: settled(plane.home) and weights(plane) == {0}, eventually, "the guard does not act")
    assert not callers.failures
    found = report(plane.home)
    assert found is not None
    assert (found.digest, found.alias, found.reason) == (challenge.challenger.digest, "flight-delay@2", reason)
    assert found.observed > found.limit
    assert found.count >= guard.min_count
    assert found.first_bad_at <= found.verdict_at == found.tripped_at <= found.zero_traffic_at

    tried = [r for r in challenge.records() if r.role == "canary"]
    answered = [r for r in tried if not r.primary]
    if reason == "score_shift":
        assert found.bad_answers == len(answered)
    elif reason == "slow":
        assert len(tried) - callers.count <= found.bad_answers <= len(tried)  # the last ones were under way
        assert all("no answer within 25 ms" in r.error for r in tried if r.primary)
    else:
        assert found.bad_answers == len(answered) == 0
        assert all(math.isfinite(v) for a in callers.answers for v in a["outputs"][0]["data"])
    for record in tried:
        if record.primary:
            answer = read_record(plane.home.plane / "journal", record.primary)
            assert (answer.role, answer.version, answer.request) == ("stable", "flight-delay@1", record.request)
            assert record.error
    in_place = [a for a in callers.answers if "fallback_from" in a["parameters"]]
    assert len(in_place) == sum(bool(r.primary) for r in tried)

    # Nobody gets it any more, by whatever key; whoever names it still does.
    assert {asked(plane, challenge, f"caller {k}").pop() for k in range(30)} == {"1"}
    metrics = plane.http.get("/metrics", headers=challenge.viewer).text
    assert f'role="canary",reason="{reason}"' in metrics
    assert apart(found.verdict_at, found.zero_traffic_at) <= 1
    figures(challenger, found, callers)


def test_an_equal_challenger_is_left_alone(start: Start) -> None:
    challenge, plane = start("equal", 50, msgspec.structs.replace(QUIET, max_score_shift=0.05, min_count=20))
    callers = Callers(plane, challenge.headers)
    callers.until(lambda: len(callers.answers) >= 3000, eventually, "too few answers")
    assert (report(plane.home), callers.failures, weights(plane)) == (None, [], {50})
    assert Counter(callers.versions())["2"] > 1000


def test_a_request_that_the_stable_version_fails_too_is_not_the_challengers_fault(home: Home, start: Start) -> None:
    challenge, plane = start("equal", 100, msgspec.structs.replace(GUARD, min_count=5))
    for i in range(20):
        wrong = request(i)
        wrong["inputs"][0]["data"] = [None]  # a distance that both refuse
        response = plane.http.post(INFER, json=wrong, headers=challenge.headers)
        assert (response.status_code, response.json()["code"]) == (400, "null_refused")
    assert plane.http.post(INFER, json=request(1), headers=challenge.headers).json()["model_version"] == "2"
    assert report(home) is None


def test_a_trip_survives_and_reaches_every_worker_within_a_second(start: Start, home: Home) -> None:
    challenge, plane = start("nan", 50, workers=2)
    callers = Callers(plane, challenge.headers, count=6)
    callers.until(lambda: settled(home) and weights(plane) == {0}, eventually, "the guard does not act everywhere")
    assert not callers.failures
    found = report(home)
    assert found is not None
    assert apart(found.verdict_at, found.zero_traffic_at) <= 1
    tried = [r for r in challenge.records() if r.role == "canary"]
    assert max(r.at for r in tried) / 1e6 <= parse_iso(found.verdict_at).timestamp() + 1
    assert [g["reason"] for s in statuses(home) for g in s["guards"]] == ["non_finite"] * 2
    before = len(tried)

    pids = [s["pid"] for s in statuses(home)]
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: any(s["pid"] not in pids and s["updated_at"] > later(s["started_at"]) for s in statuses(home)),
               "the worker was not replaced")  # fmt: skip
    assert plane.stop() == 0
    again = Plane(home)
    try:
        more = [again.http.post(INFER, json=request(i), headers=challenge.headers) for i in range(100)]
    finally:
        again.stop()
    assert {(r.status_code, r.json()["model_version"]) for r in more} == {(200, "1")}
    assert sum(r.role == "canary" for r in challenge.records()) == before
    kept = report(home)  # the second worker may have added its part of the figures since
    assert kept is not None
    assert (kept.digest, kept.reason, kept.verdict_at) == (found.digest, found.reason, found.verdict_at)


# The memory, without a server


def tripped(home: Home) -> Challenge:
    """A home whose challenger was stopped in generation 4."""
    challenge = Challenge(home, "equal")
    now = "2026-01-01T00:00:00.000Z"
    found = GuardReport(
        challenge.challenger.digest, "flight-delay@2", now, "errors", 1.0, 0.1, 50, 0, now, now, now, "flight-delay", 4
    )
    (home.plane / "guard.json").write_bytes(msgspec.json.encode({"trips": [found]}))
    return challenge


def test_only_a_later_plan_that_says_so_tries_again(home: Home) -> None:
    challenge = tripped(home)
    cases = [
        (4, GUARD, 0),
        (5, GUARD, 0),
        (6, None, 0),
        (7, msgspec.structs.replace(GUARD, forgives=3), 0),
        (8, msgspec.structs.replace(GUARD, forgives=4), 50),
        (9, GUARD, 0),
    ]
    challenge.publish(4, 50)
    found = generations(home)
    for generation, guard, weight in cases:
        challenge.publish(generation, 50, guard)
        found.poll()
        assert found.state.generation == generation
        assert found.state.model("flight-delay").named("2").effective == weight
        assert generations(home).state.model("flight-delay").named("2").effective == weight  # after a restart too


def test_the_generation_that_was_stopped_cannot_forgive_itself(home: Home) -> None:
    challenge = tripped(home)
    challenge.publish(4, 50, msgspec.structs.replace(GUARD, forgives=9))
    assert generations(home).state.model("flight-delay").named("2").effective == 0


def test_a_stopped_version_may_become_the_stable_one(home: Home) -> None:
    """The guard judges challengers; who promotes a version by hand has decided."""
    challenge = tripped(home)
    home.publish(home.bundle(5, [challenge.challenger]))
    assert generations(home).state.model("flight-delay").pick("anyone").version.label == "2"


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"trips":[{}]}', b"\xff"])
def test_without_its_memory_no_challenger_gets_traffic(home: Home, content: bytes) -> None:
    challenge = Challenge(home, "equal")
    challenge.publish(1, 50)
    (home.plane / "guard.json").write_bytes(content)
    found = generations(home)
    route = found.state.model("flight-delay").named("2")
    assert route.effective == 0
    assert route.watch is not None
    assert route.watch.trip is not None
    assert route.watch.trip.reason == "memory_unreadable"
    assert found.state.model("flight-delay").pick("anyone").version.label == "1"


def test_workers_add_up_what_they_saw(home: Home) -> None:
    challenge = Challenge(home, "equal")
    guard = Guard(max_latency_ms=1, max_slow_share=0.5, min_count=3)
    challenge.publish(1, 50, guard)
    workers = [generations(home) for _ in range(4)]
    watches = [w.state.model("flight-delay").named("2").watch for w in workers]

    def count(watch: Any, times: int) -> None:
        watch.begin()
        for moment in range(times):
            watch.add(4, 1_000_000 * (moment + 1))
        watch.end()

    count(watches[0], 3)  # this one and the next break the limit before they hear of each other
    count(watches[1], 4)
    count(watches[2], 2)
    for _ in range(2):
        for worker, watch in zip(workers, watches, strict=True):
            worker.trips.poll([watch] if watch else [])
    found = report(home)
    assert found is not None
    assert (found.bad_answers, found.count, found.first_bad_at) == (9, 3, "1970-01-01T00:00:01.000Z")
    assert all(w.state.model("flight-delay").named("2").effective == 0 for w in workers)
    for worker in workers:
        worker.trips.poll([])
        assert worker.trips.reports(["flight-delay"]) == (found,)
    assert workers[0].trips.reports(["another"]) == ()


def test_many_workers_may_write_at_once(home: Home) -> None:
    challenge = Challenge(home, "equal")
    guard = Guard(max_error_share=0, min_count=1)
    challenge.publish(1, 50, guard)
    workers = [generations(home) for _ in range(6)]

    def trip(worker: Any) -> None:
        watch = worker.state.model("flight-delay").named("2").watch
        watch.add(1, 1)
        worker.trips.poll([watch])

    threads = [threading.Thread(target=trip, args=(w,)) for w in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert report(home) is not None
    assert not list(Path(home.plane).glob(".guard*"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = Home(tmp_path_factory.mktemp("rules") / "home")
    challenge = Challenge(home, "equal")
    challenge.publish(1, 30)
    return generations(home).state.model("flight-delay")


@given(st.text(max_size=30), st.booleans(), st.booleans())
def test_the_plane_never_gives_a_challenger_more_than_was_planned(model: Any, key: str, stop: bool, gone: bool) -> None:
    """Stopped, expired or neither: a challenger answers for the keys that were planned for it, or for fewer."""
    planned = model.pick(key).version.label == "2"
    challenger = model.named("2")
    changed = model.without({challenger.version.digest}) if gone else model
    challenger.watch.trip = GuardReport("d", "a", "", "slow", 1, 0, 1, 0, "", "", "") if stop else None
    try:
        got = changed.pick(key).version.label
    finally:
        challenger.watch.trip = None
    assert got == ("2" if planned and not stop and not gone else "1")
    alone = model.without({model.stable().version.digest})
    assert not alone.can_answer
    if planned:
        assert alone.pick(key).version.label == "2"
    else:
        with pytest.raises(Exception, match="no version"):
            alone.pick(key)
