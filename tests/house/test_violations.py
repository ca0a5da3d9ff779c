"""The checks are checked: each rule is broken on purpose in a copy of the source, and must be reported."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]


class Violation(NamedTuple):
    """Lines appended to files of the package (made when missing), and what a check must then say."""

    lines: dict[str, str]
    contract: str = ""
    budget: str = ""


VIOLATIONS = {
    "a tier imports the one above": Violation(
        {"kernel/ids.py": "import falaj.storage.sql.schema"},
        contract="Tiers point down",
    ),
    "a stage imports one downstream": Violation(
        {"lifecycle/data/model.py": "import falaj.lifecycle.registry.model"},
        contract="A stage sees only the stages upstream of it",
    ),
    "a rule imports SQL": Violation(
        {"lifecycle/training/model.py": "import falaj.lifecycle.training.store", "lifecycle/training/store.py": ""},
        contract="Inside a stage, rules know neither routes nor SQL nor steps",
    ),
    "a service imports its own store": Violation(
        {"lifecycle/training/service.py": "import falaj.lifecycle.training.store", "lifecycle/training/store.py": ""},
        contract="A store is wired only by bootstrap",
    ),
    "the door imports a concrete store": Violation(
        {"governance/door.py": "import falaj.governance.audit.store", "governance/audit/store.py": ""},
        contract="The door knows only protocols",
    ),
    "the door imports a concrete database": Violation(
        {"governance/door.py": "import falaj.storage.sql.sqlite"},
        contract="Concrete databases and engines are known to bootstrap only",
    ),
    "two siblings import each other": Violation(
        {"kernel/ids.py": "import falaj.kernel.log", "kernel/log.py": "import falaj.kernel.ids"},
        contract="No sibling cycles anywhere",
    ),
    "the data plane imports SQL": Violation(
        {"lifecycle/serving/plane/extra.py": "import falaj.storage.sql.database"},
        contract="The data plane starts without a database or the workflow engine",
    ),
    "the data plane imports polars through two others": Violation(
        {
            "lifecycle/serving/plane/extra.py": "import falaj.lifecycle.rollout.ports",
            "lifecycle/rollout/ports.py": "import falaj.statistics.extra",
            "statistics/extra.py": "import polars",
        },
        contract="The data plane starts without a database or the workflow engine",
    ),
    "a verifier imports SQL": Violation(
        {"governance/policy/decide.py": "import sqlalchemy"},
        contract="Whoever verifies needs the kernel and cryptography only",
    ),
    "the control plane imports polars through another": Violation(
        {"lifecycle/data/service.py": "import falaj.statistics.extra", "statistics/extra.py": "import polars"},
        contract="The control plane carries no data and no model",
    ),
    "a stage's types import SQL": Violation(
        {"lifecycle/evidence/model.py": "import sqlalchemy"},
        contract="A stage's types are light",
    ),
    "the lifecycle imports the workflow engine's library": Violation(
        {"lifecycle/training/flows.py": "import dbos"},
        contract="Only one file knows DBOS",
    ),
    "an own import hides in a function": Violation(
        {"kernel/ids.py": "def f() -> None:\n    import falaj.kernel.log"},
        budget="kernel/ids.py:{next}: own import of falaj.kernel.log in a function (0)",
    ),
    "a folder that nobody knows": Violation(
        {"helpers/__init__.py": '"""Odds and ends."""'},
        contract="Tiers point down",
        budget="helpers:1: unknown in src/falaj",
    ),
    "a file that no stage has": Violation(
        {"lifecycle/data/utils.py": ""},
        budget="lifecycle/data/utils.py:1: no file name of a stage",
    ),
    "a folder that is no package": Violation(
        {"kernel/words/more.py": ""},
        budget="kernel/words:1: has modules but no __init__, so import-linter does not see it",
    ),
    "a package's init imports": Violation(
        {"governance/policy/__init__.py": "import falaj.governance.door"},
        budget="governance/policy/__init__.py:{line}: a package's __init__ imports falaj.governance.door (0)",
    ),
    "a function that is too long": Violation(
        {"kernel/ids.py": "def f() -> None:\n" + "    print()\n" * 60},
        budget="kernel/ids.py:{line}: f has 61 lines (60)",
    ),
    "a function with too many parameters": Violation(
        {"kernel/ids.py": "def f(a, b, c, d, e, *, f, g, h): ..."},
        budget="kernel/ids.py:{line}: f has 8 parameters (7)",
    ),
    "catching everything in silence": Violation(
        {"kernel/ids.py": "try:\n    print()\nexcept Exception:\n    print()"},
        budget="kernel/ids.py:{third}: catches everything without a comment that says why",
    ),
    "unfinished work": Violation(
        {"kernel/ids.py": "# TO" + "DO: later"},
        budget="kernel/ids.py:{line}: unfinished",
    ),
    "a path of one machine": Violation(
        {"kernel/ids.py": 'HOME = "/home' + '/ahmed/models"'},
        budget="kernel/ids.py:{line}: a path of one machine",
    ),
    "a registry's host name": Violation(
        {"kernel/ids.py": 'INDEX = "pypi' + '.org"'},
        budget="kernel/ids.py:{line}: a registry's host name",
    ),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the checks look at."""
    root = tmp_path_factory.mktemp("house") / "copy"
    shutil.copytree(ROOT / "src" / "falaj", root / "src" / "falaj", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "budgets.toml", root / "tools")
    shutil.copy(ROOT / ".importlinter", root)
    return root


