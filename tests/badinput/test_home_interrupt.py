"""Ctrl-C: the terminal is left clean, the exit code is 130, a line says what goes on and how to stop it, and nothing is
left running. The long form is `proofs/interrupt.py`."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badinput.interrupts import endless, interrupt
from tests.badinput.machine import MODEL, ROW, copied, project  # noqa: F401 - a fixture
from tests.entrypoints.cli.shell import Shell, gone

_chance = random.Random(9)
MOMENTS = [
    (command, round(_chance.uniform(0.02, longest), 2), presses)
    for command, longest, presses in (
        (("ingest", "flights"), 2.0, 1), (("train", MODEL), 6.0, 1), (("train", MODEL), 6.0, 3), (("up",), 1.5, 1), (("up",), 2.5, 3),
        (("predict", MODEL, "--data", "row.json"), 1.5, 1), (("status",), 0.2, 1),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def shell(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:  # noqa: F811
    with copied(project, tmp_path_factory.mktemp("interrupted") / "sky") as shell:
        (shell.folder / "row.json").write_text(ROW)
        yield shell


@pytest.mark.parametrize(("command", "after", "presses"), MOMENTS, ids=str)
def test_at_any_moment(shell: Shell, command: tuple[str, ...], after: float, presses: int) -> None:
    left = interrupt(shell, command, after, presses)
    shell("down")
    assert not left.faults, left
    assert gone(shell.folder, 20), "after `falaj down` nothing runs, whatever was half started"
    if left.code == 130 and after > 1:
        assert b"interrupted: " in left.screen and b"falaj " in left.screen


def test_a_training_that_never_ends_can_be_stopped(shell: Shell) -> None:
    """Ctrl-C names the flow, which rests and goes on; cancelling it ends it for good, under its own name in the log."""
    for rests in shell.done("flow", "list"):  # what the moments above left: it would be carried on here
        shell("flow", "cancel", rests["id"])
    endless(shell.folder)
    shell.done("apply")
    shell.done("up")
    command = shell.start("train", MODEL)
    assert command.stdin is not None
    flow = _waits(shell)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130 and f"flow {flow} goes on in the control plane" in err, err
    assert re.search(rf"falaj flow cancel {flow}", err)
    answer = shell.done("flow", "cancel", flow, "--reason", "it never ends")
    assert answer["ended"]["code"] == "flow_cancelled" and "it never ends" in answer["ended"]["error"]
    assert shell.done("flow", "list") == []
    assert shell.done("runs", "list", MODEL)[0]["state"] == "failed"
    assert shell.refused("flow", "cancel", flow)["code"] == "flow_ended"
    entry = shell.done("audit", "log", "--action", "loop.cancel_flow")[0]
    assert (entry["principal"], entry["resource_id"], entry["outcome"]) == ("owner", flow, "done")
    shell.done("token", "create", "looker", "--role", "viewer", "--keep")
    assert shell.refused("flow", "cancel", flow, "--as", "looker")["code"] == "denied_by_policy"
    shell.done("down")


def test_a_cancelled_flow_is_not_carried_on_after_a_stop(shell: Shell) -> None:
    """Without a server: the flow rests with the command, is carried on by the next one, and ends when it is cancelled."""
    command = shell.start("train", MODEL)
    _waits(shell, alone=True)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    flow = re.search(r"flow (bld_\w+) rests", err)
    assert command.returncode == 130 and flow, err
    assert [f["id"] for f in shell.done("flow", "list")] == [flow[1]]
    assert shell.done("flow", "cancel", flow[1])["ended"]["code"] == "flow_cancelled"
    assert shell.done("flow", "list") == [] and shell.processes() == []


def _waits(shell: Shell, *, alone: bool = False) -> str:
    """Wait until a training is under way; returns its flow's id, where a server can be asked."""
    deadline = time.monotonic() + 60
    while not any((shell.home / "tmp").glob("bld_*/train/train.log")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return "" if alone else str(shell.done("flow", "list")[-1]["id"])
