"""Labels end a rollout, or do not: real journal, real metrics database, labels as they are pushed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from falaj.kernel.clock import iso
from falaj.lifecycle.evidence.model import Verdict
from falaj.lifecycle.monitoring import analyst
from falaj.lifecycle.monitoring.analyst import JournalAnalyst
from falaj.lifecycle.monitoring.store import SqlRecordStore
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.rollout.strategy import Limits, Rollout, Strategy
from falaj.lifecycle.serving.plane.journal import Journal, Prediction, not_finite
from falaj.lifecycle.training.model import ModelContract, Output
from tests.lifecycle.house import House
from tests.lifecycle.serving.plane.fleet import eventually, flight_contract
from tests.lifecycle.tables import ask

LOOSE = Limits(shift=0.9, loss=0.05)


class Ride:
    """A challenger beside a stable version in the journal, at a step that began a minute ago."""

    def __init__(self, home: House, contract: ModelContract, strategy: Strategy | None = None) -> None:
        self.home = home
        self.model = contract.model
        self.stable, self.challenger = (home.packaged(contract=contract) for _ in range(2))
        began = iso(home.plane.clock.now() - timedelta(seconds=60))
        self.rollout = Rollout(
            f"rol_{self.model}", self.model, self.challenger.digest, self.stable.digest, strategy or Strategy(limits=LOOSE),
            "canary", 0, 5, "risk", "", began, began,
        )  # fmt: skip
        self.journal = Journal(home.plane.layout.plane / "journal", home.plane.clock)

    def answers(self, version: ModelVersion, outputs: dict[str, list[Any]], **more: Any) -> Prediction:
        canary = version is self.challenger
        record = Prediction(
            id=self.journal.next_id, at=int(self.home.plane.clock.now().timestamp() * 1e6), model=self.model,
            version=version.alias, digest=version.digest, principal="shop", generation=5, worker="w0",
            rows=len(next(iter(outputs.values()))), inputs={}, outputs=outputs, duration=900,
            role="canary" if canary else "stable",
        )  # fmt: skip
        record = msgspec.structs.replace(record, **more)
        self.journal.append(record)
        return record

    def labels(self, values: dict[str, float]) -> None:
        """Send labels, once the tail has read what they are of."""

        def taken() -> bool:
            answer = self.home.plane.quality.push(self.home.owner, self.model, list(values.items()))
            return bool(answer["unknown"] == 0)

        eventually(taken, "the journal is read")

    def judge(self) -> JournalAnalyst:
        """A judge who has seen nothing yet, as after a restart."""
        plane = self.home.plane
        return JournalAnalyst(
            analyst.Ports(
                plane.layout.plane / "journal", plane.observer, plane.serving, plane.tail, plane.metrics, SqlRecordStore(),
                plane.registry,
            )
        )  # fmt: skip

    def loss(self, rollout: Rollout | None = None) -> dict[str, Any]:
        """The metric, as somebody reads it who has just come."""
        report = self.judge().report(rollout or self.rollout)
        return msgspec.to_builtins(next(m for m in report.metrics if m.metric == "label_loss"))  # type: ignore[no-any-return]


@pytest.fixture
def rides(home: House) -> Iterator[Any]:
    opened: list[Ride] = []

    def begin(model: str, strategy: Strategy | None = None, **contract: Any) -> Ride:
        opened.append(Ride(home, msgspec.structs.replace(flight_contract(model), **contract), strategy))
        return opened[-1]

    yield begin
    for ride in opened:
        ride.journal.close()


def asked(ride: Ride, n: int, wrong: float, seed: int = 1) -> dict[str, float]:
    """`n` answers of each version and what became true; the challenger's are `wrong` off."""
    chance = random.Random(seed)
    values: dict[str, float] = {}
    for _ in range(n):
        for version in (ride.stable, ride.challenger):
            late = chance.random() < 0.5
            score = 0.7 if late else 0.3
            off = wrong if version is ride.challenger else 0.0
            record = ride.answers(version, {"probability": [score - off if late else score + off]})
            values[record.id] = float(late)
    return values


def test_a_challenger_that_is_worse_on_labels_is_failed(rides: Any) -> None:
    ride = rides("worse")
    values = asked(ride, 150, 0.35)
    judge = ride.judge()
    before = judge.analyse(ride.rollout)
    assert (before.verdict, before.requests, before.labels) == (Verdict.INCONCLUSIVE, 150, 0)
    ride.labels(values)
    found = judge.analyse(ride.rollout)
    assert found.verdict is Verdict.FAILED and found.labels == 150
    assert "label loss 0.422 against 0.09 on 150 labelled answers" in found.reason
    assert ride.judge().analyse(ride.rollout) == found  # whoever comes later sees the same


