"""Commands in the wrong folder leave nothing there; tables keep names and moments whole."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.commands.build import project_files
from falaj.kernel.errors import Invalid
from tests.entrypoints.cli.shell import Shell


@pytest.mark.parametrize(
    "command",
    [("status",), ("versions", "m"), ("ingest", "s"), ("predict", "m", "--data", "-"), ("token", "list"), ("console",)],
    ids=" ".join,
)
def test_a_look_from_the_wrong_folder_makes_no_home(tmp_path: Path, command: tuple[str, ...]) -> None:
    error = Shell(tmp_path).refused(*command, code=2)
    assert error["code"] == "no_home" and "falaj init" in error["hint"] and "--home" in error["hint"]
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_named_may_be_new(tmp_path: Path) -> None:
    assert Shell(tmp_path).done("status", "--home", "new")["home"] == str(tmp_path / "new")
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "falaj.toml").write_text("")
    assert Shell(below).done("status")["home"] == str(tmp_path / ".falaj")


def test_a_folder_without_a_name_is_named_by_its_path() -> None:
    with pytest.raises(Invalid, match=r"^/ is no project"):
        project_files(Path("/"))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A screen of 80 columns."""
    text = io.StringIO()
    console = Console(file=text, width=80, highlight=False, soft_wrap=True)
    monkeypatch.setattr(render, "out", console)
    return text


ROW = ("flight-delay-minutes@12", "awaiting approval", "sha256:0123456789ab", "2013-04-01T08:30:12.123Z")


def test_only_the_last_column_wraps_and_moments_are_told_to_the_minute(screen: io.StringIO) -> None:
    reason = "metric roc_auc: Failed (0.58 misses >= 0.68); latency p99_ms: Error (the online store is empty)"
    render.table(("version", "state", "digest", "created", "reason"), [(*ROW, reason)])
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert len(lines) > 3
    for whole in (*ROW[:1], *ROW[2:3], "2013-04-01T08:30Z"):
        assert whole in lines[1]
    assert "08:30:12" not in screen.getvalue()
    column = lines[0].index("reason")
    assert " ".join(line[column:].strip() for line in lines[1:]) == reason
    assert not any(line[:column].strip() for line in lines[2:])


def test_a_table_that_fits_is_as_narrow_as_it_can_be(screen: io.StringIO) -> None:
    render.table(("a", "b"), [("x", "y")])
    assert max(len(line.rstrip()) for line in screen.getvalue().splitlines()) < 10


def test_an_empty_table_is_a_line(screen: io.StringIO) -> None:
    render.table(("version", "state"), [])
    render.table(("version", "state"), [], empty="")
    assert screen.getvalue() == "nothing yet\n"
