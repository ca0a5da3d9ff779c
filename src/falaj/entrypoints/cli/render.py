"""What a person sees. Rich leaves colour out when the output is no terminal or NO_COLOR is set."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from falaj.kernel.digests import short

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_GAP = 2
_LEAST = 24  # columns that the last one gets, however narrow the terminal is
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d):\d\d(?:\.\d+)?Z\Z")
_STYLE = {
    "done": "green", "Successful": "green", "serving": "green", "approved": "green", "loaded": "green", "awaiting approval": "yellow", "registered": "yellow",
    "Failed": "red", "Error": "red", "Inconclusive": "yellow", "Missing": "yellow", "refused": "red", "denied": "red", "rejected": "red",
}  # fmt: skip


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def plain(text: str) -> str:
    """Text in which nothing is taken for markup."""
    return escape(text)


def line(text: str) -> None:
    """A line of text; what it holds is never taken for markup."""
    out.print(plain(text))


def paragraph(text: str) -> None:
    """Sentences, broken between words at the terminal's width or at 100 columns."""
    out.print(Text(text), soft_wrap=False, width=min(out.width, 100))


def styled(value: object) -> str:
    """A state or verdict with its colour."""
    text = escape(str(value))
    style = _STYLE.get(str(value))
    return f"[{style}]{text}[/]" if style else text


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing yet") -> None:
    """A plain table; states and verdicts are coloured, numbers stand right, moments are told to the minute.

    Only the last column wraps: a name, a digest or a moment that is broken in two is of no use. Without rows there
    is one line that says so.
    """
    rows = [list(r) for r in rows]
    if not rows:
        if empty:
            line(empty)
        return
    cells = [[_cell(v) for v in row] for row in rows]
    widths = [
        max(cell_len(column), *(Text.from_markup(c[i]).cell_len for c in cells)) + _GAP
        for i, column in enumerate(columns)
    ]
    least = sum(widths[:-1]) + min(widths[-1], _LEAST)
    width = max(out.width, least) if sum(widths) > out.width else None
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, _GAP, 0, 0), width=width)
    for i, column in enumerate(columns):
        numeric = all(isinstance(r[i], int | float) for r in rows)
        last = i == len(columns) - 1
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=not last)
    for row in cells:
        grid.add_row(*row)
    out.print(grid)


def digest(value: str) -> str:
    """A digest as people read it."""
    return short(value) if value else "–"


class Steps:
    """Shows a flow's events: a moving line on a terminal, nothing else otherwise."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None) if progress else None

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event of the flow."""
        if self._progress is None or self._task is None or event.get("type") != "progress":
            return
        total = event.get("total") or None
        self._progress.update(
            self._task, description=escape(str(event["text"]))[:60], completed=event.get("done", 0), total=total
        )


@contextmanager
def progress(quiet: bool = False) -> Iterator[Steps]:
    """Progress on standard error while a flow runs, when that is a terminal."""
    if quiet or not err.is_terminal:
        yield Steps(None)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        yield Steps(bar)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 100 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    moment = _MOMENT.match(value) if isinstance(value, str) else None
    return f"{moment[1]}Z" if moment else styled(value)
