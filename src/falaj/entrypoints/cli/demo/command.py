"""The whole channel on real flights."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.commands.home import console_link, start, stop
from falaj.entrypoints.cli.demo import flights, proof, refusals, rollback, season, story
from falaj.entrypoints.cli.demo.screen import JsonScreen, TerminalScreen
from falaj.entrypoints.cli.demo.stage import Stage, Started
from falaj.entrypoints.cli.demo.variation import Variation, variation
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.clock import set_replay
from falaj.kernel.errors import Conflict
from falaj.kernel.settings import Settings

ACTS = (
    story.data,
    story.features,
    story.training,
    story.approval,
    story.serving,
    refusals.refusals,
    season.year,
    rollback.rollback,
    proof.proof,
)


def demo(
    *,
    exit_: Annotated[bool, Parameter(name="--exit", negative="", help="Stop both planes at the end.")] = False,
    airports: Annotated[
        list[str] | None, Parameter(consume_multiple=True, negative="", help="Only these of EWR, JFK and LGA.")
    ] = None,
    late_minutes: Annotated[int, Parameter(help="From how many minutes on a flight is late.")] = 15,
    seed: Annotated[int, Parameter(help="What chance starts from in training.")] = 0,
    shuffle: Annotated[
        int | None,
        Parameter(help="A control: give each recorded day another date, with this seed. Nothing drifts then."),
    ] = None,
    better_by: Annotated[float, Parameter(help="By how much ROC AUC a version must beat the one that serves.")] = 0.0,
    common: Common = DEFAULT,
) -> None:
    """Carry a model from raw flights to signed, approved serving, through a year, and show what is refused on the way."""
    chosen = variation(airports or [], late_minutes, seed, shuffle, better_by)
    screen = JsonScreen() if common.json else TerminalScreen()
    settings = common.settings(anywhere=True)
    try:
        stage = tell(settings, screen, chosen)
        if not exit_ and not common.json:
            _say_goodbye(stage)
    finally:
        if exit_:
            stop(settings)


def tell(settings: Settings, screen: JsonScreen | TerminalScreen, chosen: Variation) -> Stage:
    """Play every act on a home; both planes go on running."""
    began = time.perf_counter()
    stage = _open(settings, screen, chosen)
    for act in ACTS:
        act(stage)
    took = time.perf_counter() - began
    stage.done(f"{stage.counted['predictions']:,} predictions, {stage.facts['entries']} audited changes, {took:.0f} s")
    return stage


def _open(settings: Settings, screen: JsonScreen | TerminalScreen, chosen: Variation) -> Stage:
    """Start both planes on the home; a new home gets the demo's clock first. Raises `Conflict` for a home of another project."""
    folder = settings.home / "demo" / "flights"
    settings = msgspec.structs.replace(settings, project=folder, principal="owner", token="", server="")
    new = not (settings.home / "falaj.db").exists()
    if not new and not folder.parent.exists():
        raise Conflict(
            f"{settings.home} is the home of another project, and the demo would train, approve and move the clock in it",
            hint="give the demo a home of its own: `falaj demo --home FOLDER`",
            code="not_a_demo_home",
        )
    if new:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        set_replay(settings.home, story.FIRST)
    flights.lay_out(settings.project, chosen)
    started = start(settings)
    return Stage(settings, screen, Started(started["control_plane"], started["data_plane"], new, chosen))


def _say_goodbye(stage: Stage) -> None:
    render.out.print()
    render.line(f"control plane  {stage.control}")
    render.line(f"data plane     {stage.plane}")
    render.line(f"console        {console_link(stage.client())}")
    render.line("               (a one-time link, good for ten minutes; a fresh one: falaj console)")
    render.line("stop both      falaj down")
