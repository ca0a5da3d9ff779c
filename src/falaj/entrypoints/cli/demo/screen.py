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
    def show(self, event: Event) -> None: ...

    def progress(self) -> Any:
        """A context manager that gives a callable for a flow's events."""
        ...

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None: ...


class JsonScreen:
    """For machines."""

    def show(self, event: Event) -> None:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()

    @contextmanager
    def progress(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        yield lambda _event: None

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        self.show(Event("proof", "note", title, detail={"columns": columns, "rows": rows}))


class TerminalScreen:
    """For people."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def show(self, event: Event) -> None:
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
        with render.progress() as show:
            yield show

    def table(self, title: str, columns: list[str], rows: list[list[object]]) -> None:
        render.out.print(f"\n[bold]{escape(title)}[/]")
        widths = [max(len(str(r[i])) for r in rows) for i in range(len(columns) - 1)]
        for *facts, why in rows:
            cells = [render.styled(f) + " " * (w - len(str(f))) for f, w in zip(facts, widths, strict=True)]
            render.out.print("  " + "  ".join(cells))
            render.out.print(f"      [dim]{escape(str(why))}[/]")
