"""A person at a shell: the real command line as a process, in a project's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

FALAJ = [sys.executable, "-m", "falaj.entrypoints.cli.app"]
SOURCE = Path(__file__).parents[3] / "src"


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """Its one JSON document."""
        return msgspec.json.decode(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


class Shell:
    """Runs commands in a folder, whose home is `.falaj` unless something else is set."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("FALAJ_")}
        self.environment = {**inherited, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", **environment}

    @property
    def home(self) -> Path:
        return self.folder / ".falaj"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*FALAJ, *arguments], cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )

    def __call__(self, *arguments: str, stdin: str = "") -> Ended:
        """Run a command to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=100)
        return Ended(process.returncode, out, err)

    def done(self, *arguments: str, stdin: str = "") -> Any:
        """Run a command with `--json` that must go well; returns its document."""
        ended = self(*arguments, "--json", stdin=stdin)
        assert ended.code == 0, (arguments, ended)
        return ended.json

    def refused(self, *arguments: str, code: int = 1) -> Any:
        """Run a command with `--json` that must end with this exit code; returns the error."""
        ended = self(*arguments, "--json")
        assert ended.code == code, (arguments, ended)
        error = ended.json
        assert error["error"] and error["hint"] and error["code"] and error["kind"], error
        return error

    def processes(self) -> list[int]:
        """Live processes that name this shell's folder in their arguments."""
        return processes_of(self.folder)


def processes_of(folder: Path) -> list[int]:
    """Live processes that name a folder in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                named = os.fsencode(folder) in (entry / "cmdline").read_bytes()
                ended = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if named and not ended:
                found.append(int(entry.name))
    return found


def gone(folder: Path, seconds: float = 15) -> bool:
    """Wait until no process names the folder."""
    deadline = time.monotonic() + seconds
    while processes_of(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def cleaned(folder: Path) -> Iterator[None]:
    """Whatever a test leaves running in a folder is ended with it."""
    try:
        yield
    finally:
        for pid in processes_of(folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
