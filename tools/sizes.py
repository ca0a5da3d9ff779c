"""Megabytes of each plane installed alone, from its own lock, against its limit. One line each.

Exit 1 when a plane is over its limit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMITS = {"data-plane": 250, "control-plane": 200}  # 10⁶ bytes


def main() -> int:
    over = False
    for plane, limit in LIMITS.items():
        with tempfile.TemporaryDirectory() as folder:
            size = measure(plane, Path(folder) / "venv") / 1e6
        over |= size > limit
        print(f"{plane:<14}{size:6.0f} MB installed alone (limit {limit})")
    return int(over)


def measure(plane: str, venv: Path) -> int:
    """Bytes of the files below site-packages, without compiled bytecode."""
    uv = str(Path(sys.executable).parent / "uv")
    python = str(venv / "bin" / "python")
    run(uv, "venv", "--quiet", "--python", sys.executable, str(venv))
    run(uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", str(ROOT / "locks" / f"{plane}.txt"))
    run(uv, "pip", "install", "--quiet", "--python", python, "--no-deps", str(ROOT))
    return sum(p.stat().st_size for p in (venv / "lib").rglob("*") if p.is_file() and p.suffix != ".pyc")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
