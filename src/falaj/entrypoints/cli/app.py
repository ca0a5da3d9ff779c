"""`falaj`: the commands, and what their ends mean.

0 done · 1 refused or failed · 2 wrong usage · 3 unavailable · 4 integrity broken · 130 interrupted
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__" or os.path.basename(sys.argv[0]) == "falaj":  # noqa: PTH119 - pathlib takes a while to import
    # While the imports below take their time, Ctrl-C ends the program without a trace; `main` takes over from here.
    signal.signal(signal.SIGINT, lambda _signal, _frame: os._exit(130))

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from cyclopts import App, CycloptsError

import falaj
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.interrupt import Interrupted
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, Invalid

_HERE = "falaj.entrypoints.cli"
COMMANDS = {
    "demo": ("demo.command:demo", "Carry a model from raw flights to signed, approved serving, through a year, and show what is refused on the way."),
    "init": ("commands.home:init", "Make a new project that runs as it is: a sample of real flights, features, a model, gates."),
    "up": ("commands.home:up", "Start the control plane and the data plane of this home; again does nothing."),
    "status": ("commands.home:status", "Show what runs, what serves, and whether it is well."),
    "down": ("commands.home:down", "Stop both planes; what is in flight is finished first."),
    "console": ("commands.home:console", "Print a one-time link into the console; it works for ten minutes."),
    "clock": ("commands.clock:clock", "Show the home's clock, or set it. Records of the past are as old as this clock says."),
    "login": ("commands.login:login", "Sign in with the identity provider: confirm a code in any browser. Commands act as you until it ends."),
    "logout": ("commands.login:logout", "Sign out: the token of `falaj login` is revoked, on both planes, and forgotten here."),
    "token": ("commands.home:token_app", "Who may act, and with which token."),
    "policy": ("commands.policy:policy_app", "Who may do what: the rules, their versions, and why they decide as they do."),
    "plan": ("commands.build:plan", "Show what applying the project would change."),
    "apply": ("commands.build:apply", "Make the project's definition the one that holds."),
    "ingest": ("commands.build:ingest", "Load the new files of a source; bad rows go to quarantine with their reasons."),
    "data": ("commands.build:data_app", "Versions of datasets."),
    "features": ("commands.build:features_app", "Fill and read the online store."),
    "train": ("commands.build:train", "Train, convert, measure, sign; ends in a registered version, or in a refusal with its reason."),
    "versions": ("commands.look:versions", "List a model's versions: state, environments, digest, author, and why it was refused."),
    "evidence": ("commands.evidence:evidence_app", "What speaks for a version."),
    "flow": ("commands.flows:flow_app", "What is under way: loads, trainings, rehearsals, rollouts."),
    "runs": ("commands.look:runs_app", "Training runs."),
    "lineage": ("commands.look:lineage", "Show what something was made from."),
    "import": ("commands.importing:import_app", "Bring in a model that exists already (ONNX, MLflow); what is not known of it is shown as missing."),
    "waiver": ("commands.importing:waiver_app", "What an imported version is missing, waived by two people for a time."),
    "approve": ("commands.govern:approve", "Approve a version on its evidence. The last approval that it needs starts its release, or its rollout in steps."),
    "promote": ("commands.govern:promote", "Carry a version on to staging: admission, then a rehearsal with real requests. Production is entered by approval."),
    "env": ("commands.environments:env_app", "dev, staging and production: what each holds, and how two differ."),
    "reject": ("commands.govern:reject", "Reject a version for good."),
    "admit": ("commands.govern:admit", "Sign an admission of a version to an environment, if everything that it needs is there."),
    "audit": ("commands.audit:audit_app", "The log of everything that anyone did."),
    "witness": ("commands.witness:witness_app", "Watch over somebody's audit log: cosign what extends what was seen before, refuse the rest."),
    "certs": ("commands.certs:certs_app", "Certificates of both planes and of whoever calls them beyond loopback."),
    "revoke": ("commands.oversight:revoke", "Take an approval back, before or after the version was let in. One that has too few then takes no traffic any more."),
    "inventory": ("commands.oversight:inventory_app", "What is known of each model: owner, use, risk tier, validation, fallback."),
    "quarantine": ("commands.quarantine:quarantine_app", "Datasets and versions that may not be used for now: put there, let out."),
    "break-glass": ("commands.glass:glass_app", "In an emergency, for hours: what no role of yours allows, let by somebody else."),
    "kill": ("commands.oversight:kill", "Kill a model: within five seconds its declared fallback answers in its place, or nobody."),
    "revive": ("commands.oversight:revive", "Revive a killed model: one person proposes it, another one agrees by the same command."),
    "changes": ("commands.changes:changes_app", "What was changed, by whom, on whose authority, and how to take it back."),
    "backup": ("commands.keeping:backup", "Back the home up while it runs: one moment of everything, signed. Private keys and tokens are not in it."),
    "restore": ("commands.keeping:restore", "Make a home of a backup and its keys, in a new folder: --home. Every byte is verified before it is one."),
    "keys": ("commands.signing_keys:keys_app", "The home's keys: which there are, how they survive a lost disk, and how they are replaced and revoked."),
    "doctor": ("commands.doctor:doctor", "Say what is wrong with a home, and how to mend it. Works when nothing starts. 0 well, 1 problems, 4 bytes broken."),
    "why": ("commands.follow:why", "Show why a prediction is as it is: inputs, features and their age, version, approvals, data, label, drift."),
    "loop": ("commands.follow:loop_app", "Where each model stands in the loop."),
    "journal": ("commands.follow:journal_app", "The record of everything that was predicted."),
    "rollout": ("commands.traffic:rollout_app", "A challenger on its way into traffic."),
    "rollback": ("commands.traffic:rollback", "Give all traffic back to the version that served before; aborts a running rollout."),
    "drift": ("commands.traffic:drift", "List a model's windows: rows, errors, latency, drift of inputs and scores, quality where labels have come."),
    "backtest": ("commands.backtest:backtest", "Let a version answer the recorded requests, and show its quality by the labels beside that of what was answered."),
    "incidents": ("commands.traffic:incidents_app", "What is not as it should be."),
    "review": ("commands.review:review_app", "Answers that people look at: which wait, ask for one, confirm or override it."),
    "labels": ("commands.traffic:labels_app", "What became true of predictions."),
    "external": ("commands.external:external_app", "Models that somebody else serves: watched, not governed."),
    "predictions": ("commands.external:predictions_app", "What somebody else's endpoint answered."),
    "gates": ("commands.gates:gates_app", "Gates alone, for a model that was trained elsewhere."),
    "score": ("commands.score:score", "Score a whole table with an admitted version, each row with its features as they were known at its time."),
    "predict": ("commands.serve:predict", "Predict, with the features looked up by their keys. Starts a data plane for the moment if none runs."),
    "errors": ("commands.errors:errors", "Explain an error by its code: what has happened, why Falaj refuses, what to do. Without a code: list them all."),
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
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.default_int_handler):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run(arguments, "--json" in (arguments if arguments is not None else sys.argv))
    except KeyboardInterrupt as e:  # also while an error is being told
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends now; once more changes nothing
        with contextlib.suppress(OSError):
            sys.stderr.write(_left(e) + "\n")
            sys.stderr.flush()
        sys.exit(130)


def _run(arguments: Sequence[str] | None, as_json: bool) -> None:
    """Run the command; tell what went wrong, and end."""
    try:
        app(list(arguments) if arguments is not None else None, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except FalajError as e:
        _end(e, as_json)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as e:
        told = refusal(e, Path.cwd())
        if told is None:
            raise
        _end(told, as_json)


def _left(interrupt: KeyboardInterrupt) -> str:
    """What Ctrl-C leaves, in a line: what goes on, and how to see it and to stop it."""
    if not isinstance(interrupt, Interrupted) and isinstance(interrupt.__context__, Interrupted):
        interrupt = interrupt.__context__  # a second one came while the first was cleared up after
    if not isinstance(interrupt, Interrupted):
        return "interrupted: what was confirmed is kept, the rest was not done; `falaj status` shows what runs"
    flow = interrupt.flow
    goes_on = (
        f"flow {flow} rests, and is carried on when a command needs the control plane, or by `falaj up`"
        if interrupt.moment
        else f"flow {flow} goes on in the control plane"
    )
    return f"interrupted: {goes_on}; see it: `falaj flow list`, stop it: `falaj flow cancel {flow}`"


def _end(error: FalajError, as_json: bool) -> NoReturn:
    """Say what went wrong and end: with 2 for what the command line itself found wrong, else as the error says."""
    _tell(error, as_json)
    sys.exit(2 if isinstance(error, Invalid) and not error.received else error.exit_code)


def _tell(error: FalajError, as_json: bool) -> None:
    if as_json:
        render.show_json(error.as_dict())
        return
    word = "refused" if error.kind == "denied" else error.kind.replace("_", " ")
    render.err.print(f"[bold red]{word}[/] {render.plain(error.message)}")
    for shown in error.details.get("shown", ()):  # what only whoever asks is to see: rows, a trace
        render.err.print(f"  {render.plain(str(shown))}")
    render.err.print(f"[dim]next:[/] {render.plain(error.hint)}")
    render.err.print(f"[dim]more: falaj errors {render.plain(error.code)}[/]")


if __name__ == "__main__":
    main()
