"""Write the pages of docs/reference from the code: `python tools/reference.py`.

A test compares each page with what the code says now, so none of them can grow old. The makers are in tools/manual.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.manual import authoring, commands, errors, figures, flows, http, policy, predicates, settings
from tools.manual.tables import FOLDER, MADE

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.settings,
    "actions.md": policy.actions,
    "audit-events.md": policy.audit_events,
    "cli.md": commands.command_line,
    "api.md": http.api,
    "authoring.md": authoring.names,
    "gates.md": authoring.gates,
    "flows.md": flows.flows,
    "predicates.md": predicates.predicates,
    "metrics.md": figures.metrics,
}
"""The pages with a maker of their own; those of errors come from one."""


def pages() -> dict[str, str]:
    """Every page by its path below docs/reference, as it should be now."""
    made = {name: make() for name, make in PAGES.items()} | errors.pages()
    return {name: f"{MADE}\n{text.rstrip()}\n" for name, text in made.items()}


def write() -> None:
    """Put every page in its place, and take away those that nobody makes any more."""
    made = pages()
    for name, text in made.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    for path in FOLDER.rglob("*.md"):
        if path.relative_to(FOLDER).as_posix() not in made:
            path.unlink()


if __name__ == "__main__":
    write()
