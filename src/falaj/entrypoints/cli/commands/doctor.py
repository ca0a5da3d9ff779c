"""Look after a home that may not even start."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from falaj.bootstrap.doctor.examining import examine
from falaj.bootstrap.doctor.mending import mend as mend_home
from falaj.bootstrap.doctor.mending import wants_opening
from falaj.bootstrap.doctor.model import NOTE, WELL, Report
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import FalajError
from falaj.kernel.settings import Settings

_MARKS = {WELL: "[green]✓[/]", NOTE: "[yellow]·[/]"}


def doctor(
    *,
    deep: Annotated[
        bool, Parameter(negative=(), help="Read every byte: blobs, tables, sealed journal segments.")
    ] = False,
    mend: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Do what is safe: close secrets to others, remove what killed processes left, publish bundles again, finish a key's rotation.",
        ),
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Say what is wrong with a home, and how to mend it. Works when nothing starts. 0 well, 1 problems, 4 bytes broken."""
    settings = common.settings(anywhere=True)
    report = _examined(settings, deep, common)
    done: list[str] = []
    if mend:
        done = mend_home(report)
        if wants_opening(report):
            done.append(_opened(settings))
        report = _examined(settings, deep, common)
    if common.json:
        render.show_json({"home": report.home, "exit": report.exit_code, "findings": report.findings, "mended": done})
    else:
        _show(report, done)
    if report.exit_code:
        sys.exit(report.exit_code)


def _examined(settings: Settings, deep: bool, common: Common) -> Report:
    with render.progress(quiet=common.json) as show:
        return examine(settings, deep=deep, tell=lambda text: show({"type": "progress", "text": f"looking at {text}"}))


def _opened(settings: Settings) -> str:
    try:
        with connect(settings) as client:
            client.get("/api/v1/status")
    except FalajError as e:
        return f"the home could not be opened: {e.message}"
    return "the home was opened: bundles, trust roots and keys are as the database says"


def _show(report: Report, done: list[str]) -> None:
    render.line(report.home)
    for line in done:
        render.line(f"mended: {line}")
    for found in report.findings:
        render.out.print(f"{_MARKS.get(found.level, '[red]✗[/]')} {render.plain(f'{found.check:<10} {found.text}')}")
        if found.hint and found.level != WELL:
            render.line(f"{'':<13}next: {found.hint}")
    worse = sum(f.level not in _MARKS for f in report.findings)
    render.line("the home is well" if not worse else f"{worse} to mend")
