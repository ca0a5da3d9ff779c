"""The small rules of the command line."""

from __future__ import annotations

import io
import signal
import stat
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from cyclopts import App

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.app import COMMANDS, app, main
from falaj.entrypoints.cli.client import running_control_plane, token_of, token_path
from falaj.entrypoints.cli.commands.build import parameters, project_files
from falaj.entrypoints.cli.commands.follow import window
from falaj.entrypoints.cli.commands.home import write_token
from falaj.entrypoints.cli.commands.importing import import_onnx
from falaj.entrypoints.cli.commands.look import find_version, tree
from falaj.entrypoints.cli.commands.serve import PlaneClient, read_rows
from falaj.entrypoints.cli.commands.traffic import How
from falaj.entrypoints.cli.session import Common
from falaj.entrypoints.cli.starter import write_project
from falaj.kernel.errors import Conflict, Invalid, NotFound, Unauthenticated, Unavailable
from falaj.kernel.settings import Settings
from falaj.lifecycle.training.foreign import FILE_BYTES


def test_parameters_are_json_where_they_can_be() -> None:
    pairs = ["a=1", "b=0.5", "c=true", "d=null", "e=text", 'f="1"', "g=[1,2]", "h=", "i=a=b", "j={'x'}"]
    assert parameters(pairs) == {
        "a": 1, "b": 0.5, "c": True, "d": None, "e": "text", "f": "1", "g": [1, 2], "h": "", "i": "a=b", "j": "{'x'}",
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["", "a", "=1", "a b=1", "1a=1", "a-b=1"])
def test_what_is_no_parameter(pair: str) -> None:
    with pytest.raises(Invalid, match="NAME=VALUE"):
        parameters([pair])


def test_how_a_version_gets_its_traffic() -> None:
    asked = How("why not", shadow=0, canary="5, 25,50%", requests=30).body()
    assert (asked["canary"], asked["shadow"], asked["requests"], asked["at_once"]) == ([5, 25, 50], 0, 30, False)
    assert How().body()["canary"] == []


@pytest.mark.parametrize("steps", ["ten", "10,,50", "10;50", "-1", "1.5"])
def test_what_are_no_steps(steps: str) -> None:
    with pytest.raises(Invalid, match="no steps"):
        How(canary=steps).body()


def edge(child: str, parent: str) -> dict[str, str]:
    return {"child": child, "parent": parent}


def test_a_tree_draws_what_stands_twice_once() -> None:
    edges = [edge("v", "r"), edge("v", "d"), edge("r", "d"), edge("d", "f")]
    assert tree("v", edges, down=False) == [(0, "v"), (1, "r"), (2, "d"), (3, "f"), (1, "d (above)")]
    assert tree("f", edges, down=True) == [(0, "f"), (1, "d"), (2, "v"), (2, "r"), (3, "v")]
    assert tree("alone", edges, down=False) == [(0, "alone")]


def test_a_tree_with_a_ring_ends() -> None:
    assert tree("a", [edge("a", "b"), edge("b", "a")], down=False) == [(0, "a"), (1, "b"), (2, "a (above)")]


class Answering:
    """A control plane that has these versions."""

    def __init__(self, *rows: tuple[int, str]) -> None:
        self._rows = [{"number": n, "alias": f"m@{n or d[:12]}", "digest": f"sha256:{d}"} for n, d in rows]

    def get(self, path: str) -> Any:
        assert path == "/api/v1/models/m/versions"
        return self._rows


def test_a_version_by_its_number_or_by_a_start_of_its_digest_that_no_other_has() -> None:
    one, two, number = "ab" * 32, "ab" * 8 + "cd" * 24, "12345678" * 8
    client: Any = Answering((1, one), (2, two), (12345678, "ef" * 32), (3, number))
    assert find_version(client, "m@1")["number"] == 1
    assert find_version(client, f"m@{two[:20]}")["number"] == 2
    assert find_version(client, "m@12345678")["number"] == 12345678  # a number before a digest
    with pytest.raises(Invalid, match="more than one version: m@1, m@2"):
        find_version(client, "m@abababab")
    with pytest.raises(NotFound):
        find_version(client, "m@cdcdcdcd")


def test_a_window_tells_a_quality_of_nothing() -> None:
    found = {
        "start": "2026-01-01T00:00Z", "end": "2026-01-08T00:00Z", "rows": 10, "verdict": "Inconclusive",
        "reason": "few", "metric": "accuracy", "quality": 0.0, "labels": 3,
    }  # fmt: skip
    assert window(found).endswith(", accuracy 0.000 on 3 labels")
    assert "accuracy" not in window({**found, "quality": None})