@pytest.fixture
def copy(pristine: Path) -> Iterator[Path]:
    """The copy, put back as it was after the test."""
    before = {path: path.read_bytes() for path in pristine.rglob("*") if path.is_file()}
    yield pristine
    for path in sorted(pristine.rglob("*"), reverse=True):
        if path.is_file() and path not in before:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def apply(violation: Violation, root: Path) -> dict[str, int]:
    """Append the violation's lines; returns where the last file's first three stand."""
    line = 0
    for name, lines in violation.lines.items():
        path = root / "src" / "falaj" / name
        if "no __init__" not in violation.budget:
            make_packages(path.parent, root / "src")
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text("utf-8") if path.exists() else ""
        path.write_text(f"{before}{lines}\n", "utf-8")
        line = before.count("\n") + 1
    return {"line": line, "next": line + 1, "third": line + 2}


def make_packages(folder: Path, top: Path) -> None:
    """See to it that a folder and those above it are packages."""
    if folder != top:
        make_packages(folder.parent, top)
        folder.mkdir(exist_ok=True)
        if not (folder / "__init__.py").exists():
            (folder / "__init__.py").write_text('"""A package."""\n')


def broken_contracts(root: Path) -> set[str]:
    """The names of the contracts that import-linter finds broken."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = set(re.findall(r"^(.*) BROKEN\b", done.stdout, re.MULTILINE))
    assert done.returncode == bool(broken), done.stdout + done.stderr
    return broken


def broken_budgets(root: Path) -> str:
    """What the budgets tool prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "budgets.py"), "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(done.stdout), done.stderr
    return done.stdout


def test_the_untouched_copy_is_clean(copy: Path) -> None:
    assert broken_contracts(copy) == set()
    assert broken_budgets(copy) == ""


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_every_violation_is_reported(copy: Path, violation: Violation) -> None:
    where = apply(violation, copy)
    if violation.contract:
        assert violation.contract in broken_contracts(copy)
    if violation.budget:
        assert f"src/falaj/{violation.budget.format(**where)}" in broken_budgets(copy)


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter", "utf-8")
    return parser


def test_every_contract_is_broken_by_one_of_the_violations() -> None:
    names = {section["name"] for key, section in contracts().items() if "contract" in key}
    assert {v.contract for v in VIOLATIONS.values()} - {""} == names


def test_every_name_in_a_contract_is_the_name_of_something() -> None:
    """A pattern that matches nothing checks nothing, and nobody would notice."""
    graph = grimp.build_graph("falaj", cache_dir=None, include_external_packages=True)
    missing = []
    for key, section in contracts().items():
        for option in ("source_modules", "protected_modules", "allowed_importers", "containers"):
            for name in section.get(option, "").split():
                found = graph.find_matching_modules(name) if "*" in name else {name} & graph.modules
                if not found:
                    missing.append(f"{key}: {name}")
    assert missing == []
