"""Deciding twice, too late, or at the same moment as somebody else: one wins, the others are told, and the log holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badinput.machine import FIRST, MODEL, Typed, copied, project  # noqa: F401 - a fixture
from tests.entrypoints.cli.shell import Shell

SECOND, THIRD = "late-flight@2", "late-flight@3"


@pytest.fixture(scope="module")
def shell(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:  # noqa: F811
    """The project with its control plane running and two versions more."""
    with copied(project, tmp_path_factory.mktemp("decisions") / "sky") as shell:
        shell.done("up")
        for trees in (20, 30):
            shell.done("train", MODEL, "--param", f"n_estimators={trees}")
        yield shell
        shell("down")


@pytest.fixture
def typed(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.chdir(shell.folder)
    return Typed(capsys)


def test_nothing_serves_yet(typed: Typed) -> None:
    for command, code in (
        (("rollback", MODEL), "nothing_before"),
        (("rollout", "abort", MODEL), "rollout_not_running"),
        (("rollout", "promote", MODEL), "rollout_not_running"),
        (("rollout", "start", FIRST), "not_approved"),
    ):
        told = typed(*command)
        assert (told.code, told.error["code"]) == (1, code)


def test_approving_twice_at_the_same_moment(shell: Shell, typed: Typed) -> None:
    """Two processes of one person, and one of another: one release comes of it, and each is told what came."""
    people = ("risk", "risk", "eve")
    started = [shell.start("approve", FIRST, "--reason", "read", "--as", who, "--json") for who in people]
    for process in started:
        process.communicate(timeout=90)
    assert 0 in [p.returncode for p in started] and {p.returncode for p in started} <= {0, 1}
    assert typed("versions", MODEL).json[0]["state"] == "serving"
    log = shell.done("audit", "log", "--action", "rollout.set_plan", "--limit", "100")
    releases = [e["operation_id"] for e in log if e["detail"]["environment"] == "production"]
    assert len(releases) == 1, releases
    for who in ("risk", "eve"):
        told = typed("approve", FIRST, "--reason", "again", "--as", who)
        assert (told.code, told.error["code"]) == (1, "not_awaiting") and "is serving" in told.error["error"]
    told = typed("reject", FIRST, "--reason", "too late", "--as", "eve")
    assert told.error["code"] == "not_awaiting"
    assert typed("rollout", "start", FIRST, "--as", "risk").error["code"] == "serves_already"


def test_two_rollouts_of_one_model(shell: Shell, typed: Typed) -> None:
    """Of two that start at the same moment one runs; the other is told by which, and how to end it."""
    for version in (SECOND, THIRD):
        assert typed("approve", version, "--reason", "read", "--hold", "--as", "risk").code == 0
    how = ("--canary", "10,50", "--requests", "100000", "--reason", "try", "--as", "risk", "--json")
    started = [shell.start("rollout", "start", version, *how) for version in (SECOND, THIRD)]
    said = [p.communicate(timeout=90)[0] for p in started]
    assert sorted(p.returncode for p in started) == [0, 1], said
    lost = next(text for p, text in zip(started, said, strict=True) if p.returncode)
    assert '"rollout_running"' in lost and f"falaj rollout abort {MODEL}" in lost
    running = SECOND if started[0].returncode == 0 else THIRD
    assert typed("rollout", "start", running, "--as", "risk").json["already"] is True
    rollout = typed("rollout", "status", MODEL).json[0]
    told = typed("flow", "cancel", rollout["id"])
    assert (told.code, told.error["code"]) == (1, "flow_moves_traffic") and "abort" in told.error["hint"]
    assert typed("rollback", MODEL, "--as", "risk").code == 0
    shell.done("rollout", "status", MODEL)


def test_rejected_is_rejected(shell: Shell, typed: Typed) -> None:
    shell.done("train", MODEL, "--param", "n_estimators=25")
    assert typed("reject", "late-flight@4", "--reason", "no", "--as", "eve").code == 0
    for command in (("reject", "late-flight@4", "--reason", "no"), ("approve", "late-flight@4", "--reason", "yes")):
        told = typed(*command, "--as", "risk")
        assert (told.code, told.error["code"]) == (1, "not_awaiting") and "is rejected" in told.error["error"]
    assert typed("rollout", "start", "late-flight@4", "--as", "risk").error["code"] == "wrong_state"


def test_promoting_twice_is_promoting_once(typed: Typed) -> None:
    for _ in range(2):
        assert typed("promote", SECOND).json["already"] is True


def test_a_flow_that_has_ended_cannot_be_cancelled(typed: Typed, shell: Shell) -> None:
    log = shell.done("audit", "log", "--limit", "200")
    assert typed("flow", "list").code == 0
    loads = [e["operation_id"].partition(":")[0] for e in log if e["action"] == "data.ingest"]
    if loads:
        told = typed("flow", "cancel", loads[0])
        assert (told.code, told.error["code"]) == (1, "flow_ended")


def test_the_log_holds(typed: Typed) -> None:
    assert typed("audit", "verify").code == 0
