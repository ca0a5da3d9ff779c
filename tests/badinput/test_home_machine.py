"""Homes in bad places and bad shape, settings that are wrong, ports and locks that others have."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.kernel import locks
from falaj.kernel.errors import FalajError
from falaj.kernel.settings import Settings
from falaj.storage.lake.places import check_place
from tests.badinput.machine import FIRST, Typed, copied, project  # noqa: F401 - a fixture
from tests.entrypoints.cli.shell import Shell, gone

SETTINGS = {
    "FALAJ_PORT": ("80x", "70000", "-1"),
    "FALAJ_PLANE_WORKERS": ("0", "many"),
    "FALAJ_LOG_LEVEL": ("loud",),
    "FALAJ_SERVER": ("nonsense", "ftp://x"),
    "FALAJ_NOPE": ("1",),
    "FALAJ_APPROVALS": ("0",),
    "FALAJ_STEP_SECONDS": ("soon",),
}


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    monkeypatch.chdir(tmp_path)
    return Typed(capsys)


@pytest.fixture
def shell(project: Path, tmp_path: Path) -> Iterator[Shell]:  # noqa: F811
    with copied(project, tmp_path / "sky") as shell:
        yield shell


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_that_is_wrong(typed: Typed, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for value in SETTINGS[variable]:
        monkeypatch.setenv(variable, value)
        told = typed("status", "--home", "here")
        assert (told.code, told.error["code"]) == (2, "bad_setting"), told
        assert variable in told.error["error"] + told.error["hint"] or variable.lower()[6:] in told.error["error"]
    assert not Path("here").exists()


@pytest.mark.parametrize(
    ("home", "code"),
    [
        ("", "bad_home_path"), ("a%20b", "bad_home_path"), ("x[1]", "bad_home_path"), ("a\\b", "bad_home_path"),
        ("a\nb", "bad_home_path"), ("%D8%B7", "bad_home_path"), ("d" * 300, "bad_home_path"),
        ("file", "home_is_a_file"), ("file/below", "home_is_a_file"), ("/proc/falaj", "bad_home_path"),
    ],
)  # fmt: skip
def test_where_no_home_can_be(typed: Typed, home: str, code: str) -> None:
    """It is said before anything is made."""
    Path("file").write_text("no home")
    told = typed("status", "--home", home)
    assert (told.code, told.error["code"]) == (2, code), told
    assert "folder" in told.error["hint"] and [p.name for p in Path().iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["a b", "100%", "a+b&c", "طيران", "d" * 200, "ل" * 100, "a#b?c", "a'b\"c"])
def test_where_a_home_can_be(tmp_path: Path, name: str) -> None:
    assert check_place(tmp_path / name) == tmp_path / name


def test_a_home_works_where_its_path_is_unusual(project: Path, tmp_path: Path) -> None:  # noqa: F811
    """Spaces, Arabic, 200 characters, through a link and by a relative path: the lake is written, a model served."""
    folder = tmp_path / "رحلات الطيران 100% a" / ("d" * 200)
    folder.parent.mkdir()
    with copied(project, folder) as shell:
        (tmp_path / "link").symlink_to(shell.home)
        shutil.copyfile(folder / "data" / "flights.csv", folder / "data" / "flights-2.csv")
        with (folder / "data" / "flights-2.csv").open("a") as f:
            f.write((folder / "data" / "flights.csv").read_text().splitlines()[-1] + "\n")
        assert shell.done("ingest", "flights", "--home", str(tmp_path / "link"))["added"] > 4000
        assert shell.done("features", "materialize", "--home", "../" + folder.name + "/.falaj")["views"]
        assert shell.done("up")["data_plane"].startswith("http://")
        shell.done("down")


def opened(home: Path) -> FalajError:
    """Why a control plane does not open a home."""
    with pytest.raises(FalajError) as refused:
        ControlPlane(Settings(home=home, project=home.parent))
    assert refused.value.hint
    return refused.value


def _newer(home: Path) -> None:
    with sqlite3.connect(home / "falaj.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()


def _page(home: Path) -> None:
    with (home / "falaj.db").open("r+b") as f:
        f.seek(100)
        f.write(b"\xff" * 8000)


BROKEN: dict[str, tuple[Callable[[Path], object], str, int]] = {
    "newer": (_newer, "home_is_newer", 1),
    "cut short": (lambda h: os.truncate(h / "falaj.db", 100_000), "database_damaged", 4),
    "page": (_page, "database_damaged", 4),
    "no database": (lambda h: (h / "falaj.db").write_text("hello"), "database_damaged", 4),
    "empty": (lambda h: (h / "falaj.db").write_bytes(b""), "database_missing", 4),
    "gone": (lambda h: (h / "falaj.db").unlink(), "database_missing", 4),
    "metrics": (lambda h: (h / "metrics.db").write_bytes(b"junk" * 5000), "database_damaged", 4),
    "a key gone": (lambda h: (h / "keys" / "log.pem").unlink(), "key_missing", 4),
    "a key cut": (lambda h: (h / "keys" / "kek.bin").write_bytes(b"x"), "key_missing", 4),
    "all keys gone": (lambda h: shutil.rmtree(h / "keys"), "key_missing", 4),
    "a key for all to read": (lambda h: (h / "keys" / "production.pem").chmod(0o644), "key_exposed", 1),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_home_in_bad_shape_is_not_opened(project: Path, tmp_path: Path, what: str) -> None:  # noqa: F811
    """And is left as it is."""
    home = tmp_path / "home"
    shutil.copytree(project / ".falaj", home)
    breaking, code, exit_code = BROKEN[what]
    breaking(home)
    told = opened(home)
    assert (told.code, told.exit_code) == (code, exit_code), told
    assert (
        not (home / "falaj.db").exists() or (home / "falaj.db").stat().st_size < 1000 or what not in ("empty", "gone")
    )


def test_a_damaged_file_is_told_at_the_command_line_too(shell: Shell) -> None:
    (shell.home / "flows.db").write_bytes(b"junk" * 5000)
    told = shell.refused("status", code=4)
    assert told["code"] == "database_damaged" and "flows.db" in told["error"] and "backup" in told["hint"]


def test_what_can_be_made_again_is_made_again(shell: Shell) -> None:
    """Folders without state, and private again: the home's own."""
    for name in ("run", "plane", "online", "tmp"):
        shutil.rmtree(shell.home / name, ignore_errors=True)
    assert shell.done("status")["project"] == "sky"
    assert (shell.home / "run").stat().st_mode & 0o077 == 0


