"""The reference is what the code says: each page is made again and compared."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Parameter

import falaj
from falaj.bootstrap.control_plane import actions
from falaj.entrypoints.cli.app import app
from falaj.entrypoints.cli.commands.errors import catalogue
from falaj.kernel.access import Action
from falaj.kernel.settings import Settings
from falaj.lifecycle.monitoring import analysis
from falaj.lifecycle.monitoring.model import WindowView
from falaj.lifecycle.serving.model import OBSERVE
from falaj.lifecycle.serving.plane.app import ROUTES, Route
from falaj.lifecycle.serving.plane.journal import Prediction
from falaj.lifecycle.serving.plane.metrics import exposition
from tools import reference
from tools.manual import authoring, commands, errors, figures, flows, http, policy, predicates, settings, tables
from tools.manual.opened import opened

HINT = "run: python tools/reference.py"


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    """The pages as the code makes them."""
    return reference.pages()


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_code_says(name: str, now: dict[str, str]) -> None:
    path = tables.FOLDER / name
    assert path.is_file(), HINT
    assert path.read_text("utf-8") == now[name], HINT


def test_the_pages_of_errors_are_what_the_code_says(now: dict[str, str]) -> None:
    grown = [name for name in now if name.startswith("errors/") and _page(name) != now[name]]
    assert grown == [], HINT


def _page(name: str) -> str:
    path = tables.FOLDER / name
    return path.read_text("utf-8") if path.is_file() else ""


def test_no_page_lies_there_that_nobody_makes(now: dict[str, str]) -> None:
    assert {p.relative_to(tables.FOLDER).as_posix() for p in tables.FOLDER.rglob("*.*")} == set(now)


def test_a_page_is_the_same_each_time(now: dict[str, str]) -> None:
    http.routes.cache_clear()
    errors.places.cache_clear()
    assert reference.pages() == now


def test_every_error_has_a_code_that_can_be_read() -> None:
    assert errors.codeless() == [], "give code= as a literal, so that its page can be made"


def test_every_code_has_an_entry_in_the_catalogue() -> None:
    raised = {p.code for p in errors.places()} | {errors.UNEXPLAINED}
    told = set(catalogue())
    assert raised - told == set(), "write what these mean in src/falaj/entrypoints/errors.toml"
    assert told - raised == set(), "nothing raises these any more: take them out of src/falaj/entrypoints/errors.toml"


def test_every_predicate_type_is_told_and_there_are_no_others() -> None:
    assert {kind.uri for kind in predicates.KINDS} == predicates.declared()


@pytest.mark.parametrize("kind", predicates.KINDS, ids=lambda k: k.title)
def test_a_predicate_has_the_fields_that_are_told(kind: predicates.Kind) -> None:
    statement = kind.example()
    assert statement["predicateType"] == kind.uri
    assert sorted(predicates.fields_of(statement["predicate"])) == sorted(kind.fields)


def test_a_new_predicate_type_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = errors.Module("fresh.py", ast.parse(f"PREDICATE = {FRESH!r}"), {}, {}, {})
    assert FRESH not in predicates.declared()
    monkeypatch.setattr(errors, "modules", lambda: {"tests": fresh})
    assert FRESH in predicates.declared()


def test_every_step_of_a_flow_is_told_and_there_are_no_others() -> None:
    found = {name: set(flows.steps_of(name)) for name in opened().flows}
    assert set(found) == set(flows.STEPS)
    for name, steps in found.items():
        assert steps - set(flows.STEPS["staging"]) == set(flows.STEPS[name]) - set(flows.STEPS["staging"]), name
    assert set(flows.STEPS["staging"]) == found["staging"]


def test_every_measure_of_a_window_and_every_field_of_a_record_is_told() -> None:
    assert tuple(figures.WINDOW) == WindowView.__struct_fields__
    assert tuple(figures.RECORD) == Prediction.__struct_fields__


def test_every_metric_has_a_type_a_unit_and_labels() -> None:
    rows = figures.prometheus()
    assert len(rows) == len(re.findall("# TYPE ", exposition([]))) > 10
    assert all(all(row) for row in rows)
    assert set(figures.UNITS) <= {row[0].strip("`") for row in rows}


def test_the_metrics_of_a_rollout_are_those_that_the_analysis_speaks_of() -> None:
    text = Path(inspect.getfile(analysis)).read_text("utf-8").partition('"""\n\n')[2]
    assert len(figures.rollout()) == 6
    assert [name for name, _ in figures.rollout() if f'"{name}"' not in text] == []


