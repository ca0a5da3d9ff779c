"""A project whose first version awaits approval, made once and copied; and the command line in this process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.entrypoints.cli.app import main
from tests.entrypoints.cli.shell import Ended, Shell, cleaned

MODEL, FIRST = "late-flight", "late-flight@1"
ROW = '{"carrier": "DL", "dest": "ATL", "distance": 762, "sched_hour": 22.5, "weekday": 4}'
_made: dict[Path, Path] = {}


def made(folder: Path) -> Path:
    """The project below a folder, made the first time: applied, loaded, trained; two risk officers, nothing running."""
    if folder not in _made:
        folder.mkdir()
        with cleaned(folder):
            Shell(folder).done("init", "sky")
            shell = Shell(folder / "sky")
            shell.done("up")
            for command in (
                ("apply",), ("ingest", "flights"), ("features", "materialize"), ("train", MODEL),
                ("token", "create", "risk", "--role", "risk-officer", "--keep"),
                ("token", "create", "eve", "--role", "risk-officer", "--keep"),
            ):  # fmt: skip
                shell.done(*command)
            shell.done("down")
        _made[folder] = folder / "sky"
    return _made[folder]


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it was made. Copy it, change nothing."""
    return made(tmp_path_factory.getbasetemp() / "made-for-bad-input")


@contextmanager
def copied(project: Path, to: Path) -> Iterator[Shell]:
    """A shell in a copy; what it leaves running ends."""
    shutil.copytree(project, to)
    with cleaned(to):
        yield Shell(to)


class Told(Ended):
    """How a command ended that ran in this process, with the error that it told."""

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.out)
        assert found["error"] and found["hint"] and found["code"] and found["kind"], found
        assert "Traceback" not in self.err
        return found


class Typed:
    """Types commands, with `--json`, in this process: as people do, but fast."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, as_json: bool = True) -> Told:
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *(["--json"] if as_json else [])])
        out, err = self._capsys.readouterr()
        code = ended.value.code
        return Told(code if isinstance(code, int) else int(code is not None), out, err)


def private_mounts() -> list[str]:
    """The command before one that gets a file system of its own; skips where the machine does not allow it."""
    for how in (["unshare", "-m"], ["unshare", "-rm"]):
        tried = [*how, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
        if shutil.which("unshare") and subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return how
    pytest.skip("NOT TESTED: this machine lets nobody mount a small disk (unshare -rm)")
