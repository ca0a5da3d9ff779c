"""Run one script of a folder, or list them: `python tools/scripts.py bench [NAME [ARG…]]`.

A script prints its result as one line and its exit status says whether the claim held.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(folder: str, name: str = "", *arguments: str) -> int:
    scripts = {p.stem: p for p in sorted((ROOT / folder).glob("*.py")) if not p.stem.startswith("_")}
    if not name:
        for stem, path in scripts.items():
            print(f"{stem:<20}{about(path)}")
        return 0
    if name not in scripts:
        print(f"there is no {folder}/{name}.py; there are: {', '.join(scripts) or 'none'}", file=sys.stderr)
        return 2
    return subprocess.call([sys.executable, str(scripts[name]), *arguments], cwd=ROOT)


def about(path: Path) -> str:
    """The first line of a script's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
