"""The folder itself: its rights, who has it open, what works on it, what was left over."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from glob import escape
from pathlib import Path

import httpx
import msgspec

from falaj.bootstrap.doctor.model import NOTE, OPEN, PROBLEM, WELL, Finding, Patient
from falaj.bootstrap.keeping.restoring import read_note, twin_of
from falaj.kernel.disk import free_bytes

_LEAST_FREE = 1 << 30
_OLD_SECONDS = 3600.0  # a temporary file that is older belongs to nobody
CHMOD, REMOVE = "close it to others", "remove it"
NEXT = ".next"
"""How the name of a key ends that is to take another one's place."""


def rights(patient: Patient) -> Iterator[Finding]:
    """What is secret is for its owner only."""
    home = patient.home
    open_to_others = [home] if _mode(home) & 0o077 else []
    secret = [home / "keys", home / "tokens", *(home / "keys").glob("*"), *(home / "tokens").glob("*")]
    secret += [home / "plane" / "key.pem", *home.glob("environments/*/plane/key.pem")]
    open_to_others += [p for p in secret if p.exists() and _mode(p) & 0o077]
    for path in open_to_others:
        yield Finding(
            "rights", "open_to_others", PROBLEM, f"{path} can be read by others ({_mode(path):04o})",
            f"close it: chmod go-rwx {path}", CHMOD, str(path),
        )  # fmt: skip
    foreign = next((p for p in (home, *secret) if p.exists() and p.stat().st_uid != os.geteuid()), None)
    if foreign is not None:
        yield Finding(
            "rights", "owned_by_another", PROBLEM, f"{foreign} belongs to user {foreign.stat().st_uid}, you are {os.geteuid()}",
            "run commands as the home's owner, or give the home to whoever shall run it: chown -R",
        )  # fmt: skip
    if not os.access(home, os.W_OK):
        yield Finding(
            "rights", "not_writable", PROBLEM, f"{home} cannot be written",
            "see its owner and rights, and whether the disk is mounted read-only",
        )  # fmt: skip
    if not open_to_others and foreign is None:
        yield Finding("rights", "rights", WELL, "secrets are for their owner only")


def lock(patient: Patient) -> Iterator[Finding]:
    """Who has the home open, and whether it answers."""
    if not patient.running:
        yield Finding("lock", "lock", WELL, "nobody has the home open")
        return
    who = str(patient.running) if patient.running > 0 else "PID"
    try:
        url = msgspec.json.decode((patient.home / "run" / "control-plane.json").read_bytes())["url"]
        answers = httpx.get(f"{url}/health", timeout=5.0).status_code == httpx.codes.OK
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        url, answers = "", False
    if answers:
        yield Finding("lock", "lock", WELL, f"the control plane (pid {patient.running}) answers at {url}")
    else:
        yield Finding(
            "lock", "lock_held", PROBLEM, f"process {who} has the home open, and no control plane answers",
            f"another command may be at work: wait for it; if it hangs, end it: kill {who}",
        )  # fmt: skip


def twin(patient: Patient) -> Iterator[Finding]:
    """Whether the home that this one is a copy of runs too."""
    note = read_note(patient.home)
    if note is None:
        return
    told = f"restored from {note.backup} of {note.made_at}, taken of {note.of} on {note.host}"
    pid = twin_of(note.of, note.host, patient.home)
    if pid:
        yield Finding(
            "twin", "two_homes", PROBLEM, f"{told}; that home is open too (pid {pid}) and signs with the same keys",
            "stop one of the two now: falaj down --home …; what both did must be told apart by hand",
        )  # fmt: skip
    else:
        yield Finding("twin", "restored", NOTE, told, "never let both run: they sign with the same keys")