@pytest.mark.parametrize("model", ["", "../tokens", "a/b", "m\x00"])
def test_a_name_of_an_import_is_never_another_address(tmp_path: Path, model: str) -> None:
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    with pytest.raises(Invalid) as refused:
        import_onnx(tmp_path / "m.onnx", model=model, common=Common(home=str(tmp_path / "home")))
    assert refused.value.code == "bad_name" and not (tmp_path / "home").exists()


def test_a_model_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "m.onnx").open("wb") as f:
        f.truncate(FILE_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(Invalid) as refused:
        import_onnx(tmp_path / "m.onnx", model="m", common=Common(home=str(tmp_path / "home")))
    assert refused.value.code == "source_too_large"


def test_what_is_no_data_plane_is_told() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text="Internal Server Error")

    client = PlaneClient("http://127.0.0.1:1", "token")
    client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://127.0.0.1:1")
    with closing(client), pytest.raises(Unavailable, match="no data plane"):
        client.infer("m", [{}])


def test_rows_from_a_file_or_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.json"
    file.write_text('{"a": 1}')
    assert read_rows(str(file)) == [{"a": 1}]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'[{"a": 1}, {"a": 2}]')))
    assert read_rows("-") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", ["", "[]", "1", '"a"', "[1]", '[{"a": 1}, 2]', "{", "null", '{"a": "é"}'])
def test_what_holds_no_rows(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text, "latin-1")
    with pytest.raises(Invalid):
        read_rows(str(file))
    with pytest.raises(Invalid, match="cannot read"):
        read_rows(str(tmp_path / "nothing.json"))


def test_a_token_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = token_path(tmp_path, "risk")
    write_token(path, "first")
    write_token(path, "2nd")
    assert path.read_text() == "2nd\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    write_token(path, "2nd")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = Settings(home=tmp_path, principal="risk")
    assert token_of(settings) == "2nd"
    assert token_of(Settings(home=tmp_path, principal="risk", token="given")) == "given"
    with pytest.raises(Unauthenticated) as refusal:
        token_of(Settings(home=tmp_path, principal="nobody"))
    assert refusal.value.code == "no_token"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"url": "http://127.0.0.1:1", "pid": 999999999}'])
def test_an_address_that_is_left_over_is_not_believed(tmp_path: Path, content: bytes) -> None:
    assert running_control_plane(tmp_path) is None
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "control-plane.json").write_bytes(content)
    assert running_control_plane(tmp_path) is None


@pytest.mark.parametrize("name", ["", "Sky", "1sky", "sky-blue", "../sky", "sky/", "a" * 42, "ünder"])
def test_a_name_that_cannot_be_a_project_s(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        write_project(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_new_project_is_whole_and_never_written_over(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "sky")
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files == [".gitignore", "README.md", "data/flights.csv", "falaj.toml", "sky.py"]
    assert not [f for f in files if "@NAME@" in (folder / f).read_text("utf-8")]
    assert (folder / "data" / "flights.csv").stat().st_size < 250_000
    assert sorted(project_files(folder)) == ["falaj.toml", "sky.py"]
    with pytest.raises(Conflict) as refusal:
        write_project(tmp_path, "sky")
    assert refusal.value.code == "folder_not_empty"


def test_project_files_leave_out_what_is_no_code(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refusal:
        project_files(tmp_path)
    assert refusal.value.code == "no_project"
    for name in (
        "falaj.toml",
        "a.py",
        "sub/b.py",
        ".venv/c.py",
        "venv/d.py",
        "__pycache__/e.py",
        "data/f.csv",
        ".g.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    assert sorted(project_files(tmp_path)) == ["a.py", "falaj.toml", "sub/b.py"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_in_the_list_what_it_says_of_itself(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(__import__(f"falaj.entrypoints.cli.{module}", fromlist=["_"]), attribute)
    said = target.help if isinstance(target, App) else target.__doc__
    assert said.splitlines()[0] == COMMANDS[name][1]


def commands() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        own = [c for c in app[name] if not c.startswith("-")]
        found += [(name, c) for c in own]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        app([*command, "--help"])
    out = capsys.readouterr().out
    assert end.value.code in (0, None)
    assert out.startswith("Usage: falaj") and "\x1b" not in out
    if len(command) == 2 or (command and not [c for c in app[command[0]] if not c.startswith("-")]):
        assert "--json" in out and "--home" in out


def test_a_cell_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile: list[Any] = ["[red]x[/]", "[/nonsense]"]
    render.table(("a", "b"), [hostile])
    render.line("[bold]y[/]")
    out = capsys.readouterr().out
    assert "[red]x[/]" in out and "[/nonsense]" in out and "[bold]y[/]" in out


def test_ctrl_c_while_an_error_is_told_shows_no_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_text: object) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(render.err, "print", pressed)
    try:
        with pytest.raises(SystemExit) as end:
            main(["errors", "there-is-none"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert end.value.code == 130 and capsys.readouterr().err.startswith("interrupted: ")
