"""The audit log taken away, proven, and watched over by a witness that is a process of its own."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.entrypoints.cli.shell import Shell, cleaned

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A project's folder with a home that has a few entries, and no other process."""
    (tmp_path / "home").mkdir()
    made = Shell(tmp_path / "home")
    with cleaned(tmp_path):
        made.done("audit", "log", "--home", ".falaj")
        (made.folder / "falaj.toml").write_text("[falaj]\n", "utf-8")
        yield made


@contextmanager
def witness(shell: Shell, name: str, vkey: str) -> Iterator[dict[str, Any]]:
    """A witness that answers, in a folder of its own: its address and key."""
    folder = shell.folder.parent / name
    if not folder.exists():
        shell.done("witness", "init", str(folder), "--name", f"{name}.example")
        shell.done("witness", "trust", str(folder), vkey)
    process = shell.start("witness", "serve", str(folder), "--json")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    try:
        yield msgspec.json.decode(line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_an_outsider_checks_with_no_home(shell: Shell, tmp_path: Path) -> None:
    exported = shell.done("audit", "export", str(tmp_path / "copy"))
    vkey, size = exported["vkey"], exported["size"]
    shell.done("audit", "prove", "1", "--to", str(tmp_path / "one.tlog-proof"))
    kept = tmp_path / "kept"
    shutil.copy(tmp_path / "copy/checkpoint", kept)
    shell.done("audit", "export", str(tmp_path / "copy"))  # brought up to date
    assert shell.done("audit", "consistency", str(kept))["old"] == size
    (tmp_path / "outside").mkdir()
    outside = Shell(tmp_path / "outside")
    copy = str(tmp_path / "copy")
    assert outside.done("audit", "verify", "--folder", copy, "--vkey", vkey)["size"] == size + 2
    found = outside.done("audit", "check-proof", str(tmp_path / "one.tlog-proof"), "--vkey", vkey)
    assert (found["index"], found["entry"]["outcome"]) == (1, "done")
    assert outside.done("audit", "consistency", str(kept), "--folder", copy, "--vkey", vkey)["new"] == size + 2
    assert outside.refused("audit", "check-proof", str(tmp_path / "one.tlog-proof"), code=2)["code"] == "no_trusted_key"
    proof = (tmp_path / "one.tlog-proof").read_text()
    (tmp_path / "one.tlog-proof").write_text(proof.replace("index 1", "index 0"))
    error = outside.refused("audit", "check-proof", str(tmp_path / "one.tlog-proof"), "--vkey", vkey, code=4)
    assert error["code"] == "audit_unproven"
    assert not list((tmp_path / "outside").iterdir())


def test_a_log_in_shards_is_taken_away_and_led_on_from_what_was_kept(shell: Shell, tmp_path: Path) -> None:
    copy, kept, later = (str(tmp_path / name) for name in ("copy", "kept", "later"))
    vkey = shell.done("audit", "export", copy)["vkey"]
    shutil.copy(tmp_path / "copy/checkpoint", kept)
    told = shell.done("audit", "shard", "--reason", "the year is over")
    assert shell.done("audit", "export", copy)["shards"] == 2  # brought up to date over the switch
    shutil.copy(tmp_path / "copy/shard/2/checkpoint", later)
    assert [s["sealed"] for s in shell.done("audit", "shards")] == [True, False]
    assert shell.done("audit", "consistency", kept, later, "--vkey", told["vkey"])["from"] == told["sealed"]
    assert shell.refused("audit", "consistency", later, kept, code=4)["code"] == "audit_fork"
    shell.done("audit", "prove", str(told["first"]), "--to", str(tmp_path / "p"))
    assert shell.done("audit", "check-proof", str(tmp_path / "p"), "--vkey", told["vkey"])["index"] == 0
    by_copy = ("--folder", copy, "--vkey", vkey)
    assert shell.done("audit", "consistency", kept, later, *by_copy)["origin"] == told["origin"]
    shutil.rmtree(tmp_path / "copy/shard")
    assert "shard/2: it is missing" in shell.refused("audit", "verify", *by_copy, code=4)["error"]
    assert shell.refused("audit", "consistency", kept, *by_copy, code=4)["code"] == "audit_shard_cut"


def test_the_log_is_searched_by_time_and_by_page(shell: Shell) -> None:
    everything = shell.done("audit", "log", "--limit", "1000")
    first = everything[-1]
    assert shell.done("audit", "log", "--until", first["at"]) == []
    since = shell.done("audit", "log", "--since", first["at"], "--principal", "falaj")
    assert {e["principal"] for e in since} == {"falaj"} and since[-1] == first
    page = shell.done("audit", "log", "--before", str(everything[0]["index"]), "--limit", "2")
    assert [e["index"] for e in page] == [everything[0]["index"] - 1, everything[0]["index"] - 2]
    assert shell.refused("audit", "log", "--since", "2020")["code"] == "bad_time"
    assert shell.refused("audit", "log", "--since", "2020-01-01T00:00:00")["code"] == "time_without_zone"


def test_witnesses_cosign_and_notice_an_old_backup(shell: Shell, tmp_path: Path) -> None:
    vkey = shell.done("audit", "export", str(tmp_path / "copy"))["vkey"]
    with witness(shell, "w1", vkey) as one, witness(shell, "w2", vkey) as two:
        policy = tmp_path / "policy"
        policy.write_text(
            f"witness w1 {one['vkey']} {one['url']}\nwitness w2 {two['vkey']} {two['url']}\n"
            f"group g all w1 w2\nquorum g\nlog {vkey}\n"
        )
        (shell.folder / "falaj.toml").write_text(f'[falaj]\nwitnesses = "{policy}"\n', "utf-8")
        verified = shell.done("audit", "verify")["folder"]
        assert verified["quorum"] is True and sorted(verified["witnesses"]) == ["w1", "w2"]
        shell.done("audit", "prove", "0", "--to", str(tmp_path / "p"))
        found = shell.done("audit", "check-proof", str(tmp_path / "p"), "--witnesses", str(policy))
        assert len(found["witnesses"]) == 2
        assert "witnessed" in shell("status").out
        shutil.copytree(shell.home, tmp_path / "backup")
        for _ in range(3):  # more than the entry of the incident, which the old copy grows by
            shell.done("audit", "log", "--limit", "1")
        shell.done("audit", "verify")
        shutil.rmtree(shell.home)
        shutil.copytree(tmp_path / "backup", shell.home)
        standing = shell.done("audit", "witnesses")
        assert [w["state"] for w in standing["witnesses"]] == ["refused", "refused"]
        assert "it went back" in standing["witnesses"][0]["why"]
        (incident,) = [i for i in shell.done("incidents", "list") if i["kind"] == "witness"]
        assert incident["state"] == "open" and "refuses the audit log" in incident["reason"]
    assert shell.done("audit", "verify")["folder"]["quorum"] is False  # nobody answers: it has grown since
    error = shell.refused("audit", "export", str(tmp_path / "new"), "--witnesses", str(policy), code=4)
    assert "no quorum of witnesses" in error["error"]
    (seen,) = shell.done("witness", "show", str(tmp_path / "w1"))["logs"]
    assert seen["refused"]["behind"] >= 1


def test_two_processes_never_share_a_witness(shell: Shell, tmp_path: Path) -> None:
    vkey = shell.done("audit", "export", str(tmp_path / "copy"))["vkey"]
    with witness(shell, "w1", vkey):
        assert shell.refused("witness", "serve", str(tmp_path / "w1"))["code"] == "witness_runs"
    assert (
        shell.refused("witness", "serve", str(tmp_path / "w1"), "--host", "192.0.2.1", code=2)["code"] == "not_loopback"
    )
    assert shell.refused("witness", "show", str(tmp_path / "copy"), code=4)["code"] == "no_witness"


def test_a_policy_that_is_wrong_stops_the_start(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("quorum nobody\n")
    shell.environment["FALAJ_WITNESSES"] = str(tmp_path / "policy")
    assert shell.refused("audit", "verify")["code"] == "bad_witness_policy"
    shell.environment["FALAJ_WITNESSES"] = "nowhere"
    assert shell.refused("audit", "verify")["code"] == "bad_setting"
    del shell.environment["FALAJ_WITNESSES"]
    shell.environment["FALAJ_AUDIT_ORIGIN"] = "another.example/log"
    assert shell.refused("audit", "verify")["code"] == "log_has_another_name"


def test_a_new_home_takes_the_name_that_it_is_given(tmp_path: Path) -> None:
    made = Shell(tmp_path, FALAJ_AUDIT_ORIGIN="bank.example/risk")
    with cleaned(tmp_path):
        vkey = made.done("audit", "export", str(tmp_path / "copy"), "--home", ".falaj")["vkey"]
        assert vkey.startswith("bank.example/risk+")
        del made.environment["FALAJ_AUDIT_ORIGIN"]
        assert made.done("audit", "verify", "--home", ".falaj")["ok"]


@pytest.mark.timeout(400)
def test_the_logs_key_is_replaced_and_everybody_follows(shell: Shell, tmp_path: Path) -> None:
    copy, vkey = tmp_path / "copy", shell.done("audit", "export", str(tmp_path / "copy"))["vkey"]
    shutil.copy(copy / "checkpoint", tmp_path / "kept")
    with witness(shell, "w1", vkey) as one:
        policy = f"witness one {one['vkey']} {one['url']}\nquorum one\n"
        (shell.folder / "policy").write_text(policy, "utf-8")
        (shell.folder / "falaj.toml").write_text('[falaj]\nwitnesses = "policy"\n', "utf-8")
        assert shell.done("audit", "witnesses")["quorum"] is True
        told = shell.done("keys", "rotate", "log", "--reason", "a new year")
        new = told["vkey"]
        assert new != vkey and told["statement"] == "rotation/1"
        assert shell.done("audit", "witnesses")["witnesses"][0]["state"] == "stranger"
        shell.done("audit", "export", str(copy))  # the key that lies in the copy leads on
        statement = str(copy / told["statement"])
        assert shell.done("witness", "follow", str(shell.folder.parent / "w1"), statement) == {"vkey": new}
        assert shell.done("audit", "witnesses")["quorum"] is True
    proof = str(tmp_path / "after.tlog-proof")
    shell.done("audit", "prove", "1", "--to", proof)
    rows = [r for r in shell.done("keys", "history") if r["name"] == "log"]
    assert [bool(r["until"]) for r in rows] == [False, True] and rows[0]["fingerprint"] == told["new"]
    assert shell.done("audit", "verify", "--folder", str(copy), "--vkey", vkey)["rotations"] == 1
    assert shell.done("audit", "check-proof", proof, "--vkey", vkey, "--rotation", statement)["index"] == 1
    assert shell.refused("audit", "check-proof", proof, "--vkey", vkey, code=4)["code"] == "audit_unsigned"
    assert shell.done("audit", "consistency", str(tmp_path / "kept"), "--vkey", vkey)
    assert "rotated" in shell.refused("keys", "revoke", "log", "--reason", "x", code=1)["hint"]
