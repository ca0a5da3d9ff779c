"""The fenced blocks of a page, and what hidden comments say about them.

A comment `<!-- test: … -->` holds one direction; several may stand in a row. They are not seen on a forge or the site.

    start from NAME      the page works on a copy of a world that another page kept (`keep as`); else in an empty folder
    share NAME           the page works on that world itself, with both planes running; it leaves nothing that disturbs
    keep as NAME         what the folder holds here is a world that other pages can start from
    run COMMAND          a command that readers need not see
    file NAME            the next block is the content of this file, or for a `diff` block a change of it
    add to NAME          the next block is the end of this file
    skip because REASON  the next block is not run
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("console", "sh", "bash", "python", "toml", "json", "diff")
"""Languages that the tests do something with."""
SHOWN = ("text", "cedar", "yaml", "ini", "sql", "html", "promql", "dockerfile", "nginx")
"""Languages that are only shown."""
_STEP = re.compile(
    r"^<!-- test: (?P<direction>.*?) -->$|^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """A direction or a block, and the line of the page where it begins."""

    line: int
    direction: str = ""
    language: str = ""
    text: str = ""


@dataclass(frozen=True)
class Command:
    """A command of a console block and the output shown below it."""

    line: int
    command: str
    shown: tuple[str, ...]


def steps(page: Path) -> list[Step]:
    """Everything in a page that the tests have to do with, in order."""
    text = page.read_text("utf-8")
    found = []
    for match in _STEP.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["direction"] is not None:
            found.append(Step(line, direction=match["direction"]))
        else:
            found.append(Step(line, language=match["language"], text=match["text"]))
    return found


def commands(block: Step) -> Iterator[Command]:
    """The commands of a console block: `$` begins one, `>` or a backslash at the end of a line carries it on."""
    lines = block.text.splitlines()
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"line {block.line + 1 + at}: output without a command above it"
        line, command = block.line + 1 + at, [lines[at][2:]]
        at += 1
        while at < len(lines) and (lines[at].startswith("> ") or command[-1].endswith("\\")):
            command.append(lines[at].removeprefix("> "))
            at += 1
        shown = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at])
            at += 1
        yield Command(line, "\n".join(command), tuple(shown))


def pages() -> list[Path]:
    """Every page that a reader may follow: the manual, the README and the examples; the reference is made, not followed."""
    manual = [p for p in (ROOT / "docs").rglob("*.md") if "reference" not in p.relative_to(ROOT).parts]
    others = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md")]
    return sorted(manual) + others + sorted((ROOT / "examples").glob("*/README.md"))


def skips() -> list[tuple[str, str]]:
    """Each block that is not run: `page:line` and the reason."""
    return [
        (f"{page.relative_to(ROOT)}:{step.line}", step.direction.removeprefix("skip because "))
        for page in pages()
        for step in steps(page)
        if step.direction.startswith("skip because ")
    ]
