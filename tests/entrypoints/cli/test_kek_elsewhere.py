"""The key-encryption key of the first release's home moves into a variable, as a person moves it."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest

from tests.entrypoints.cli.shell import Shell, cleaned
from tests.homes import unpacked


@pytest.mark.timeout(300)
def test_the_key_moves_and_what_is_told_of_it(tmp_path: Path) -> None:
    project, _ = unpacked("0.1.0", tmp_path)
    file, code = tmp_path / "keys.sealed", tmp_path / "code"
    known = {"HOME_KEK": base64.b64encode(secrets.token_bytes(32)).decode()}
    shell = Shell(project, FALAJ_KEK="env:HOME_KEK", **known)
    with cleaned(tmp_path):
        (row,) = (r for r in shell.done("keys", "history") if r["name"] == "kek")
        assert (row["at"], row["asked"], row["algorithm"]) == ("", "env:HOME_KEK", "AES-256-GCM")
        done = shell.done("keys", "rotate", "kek", "--reason", "out of the home")
        assert done["old"] == row["fingerprint"] and done["at"] == "env:HOME_KEK"
        shell = Shell(project, **known)
        (now,) = (r for r in shell.done("keys", "history") if r["name"] == "kek")
        assert (now["at"], now["asked"], now["fingerprint"]) == ("env:HOME_KEK", "", done["new"])
        assert shell.done("keys", "show")["kek"] == done["new"]
        assert shell("evidence", "show", "late-flight@1").code == 0  # in clear what 0.1 encrypted
        told = shell("keys", "backup", str(file), "--recovery-file", str(code))
        assert told.code == 0 and "kek lies at env:HOME_KEK: the file says where" in told.out
        shell = Shell(project)
        error = shell.refused("versions", "late-flight", code=3)
        assert error["code"] == "kek_unavailable" and "HOME_KEK" in error["error"] and "HOME_KEK" in error["hint"]
        found = shell("doctor", "--json")
        assert found.code == 1 and '"kek_away"' in found.out and '"blob_broken"' not in found.out
        looked = shell("errors", "kek_unavailable")
        assert looked.code == 0 and "outside the home" in looked.out