def test_one_that_is_alike_is_not_and_nobody_waits_for_labels(rides: Any) -> None:
    ride = rides("alike")
    ride.labels(asked(ride, 400, 0.0))
    found = ride.judge().analyse(ride.rollout)
    assert (found.verdict, found.labels) == (Verdict.SUCCESSFUL, 400)
    silent = rides("silent")
    asked(silent, 400, 0.35)
    assert silent.judge().analyse(silent.rollout).verdict is Verdict.SUCCESSFUL


def test_a_step_that_asks_for_labels_counts_those_of_its_own_answers(rides: Any, home: House) -> None:
    ride = rides("patient", Strategy(limits=LOOSE, labels=300))
    first = asked(ride, 250, 0.0)
    shadow = msgspec.structs.replace(ride.rollout, stage="shadow")
    assert ride.judge().analyse(shadow).verdict is Verdict.SUCCESSFUL  # nobody got its answers, so no label can come
    assert ride.judge().analyse(ride.rollout).verdict is Verdict.INCONCLUSIVE
    ride.labels(first)
    waiting = ride.judge().analyse(ride.rollout)
    assert (waiting.verdict, waiting.labels) == (Verdict.SUCCESSFUL, 250)
    assert waiting.reason == "250 of 300 labels have come in this step"
    next_step = msgspec.structs.replace(
        ride.rollout, step=1, updated_at=iso(home.plane.clock.now() + timedelta(seconds=1))
    )
    assert ride.judge().analyse(next_step).labels == 0
    ride.labels(asked(ride, 50, 0.0, seed=2))
    assert ride.judge().analyse(ride.rollout).labels == 300


def test_one_row_a_request_and_the_first_word_on_it(rides: Any) -> None:
    ride = rides("rows")
    record = ride.answers(ride.challenger, {"probability": [0.9, 0.2, 0.6]})
    ride.labels({f"{record.id}/1": 1.0})
    ride.labels({f"{record.id}/0": 1.0, f"{record.id}/2": 1.0})
    ride.labels({f"{record.id}/1": 0.0})  # a correction: true from now on, and no second vote
    found = ride.loss()
    assert (found["requests"], found["challenger"]) == (1, pytest.approx(0.64))
    label = ride.home.plane.quality.label(record.id, 1)
    assert label is not None and label.value == 0.0


def test_what_counts_and_what_does_not(rides: Any, home: House) -> None:
    ride = rides("counts")
    long_ago = int((home.plane.clock.now() - timedelta(hours=1)).timestamp() * 1e6)
    values = {
        ride.answers(ride.challenger, {"probability": [0.5]}).id: 1.0,
        ride.answers(ride.stable, {"probability": [0.5]}).id: 1.0,
        ride.answers(ride.challenger, {"probability": [0.5]}, role="shadow", primary="p_x").id: 1.0,
        ride.answers(ride.challenger, {"probability": [0.5]}, at=long_ago).id: 1.0,
        ride.answers(ride.challenger, {"probability": [0.5]}, digest="sha256:another").id: 1.0,
        ride.answers(ride.challenger, {"probability": [0.5]}).id: 7.0,
    }
    ride.labels(values)
    found = ride.loss()
    assert (found["requests"], found["pairs"], found["challenger"]) == (1, 1, 0.25)


def test_when_it_has_ended_later_labels_change_nothing(rides: Any, home: House) -> None:
    ride = rides("ended")
    early = asked(ride, 20, 0.1)
    ride.labels(early)
    ended = msgspec.structs.replace(ride.rollout, stage="promoted", updated_at=iso(home.plane.clock.now()))
    judge = ride.judge()
    before = judge.report(ended)
    assert next(m.requests for m in before.metrics if m.metric == "label_loss") == 20
    values = asked(ride, 20, 0.35, seed=3)
    eventually(lambda: iso(home.plane.clock.now()) > ended.updated_at, "a moment passes")
    ride.labels({**values, **{name: 1.0 - value for name, value in early.items()}})  # corrections among them
    assert judge.report(ended) == before == ride.judge().report(ended)
    assert ride.loss()["requests"] == 40


def test_a_vector_and_a_number_have_their_losses(rides: Any) -> None:
    several = rides(
        "several", task="multiclass", outputs=(Output("p", "FP32", "p"),), score="p", classes=("a", "b", "c")
    )
    record = several.answers(several.challenger, {"p": [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]})
    several.labels({f"{record.id}/0": 1.0, f"{record.id}/1": 0.0})
    assert several.loss()["challenger"] == pytest.approx((0.25 + 0.49 + 0.04) / 2)
    one = rides("one", task="regression", outputs=(Output("value", "FP32", "value"),), score="value", classes=())
    record = one.answers(one.stable, {"value": [0.5]})
    one.labels({record.id: 0.5 + 0.09})
    assert one.loss()["stable"] == pytest.approx(0.1)  # the range of the frozen scores is 0.9


