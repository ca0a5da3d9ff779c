"""Rotations of a home's key-encryption key that are killed at one line after the other, each in a process of its own.

    python -m tests.governance.signing.killed HOME PROJECT PLACE FOLDER EVERY

`HOME` is left as it is; each `EVERY`th line that the rotation comes by, of the files below, gets a copy of it. One JSON object a line says how
the rotation ended (`killed` or not), what is at the copy then, and whether everything is read.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.signing import kek, store, storekeys
from falaj.kernel import files
from falaj.kernel.access import Principal
from falaj.kernel.settings import Settings
from tests.governance.signing.stores import filled
from tests.governance.signing.stores import told as read

_WATCHED = {module.__file__ for module in (kek, store, storekeys, files)}
_ADMIN = Principal("owner", "person", ("platform-admin",))


class Killer:
    """Ends this process at the `at`th of the lines, each counted once."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in _WATCHED:
            return None
        if event == "line":
            self._seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(self._seen) == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def rotate(settings: Settings, at: int) -> None:
    killer = Killer(at)
    idle = [True]
    threading.settrace(lambda frame, event, arg: None if idle[0] else killer(frame, event, arg))
    plane = ControlPlane(settings)
    idle[0] = False
    sys.settrace(killer)
    plane.store_keys.rotate(plane.door, _ADMIN, "it moves")
    sys.settrace(None)
    idle[0] = True
    plane.close()


def look(settings: Settings, pipe: int) -> None:
    """What is there after the next start."""
    plane = ControlPlane(settings)
    read(plane, 1)
    filled(plane, 2)
    read(plane, 2)
    entries = plane.audit.verify()
    moved = plane.store_keys.told()["at"]
    plane.close()
    left = sorted(p.name for p in plane.layout.keys.iterdir() if p.name.startswith("."))
    os.write(pipe, json.dumps({"at": moved, "left": left, "log": entries.ok}).encode())


def apart(work: Any, *args: Any) -> tuple[int, bytes]:
    """Do it in a process of its own; how that ended, and what it said."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(*args, *([writing] if work is look else []))
        except BaseException as e:  # whatever it is, the parent is told
            os.write(writing, json.dumps({"wrong": repr(e)}).encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    return os.waitpid(child, 0)[1], said


def main(home: Path, project: Path, place: str, folder: Path, every: int) -> None:
    at = every
    while True:
        copy = folder / str(at)
        shutil.copytree(home, copy, symlinks=True)
        settings = Settings(home=copy, project=project, kek=place)
        ended, said = apart(rotate, settings, at)
        killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
        _, seen = apart(look, settings)
        told = {"point": at, "killed": killed, "said": said.decode(), **json.loads(seen)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        shutil.rmtree(copy)
        if not killed:
            return
        at += every


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
