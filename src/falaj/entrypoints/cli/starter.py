"""`falaj init`: a new project that runs as it is."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from falaj.kernel.errors import Conflict, Invalid

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")
# The code is kept as text: nothing here imports it, and nothing may.
_TEMPLATE = {
    "project.py.txt": "{name}.py",
    "falaj.toml": "falaj.toml",
    "README.md": "README.md",
    "flights.csv": "data/flights.csv",
}


def write_project(below: Path, name: str) -> Path:
    """Make the folder `name` with a project in it; returns the folder.

    Raises `Invalid` for a name that cannot be a Python module's, `Conflict` when the folder has content.
    """
    if not _NAME.match(name):
        raise Invalid(
            f"{name[:60]!r} cannot name a project",
            hint="use a lower-case letter, then up to 40 lower-case letters, digits and '_': it names a Python module too",
            code="bad_project_name",
        )
    folder = below / name
    if folder.exists() and any(folder.iterdir()):
        raise Conflict(
            f"{name}/ exists and is not empty", hint="choose another name, or empty it", code="folder_not_empty"
        )
    template = resources.files("falaj.entrypoints.cli") / "template"
    for source, target in _TEMPLATE.items():
        path = folder / target.format(name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((template / source).read_text("utf-8").replace("@NAME@", name), "utf-8")
    (folder / ".gitignore").write_text(".falaj/\n", "utf-8")
    return folder
