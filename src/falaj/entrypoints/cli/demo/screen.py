"""The timeline: lines with marks on a terminal, one JSON object an event with `--json`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
from rich.markup import escape

from falaj.entrypoints.cli import render
from falaj.kernel.digests import short

_MARKS = {"done": "[green]✓[/]", "refused": "[red]✗[/]", "note": "[dim]·[/]"}


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. `event` is begin, done, refused or note; `seconds` is what it took."""

    stage: str
    event: str
    subject: str
    digest: str = ""
    seconds: float = 0.0
    detail: dict[str, Any] = {}


class Screen(Protocol):
    """Where the demo tells its story."""

    def show(self, event: Event) -> None:
        """Tell one thing that happened."""
        ...

    def progress(self) -> Any:
        """A context manager that gives a callable for a flow's events."""
        ...

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        """A table at the end of an act; the last column is the long one."""
        ...


class JsonScreen:
    """For machines."""

    def show(self, event: Event) -> None:
        """One line of JSON."""
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Nothing is shown of what is under way."""
        yield lambda _event: None

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        """One line of JSON with columns and rows."""
        self.show(Event("proof", "note", title, detail={"columns": columns, "rows": rows}))


class TerminalScreen:
    """For people."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def show(self, event: Event) -> None:
        """A heading for an act, else a line with its mark."""
        if event.event == "begin":
            at = time.perf_counter() - self._started
            render.out.print(
                f"\n[bold]{escape(event.subject)}[/]  [dim]{escape(event.detail.get('about', ''))}[/]  [dim]{at:.0f} s[/]"
            )
            return
        digest = f"  [cyan]{short(event.digest)}[/]" if event.digest else ""
        seconds = f"  [dim]{event.seconds:.1f} s[/]" if event.seconds >= 0.05 else ""
        render.out.print(f"  {_MARKS[event.event]} {escape(event.subject)}{digest}{seconds}")
        for line in event.detail.get("lines", ()):
            render.out.print(f"      [dim]{escape(line)}[/]")

    @contextmanager
    def progress(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """A moving line, if the output is a terminal."""
        with render.progress() as show:
            yield show

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        """Rows in columns, the last cell on a line of its own."""
        render.out.print(f"\n[bold]{escape(title)}[/]")
        widths = [max(len(str(r[i])) for r in rows) for i in range(len(columns) - 1)]
        for *facts, why in rows:
            cells = [render.styled(f) + " " * (w - len(str(f))) for f, w in zip(facts, widths, strict=True)]
            render.out.print("  " + "  ".join(cells))
            render.out.print(f"      [dim]{escape(str(why))}[/]")
