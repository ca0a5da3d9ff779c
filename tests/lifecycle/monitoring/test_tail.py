"""Catching up with the journal: who asks is answered by a look that began after the question."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Integrity
from falaj.lifecycle.monitoring.tail import Tail
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from tests.lifecycle.serving.plane.fleet import eventually

NEVER = 60.0  # seconds between looks: within a test, only who asks for one causes one


class Looks:
    """A tail whose looks end when they are told to."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.tail = Tail(folder, {}, self.take, self.then, NEVER)
        self.people = ThreadPoolExecutor(4)

    def take(self, batch: list[Prediction], _segment: str, _end: int) -> None:
        self.seen += [r.model for r in batch]

    def then(self) -> None:
        self.begun.release()
        assert self.go.acquire(timeout=20)

    def ask(self, seconds: float = 20.0) -> Future[bool]:
        return self.people.submit(self.tail.catch_up, seconds)

    def begins(self) -> None:
        assert self.begun.acquire(timeout=20)

    def end(self) -> None:
        for _ in range(9):
            self.go.release()
        self.tail.stop()
        self.people.shutdown()


@pytest.fixture
def looks(tmp_path: Path) -> Iterator[Looks]:
    made = Looks(tmp_path)
    made.tail.start()
    yield made
    made.end()


def write(folder: Path, *models: str) -> None:
    journal = Journal(folder, SystemClock())
    for model in models:
        journal.append(
            Prediction(
                id=journal.next_id, at=1, model=model, version="m@1", digest="sha256:" + "0" * 64, principal="p",
                generation=1, worker="1", rows=1, inputs={"origin": ["JFK"]}, outputs={"y": [0.25]},
            )
        )  # fmt: skip
    journal.close()


def test_a_look_that_is_under_way_is_not_the_one_that_is_waited_for(looks: Looks) -> None:
    first = looks.ask()
    looks.begins()
    second = looks.ask()
    eventually(looks.tail._wake.is_set, "the second has asked")
    looks.go.release()
    assert first.result(20) is True
    looks.begins()
    assert not second.done(), "it came while the first look was under way"
    looks.go.release()
    assert second.result(20) is True
    assert looks.tail.looks == 2


def test_what_was_written_before_the_question_has_been_handed_on(looks: Looks, tmp_path: Path) -> None:
    looks.go.release()
    write(tmp_path, "one", "two")
    assert looks.tail.catch_up(20) and looks.seen == ["one", "two"]
    looks.go.release()
    write(tmp_path, "three")
    assert looks.tail.catch_up(20) and looks.seen == ["one", "two", "three"]


def test_many_may_ask_at_once(looks: Looks) -> None:
    looks.begun = threading.Semaphore(0)
    asked = [looks.ask() for _ in range(4)]
    for _ in range(5):
        looks.go.release()
    assert [a.result(20) for a in asked] == [True] * 4
    assert 1 <= looks.tail.looks <= 5


def test_no_look_in_time_is_said_and_the_next_one_counts(looks: Looks) -> None:
    assert looks.tail.catch_up(0.05) is False
    looks.begins()
    later = looks.ask()
    eventually(looks.tail._wake.is_set, "it has asked")
    looks.go.release()
    looks.begins()
    looks.go.release()
    assert later.result(20) is True


def test_a_look_that_fails_is_no_look(tmp_path: Path) -> None:
    fails = threading.Event()
    fails.set()

    def then() -> None:
        if fails.is_set():
            raise OSError("no space left")

    tail = Tail(tmp_path, {}, lambda *_: None, then, 0.02)
    tail.start()
    assert tail.catch_up(0.2) is False
    assert "no space left" in tail.trouble
    fails.clear()
    assert tail.catch_up(20) is True and tail.trouble == ""
    tail.stop()


def test_after_the_end_nobody_is_kept_waiting(looks: Looks) -> None:
    waiting = looks.ask(3600)
    looks.begins()
    ending = looks.people.submit(looks.tail.stop)
    assert waiting.result(20) is False
    looks.go.release()
    ending.result(20)
    assert looks.tail.catch_up(3600) is False


def test_a_damaged_segment_hides_nothing_but_itself(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    (first,) = tmp_path.glob("*.seg")
    data = bytearray(first.read_bytes())
    data[20] ^= 1
    first.write_bytes(data)
    write(tmp_path, "c", "d")
    seen: list[str] = []
    tail = Tail(tmp_path, {}, lambda batch, _segment, _end: seen.extend(r.model for r in batch), lambda: None)
    for _ in range(2):
        with pytest.raises(Integrity):
            tail.look()
        assert seen == ["c", "d"]
    assert tail.looks == 0
