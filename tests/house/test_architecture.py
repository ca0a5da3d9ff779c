"""The picture is the code's."""

from __future__ import annotations

import pytest

from falaj.lifecycle import STAGES
from tools import picture


def test_the_picture_is_drawn_from_the_stages() -> None:
    page = picture.PAGE.read_text("utf-8")
    assert picture.draw(STAGES) in page
    assert picture.replaced(page) == page, "run python tools/picture.py"


def test_another_order_draws_another_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    page = picture.PAGE.read_text("utf-8")
    monkeypatch.setattr(picture, "STAGES", (STAGES[1], STAGES[0], *STAGES[2:]))
    assert picture.replaced(page) != page


def test_the_picture_names_every_stage_once() -> None:
    drawn = picture.draw(STAGES)
    assert [drawn.count(f" {stage} ") for stage in STAGES] == [1] * len(STAGES)


def test_the_picture_turns_where_it_should() -> None:
    expected = [
        "+-----+    +-----+    +-----+    +-----+",
        "|  a  | -> |  b  | -> |  c  | -> |  d  |",
        "+-----+    +-----+    +-----+    +-----+",
        "                      +-----+    +-----+",
        "                      | long| <- |  e  |",
        "                      +-----+    +-----+",
    ]
    drawn = picture.draw(("a", "b", "c", "d", "e", "lon")).replace(" lon ", " long", 1).splitlines()
    assert [line for line in drawn if "loop" not in line] == expected


def test_no_folder_of_tests_is_a_package() -> None:
    """pytest would import it under its own last name, and `tests/statistics` stand where Python's `statistics` should."""
    tests = picture.PAGE.parent / "tests"
    assert (tests / "statistics").is_dir()
    assert [str(found) for found in tests.rglob("__init__.py")] == []