def disk(patient: Patient) -> Iterator[Finding]:
    """Room to write."""
    free, total = free_bytes(patient.home), shutil.disk_usage(patient.home).total
    if free < min(_LEAST_FREE, total // 20):
        yield Finding(
            "disk", "disk_nearly_full", PROBLEM, f"{free >> 20:,} MiB are free where the home lies",
            "free some room there, or move the home to a larger disk while nothing runs",
        )  # fmt: skip
    else:
        yield Finding("disk", "disk", WELL, f"{free >> 20:,} MiB are free")


def ports(patient: Patient) -> Iterator[Finding]:
    """Whether the ports that are set are free while nothing of this home runs."""
    if patient.running:
        return
    for name in ("port", "plane_port"):
        port = getattr(patient.settings, name)
        with socket.socket() as probe:
            if port and probe.connect_ex(("127.0.0.1", port)) == 0 and not _ours(patient, port):
                yield Finding(
                    "ports", "port_taken", PROBLEM, f"port {port} is taken by something else",
                    f"set FALAJ_{name.upper()} to a free one, or to 0 for any",
                )  # fmt: skip


def processes(patient: Patient) -> Iterator[Finding]:
    """Processes that work on this home although nobody waits for them (where the system shows processes)."""
    known = {patient.running, os.getpid(), *_started(patient.home)}
    parents = {pid: parent for pid, parent, _ in _falaj(patient.home)}
    lost = 0
    for pid, _, what in _falaj(patient.home):
        above, seen = pid, set[int]()
        while above not in known and above in parents and above not in seen:
            seen.add(above)
            above = parents[above]
        if above not in known and not _client(above):
            lost += 1
            yield Finding(
                "processes", "orphan_process", PROBLEM, f"process {pid} ({what}) works on this home, and nobody waits for it",
                f"end it: kill {pid}",
            )  # fmt: skip
    if not lost:
        yield Finding("processes", "processes", WELL, "no process works on this home that nobody waits for")


def left_over(patient: Patient) -> Iterator[Finding]:
    """Temporary files of processes that were killed."""
    home = patient.home
    found = [p for pattern in ("blobs/*/.*", "lake/**/.*.tmp", "plane/journal/.*.new", "plane/.*.json.*", ".*.db") for p in home.glob(pattern)]  # fmt: skip
    found += [home / "keys.new"] if (home / "keys.new").exists() else []
    found += [p for p in (home / "keys").glob(".*") if p.suffix != NEXT]  # one of those may be the key that holds
    found += list(home.parent.glob(f".{escape(home.name)}.restoring-*"))
    found += [] if patient.running else [p for p in (home / "tmp").glob("*") if p.is_dir()]
    for path in found:
        if time.time() - path.stat().st_mtime > _OLD_SECONDS:
            yield Finding(
                "left-over", "left_over", PROBLEM, f"{path} was left by a process that was killed",
                f"nothing uses it: rm -r {path}", REMOVE, str(path),
            )  # fmt: skip


def successors(patient: Patient) -> Iterator[Finding]:
    """Keys that lie beside another one: only the database knows whether they took its place, and opening the home asks it."""
    waiting = () if patient.running else sorted((patient.home / "keys").glob(f".*{NEXT}"))
    for path in waiting:
        yield Finding(
            "keys", "rotation_cut_short", PROBLEM, f"{path}: a process was killed while it replaced this key",
            "open the home, which finishes it, or removes what was not committed: falaj status; never remove it by hand", OPEN,
            str(path),
        )  # fmt: skip


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _started(home: Path) -> set[int]:
    """The process ids of data planes that were started last."""
    found = set()
    for path in (home / "run").glob("data-plane*.json"):
        try:
            found.add(int(msgspec.json.decode(path.read_bytes())["pid"]))
        except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
            continue
    return found


def _ours(patient: Patient, port: int) -> bool:
    """Whether this home's data plane listens there: it serves without a control plane too."""
    return any(f':{port}"' in p.read_text("utf-8", "replace") for p in (patient.home / "run").glob("data-plane*.json"))


def _falaj(home: Path) -> list[tuple[int, int, str]]:
    """(process id, parent, module) of processes of ours that name this home or work below it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            module = next((w for w in words if w.startswith("falaj.entrypoints.")), "")
            inside = str(home) in words or (bool(module) and (folder / "cwd").readlink().is_relative_to(home))
            if module and (inside or any(w.startswith(f"{home}/") for w in words)):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.append((int(folder.name), parent, module))
        except (OSError, ValueError, IndexError):
            continue
    return found


def _client(pid: int) -> bool:
    """Whether the process is the child of a command that still waits for it: its parent is no init."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) > 1
    except (OSError, ValueError, IndexError):
        return True
