"""A reader: follows a page in a folder of its own, with the real command line, and compares what comes with what is shown."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

from falaj.kernel.errors import FalajError
from falaj.kernel.settings import load_settings
from tests.docs.blocks import RUN, SHOWN, Command, Step, commands, steps
from tests.docs.likeness import differences, learn
from tests.entrypoints.cli.shell import processes_of

BIN = Path(sys.executable).parent
PATIENCE = 120  # seconds that one command may take
ERRORS = ("refused ", "conflict ", "invalid ", "not found ", "unavailable ", "integrity ", '"error": ')


class Reader:
    """Follows one page. `folder` is the reader's own: it is the home directory too, so that `~` leads nowhere else."""

    def __init__(self, page: Path, folder: Path, worlds: Path, beside: Path, tools: Path = BIN) -> None:
        self.page = page
        self.folder = folder
        self.worlds = worlds
        self.tools = tools
        self.own = beside / f"{page.parent.name}-{page.stem}"  # what the reader needs beside the folder
        self.own.mkdir(parents=True, exist_ok=True)
        self.state = self.own / "state"
        self.names: dict[str, str] = {}
        self.wrong: list[str] = []
        self.ran = 0

    def follow(self) -> None:
        """Do everything that the page says, in order; what is not as it says is kept in `wrong`."""
        pending: dict[str, str] = {}
        for step in steps(self.page):
            if step.direction:
                word, _, rest = step.direction.partition(" ")
                if step.direction.startswith(("file ", "add to ", "skip because ")):
                    pending[word] = rest.removeprefix("to ")
                else:
                    self._direct(step, word, rest)
                continue
            self._block(step, pending)
            pending = {}

    def end(self) -> None:
        """Stop whatever the page has left running."""
        for pid in processes_of(self.folder):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _direct(self, step: Step, word: str, rest: str) -> None:
        match word, rest.split():
            case "start", ["from", name]:
                take(self.worlds / name, self.folder)
                self.enter()
            case "share", [_]:
                self.enter()
            case "keep", ["as", name]:
                running = bool(processes_of(self.folder))
                self.must(step.line, "falaj down")
                take(self.folder, self.worlds / name)
                if running:
                    self.must(step.line, "falaj up")
            case "run", _:
                self.must(step.line, rest)
            case _:
                self._note(step.line, f"nobody knows the direction {step.direction!r}")

    def _block(self, step: Step, pending: dict[str, str]) -> None:
        if "skip" in pending or step.language in SHOWN:
            return
        text = self._named(step.text)
        if "file" in pending or "add" in pending:
            self._write(step, text, pending)
        if step.language == "console":
            for command in commands(step):
                self._command(command)
        elif step.language in ("sh", "bash"):
            self.must(step.line, text)
        elif step.language == "python" and not pending:
            script = self.own / f"line{step.line}.py"
            script.write_text(text, "utf-8")
            self.must(step.line, f"python {shlex.quote(str(script))}")
        elif step.language == "toml":
            self._settings(step, text)
        elif step.language == "json" and "…" not in text:
            self._parses(step, text)
        elif step.language not in RUN:
            self._note(step.line, f"a block of {step.language or 'no language'}: say console, python, … or text")
        self.ran += 1

    def _write(self, step: Step, text: str, pending: dict[str, str]) -> None:
        name = pending.get("file") or pending["add"]
        path = self._folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if step.language == "diff":
            self._change(step, path, text)
        elif "add" in pending and path.exists():
            path.write_text(path.read_text("utf-8") + "\n\n" + text, "utf-8")
        else:
            path.write_text(text, "utf-8")

    def _change(self, step: Step, path: Path, text: str) -> None:
        """Apply a diff: the lines with `-` or a space of each part (`@@` parts them) stand in the file once, in a row."""
        content = path.read_text("utf-8") if path.exists() else ""
        for part in text.split("@@\n"):
            lines = [line for line in part.splitlines() if line.strip()]
            before = "\n".join(line[1:] for line in lines if line[0] in " -")
            after = "\n".join(line[1:] for line in lines if line[0] in " +")
            if content.count(before) != 1:
                self._note(step.line, f"{path.name} holds these lines {content.count(before)} times:\n{before}")
            content = content.replace(before, after, 1)
        path.write_text(content, "utf-8")

    def _settings(self, step: Step, text: str) -> None:
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            self._note(step.line, f"not TOML: {e}")
            return
        if "falaj" in found:
            (self.own / "falaj.toml").write_text(text, "utf-8")
            try:
                load_settings({}, self.own)
            except FalajError as e:
                self._note(step.line, e.message)

    def _parses(self, step: Step, text: str) -> None:
        try:
            for document in [text] if text.lstrip()[0] in "[{" and "\n{" not in text else text.splitlines():
                msgspec.json.decode(document)
        except msgspec.DecodeError as e:
            self._note(step.line, f"not JSON: {e}")

    def _command(self, command: Command) -> None:
        code, came = self._run(self._named(command.command))
        if wrong := differences(command.shown, came.splitlines()):
            self._note(command.line, f"$ {command.command}\n{wrong}\nexit {code}, and this came:\n{came}")
        elif code and not any(line.lstrip().startswith(ERRORS) for line in command.shown):
            self._note(command.line, f"$ {command.command}\nended with {code}, and the page does not show why:\n{came}")
        self.names |= learn(command.shown, came.splitlines())

    def must(self, line: int, command: str) -> None:
        """A command that has to go well."""
        code, came = self._run(self._named(command))
        if code:
            self._note(line, f"$ {command}\nended with {code}:\n{came}")

    def _run(self, command: str) -> tuple[int, str]:
        """Run a command as the next one of this page's shell: variables and folder stay from one to the next."""
        script = (
            f'[ -f "{self.state}" ] && . "{self.state}"\nset -a\n{command}\n__code=$?\n'
            f'{{ export -p; printf "cd %q\\n" "$PWD"; }} > "{self.state}"\nexit $__code\n'
        )
        with (self.own / "output").open("w+b") as output:
            try:
                code = subprocess.run(
                    ["bash", "--noprofile", "--norc", "-c", script],
                    cwd=self.folder, env=self._environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    timeout=PATIENCE, check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = 124
            output.seek(0)
            return code, output.read().decode("utf-8", "replace")

    def _environment(self) -> dict[str, str]:
        inherited = {k: os.environ[k] for k in ("LANG", "TMPDIR", "SYSTEMROOT") if k in os.environ}
        return {
            **inherited, "HOME": str(self.folder), "PATH": f"{self.tools}:{BIN}:/usr/local/bin:/usr/bin:/bin", "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "ASK": str(Path(__file__).with_name("ask.py")),
            "GOCHECK": str(Path(__file__).parents[1] / "governance/audit/gocheck"),
        }  # fmt: skip

    def _folder(self) -> Path:
        """Where the page's shell stands now."""
        if not self.state.exists():
            return self.folder
        (line,) = [line for line in self.state.read_text("utf-8").splitlines() if line.startswith("cd ")]
        return Path(shlex.split(line)[1])

    def enter(self) -> None:
        """Go to the project that lies in the folder."""
        (project,) = [p.parent for p in self.folder.glob("*/falaj.toml")]
        self.state.write_text(f"cd {shlex.quote(str(project))}\n", "utf-8")

    def _named(self, text: str) -> str:
        """A command or file in which the names that a page shows are those that came."""
        for shown, came in self.names.items():
            text = text.replace(shown, came)
        return text

    def _note(self, line: int, what: str) -> None:
        self.wrong.append(f"{self.page.name}:{line}: {what}")


def take(origin: Path, target: Path) -> None:
    """Copy a world; nothing runs in it."""
    assert origin.exists(), f"no page kept the world {origin.name}"
    shutil.copytree(origin, target, dirs_exist_ok=True, symlinks=True)
