"""Project files with mistakes in them: each is told with its place, and the definition that holds goes on holding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.badinput.home import TOML, Home, running

GOOD = """
import falaj as fj

sales = fj.Source.csv("sales", "data/sales*.csv", event_time="sold_at", known_at="sold_at", purposes=("shop",))
shop = fj.Entity("shop", key="shop")
"""
MODEL = """
@fj.model(name="{name}", task="binary", label="back", spine=sales, at="sold_at", purpose="shop", features=[fj.request_features(price="float")])
def {function}(data, params): ...
"""


@dataclass(frozen=True)
class Case:
    """A project that is refused. `exit` is 2 where the command line itself sees what is wrong."""

    code: str
    says: str
    hints: str = ""
    shown: str = ""
    module: str | bytes = GOOD
    toml: str | None = TOML
    exit: int = 1
    also: tuple[str, ...] = ()  # other files


CASES = {
    "syntax": Case("bad_project_code", "made.py, line 6: is not Python: '(' was never closed", "mend the syntax", "x = (1,\n    ^", GOOD + "x = (1,\n"),
    "indentation": Case("bad_project_code", "made.py, line 6: is not Python: unexpected indent", shown="x = 1", module=GOOD + "  x = 1\n"),
    "missing-package": Case("bad_project_code", "No module named 'nopackage'", "install nopackage", module="import nopackage.deep\n" + GOOD),
    "raises": Case("bad_project_code", "made.py, line 6: ZeroDivisionError", "must not fail", module=GOOD + "1 / 0\n"),
    "leaves": Case("bad_project_code", "made.py, line 6: SystemExit", module=GOOD + "raise SystemExit(0)\n"),
    "ends-itself": Case("step_died", "exit status 0", module=GOOD + "import os; os._exit(0)\n", exit=3),
    "declares-nothing": Case("empty_project", "declares no source and no model", "fj.Source.csv", module="x = 1\n"),
    "two-of-one-name": Case("duplicate_name", "two models are called back", "own name",
                            module=GOOD + MODEL.format(name="back", function="a") + MODEL.format(name="back", function="b")),
    "unknown-option": Case("bad_project_code", "does not know pirce", module=GOOD + 'fj.Source.csv("a", "*", event_time="a", known_at="a", pirce=1)\n'),
    "latin-1": Case("bad_project", "made.py is not UTF-8", "iconv", module=GOOD.encode() + "# café\n".encode("latin-1"), exit=2),
    "null-byte": Case("bad_project_code", "null bytes", module=GOOD + "\0\n"),
    "file-with-a-space": Case("bad_project", "'my code.py'", "letters from A to Z", also=("my code.py",)),
    "file-of-python-s-own": Case("hides_module", "random.py hides", "another name", also=("random.py",)),
    "no-toml": Case("no_project", "has no falaj.toml", "falaj init", toml=None, exit=2),
    "broken-toml": Case("bad_settings_file", "at line 4", "TOML", toml=TOML.replace("[project]", "[project"), exit=2),
    "unknown-setting": Case("bad_setting", "homee", toml=TOML.replace("[falaj]", "[falaj]\nhomee = 1"), exit=2),
    "unknown-key": Case("bad_project_table", "'modul', which nothing reads", "module", toml=TOML + 'modul = "made"\n'),
    "no-such-module": Case("no_module", "there is no maid.py", "create it", toml=TOML.replace('module = "made"', 'module = "maid"')),
    "project-name": Case("bad_name", "'My Shop' cannot name a project", "lower-case", toml=TOML.replace('name = "made"', 'name = "My Shop"')),
    **{f"source-name-{n}": Case("bad_project_code", "cannot name a source", "1 to 80 lower-case", module=GOOD.replace('"sales",', f"{name!r},"))
       for n, name in enumerate(["a b", "../up", "مبيعات", "s" * 300, ""])},
    "entity-name": Case("bad_project_code", "made.py, line 5: 'A/B' cannot name an entity", "lower-case", module=GOOD.replace('Entity("shop"', 'Entity("A/B"')),
    "model-name": Case("bad_project_code", "made.py, line 7: 'Back' cannot name a model", "lower-case", module=GOOD + MODEL.format(name="Back", function="a")),
    "feature-name": Case("bad_project_code", "'a/b' cannot name a feature", "prepare", module=GOOD + 'fj.request_features(**{"a/b": "float"})\n'),
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with running(tmp_path_factory.mktemp("project") / "p", GOOD) as home:
        yield home


def applied(home: Home) -> list[Any]:
    return [(e["index"], e["detail"]) for e in home.done("audit", "log", "--action", "loop.apply")]


@pytest.fixture
def holds(home: Home) -> Iterator[Any]:
    """The definition that holds, before and after."""
    before = applied(home)
    yield before
    for path in home.folder.glob("*.py"):
        path.unlink()
    (home.folder / "falaj.toml").write_text(TOML)
    (home.folder / "made.py").write_text(GOOD)
    assert applied(home) == before
    assert home.done("data", "log", "sales") == []


@pytest.mark.parametrize("name", CASES)
def test_a_project_that_cannot_be_applied_says_where_and_why(home: Home, holds: Any, name: str) -> None:
    case = CASES[name]
    (home.folder / "made.py").write_bytes(case.module.encode() if isinstance(case.module, str) else case.module)
    (home.folder / "falaj.toml").unlink()
    if case.toml is not None:
        (home.folder / "falaj.toml").write_text(case.toml)
    for other in case.also:
        (home.folder / other).write_text("x = 1\n")
    error = home.refused("apply", "--home", str(home.home), code=case.exit)
    assert error["code"] == case.code, error
    assert case.says in error["error"] and case.hints in error["hint"], error
    assert case.shown in "\n".join(error["details"].get("shown", [])), error
    assert len(error["error"]) < 400 and error["error"].isprintable()


def test_what_a_project_prints_while_it_is_imported_is_nobody_s_answer(home: Home, holds: Any) -> None:
    (home.folder / "made.py").write_text(GOOD + "print('{\"changes\": [1]}' * 100_000)\n")
    assert home.done("plan")["changes"] == []


def test_a_person_sees_the_caret(home: Home, holds: Any) -> None:
    (home.folder / "made.py").write_text(GOOD + "x = (1,\n")
    ended = home("plan")
    assert (ended.code, ended.out) == (1, "")
    assert [line.rstrip() for line in ended.err.splitlines()[:3]] == [
        "invalid made.py, line 6: is not Python: '(' was never closed", "  x = (1,", "      ^",
    ]  # fmt: skip
    assert "Traceback" not in ended.err and "next: mend the syntax" in ended.err


@pytest.mark.parametrize("name", ["../../sales", "a b", "Sales", "مبيعات", "s" * 301, "sales/log", "\u202esales", ""])
def test_the_same_names_are_refused_where_they_are_asked_for(home: Home, name: str) -> None:
    for command in (("ingest",), ("data", "log"), ("train",), ("versions",), ("features", "log")):
        ended = home(*command, name, "--json")
        assert ended.code in (1, 2) and ended.json["code"].split("_")[0] in ("bad", "no"), (command, ended)


def test_a_project_that_takes_for_ever_to_import_is_given_up(home: Home, holds: Any) -> None:
    """Under a limit that no import keeps, in a home of its own."""
    slow = home.folder.with_name("slow")
    with running(slow, GOOD + "while True: pass\n", apply=False, FALAJ_STEP_SECONDS="2") as other:
        error = other.refused("apply")
    assert error["code"] == "step_limit" and "the describe step" in error["error"] and "functions" in error["hint"]