def test_a_new_home_is_private(typed: Typed, tmp_path: Path) -> None:
    assert typed("status", "--home", "new").code == 0
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


def test_a_port_that_another_program_has(shell: Shell) -> None:
    """It is named, with the setting; what was started before stays usable."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        for variable in ("FALAJ_PORT", "FALAJ_PLANE_PORT"):
            shell.environment[variable] = port
            told = shell.refused("up", code=3)
            assert told["code"] == "port_taken" and port in told["error"] and variable in told["hint"]
            del shell.environment[variable]
    assert shell("down").code == 0


def test_up_twice_at_the_same_moment_is_up_once(shell: Shell) -> None:
    both = [shell.start("up", "--json") for _ in range(2)]
    said = [p.communicate(timeout=90)[0] for p in both]
    assert said[0] == said[1] and [p.returncode for p in both] == [0, 0], said
    assert shell("down").code == 0 and gone(shell.folder)


def test_the_second_of_two_processes_is_told(shell: Shell) -> None:
    """Who has the home, and what to do."""
    lock = locks.take(shell.home / "lock")
    assert lock is not None
    try:
        for command in (("status",), ("approve", FIRST, "--reason", "x", "--as", "risk")):
            told = shell.refused(*command)
            assert told["code"] == "home_locked" and str(os.getpid()) in told["error"] and "falaj up" in told["hint"]
    finally:
        os.close(lock)
    assert shell.done("status")["project"] == "sky"


def test_a_token_that_is_none(typed: Typed, monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    monkeypatch.chdir(shell.folder)
    monkeypatch.setenv("FALAJ_TOKEN", "زفت")
    assert typed("status").error["code"] == "malformed_token"
    monkeypatch.delenv("FALAJ_TOKEN")
    shutil.rmtree(shell.home / "tokens")
    told = typed("status")
    assert told.error["code"] == "no_token" and "falaj token create" in told.error["hint"]


def test_a_clock_that_was_set_back(shell: Shell) -> None:
    """Entries keep their order, and the log holds."""
    (shell.home / "clock.json").write_text('{"anchor": 0, "shows": "1990-01-01T00:00:00Z", "rate": 1e-9}')
    assert shell.done("audit", "verify")["ok"] is True
    told = shell("token", "create", "later", "--role", "viewer", "--json")
    assert told.code in (0, 1) and "Traceback" not in told.err
    (shell.home / "clock.json").unlink()
    assert shell.done("audit", "verify")["ok"] is True


def test_a_stale_address_kills_nobody(shell: Shell) -> None:
    """A process id in the home that is another program's by now is left alone."""
    (shell.home / "run").mkdir(exist_ok=True)
    (shell.home / "run" / "control-plane.json").write_text(f'{{"url": "http://127.0.0.1:9", "pid": {os.getpid()}}}')
    before = signal.getsignal(signal.SIGTERM)
    assert shell.done("down") == {"data_plane": "was not running", "control_plane": "was not running"}
    assert signal.getsignal(signal.SIGTERM) is before
