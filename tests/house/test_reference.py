"""The reference is what the code says: each page is made again and compared."""

from __future__ import annotations

from typing import Annotated

import pytest
from cyclopts import App, Parameter

from falaj.bootstrap.control_plane import actions
from falaj.entrypoints.cli.app import app
from falaj.kernel.access import Action
from falaj.kernel.settings import Settings
from falaj.lifecycle.serving.model import OBSERVE
from falaj.lifecycle.serving.plane.app import ROUTES, Route
from tools import reference

HINT = "run: python tools/reference.py"


@pytest.fixture(scope="module")
def now() -> dict[str, str]:
    """The pages as the code makes them."""
    return reference.pages()


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_code_says(name: str, now: dict[str, str]) -> None:
    path = reference.FOLDER / name
    assert path.is_file(), HINT
    assert path.read_text("utf-8") == now[name], HINT


def test_no_page_lies_there_that_nobody_makes() -> None:
    assert {p.name for p in reference.FOLDER.iterdir()} == set(reference.PAGES)


def test_a_page_is_the_same_each_time(now: dict[str, str]) -> None:
    reference.routes.cache_clear()
    assert reference.pages() == now


def test_every_setting_has_a_row(now: dict[str, str]) -> None:
    for field in Settings.__struct_fields__:
        assert f"| `{field}` | `FALAJ_{field.upper()}` |" in now["settings.md"]


def test_a_new_setting_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    class Extended(Settings, frozen=True):
        fresh: int = 7
        """Something new."""

    told = reference._docstrings(Extended) | reference._docstrings(Settings)
    monkeypatch.setattr(reference, "Settings", Extended)
    monkeypatch.setattr(reference, "_docstrings", lambda _kind: told)
    assert "| `fresh` | `FALAJ_FRESH` | `7` | Something new. |" in reference.settings()
    assert "FALAJ_FRESH" not in now["settings.md"]


def test_a_new_action_changes_the_pages(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    fresh = Action("loop.fresh", "risk", "Model", "do something new")
    declared = (*actions(), fresh)
    monkeypatch.setattr(reference, "declared_actions", lambda: declared)
    row = "| `loop.fresh` | risk | Model | do something new | risk-officer, platform-admin |"
    assert row in reference.actions()
    assert "loop.fresh" not in now["actions.md"]


def test_a_new_command_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    def fresh(thing: Annotated[str, Parameter(help="Which.")], /, *, level: int = 3) -> None:
        """Do something new."""

    extended = App(name="falaj", help=app.help)
    for name in app:
        if not name.startswith("-"):
            extended.command(app[name], name=name)
    extended.command(fresh, name="fresh")
    monkeypatch.setattr(reference, "cli", extended)
    with pytest.raises(ValueError, match="values to unpack"):  # it lacks the options of every command
        reference.command_line()
    words = [path for path, _ in reference.commands(extended, ())]
    assert ("fresh",) in words
    assert ("token", "create") in words


def test_a_new_route_changes_the_page(monkeypatch: pytest.MonkeyPatch, now: dict[str, str]) -> None:
    fresh = Route("GET", "/falaj/v1/fresh", OBSERVE, ROUTES[0].handler)
    monkeypatch.setattr(reference, "ROUTES", (*ROUTES, fresh))
    assert "| GET | `/falaj/v1/fresh` | `serving.observe` |" in reference.api()
    assert "/falaj/v1/fresh" not in now["api.md"]


def test_roles_are_asked_of_the_policy(now: dict[str, str]) -> None:
    table, _, own = now["actions.md"].partition("## In an environment")
    rows = {line.split(" | ")[0]: line for line in table.splitlines() if line.startswith("| `")}
    assert "risk-officer, platform-admin | `four-eyes` |" in rows["| `changes.approve`"]
    assert "data-scientist, ml-engineer, platform-admin | `purpose-must-be-allowed` |" in rows["| `training.start`"]
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
        for line in page.splitlines():
            assert "None" not in line and "<" not in line.replace(reference.MADE, ""), (name, line)
