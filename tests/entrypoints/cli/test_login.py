"""`falaj login` and `logout`, with a real provider."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.entrypoints.cli.shell import Shell
from tests.provider.running import CLIENT, SECRET, RunningProvider

pytestmark = pytest.mark.timeout(300)  # npm may have to be asked for the provider


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    made = RunningProvider(tmp_path_factory.mktemp("provider"), ["http://127.0.0.1:1/oidc/callback"])
    made.account("alice", ["engineers"])
    made.account("nobody", [])
    yield made
    made.stop()


@pytest.fixture
def shell(tmp_path: Path, provider: RunningProvider) -> Shell:
    return Shell(
        tmp_path, FALAJ_HOME=str(tmp_path / ".falaj"), FALAJ_OIDC_ISSUER=provider.issuer, FALAJ_OIDC_CLIENT_ID=CLIENT,
        FALAJ_OIDC_CLIENT_SECRET=SECRET, FALAJ_OIDC_GROUPS="engineers=ml-engineer",
        FALAJ_OIDC_SCOPES="openid profile groups",
    )  # fmt: skip


def shown(process: subprocess.Popen[str]) -> str:
    """The address that a person is told to open."""
    assert process.stderr is not None
    address, code = process.stderr.readline(), process.stderr.readline()
    found = re.fullmatch(r"open (http\S+)\n", address)
    assert found and re.fullmatch(r"and confirm the code \S+\n", code), (address, code)
    return found[1]


def test_a_person_signs_in_acts_and_signs_out(shell: Shell, provider: RunningProvider) -> None:
    waiting = shell.start("login", "--json")
    provider.confirm(shown(waiting), "alice")
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert '"principal": "oidc:alice"' in out and '"display": "Alice"' in out and "falaj_" not in out + err
    kept = shell.home / "tokens" / "oidc:alice"
    assert kept.stat().st_mode & 0o777 == (shell.home / "tokens" / ".signed-in").stat().st_mode & 0o777 == 0o600
    assert shell.done("token", "list"), "she reads"
    refused = shell.refused("token", "create", "mallory", "--role", "platform-admin")
    assert refused["code"] == "denied_by_policy" and "oidc:alice" in refused["error"]
    assert shell.done("token", "create", "bob", "--role", "viewer", "--as", "owner")["principal"] == "bob"
    assert [t["principal"] for t in shell.done("token", "list") if t["principal"].startswith("oidc:")] == ["oidc:alice"]
    elsewhere = shell.refused("status", "--server", "http://127.0.0.1:1", code=3)
    assert elsewhere["code"] == "server_unreachable", "and her token was not what was sent there"
    assert shell.done("logout")["revoked"] is True
    assert not kept.exists() and not (shell.home / "tokens" / ".signed-in").exists()
    assert not [t for t in shell.done("token", "list") if t["principal"].startswith("oidc:")], "the owner acts again"
    assert shell.refused("logout")["code"] == "not_signed_in"


def test_whoever_is_in_no_group_is_told_so(shell: Shell, provider: RunningProvider) -> None:
    waiting = shell.start("login")
    provider.confirm(shown(waiting), "nobody")
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 1 and "oidc:nobody is in no group that has a role here" in err
    assert not (shell.home / "tokens" / ".signed-in").exists()


def test_ctrl_c_leaves_nothing_behind(shell: Shell) -> None:
    waiting = shell.start("login")
    shown(waiting)
    waiting.send_signal(signal.SIGINT)
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 130 and out == ""
    assert shell.processes() == [] and not (shell.home / "tokens" / ".signed-in").exists()


def test_a_sign_in_that_was_revoked_is_not_replaced_by_the_owner(shell: Shell, provider: RunningProvider) -> None:
    waiting = shell.start("login", "--json")
    provider.confirm(shown(waiting), "alice")
    out, _ = waiting.communicate(timeout=60)
    token = re.search(r'"id": "(\w+)"', out)
    assert token is not None
    shell.done("token", "revoke", token[1], "--as", "owner")
    assert shell.refused("status")["code"] == "unknown_token"
    assert shell.done("logout")["revoked"] is False
    assert shell.done("status")


def test_without_a_provider_the_next_step_is_told(tmp_path: Path) -> None:
    alone = Shell(tmp_path, FALAJ_HOME=str(tmp_path / ".falaj"))
    assert alone.refused("login")["code"] == "no_identity_provider"
    assert alone.refused("login", "--as", "", code=2)["code"] == "bad_principal_name"
