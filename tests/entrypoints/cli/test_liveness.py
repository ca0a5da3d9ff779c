"""What counts as running: a process that lives and holds its lock or answers, never a process id alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from falaj.entrypoints.cli.client import running_control_plane
from falaj.entrypoints.cli.plane import plane_address, stop_plane
from falaj.kernel import locks
from falaj.kernel.settings import Settings
from tests.entrypoints.cli.shell import Shell, cleaned


def write_address(home: Path, name: str, pid: int, url: str = "http://127.0.0.1:9") -> None:
    (home / "run").mkdir(exist_ok=True)
    (home / "run" / name).write_bytes(msgspec.json.encode({"url": url, "pid": pid}))


def test_a_process_id_alone_is_no_control_plane(tmp_path: Path) -> None:
    write_address(tmp_path, "control-plane.json", os.getpid())
    assert running_control_plane(tmp_path) is None
    descriptor = locks.take(tmp_path / "lock")
    assert descriptor is not None
    found = running_control_plane(tmp_path)
    assert found is not None and found.pid == os.getpid()
    write_address(tmp_path, "control-plane.json", os.getppid())  # the lock is another process's
    assert running_control_plane(tmp_path) is None
    os.close(descriptor)


def test_a_process_id_alone_is_no_data_plane_and_is_left_alone(tmp_path: Path) -> None:
    somebody = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    write_address(tmp_path, "data-plane.json", somebody.pid)
    settings = Settings(home=tmp_path)
    assert plane_address(settings) is None
    assert stop_plane(settings) is False
    assert somebody.poll() is None
    somebody.communicate()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("home")
    with cleaned(folder):
        yield Shell(folder)


def pid_of(shell: Shell, name: str) -> int:
    return int(msgspec.json.decode((shell.home / "run" / f"{name}.json").read_bytes())["pid"])


def killed(pid: int, still: Path) -> None:
    """Kill a process and its group, and wait until its lock is free: nobody buries it here."""
    os.killpg(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while locks.held(still):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_up_replaces_what_is_dead_and_keeps_the_ports(shell: Shell) -> None:
    first = shell.done("up")
    assert "/login?code=" in first.pop("console")
    assert shell.done("up") == first
    killed(pid_of(shell, "control-plane"), shell.home / "lock")
    killed(pid_of(shell, "data-plane"), shell.home / "plane" / "status" / "1.lock")
    second = shell.done("up")
    assert second["control_plane"] == first["control_plane"]
    assert shell.done("status")["plane"]["state"] == "current"
    assert shell.done("down") == {"data_plane": "stopped", "control_plane": "stopped"}
    assert shell.done("up")["control_plane"] == first["control_plane"]
    shell.done("down")


def test_a_data_plane_that_hangs_is_told_and_can_be_stopped(shell: Shell) -> None:
    shell.done("up")
    pid = pid_of(shell, "data-plane")
    os.killpg(pid, signal.SIGSTOP)
    try:
        error = shell.refused("up", code=3)
        assert error["code"] == "plane_does_not_answer" and str(pid) in error["error"]
    finally:
        os.killpg(pid, signal.SIGCONT)
    assert shell.done("down")["data_plane"] == "stopped"


def test_a_locked_home_names_who_has_it_and_what_to_do(shell: Shell) -> None:
    shell.done("up")
    address = shell.home / "run" / "control-plane.json"
    pid, kept = pid_of(shell, "control-plane"), address.read_bytes()
    address.unlink()
    error = shell.refused("status")
    address.write_bytes(kept)
    shell.done("down")
    assert error["code"] == "home_locked"
    assert f"pid {pid}" in error["error"] and f"kill {pid}" in error["hint"] and "falaj status" not in error["hint"]


def test_a_staging_plane_that_its_control_plane_left_behind_is_stopped(shell: Shell) -> None:
    """A control plane that is killed in a rehearsal ends nothing; `falaj down` finds the data plane by its workers."""
    shell.done("up")
    shell.done("env", "up", "staging")
    (shell.home / "run" / "data-plane-staging.json").unlink()
    assert shell.done("down")["staging_data_plane"] == "stopped"
    assert "staging_data_plane" not in shell.done("down")
