"""One home with a running control plane, and the real command line in this process.

Every case has a source or a model of its own in one project, so that no case waits for another home to be made and
each is asked in a home where the others went wrong before.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from falaj.bootstrap.encryption import unlock
from falaj.entrypoints.cli.app import main
from falaj.storage.lake import delta
from tests.entrypoints.cli.shell import SOURCE, Ended

TOML = '[falaj]\nproject = "."\n\n[project]\nname = "made"\nmodule = "made"\n'


class Home:
    """A project's folder with its home `.falaj` below it."""

    def __init__(self, folder: Path, code: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "falaj.toml").write_text(TOML)
        (folder / "made.py").write_text(code)

    def __call__(self, *arguments: str) -> Ended:
        """Run a command to its end, in the project's folder."""
        out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        code: Any = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main(arguments)
        except SystemExit as e:
            code = e.code or 0
        finally:
            os.chdir(before)
        return Ended(int(code), out.getvalue(), err.getvalue())

    def done(self, *arguments: str) -> Any:
        """A command with `--json` that must go well; its document."""
        ended = self(*arguments, "--json")
        assert ended.code == 0, (arguments, ended)
        return ended.json

    def refused(self, *arguments: str, code: int = 1) -> dict[str, Any]:
        """A command that must end with this exit code; its error, which a person is told in the same words."""
        ended = self(*arguments, "--json")
        assert ended.code == code, (arguments, ended)
        error: dict[str, Any] = ended.json
        assert error["error"] and error["hint"] and error["code"] and error["kind"], error
        assert "Traceback" not in error["error"] + error["hint"], error
        return error

    @property
    def home(self) -> Path:
        return self.folder / ".falaj"

    @property
    def log(self) -> Path:
        """What the control plane logs."""
        return self.folder / "control-plane.log"

    def rows(self, dataset: str, version: int) -> int:
        """How many rows readers of a dataset's version see in the lake."""
        unlock(self.home)
        return delta.scan(self.table(dataset), version).collect().height

    def table(self, dataset: str) -> Path:
        return self.home / "lake" / "datasets" / dataset

    def quarantined(self, dataset: str) -> list[dict[str, Any]]:
        """What a dataset's quarantine holds: reason, file, row, raw, operation."""
        table = self.home / "lake" / "quarantine" / dataset
        head = delta.head(table)
        if head < 0:
            return []
        unlock(self.home)
        return delta.scan(table, head).collect().to_dicts()


@contextlib.contextmanager
def running(folder: Path, code: str, *, apply: bool = True, **settings: str) -> Iterator[Home]:
    """A home whose control plane runs and in which the project is applied."""
    home = Home(folder, code)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FALAJ_")}
    command = [
        sys.executable,
        "-m",
        "falaj.entrypoints.control_plane",
        "--home",
        str(home.home),
        "--project",
        str(folder),
    ]
    with (
        home.log.open("ab") as log,
        subprocess.Popen(
            command, env={**inherited, "PYTHONPATH": str(SOURCE), **settings}, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            said = msgspec.json.decode(process.stdout.readline() if process.stdout else b"")
            assert "url" in said, said
            if apply:
                home.done("apply")
            yield home
        finally:
            process.terminate()
            process.wait(30)
