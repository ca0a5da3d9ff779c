"""`falaj`: the commands, and what their ends mean.

0 done · 1 refused or failed · 2 wrong usage · 3 unavailable · 4 integrity broken · 130 interrupted
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import falaj
from falaj.entrypoints.cli import render
from falaj.kernel.errors import FalajError

_HERE = "falaj.entrypoints.cli"
COMMANDS = {
    "demo": ("demo.command:demo", "Carry a model from raw flights to signed, approved serving, through a year, and show what is refused on the way."),
    "init": ("commands.home:init", "Make a new project that runs as it is: a sample of real flights, features, a model, gates."),
    "up": ("commands.home:up", "Start the control plane and the data plane of this home; again does nothing."),
    "status": ("commands.home:status", "Show what runs, what serves, and whether it is well."),
    "down": ("commands.home:down", "Stop both planes; what is in flight is finished first."),
    "console": ("commands.home:console", "Print a one-time link into the console; it works for ten minutes."),
    "token": ("commands.home:token_app", "Who may act, and with which token."),
    "plan": ("commands.build:plan", "Show what applying the project would change."),
    "apply": ("commands.build:apply", "Make the project's definition the one that holds."),
    "ingest": ("commands.build:ingest", "Load the new files of a source; bad rows go to quarantine with their reasons."),
    "data": ("commands.build:data_app", "Versions of datasets."),
    "features": ("commands.build:features_app", "Fill and read the online store."),
    "train": ("commands.build:train", "Train, convert, measure, sign; ends in a registered version, or in a refusal with its reason."),
    "versions": ("commands.look:versions", "List a model's versions: state, environments, digest, author, and why it was refused."),
    "evidence": ("commands.look:evidence_app", "What speaks for a version."),
    "runs": ("commands.look:runs_app", "Training runs."),
    "lineage": ("commands.look:lineage", "Show what something was made from."),
    "approve": ("commands.govern:approve", "Approve a version on its evidence. The last approval that it needs starts its release, or its rollout in steps."),
    "promote": ("commands.govern:promote", "Carry a version on to staging: admission, then a rehearsal with real requests. Production is entered by approval."),
    "env": ("commands.environments:env_app", "dev, staging and production: what each holds, and how two differ."),
    "reject": ("commands.govern:reject", "Reject a version for good."),
    "admit": ("commands.govern:admit", "Sign an admission of a version to an environment, if everything that it needs is there."),
    "audit": ("commands.govern:audit_app", "The log of everything that anyone did."),
    "why": ("commands.follow:why", "Show why a prediction is as it is: inputs, features and their age, version, approvals, data, label, drift."),
    "loop": ("commands.follow:loop_app", "Where each model stands in the loop."),
    "journal": ("commands.follow:journal_app", "The record of everything that was predicted."),
    "rollout": ("commands.traffic:rollout_app", "A challenger on its way into traffic."),
    "rollback": ("commands.traffic:rollback", "Give all traffic back to the version that served before; aborts a running rollout."),
    "drift": ("commands.traffic:drift", "List a model's windows: rows, errors, latency, drift of inputs and scores, quality where labels have come."),
    "backtest": ("commands.backtest:backtest", "Let a version answer the recorded requests, and show its quality by the labels beside that of what was answered."),
    "incidents": ("commands.traffic:incidents_app", "What is not as it should be."),
    "labels": ("commands.traffic:labels_app", "What became true of predictions."),
    "predict": ("commands.serve:predict", "Predict, with the features looked up by their keys. Starts a data plane for the moment if none runs."),
}  # fmt: skip
"""Every command: where it is, and what it does in one line. A command's module is imported when it is
called, so `falaj --help` answers without the libraries that the others need."""

app = App(
    name="falaj",
    help="Carries a model from raw data to production, and lets nothing through that it cannot prove.",
    version_flags=["--version"],
    version=falaj.__version__,
    suppress_keyboard_interrupt=False,  # `main` says what Ctrl-C leaves
)
for _name, (_where, _help) in COMMANDS.items():
    app.command(f"{_HERE}.{_where}", name=_name, help=_help)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with the exit code."""
    try:
        app(list(arguments) if arguments is not None else None, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except FalajError as e:
        _tell(e, as_json="--json" in (arguments if arguments is not None else sys.argv))
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write(
            "interrupted: what was committed stays; a flow that is under way is carried on while a control plane runs\n"
        )
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _tell(error: FalajError, as_json: bool) -> None:
    if as_json:
        render.show_json(error.as_dict())
        return
    word = "refused" if error.kind == "denied" else error.kind.replace("_", " ")
    render.err.print(f"[bold red]{word}[/] {render.plain(error.message)}")
    render.err.print(f"[dim]next:[/] {render.plain(error.hint)}")


if __name__ == "__main__":
    main()
