"""A sample of `proofs/crash_serving.py`: it holds, and it sees a journal that comes too late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import loaded

PROOF = Path(__file__).parents[4] / "proofs" / "crash_serving.py"


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    with loaded(PROOF) as module:
        yield module


def test_workers_are_killed_and_every_answer_is_in_the_journal(proof: ModuleType, tmp_path: Path) -> None:
    text, found = proof.prove(kills=3, workers=2, callers=4, seed=7, root=tmp_path, most=20.0)
    assert not found, found[:3]
    assert "3 SIGKILLs in 3 rounds" in text


def test_a_journal_that_is_written_after_the_answer_is_noticed(proof: ModuleType, tmp_path: Path) -> None:
    assert proof.control("late", tmp_path) > 0


def test_failures_that_no_kill_explains_are_told(proof: ModuleType) -> None:
    book = proof.Book(kills={7: 100.0})
    for worker, at, excused in (
        (7, 100.5, True),
        (7, 99.9, False),
        (8, 100.5, False),
        (7, 102.0, False),
        (0, 100.1, True),
    ):
        assert proof.excused(book, proof.Failure(1, worker, at, "")) is excused