def test_a_rollout_that_cannot_be_judged_by_labels_says_so(rides: Any) -> None:
    other = {"task": "ranking", "outputs": (Output("value", "FP32", "value"),), "score": "value", "classes": ()}
    ride = rides("flat", Strategy(limits=LOOSE, labels=10), **other)
    for _ in range(400):
        for version in (ride.stable, ride.challenger):
            ride.answers(version, {"value": [0.5]})
    found = ride.judge().analyse(ride.rollout)
    assert (found.verdict, found.labels) == (Verdict.SUCCESSFUL, 0) and "by hand" in found.reason


def test_a_bundle_that_is_published_meanwhile_begins_no_step(rides: Any) -> None:
    """Someone got a token: the data plane goes on in a later generation."""
    ride = rides("later")
    for generation in (4, 5, 6, 6):
        ride.answers(ride.challenger, {"probability": [0.5]}, generation=generation)
    assert ride.judge().analyse(ride.rollout).requests == 3


def test_versions_that_write_segments_of_their_own_are_compared_answer_by_answer(rides: Any, home: House) -> None:
    """A shadow's records lie in another segment than the answers: in the order of time each meets its neighbour."""
    ride = rides("apart")
    mirror = Journal(home.plane.layout.plane / "journal", home.plane.clock)
    start = int(home.plane.clock.now().timestamp() * 1e6) - 1_000_000
    for n in range(300):
        ride.answers(ride.stable, {"probability": [0.5]}, at=start + 10 * n)
    for n in range(300):
        mirror.append(
            Prediction(
                id=mirror.next_id, at=start + 10 * n + 1, model=ride.model, version=ride.challenger.alias,
                digest=ride.challenger.digest, principal="shop", generation=5, worker="w0", rows=1, inputs={},
                outputs={"probability": [0.5]}, role="shadow", primary="p_1",
            )
        )  # fmt: skip
    mirror.close()
    report = ride.judge().report(ride.rollout)
    assert {(m.requests, m.pairs) for m in report.metrics if m.metric != "label_loss"} == {(300, 300)}


def test_answers_that_are_no_finite_number_are_counted_as_such(rides: Any) -> None:
    ride = rides("infinite")
    for n in range(40):
        ride.answers(ride.stable, {"probability": [0.5]})
        ride.answers(ride.challenger, {"probability": [0.5]}, error=not_finite("probability") if n % 2 else "")
    report = ride.judge().report(ride.rollout)
    shares = {m.metric: (m.stable, m.challenger) for m in report.metrics if m.metric in ("non_finite", "error_rate")}
    assert shares == {"non_finite": (0.0, 0.5), "error_rate": (0.0, 0.5)}


def test_a_challenger_whose_score_has_another_width_is_judged_by_the_rest(rides: Any) -> None:
    """It knows one class more: its scores have no rank in the stable version's reference."""
    ride = rides("wider")
    for _ in range(20):
        ride.answers(ride.stable, {"probability": [0.5]})
        ride.answers(ride.challenger, {"probability": [[0.5, 0.2, 0.3]]})
    found = ride.judge().analyse(ride.rollout)
    assert (found.verdict, found.requests) == (Verdict.INCONCLUSIVE, 20) and "score_up" in found.reason


def test_a_label_of_a_row_that_nobody_asked_for_is_unknown_and_keeps_no_other_out(rides: Any, home: House) -> None:
    ride = rides("beyond")
    record = ride.answers(ride.challenger, {"probability": [0.5]})
    ride.labels({record.id: 1.0})
    push = home.plane.quality.push
    assert push(home.owner, ride.model, [(f"{record.id}/1", 0.0)]) == {"accepted": 0, "unknown": 1}
    assert [label.row for label in home.plane.metrics.read(lambda tx: SqlRecordStore().labels_of(tx, record.id))] == [0]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_label_that_is_no_number_is_refused(rides: Any, home: House, value: str) -> None:
    ride = rides(f"odd-{value.lower()}")
    record = ride.answers(ride.challenger, {"probability": [0.5]})
    ride.labels({record.id: 1.0})
    body = f'{{"labels": [{{"prediction": "{record.id}", "value": {value}}}]}}'
    path, as_json = f"/api/v1/models/{ride.model}/labels", {"content-type": "application/json"}
    refused = ask(home, "owner", "POST", path, content=body, headers=as_json)
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_label")


def test_a_row_that_no_request_has_is_no_prediction(rides: Any, home: House) -> None:
    ride = rides("far")
    record = ride.answers(ride.challenger, {"probability": [0.5]})
    ride.labels({record.id: 1.0})
    far = [{"prediction": f"{record.id}/{10**30}", "value": 1}]
    refused = home.api("owner").post(f"/api/v1/models/{ride.model}/labels", {"labels": far})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_prediction_id")
