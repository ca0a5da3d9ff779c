"""Backup, restore, keys and doctor as a person uses them, on the home that the first release made."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from falaj.governance.signing import recovery
from tests.entrypoints.cli.shell import Shell, cleaned
from tests.homes import unpacked

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A project with its home."""
    folder = tmp_path_factory.mktemp("kept")
    project, _ = unpacked("0.1.0", folder)
    with cleaned(folder):
        shell = Shell(project)
        shell.done("up")
        yield shell
        shell.done("down")


def test_lost_keys_come_back_and_everything_is_readable(tmp_path: Path) -> None:
    project, expected = unpacked("0.1.0", tmp_path)
    shell, file, code = Shell(project), tmp_path / "keys.sealed", tmp_path / "code"
    with cleaned(tmp_path):
        rows = tmp_path / "rows.json"
        rows.write_text(str(expected["rows"]).replace("'", '"'), "utf-8")
        made = shell.done("keys", "backup", str(file), "--recovery-file", str(code))
        assert made["keys"] == shell.done("keys", "show") and made["recovery_file"] == str(code)
        assert file.stat().st_mode & 0o077 == code.stat().st_mode & 0o077 == 0
        shutil.rmtree(shell.home / "keys")
        error = shell.refused("versions", "late-flight", code=4)
        assert error["code"] == "key_missing" and "falaj keys restore" in error["hint"]
        assert not (shell.home / "keys").exists(), "a home that holds something never gets new keys"
        wrong = tmp_path / "wrong"
        wrong.write_text(recovery.new_code(), "utf-8")
        error = shell.refused("keys", "restore", str(file), "--recovery-file", str(wrong))
        assert error["code"] == "wrong_recovery_code" and not (shell.home / "keys").exists()
        assert len(shell.done("keys", "restore", str(file), stdin=code.read_text("utf-8"))["restored"]) == 8
        assert shell.done("audit", "verify")["ok"]
        assert shell("evidence", "show", "late-flight@1").code == 0
        answer = shell.done("predict", "late-flight", "--data", str(rows), "--as", "timetable")
        assert {o["name"]: o["data"] for o in answer["outputs"]} == expected["answers"][0]["outputs"]
        log = shell("audit", "log", "--limit", "200", "--json").out
        assert "keys.backup" in log and "keys.restore" in log
        for text in (code.read_text("utf-8").strip(), code.read_text("utf-8").strip().replace("-", "")):
            assert text not in log
            assert not any(text.encode() in p.read_bytes() for p in shell.home.rglob("*") if p.is_file())


def test_a_recovery_code_is_shown_on_a_terminal_or_written_to_a_file_only(kept: Shell, tmp_path: Path) -> None:
    ended = kept("keys", "backup", str(tmp_path / "keys.sealed"))
    assert ended.code == 2 and not (tmp_path / "keys.sealed").exists()
    assert "--recovery-file" in ended.err


def test_only_an_administrator_seals_the_keys(kept: Shell, tmp_path: Path) -> None:
    asked = (
        "keys",
        "backup",
        str(tmp_path / "keys.sealed"),
        "--recovery-file",
        str(tmp_path / "code"),
        "--as",
        "engineer",
    )
    assert kept.refused(*asked)["code"] == "denied_by_policy"
    assert list(tmp_path.iterdir()) == []


def test_keys_of_another_home_are_refused(kept: Shell, tmp_path: Path) -> None:
    recovery_file, file = tmp_path / "code", tmp_path / "keys.sealed"
    kept.done("keys", "backup", str(file), "--recovery-file", str(recovery_file))
    other = Shell(tmp_path)
    assert other("status", "--home", str(tmp_path / "other")).code == 0
    shutil.rmtree(tmp_path / "other" / "keys")
    error = other.refused(
        "keys", "restore", str(file), "--recovery-file", str(recovery_file), "--home", str(tmp_path / "other"), code=4
    )
    assert error["code"] == "keys_of_another_home" and not (tmp_path / "other" / "keys").exists()


def test_a_backup_of_a_running_home_is_restored_with_its_keys(kept: Shell, tmp_path: Path) -> None:
    code, file, backups, new = (tmp_path / n for n in ("code", "keys.sealed", "backups", "new"))
    kept.done("keys", "backup", str(file), "--recovery-file", str(code))
    taken = kept.done("backup", str(backups))
    assert taken["files"] > 50 and taken["log_size"] > 42
    error = kept.refused("restore", str(backups), "--home", str(new), code=2)
    assert error["code"] == "keys_needed"
    asked = ("--keys", str(file), "--recovery-file", str(code))
    assert kept.done("restore", str(backups), "--check", *asked)["ok"]
    done = kept.done("restore", str(backups), "--home", str(new), *asked)
    assert done["log_size"] == taken["log_size"] and done["twin"] > 0
    assert "the same keys" in done["warnings"][0]
    assert kept.done("audit", "verify", "--home", str(new))["ok"]
    names = {
        f["name"]
        for f in kept("doctor", "--deep", "--home", str(new), "--json").json["findings"]
        if f["level"] == "problem"
    }
    assert names == {"two_homes"}
    assert kept.refused("restore", str(backups), "--home", str(new), *asked)["code"] == "folder_not_empty"
    entries = kept.done("audit", "log", "--action", "home.backup")
    assert [e["detail"]["state"] for e in entries] == ["done", "begun"]
