"""How a command starts: quickly, without what it does not need; and how it ends when it is used wrongly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.entrypoints.cli.shell import Shell

HEAVY = {
    "alembic", "asyncio", "cedarpy", "cryptography", "dbos", "fastapi", "granian", "httpx", "jinja2", "lmdb", "numpy",
    "onnxruntime", "pandas", "polars", "pydantic", "securesystemslib", "sqlalchemy", "ssl", "starlette", "structlog", "uvicorn",
}  # fmt: skip
_LIST = """
import sys
from falaj.entrypoints.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("\\n" + "\\n".join(sys.modules), file=sys.stderr)
"""


def loaded(shell: Shell, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", _LIST, *arguments]
    done = subprocess.run(command, cwd=shell.folder, env=shell.environment, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ()], ids=" ".join)
def test_help_loads_no_library_that_it_does_not_need(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    modules = loaded(Shell(tmp_path), *arguments)
    assert {m.partition(".")[0] for m in modules} & HEAVY == set()
    assert {m for m in modules if m.startswith("falaj.")} == {
        "falaj.entrypoints", "falaj.entrypoints.cli", "falaj.entrypoints.cli.app", "falaj.entrypoints.cli.render",
        "falaj.entrypoints.cli.interrupt", "falaj.kernel", "falaj.kernel.digests", "falaj.kernel.disk", "falaj.kernel.errors",
    }  # fmt: skip


def test_a_command_loads_its_own_module_only(tmp_path: Path) -> None:
    modules = loaded(Shell(tmp_path), "versions", "--help")
    assert "falaj.entrypoints.cli.commands.look" in modules
    assert not [
        m for m in modules if m.startswith("falaj.lifecycle") or m.partition(".")[0] in {"cryptography", "sqlalchemy"}
    ]


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("train",), ("train", "a", "b"), ("audit", "log", "--limit", "many")]
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = Shell(tmp_path)(*arguments)
    assert ended.code == 2 and ended.err.strip() and "Traceback" not in ended.err
    assert not (tmp_path / ".falaj").exists()


def test_a_terminal_that_wants_no_colour_gets_none(tmp_path: Path) -> None:
    for environment in ({"NO_COLOR": "1", "FORCE_COLOR": ""}, {"TERM": "dumb"}):
        ended = Shell(tmp_path, **environment)("--help")
        assert ended.code == 0 and "\x1b" not in ended.out + ended.err


def test_a_wrong_setting_is_refused_in_words(tmp_path: Path) -> None:
    for environment in ({"FALAJ_APPROVALS": "0"}, {"FALAJ_PORT": "many"}, {"FALAJ_HOST": "192.0.2.1"}):
        ended = Shell(tmp_path, **environment)("status", "--json")
        assert ended.code == 2 and ended.json["kind"] == "invalid" and ended.json["hint"]
        assert not (tmp_path / ".falaj").exists()


def test_a_folder_without_a_project_says_what_to_do(tmp_path: Path) -> None:
    error = Shell(tmp_path).refused("plan", code=2)
    assert error["code"] == "no_project" and "falaj init" in error["hint"]
    assert not (tmp_path / ".falaj").exists()


def test_a_key_that_is_missing_is_broken_integrity(tmp_path: Path) -> None:
    shell = Shell(tmp_path, FALAJ_HOME=".falaj")
    assert shell.done("status")["plane"]["state"] == "absent"
    (shell.home / "keys" / "kek.bin").unlink()
    error = shell.refused("status", code=4)
    assert error["code"] == "key_missing"
    assert shell.processes() == []


def test_down_without_a_home_leaves_none(tmp_path: Path) -> None:
    ended = Shell(tmp_path)("down", "--json")
    assert ended.code == 0
    assert msgspec.json.decode(ended.out) == {"data_plane": "was not running", "control_plane": "was not running"}
    assert not (tmp_path / ".falaj").exists()
