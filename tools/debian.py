"""Programs that some proofs and tests need and no wheel has: found, or fetched from Debian into .venv/debian.

Nothing outside .venv is changed: packages are downloaded by apt and unpacked, not installed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".venv" / "debian"
_PATIENCE = 120


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Tests run beside each other, and apt refuses a second one."""
    with FOLDER.with_name("apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def program(name: str, *packages: str) -> list[str]:
    """The command that runs a program: the system's, or one from Debian's packages. Raises `LookupError` with the reason."""
    found = shutil.which(name)
    if found:
        return [found]
    unpacked = next((p for p in FOLDER.glob(f"usr/*bin/{name}") if os.access(p, os.X_OK)), None)
    if unpacked is None:
        with one_at_a_time():
            unpacked = _fetched(name, packages)
    libraries = ":".join(sorted({str(p.parent) for p in FOLDER.glob("**/*.so.*")}))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(unpacked)]


def _fetched(name: str, packages: tuple[str, ...]) -> Path:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise LookupError(f"{name} is not installed, and this machine has no apt to fetch it: install {packages[0]}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        said = _run(["apt-get", "download", *packages], folder)
        if not any(Path(folder).glob("*.deb")):  # a fresh machine knows no packages yet
            said = _run(["apt-get", "update"], folder) or _run(["apt-get", "download", *packages], folder)
        for package in Path(folder).glob("*.deb"):
            said += _run(["dpkg-deb", "--extract", str(package), str(FOLDER)], folder)
    unpacked = next(FOLDER.glob(f"usr/*bin/{name}"), None)
    if unpacked is None:
        raise LookupError(f"{name} is not installed, and apt cannot fetch {packages[0]}: {said[-300:].strip()}")
    return unpacked


def _run(command: list[str], folder: str) -> str:
    """What a command said when it failed; nothing if it did not."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} took more than {_PATIENCE} s"
    return done.stderr if done.returncode else ""
