"""Ctrl-C at a chosen moment of a command, in a terminal; what it leaves. Used by the tests and by `proofs/interrupt.py`."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from tests.entrypoints.cli.shell import FALAJ, Shell, gone

HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"


class Left(msgspec.Struct, frozen=True):
    """How an interrupted command ended: its exit code, what stood on the terminal, and whether a process of its
    project lived after it."""

    command: tuple[str, ...]
    after: float
    code: int
    screen: bytes
    orphans: bool

    @property
    def faults(self) -> list[str]:
        """What is not as it should be."""
        found = []
        importing = b"/falaj/" not in self.screen or b"<frozen importlib" in self.screen
        if self.code in (1, -signal.SIGINT) and b"KeyboardInterrupt" in self.screen and importing:
            return []  # Python itself was still starting, or the command's code was not there yet
        if self.code not in (0, 130, -signal.SIGINT) and not self.refused:
            found.append(f"exit code {self.code}")  # -SIGINT: Python was ending already, and a shell says 130 of it
        if b"Traceback" in self.screen:
            found.append("a traceback")
        if self.screen.rfind(HIDDEN) > self.screen.rfind(SHOWN):
            found.append("the cursor is hidden")
        if self.orphans and self.command != ("up",):  # a start that was interrupted late goes on, and `down` ends it
            found.append("a process goes on")
        return found

    @property
    def refused(self) -> bool:
        """Whether a prediction ended before Ctrl-C came, told that nothing serves the model here."""
        return self.command[0] == "predict" and self.code == 1 and b"model_not_found" in self.screen


def interrupt(shell: Shell, command: tuple[str, ...], after: float, presses: int = 1) -> Left:
    """Press Ctrl-C so many seconds after a command began, once or more often."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*FALAJ, *command], cwd=shell.folder, env={**shell.environment, "TERM": "xterm"},
        stdin=child, stdout=child, stderr=child, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    screen = bytearray()
    os.set_blocking(parent, False)
    began, pressed = time.monotonic(), 0
    while process.poll() is None:
        if pressed < presses and time.monotonic() >= began + after + pressed * 0.1:
            os.killpg(process.pid, signal.SIGINT)
            pressed += 1
        screen += _read(parent)
        if time.monotonic() > began + after + 60:
            process.kill()
        time.sleep(0.01)
    screen += _read(parent)
    os.close(parent)
    return Left(command, after, process.returncode, bytes(screen), not gone(shell.folder, 20))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except (BlockingIOError, OSError):
        return b""


def endless(folder: Path) -> None:
    """Make the project's training never end."""
    code = next(p for p in folder.glob("*.py"))
    text = code.read_text()
    body = text.index(":\n", text.index("fj.TrainingSet")) + 2
    code.write_text(f"{text[:body]}    import time\n\n    time.sleep(1e6)\n{text[body:]}")
