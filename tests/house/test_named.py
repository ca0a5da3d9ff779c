"""What the documents name exists: commands, settings, codes of errors, metrics, actions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from falaj.entrypoints.cli.app import app
from falaj.entrypoints.cli.commands.errors import catalogue
from falaj.kernel.settings import Settings
from falaj.lifecycle.registry.statements import ADMITTED, REHEARSED
from falaj.lifecycle.training.steps.training_set import TrainingSet
from tests.docs.blocks import ROOT, pages
from tools.manual import commands, figures, policy

PAGES = [p for p in pages() if "adr" not in p.parts]
COMMANDS = {path for path, _ in commands.commands(app, ())}
GROUPS = {path[0] for path in COMMANDS if len(path) > 1}
SETTINGS = {f"FALAJ_{field.upper()}" for field in Settings.__struct_fields__} | {ADMITTED, REHEARSED}
OF_TESTS = {"FALAJ_DOCS_WORLDS"}
METRICS = {row[0].strip("`") for row in figures.prometheus()}
ACTIONS = {action.name for action in policy.all_actions()}
OF_DATA = {f"data.{name}" for name in (*dir(TrainingSet), *TrainingSet.__init__.__code__.co_names)}
"""`data` is also how a training function calls its training set."""
STAGES = {name.partition(".")[0] for name in ACTIONS}


def code(page: Path) -> str:
    """What a page shows as code, in blocks and in its sentences."""
    text = page.read_text("utf-8")
    return "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, re.DOTALL | re.MULTILINE))


def called(text: str) -> Iterator[tuple[str, ...]]:
    """The commands in some code: the word behind `falaj`, and the next one where the first has commands of its own."""
    for first, second in re.findall(r"(?:^|[`$;&|(] ?|\n)falaj ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?", text):
        yield (first, second) if first in GROUPS else (first,)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_and_settings_that_a_page_names_exist(page: Path) -> None:
    text = code(page)
    assert {c for c in called(text) if c not in COMMANDS and c[:1] not in COMMANDS and c[-1]} == set()
    assert set(re.findall(r"\bFALAJ_[A-Z_]*[A-Z]\b", text)) - SETTINGS - OF_TESTS == set()
    assert set(re.findall(r"\bfalaj_[a-z_]+\b", text)) - METRICS <= {"falaj_"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_codes_and_actions_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = set(re.findall(r"`falaj errors ([a-z_]+)`|^more: falaj errors ([a-z_]+)$", text, re.MULTILINE))
    codes = {a or b for a, b in named} | set(codes_in_tables(text)) | set(re.findall(r'"code": "([a-z_]+)"', text))
    assert codes - set(catalogue()) == set()
    actions = {a for a in re.findall(r"`([a-z]+\.[a-z_]+)`", text) if a.partition(".")[0] in STAGES} - OF_DATA
    assert {
        a for a in actions if not a.endswith((".py", ".json", ".csv", ".pem", ".log", ".toml", ".db"))
    } - ACTIONS == set()


def codes_in_tables(text: str) -> Iterator[str]:
    """The codes in the columns of tables that are headed `code`."""
    column = -1
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")] if line.startswith("|") else []
        heads = [c.strip("`") for c in cells]
        if not cells:
            column = -1
        elif column < 0:
            column = heads.index("code") if "code" in heads else len(heads)
        elif column < len(cells):
            yield from re.findall(r"`([a-z_]+)`", cells[column])


def test_what_does_not_exist_is_noticed() -> None:
    assert list(called("`falaj fly` and\n$ falaj audit guess x")) == [("fly",), ("audit", "guess")]
    assert list(codes_in_tables("| code | what |\n|---|---|\n| `a_b`, `c` | `d` |\n\n| x |\n|---|\n| `e` |")) == [
        "a_b",
        "c",
    ]