def test_every_name_of_the_package_and_every_gate_is_told(now: dict[str, str]) -> None:
    heads = re.findall(r"^## (.*)$", now["authoring.md"], re.MULTILINE)
    assert heads == [f"fj.{name}" for name in falaj.__all__ if name not in ("__version__", "gate")]
    assert all(tables.told(getattr(falaj, name)) for name in authoring.public())
    told = re.findall(r"^## fj\.gate\.(\w+)$", now["gates.md"], re.MULTILINE)
    public = [n for n, v in vars(falaj.gate).items() if inspect.isfunction(v) and v.__module__ == falaj.gate.__name__]
    assert told == [name for name in public if not name.startswith("_")]
    assert all(tables.told(getattr(falaj.gate, name)) for name in told)


def test_an_entry_says_what_to_do() -> None:
    for code, about in catalogue().items():
        sentences = [s for s in about.replace("…", "").split(". ") if s]
        assert 2 <= len(sentences) <= 6, (code, about)
        assert about.endswith("."), (code, about)


def test_every_setting_has_a_row(now: dict[str, str]) -> None:
    for field in Settings.__struct_fields__:
        assert f"| `{field}` | `FALAJ_{field.upper()}` |" in now["settings.md"]


def test_a_new_setting_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    class Extended(Settings, frozen=True):
        fresh: int = 7
        """Something new."""

    told = tables.docstrings(Extended) | tables.docstrings(Settings)
    monkeypatch.setattr(settings, "Settings", Extended)
    monkeypatch.setattr(settings, "docstrings", lambda _kind: told)
    assert "| `fresh` | `FALAJ_FRESH` | `7` | Something new. |" in settings.settings()
    assert "FALAJ_FRESH" not in now["settings.md"]


def test_a_new_action_changes_the_pages(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    fresh = Action("loop.fresh", "risk", "Model", "do something new")
    declared = (*actions(), fresh)
    monkeypatch.setattr(policy, "declared_actions", lambda: declared)
    row = "| `loop.fresh` | risk | Model | do something new | risk-officer, platform-admin |"
    assert row in policy.actions()
    assert "loop.fresh" not in now["actions.md"]


def test_a_new_command_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    def fresh(thing: Annotated[str, Parameter(help="Which.")], /, *, level: int = 3) -> None:
        """Do something new."""

    extended = App(name="falaj", help=app.help)
    for name in app:
        if not name.startswith("-"):
            extended.command(app[name], name=name)
    extended.command(fresh, name="fresh")
    monkeypatch.setattr(commands, "cli", extended)
    with pytest.raises(ValueError, match="values to unpack"):  # it lacks the options of every command
        commands.command_line()
    words = [path for path, _ in commands.commands(extended, ())]
    assert ("fresh",) in words
    assert ("token", "create") in words


def test_a_new_route_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    fresh = Route("GET", "/falaj/v1/fresh", OBSERVE, ROUTES[0].handler)
    monkeypatch.setattr(http, "ROUTES", (*ROUTES, fresh))
    assert "| GET | `/falaj/v1/fresh` | `serving.observe` |" in http.api()
    assert "/falaj/v1/fresh" not in now["api.md"]


def test_roles_are_asked_of_the_policy(now: dict[str, str]) -> None:
    table, _, own = now["actions.md"].partition("## In an environment")
    rows = {line.split(" | ")[0]: line for line in table.splitlines() if line.startswith("| `")}
    assert "risk-officer, platform-admin | `four-eyes`, `not-in-quarantine` |" in rows["| `changes.approve`"]
    assert (
        "data-scientist, ml-engineer, platform-admin | `data-stays-in-its-region`, `not-in-quarantine`, `purpose-must-be-allowed` |"
        in rows["| `training.start`"]
    )
    assert "| *platform* |" in rows["| `registry.register`"]
    (predict,) = [line for line in own.splitlines() if line.startswith("| `serving.predict` |")]
    assert [("service" in roles) for roles in predict.split(" | ")[1:]] == [False, False, True]


@pytest.mark.parametrize(
    ("action", "outcomes"),
    [
        ("changes.approve", "done, denied, refused"),  # a change
        ("audit.read", "done, denied"),  # a reading that is written down
        ("audit.verify", "denied"),  # a reading that is not
        ("serving.load", "refused"),  # told to the log after the fact
        ("serving.predict", "–"),  # the journal has it
    ],
)
def test_outcomes_follow_the_calls_of_the_door(action: str, outcomes: str, now: dict[str, str]) -> None:
    (row,) = [line for line in now["audit-events.md"].splitlines() if line.startswith(f"| `{action}` |")]
    assert row.split(" | ")[2] == outcomes


def test_every_row_has_its_text(now: dict[str, str]) -> None:
    for name, page in now.items():
        for line in tables_of(page) if not name.startswith("errors/") else ():
            assert "None" not in line and not re.search("<[a-z]", line), (name, line)


def tables_of(page: str) -> list[str]:
    """The rows of the tables of a page."""
    return [line for line in page.splitlines() if line.startswith("|")]


FRESH = "https://example.com/fresh/v1"
"""A predicate type that nothing makes."""
