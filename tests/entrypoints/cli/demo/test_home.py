"""The demo has a home of its own."""

from __future__ import annotations

from pathlib import Path

from tests.entrypoints.cli.shell import Shell


def test_the_home_of_another_project_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / ".falaj"
    home.mkdir()
    (home / "falaj.db").write_bytes(b"somebody's")
    shell = Shell(tmp_path)
    assert shell.refused("demo", "--exit", "--home", str(home))["code"] == "not_a_demo_home"
    assert [p.name for p in home.iterdir()] == ["falaj.db"] and (home / "falaj.db").read_bytes() == b"somebody's"
    assert shell.processes() == []
