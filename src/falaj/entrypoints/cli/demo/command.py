"""The whole channel on real flights."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.commands.home import console_link, start, stop
from falaj.entrypoints.cli.demo import flights, proof, refusals, season, story
from falaj.entrypoints.cli.demo.screen import JsonScreen, TerminalScreen
from falaj.entrypoints.cli.demo.stage import Stage
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.clock import set_replay
from falaj.kernel.settings import Settings

_BEFORE = (
    story.data,
    story.features,
    story.training,
    story.approval,
    story.serving,
    refusals.refusals,
    season.rollback,
)


def demo(
    *,
    exit_: Annotated[bool, Parameter(name="--exit", negative="", help="Stop both planes at the end.")] = False,
    year: Annotated[
        bool,
        Parameter(
            negative="", help="Go on through the year: labels, drift, retraining. Unfinished: not yet seen to December."
        ),
    ] = False,
    common: Common = DEFAULT,
) -> None:
    """Carry a model from raw flights to signed, approved serving, and show what is refused on the way."""
    settings = common.settings(anywhere=True)
    settings = msgspec.structs.replace(
        settings, project=settings.home / "demo" / "flights", principal="owner", token="", server=""
    )
    screen = JsonScreen() if common.json else TerminalScreen()
    began = time.perf_counter()
    stage = _open(settings, screen)
    try:
        for act in (*_BEFORE, *((season.year,) if year else ()), proof.proof):
            act(stage)
        took = time.perf_counter() - began
        stage.done(
            f"{stage.facts['predictions']:,} predictions, {stage.facts['entries']} audited changes, {took:.0f} s"
        )
        if not exit_ and not common.json:
            _say_goodbye(stage)
    finally:
        if exit_:
            stop(settings)


def _open(settings: Settings, screen: JsonScreen | TerminalScreen) -> Stage:
    """Start both planes on the home; a new home gets the demo's clock first."""
    new = not (settings.home / "falaj.db").exists()
    if new:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        set_replay(settings.home, story.morning(story.FIRST_DAY))
    flights.lay_out(settings.project)
    started = start(settings)
    return Stage(settings, screen, started["control_plane"], started["data_plane"], new=new)


def _say_goodbye(stage: Stage) -> None:
    render.out.print()
    render.line(f"control plane  {stage.control}")
    render.line(f"data plane     {stage.plane}")
    render.line(f"console        {console_link(stage.client())}")
    render.line("               (a one-time link, good for ten minutes; a fresh one: falaj console)")
    render.line("stop both      falaj down")
