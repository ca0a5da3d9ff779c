"""What happens on a small disk of its own: run as a script inside `unshare -m`, says what it saw as JSON.

python -m tests.badinput.disks SCENARIO MOUNTPOINT PROJECT [KIB-LEFT]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.badinput.machine import FIRST, MODEL, ROW
from tests.entrypoints.cli.shell import Ended, Shell, cleaned

Seen = dict[str, Any]


class Disk:
    """A disk of 8 MB with the project on it."""

    def __init__(self, at: Path, project: Path) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", at], check=True)
        self.at = at
        self.shell = Shell(at / "sky")
        shutil.copytree(project, self.shell.folder)
        self._filler = at / "filler"

    def leave(self, kib: int) -> None:
        """Fill the disk but for some KiB."""
        room = os.statvfs(self.at)
        size = room.f_bavail * room.f_frsize - (kib << 10)
        with self._filler.open("ab", buffering=0) as f:
            while size > 0:
                try:
                    size -= f.write(bytes(min(size, 4096)))
                except OSError:
                    return

    def free(self) -> None:
        self._filler.unlink()

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.at], check=True)


def told(ended: Ended) -> Seen:
    """How a command ended."""
    return {"code": ended.code, "out": ended.json if ended.out else None, "err": ended.err}


def once(disk: Disk, kib: int, *command: str) -> Seen:
    """A command on a disk with so much room, then with all of it again."""
    disk.leave(kib)
    full = told(disk.shell(*command, "--json"))
    disk.free()
    again, kept = told(disk.shell(*command, "--json")), disk.shell.done("data", "log", "flights")
    return {"full": full, "again": again, "kept": kept, "audit": told(disk.shell("audit", "verify", "--json"))}


def work(disk: Disk, kib: int, *command: str) -> Seen:
    """A command on a disk with so much room, or less until it has too little; then with all of it again, as often as
    it says to be run again."""
    header, *rows = (disk.shell.folder / "data" / "flights.csv").read_text().splitlines()
    for number in range(5):
        (disk.shell.folder / "data" / f"flights-{number}.csv").write_text(
            "\n".join([header, *rows[: 800 + number : -1]])
        )
        disk.leave(int(kib * 0.7**number))
        full = told(disk.shell(*command, "--json"))
        if full["code"]:
            break
        disk.free()
    else:
        raise AssertionError("there was always room enough")
    disk.free()
    again = [told(disk.shell(*command, "--json")) for _ in range(1)]
    while (again[-1]["out"] or {}).get("code") == "load_overtaken" and len(again) < 3:
        again.append(told(disk.shell(*command, "--json")))
    kept = disk.shell.done("data", "log", "flights")
    return {"full": full, "again": again[-1], "kept": kept, "audit": told(disk.shell("audit", "verify", "--json"))}


def serving(disk: Disk, kib: int) -> Seen:
    """Both planes run while the disk fills up: predictions, registrations, tokens; then there is room again."""
    shell = disk.shell
    shell.done("up")
    shell.done("approve", FIRST, "--reason", "read", "--as", "risk")
    disk.leave(kib)
    training = told(shell("train", MODEL, "--param", "n_estimators=20", "--json"))
    disk.leave(0)
    answered: list[str] = []
    for _ in range(60):  # until a record has no room
        asked = shell("predict", MODEL, "--data", "-", "--json", stdin=f"[{','.join([ROW] * 20)}]")
        if asked.code:
            break
        answered.append(asked.json["parameters"]["prediction_id"])
    else:
        raise AssertionError("the journal never came to its end")
    seen = {
        "training": training,
        "refused": told(asked),
        "token": told(shell("token", "create", "bob", "--role", "viewer", "--json")),
        "status": told(shell("status", "--json")),
    }
    disk.free()
    return {
        **seen,
        "predicted": told(shell("predict", MODEL, "--data", "-", "--json", stdin=ROW)),
        "recorded": [told(shell("why", p, "--json"))["code"] for p in answered[-2:]],
        "token again": told(shell("token", "create", "bob", "--role", "viewer", "--json")),
        "training again": told(shell("train", MODEL, "--param", "n_estimators=20", "--json")),
        "audit": told(shell("audit", "verify", "--json")),
        "down": told(shell("down", "--json")),
    }


def read_only(disk: Disk, _kib: int) -> Seen:
    disk.read_only()
    shell = disk.shell
    commands = (("status",), ("up",), ("ingest", "flights"), ("audit", "verify"), ("evidence", "show", FIRST))
    seen = {" ".join(c): told(shell(*c, "--json")) for c in commands}
    return {**seen, "predict": told(shell("predict", MODEL, "--data", "-", "--json", stdin=ROW))}


SCENARIOS: dict[str, Callable[[Disk, int], Seen]] = {
    "ingest": lambda disk, kib: work(disk, kib, "ingest", "flights"),
    "once": lambda disk, kib: once(disk, kib, "train", MODEL),
    "serving": serving,
    "read-only": read_only,
}


def seen(how: list[str], scenario: str, at: Path, project: Path, kib: int = 0) -> Seen:
    """Play a scenario on a disk of its own; `how` is the command that gives a process its own mounts."""
    at.mkdir()
    with cleaned(at):
        played = subprocess.run(
            [*how, sys.executable, "-m", "tests.badinput.disks", scenario, at, project, str(kib)],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    assert played.returncode == 0, played.stderr
    found: Seen = msgspec.json.decode(played.stdout)
    return found


if __name__ == "__main__":
    _scenario, _at, _project, _kib = sys.argv[1:]
    sys.stdout.buffer.write(msgspec.json.encode(SCENARIOS[_scenario](Disk(Path(_at), Path(_project)), int(_kib))))
