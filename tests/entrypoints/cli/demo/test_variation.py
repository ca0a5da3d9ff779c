"""How a telling differs from the usual one: what is taken, what is refused, and what becomes of the project."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from falaj.authoring.project import load_project
from falaj.entrypoints.cli.demo.flights import example, lay_out
from falaj.entrypoints.cli.demo.variation import AIRPORTS, Variation, variation
from falaj.kernel.errors import Invalid
from falaj.lifecycle.loop.model import ProjectDefinition


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """Loading a project changes the module path and what is loaded under the project's name."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("flights", None)


def given(**changed: Any) -> Variation:
    usual: dict[str, Any] = {"airports": [], "late_minutes": 15, "seed": 0, "shuffle": None, "better_by": 0.0}
    return variation(**{**usual, **changed})


def test_without_a_word_the_usual_one_is_told() -> None:
    assert given() == Variation()
    assert given().data_options() == ["--airports", *AIRPORTS]


def test_airports_are_taken_in_any_writing_and_order_and_once() -> None:
    assert given(airports=["lga", "JFK", "Lga"]).airports == ("JFK", "LGA")
    assert given(airports=["EWR"], shuffle=7).data_options() == ["--airports", "EWR", "--shuffle", "7"]
    assert given(shuffle=0).data_options()[-2:] == ["--shuffle", "0"], "0 is a seed like any other"


@pytest.mark.parametrize(
    "wrong",
    [
        {"airports": ["BOS"]},
        {"airports": ["JFK", ""]},
        {"late_minutes": 0},
        {"seed": -1},
        {"shuffle": -1},
        {"better_by": -0.1},
        {"better_by": 1.1},
        {"better_by": math.nan},
    ],
)
def test_what_cannot_be_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        given(**wrong)
    assert refusal.value.code == "bad_demo_option" and refusal.value.hint


def test_the_limits_themselves_can() -> None:
    told = given(late_minutes=1, seed=0, shuffle=0, better_by=1.0)
    assert (told.late_minutes, told.shuffle, told.better_by) == (1, 0, 1.0)


def defined(folder: Path, told: Variation) -> ProjectDefinition:
    lay_out(folder, told)
    return load_project(folder).definition()


def test_the_usual_one_leaves_the_project_as_it_is(tmp_path: Path) -> None:
    lay_out(tmp_path, Variation())
    files = {p.name for p in tmp_path.iterdir()}
    assert files == {p.name for p in example().iterdir() if p.is_file()} >= {"falaj.toml", "flights.py"}
    assert all((tmp_path / name).read_bytes() == (example() / name).read_bytes() for name in files)


def test_a_variation_is_in_what_the_project_defines(tmp_path: Path) -> None:
    usual = defined(tmp_path / "usual", Variation())
    told = defined(tmp_path / "told", given(late_minutes=30, seed=3, better_by=0.5))
    assert {m.seed for m in usual.models} == {0} and {m.seed for m in told.models} == {3}
    limits = [
        next(g.limit for g in m.gates if g.name == "champion roc_auc")
        for p in (usual, told)
        for m in p.models
        if m.name == "flight-delay"
    ]
    assert limits == [">= 0", ">= 0.5"]
    assert load_project(tmp_path / "told").module.LATE_MINUTES == 30
    assert usual.code != told.code and len((tmp_path / "told" / "flights.py").read_text().splitlines()) == len(
        (tmp_path / "usual" / "flights.py").read_text().splitlines()
    )


@pytest.mark.parametrize("lost", ["LATE_MINUTES = 15", "BETTER_BY = 0.0", "SEED = 0"])
def test_a_project_without_its_constants_is_not_varied_in_silence(tmp_path: Path, lost: str) -> None:
    project = tmp_path / "flights.py"
    text = (example() / "flights.py").read_text("utf-8")
    for broken in (text.replace(f"\n{lost}\n", "\n"), text + f"\n{lost}\n"):
        project.write_text(broken, "utf-8")
        with pytest.raises(Invalid, match=lost) as refusal:
            given(seed=3).edit(project)
        assert refusal.value.code == "demo_not_installed" and project.read_text("utf-8") == broken
