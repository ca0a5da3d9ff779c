"""`falaj policy` as people use it, in processes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.entrypoints.cli.shell import Shell, cleaned

CASES = """
principal, roles, action, resource, attributes, expected, rule
bob, platform-admin, changes.approve, m@1, author=bob, deny, four-eyes
vera, viewer, audit.read, log, , permit,
"""
MORE = '\n@id("viewers-read-the-log") permit (principal in Role::"viewer", action == Action::"audit.read", resource);\n'


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with cleaned(tmp_path):
        yield Shell(tmp_path, FALAJ_HOME=str(tmp_path / "home"))


def test_a_table_is_asked_without_a_home(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(CASES)
    (tmp_path / "p.cedar").write_text('@id("all") permit (principal, action, resource);')
    assert shell.done("policy", "test", "cases.csv", "--policy", "p.cedar") == {"cases": 2, "differing": []}
    (tmp_path / "p.cedar").write_text("// nothing is permitted\n")
    ended = shell("policy", "test", "cases.csv", "--policy", "p.cedar", "--json")
    assert ended.code == 1
    (differing,) = ended.json["differing"]
    assert (differing["number"], differing["case"]["principal"], differing["allowed"]) == (2, "vera", False)
    assert not (tmp_path / "home").exists()
    (tmp_path / "p.cedar").write_text('@id("x") permit (principal, action == Action::"audit.reed", resource);')
    assert shell.refused("policy", "test", "cases.csv", "--policy", "p.cedar", code=2)["code"] == "bad_policy"
    (tmp_path / "cases.csv").write_text(CASES.replace("viewer", "vewer"))
    assert shell.refused("policy", "test", "cases.csv", "--policy", "p.cedar", code=2)["code"]


def test_a_policy_is_planned_applied_and_asked(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text(CASES)
    assert shell("policy", "test", "cases.csv").code == 1
    shell.done("up")  # each command opened the home for itself otherwise
    text = shell.done("policy", "show")["text"]
    (tmp_path / "p.cedar").write_text(text + MORE)
    planned = shell.done("policy", "plan", "p.cedar")
    assert planned["added"] == ["viewers-read-the-log"]
    assert planned["shifts"] == [
        {"role": "viewer", "action": "audit.read", "environment": "", "before": False, "after": True}
    ]
    applied = shell.done("policy", "apply", "p.cedar", "--reason", "they asked")
    assert (applied["number"], applied["digest"]) == (1, planned["digest"])
    assert shell.done("policy", "test", "cases.csv") == {"cases": 2, "differing": []}
    assert [(v["number"], v["author"]) for v in shell.done("policy", "log")] == [(1, "owner"), (0, "falaj")]
    assert shell.done("policy", "show", "--version", "0")["text"] == text
    explained = shell.done("policy", "explain", "owner", "identity.grant", "bob")
    assert explained["allowed"] and [r["id"] for r in explained["rules"]] == ["admins-administer"]
    assert explained["changes"][0]["what"] == ["without the role platform-admin"]
    (tmp_path / "p.cedar").write_text("")
    assert shell.refused("policy", "apply", "p.cedar", "--reason", "none")["code"] == "would_lock_out"
    assert shell.refused("policy", "explain", "nobody", "audit.read", "log")["code"] == "no_such_principal"
    assert shell.refused("policy", "explain", "owner", "audit.read", "log", "--fact", "x", code=2)["code"] == "bad_fact"
    given = shell.done("token", "create", "reporter", "--role", "platform-admin", "--scope", "read", "--keep")
    assert given["scope"] == ["read"]
    (tmp_path / "p.cedar").write_text(text)
    refused = shell.refused("policy", "apply", "p.cedar", "--reason", "mine", "--as", "reporter")
    assert refused["code"] == "denied_by_policy" and "within-the-tokens-scope" in refused["error"]


def test_what_was_changed_and_who_may_act_is_listed_shown_and_taken_back(shell: Shell, tmp_path: Path) -> None:
    shell.done("up")
    first = shell.done("policy", "show")["text"]
    (tmp_path / "p.cedar").write_text(first + MORE)
    shell.done("policy", "apply", "p.cedar", "--reason", "they asked")
    (line,) = shell.done("changes", "list", "--type", "policy")
    record = shell.done("changes", "show", line["id"])
    assert (record["reason"], record["risk"]) == ("they asked", "permits more: audit.read for viewer")
    assert record["back_out"].startswith("falaj policy apply --version 0 ")
    assert "| rule viewers-read-the-log |" in shell("changes", "show", line["id"], "--markdown").out
    for wrong in (("p.cedar", "--version", "0"), ()):
        refused = shell.refused("policy", "apply", *wrong, "--reason", "which?", code=2)
        assert refused["code"] == "file_or_version"
    shell.done("policy", "apply", "--version", "0", "--reason", "as the record says")
    assert shell.done("policy", "show")["text"] == first
    assert shell.done("changes", "show", line["id"])["state"] == "backed out"

    token = shell.done("token", "create", "vera", "--role", "viewer", "--reason", "she asked")["id"]
    shell.done("token", "revoke", token, "--reason", "she left")
    taken, given = shell.done("changes", "list", "--type", "access", "--limit", "2")
    assert (given["title"], given["state"], taken["title"]) == (
        "vera is viewer", "backed out", f"token {token} of vera is revoked",
    )  # fmt: skip
    assert [shell.done("changes", "show", c["id"])["reason"] for c in (given, taken)] == ["she asked", "she left"]
    assert shell.refused("changes", "list", "--type", "weather")["code"] == "bad_change_type"
