"""Moving the home's clock: who moved it is answered once what is due by it has been looked at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.kernel.clock import SystemClock, set_replay
from falaj.kernel.digests import digest_of
from falaj.lifecycle.loop.model import ModelDefinition, ProjectDefinition
from falaj.lifecycle.monitoring.observer import Observer
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from tests.lifecycle.house import MODEL, House, house

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, ModelVersion]]:
    """A house at noon in 2013 whose windows are an hour each, and which looks only when it is asked to."""
    root: Path = tmp_path_factory.mktemp("house")
    (root / "home").mkdir(mode=0o700)
    set_replay(root / "home", NOON)
    with house(root) as home:
        home.plane.tail._seconds = 3600.0
        assert home.plane.tail.catch_up(10)  # the look that had another time to wait for is over
        policy = MonitorPolicy(window_seconds=3600, features=1, min_rows=100)
        model = ModelDefinition(
            MODEL, "binary", "late", "f", "at", (), (), (), (), "m:t", digest_of("c"), monitor=policy
        )
        home.plane.definitions.apply(home.author, ProjectDefinition("p", digest_of("p"), (), (), (), (model,)))
        version = home.registered()
        assert home.release(version).state == "done"
        yield home, home.now(version)


def record(home: House, version: ModelVersion, at: datetime, rows: int = 300) -> None:
    """Answers whose distances are not those that the version learnt from, in the home's own journal."""
    chance = random.Random(rows)
    journal = Journal(home.plane.layout.plane / "journal", SystemClock())
    for _ in range(rows):
        journal.append(
            Prediction(
                id=journal.next_id, at=int(at.timestamp() * 1e6), model=MODEL, version=version.alias,
                digest=version.digest, principal="shop", generation=1, worker="w0", rows=1,
                outputs={"probability": [chance.random()]}, inputs={"distance": [9.0]},
            )
        )  # fmt: skip
    journal.close()


def set_clock(home: House, shows: datetime) -> int:
    return home.api().post("/api/v1/clock", {"shows": shows.isoformat()}).status_code


def drifts(home: House) -> list[str]:
    return [i.reason for i in home.plane.incidents.all() if i.model == MODEL and i.kind == "drift"]


def test_a_window_that_is_over_by_the_new_time_is_judged_before_the_answer(hourly: tuple[House, ModelVersion]) -> None:
    home, version = hourly
    record(home, version, NOON + timedelta(minutes=10))
    assert set_clock(home, NOON + timedelta(minutes=50)) == 200
    assert home.plane.observer.windows(MODEL) != [] and drifts(home) == [], "read, and its time is not over"
    assert set_clock(home, NOON + HOUR) == 200
    (reason,) = drifts(home)
    assert reason.startswith("2013-04-01 to 2013-04-01: 5 of 5 features")
    entry = home.log(action="loop.set_clock")[0].entry
    assert entry.detail["shows"].startswith("2013-04-01T13:00:00")


def test_a_moment_without_a_zone_moves_nothing(hourly: tuple[House, ModelVersion]) -> None:
    home, _ = hourly
    before = home.plane.clock.now()
    answer = home.api().post("/api/v1/clock", {"shows": "2014-01-01T00:00:00"})
    assert answer.status_code == 422
    assert home.plane.clock.now() - before < HOUR


def test_what_was_judged_and_settled_is_not_judged_again_after_a_restart(hourly: tuple[House, ModelVersion]) -> None:
    home, version = hourly
    start = home.plane.clock.now().replace(minute=0, second=0, microsecond=0) + 5 * HOUR
    before = len(drifts(home))
    for incident in home.plane.incidents.open_of(MODEL):
        home.plane.incidents.resolve(home.author, incident.id)
    record(home, version, start + timedelta(minutes=10))
    assert set_clock(home, start + HOUR) == 200
    assert len(drifts(home)) == before + 1
    for incident in home.plane.incidents.open_of(MODEL):
        home.plane.incidents.resolve(home.author, incident.id)
    started = Observer(home.plane.observer._p)  # as the next start of the control plane makes it
    started.load([MODEL])
    assert len(started.windows(MODEL)) == len(home.plane.observer.windows(MODEL)) > 0
    started.judge(home.plane.registry.serving)
    assert len(drifts(home)) == before + 1 and home.plane.incidents.open_of(MODEL) == []


def test_a_window_counts_what_the_version_failed_and_how_long_it_took(hourly: tuple[House, ModelVersion]) -> None:
    home, version = hourly
    start = home.plane.clock.now().replace(minute=0, second=0, microsecond=0) + 9 * HOUR
    journal = Journal(home.plane.layout.plane / "journal", SystemClock())
    plain = Prediction(
        id="", at=int(start.timestamp() * 1e6), model=MODEL, version=version.alias, digest=version.digest, principal="shop",
        generation=1, worker="w0", rows=1, outputs={"probability": [0.5]}, inputs={"distance": [9.0]}, duration=4_000,
    )  # fmt: skip
    failed: dict[str, Any] = {"error": "no_finite_answer", "outputs": {}, "primary": "p_1"}
    for change in ({}, {}, {"role": "canary", **failed}, {"role": "shadow", **failed}):
        journal.append(msgspec.structs.replace(plain, id=journal.next_id, **change))
    journal.close()
    assert set_clock(home, start + HOUR) == 200
    newest = home.api().get(f"/api/v1/models/{MODEL}/drift").json()[-1]
    assert (newest["rows"], newest["errors"]) == (2, 1), "a mirrored failure is nobody's answer"
    assert 3 <= newest["p50_ms"] <= newest["p99_ms"] <= 5
