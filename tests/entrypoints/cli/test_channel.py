"""The channel through the command line as people type it: a new project, without a server, then with one."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.entrypoints.cli.shell import Shell, cleaned, gone

MODEL, FIRST = "late-flight", "late-flight@1"
ROW = '{"carrier": "DL", "dest": "ATL", "distance": 762, "sched_hour": 22.5, "weekday": 4}'


class Facts:
    """What the way through the channel showed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.prediction = ""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """A project from `falaj init`, its first version trained, without a server."""
    below = tmp_path_factory.mktemp("cli")
    with cleaned(below):
        made = Shell(below).done("init", "sky")
        shell = Shell(below / "sky")
        assert made == {"project": "sky", "folder": str(shell.folder)}
        assert [c["change"] for c in shell.done("apply")["changes"]] == ["added"] * 4
        loaded = shell.done("ingest", "flights")
        assert (loaded["added"], loaded["quarantined"], loaded["reasons"]) == (4243, 3, {"departed_then_arrived": 3})
        assert [v["keys"] for v in shell.done("features", "materialize")["views"]] == [11]
        built = shell.done("train", MODEL)
        assert (built["version"], built["state"], built["already"]) == (FIRST, "awaiting approval", False)
        yield Facts(shell)


@pytest.fixture(scope="module")
def up(alone: Facts) -> Iterator[Facts]:
    """The same project with both planes running."""
    started = alone.shell.done("up")
    assert set(started) == {"control_plane", "data_plane", "console"}
    yield alone
    alone.shell("down")


def test_without_a_server(alone: Facts) -> None:
    """Approve with four eyes, predict for the moment, verify; nothing is left running."""
    shell = alone.shell
    mine = shell.refused("approve", FIRST, "--reason", "my own")
    assert mine["code"] == "denied_by_policy" and "four-eyes" in mine["details"]["rules"]
    created = shell.done("token", "create", "risk", "--role", "risk-officer", "--keep")
    assert "token" not in created and created["roles"] == ["risk-officer"]
    token = shell.home / "tokens" / "risk"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    approved = shell.done("approve", FIRST, "--reason", "evidence read", "--hold", "--as", "risk")
    assert (approved["approvals"], approved["needed"], approved["flow"]) == (1, 1, "")
    assert shell.refused("rollout", "start", FIRST, "--canary", "50,10")["kind"] == "invalid"
    started = shell.done("rollout", "start", FIRST, "--reason", "now", "--as", "risk")
    assert (started["rollout"], started["release"]["loaded"]) == (False, False)
    assert shell.refused("rollout", "start", FIRST, "--as", "risk")["code"] == "serves_already"
    asked = shell.done("predict", MODEL, "--data", "-", stdin=ROW)
    assert (asked["model_version"], asked["outputs"][0]["shape"]) == ("1", [1])
    assert 0 < asked["outputs"][0]["data"][0] < 1
    alone.prediction = asked["parameters"]["prediction_id"]
    assert shell.done("audit", "verify")["ok"] is True
    assert shell.processes() == []


def test_with_both_planes(up: Facts) -> None:
    """The same commands against a server, and the looks."""
    shell = up.shell
    assert shell.done("up") == {"control_plane": shell.done("status")["control_plane"], "data_plane": _plane(shell)}
    assert shell.done("plan")["changes"] == []
    assert shell.done("apply")["changes"] == []
    again = shell.done("ingest", "flights")
    assert (again["files"], again["skipped"]) == ([], 1)
    assert [v["rows"] for v in shell.done("data", "log", "flights")] == [4243]
    assert [v["view"] for v in shell.done("features", "materialize")["views"]] == ["carrier_delay"]
    value = shell.done("features", "get", "carrier_delay", "DL")
    assert value["status"] == "expired" and set(value["values"]) == {"carrier_mean_delay", "carrier_share_late"}
    assert len(shell.done("features", "log", "carrier_delay")) == 2
    (run,) = shell.done("runs", "list", MODEL)
    assert shell.done("runs", "show", run["id"])["metrics"].keys() >= {"validation_roc_auc"}
    (version,) = shell.done("versions", MODEL)
    assert (version["alias"], version["state"]) == (FIRST, "serving")
    evidence = shell.done("evidence", "show", FIRST)
    assert {s["verdict"] for s in evidence["statements"]} == {"Successful"} and len(evidence["statements"]) == 7
    status = shell.done("status")
    assert status["plane"]["state"] == "current" and [s["alias"] for s in status["serving"]] == [FIRST]
    rows = msgspec.json.encode([msgspec.json.decode(ROW)] * 3).decode()
    (shell.folder / "rows.json").write_text(rows)
    asked = shell.done("predict", MODEL, "--data", "rows.json")
    assert len(asked["outputs"][0]["data"]) == 3
    for name in (asked["parameters"]["prediction_id"], up.prediction or FIRST, FIRST):
        edges = shell.done("lineage", name)["edges"]
        assert {e["parent"].partition(":")[0] for e in edges} >= {"run", "dataset", "file", "project"}, name
    assert any(e["child"].startswith("version:") for e in shell.done("lineage", "flights@0", "--down")["edges"])
    entries = shell.done("audit", "log", "--outcome", "denied", "--limit", "5")
    assert [e["action"] for e in entries][-1:] in (["changes.approve"], [])
    assert shell.done("admit", FIRST, "staging", "--as", "owner")["environment"] == "staging"
    assert shell.done("audit", "verify")["ok"] is True
    assert shell.done("console")["url"].startswith(status["control_plane"] + "/login?code=")


def test_following_a_prediction(up: Facts) -> None:
    """Why it is so, where the loop stands, and how the journal comes to rest."""
    shell = up.shell
    prediction = shell.done("predict", MODEL, "--data", "-", stdin=ROW)["parameters"]["prediction_id"]
    why = shell.done("why", prediction)
    assert why["version"]["alias"] == FIRST and [a["principal"] for a in why["traffic"]["approvals"]] == ["risk"]
    assert (why["run"]["model"], why["datasets"][0]["name"]) == (MODEL, "flights")
    assert why["datasets"][0]["digest"].startswith("sha256:") and why["features"][0]["entity"] == "DL"
    told = shell("why", f"{prediction}/0").out
    assert f"{prediction}/0  {MODEL}" in told and "by risk on " in told and "carrier_delay of DL" in told
    assert shell.refused("why", f"{prediction}/1")["code"] == "no_such_row"
    (standing,) = shell.done("loop", "status")["models"]
    assert (standing["serving"]["alias"], standing["rollout"], standing["awaiting"]) == (FIRST, None, [])
    assert FIRST in shell("loop", "status").out

    shell.done("journal", "seal")
    until = time.monotonic() + 60
    while prediction[2:28] not in {s["segment"] for s in shell.done("journal", "list")}:
        assert time.monotonic() < until, "it is not sealed"
    sealed = shell.done("journal", "list")
    assert shell("journal", "list").out.count(f"{MODEL}@") == len(sealed)
    leaves = shell.done("audit", "log", "--action", "serving.seal_journal")
    assert {e["detail"]["root"] for e in leaves} == {s["root"] for s in sealed}
    assert shell.done("why", prediction)["prediction"] == why["prediction"]  # the segment stays where it was


def test_what_a_version_would_have_answered(up: Facts) -> None:
    """The labels of three rows; the version that answered them gives again what it gave."""
    shell = up.shell
    rows = [msgspec.json.decode(ROW) | {"sched_hour": hour} for hour in (6.0, 14.0, 21.0)]
    asked = shell.done("predict", MODEL, "--data", "-", stdin=msgspec.json.encode(rows).decode())
    prediction = asked["parameters"]["prediction_id"]
    assert shell.refused("backtest", FIRST)["code"] == "no_labels_yet"
    labels = msgspec.json.encode([{"prediction": f"{prediction}/{n}", "value": n % 2} for n in range(3)]).decode()
    until = time.monotonic() + 20
    while shell.done("labels", "push", MODEL, "--data", "-", stdin=labels)["accepted"] < 3:
        assert time.monotonic() < until, "the journal is not read"

    found = shell.done("backtest", FIRST, "--by", "day")
    total = found["total"]
    assert (found["version"], total["labelled"], set(total["answered_by"])) == (FIRST, 3, {FIRST})
    assert found["reproduced"]["rows"] == total["rows"] and found["reproduced"]["largest_difference"] <= 1e-6
    assert {f["metric"]: f["problem"] for f in total["figures"]} == {"roc_auc": "", "log_loss": "", "brier": ""}
    told = shell("backtest", FIRST)
    assert told.code == 0 and "roc_auc ↑" in told.out and "recomputed equals recorded" in told.out, told
    assert shell.refused("backtest", "late-flight@99")["code"] == "no_such_version"
    assert shell.refused("backtest", MODEL, code=2)["kind"] == "invalid"
    assert shell.refused("backtest", FIRST, "--from", "2999-01-01")["code"] == "no_predictions"


def _plane(shell: Shell) -> str:
    return str(msgspec.json.decode((shell.home / "run" / "data-plane.json").read_bytes())["url"])


def test_a_second_version_is_rejected_for_good(up: Facts) -> None:
    shell = up.shell
    built = shell.done("train", MODEL, "--param", "n_estimators=30")
    assert built["version"] == "late-flight@2"
    if not (shell.home / "tokens" / "judge").exists():
        shell.done("token", "create", "judge", "--role", "risk-officer", "--keep")
    assert shell.done("reject", "late-flight@2", "--reason", "no better", "--as", "judge")["state"] == "rejected"
    assert (
        shell.refused("approve", "late-flight@2", "--reason", "but I like it", "--as", "judge")["code"]
        == "not_awaiting"
    )
    (token,) = [t for t in shell.done("token", "list") if t["principal"] == "judge"]
    assert shell.done("token", "revoke", token["id"]) == {"revoked": token["id"]}
    assert shell.refused("versions", MODEL, "--as", "judge")["code"] == "unknown_token"


def test_environments(up: Facts) -> None:
    """Staging on demand and for good, asked, compared with production; production is entered by approval."""
    shell = up.shell
    rows = {r["name"]: r for r in shell.done("env", "list")}
    assert list(rows) == ["dev", "staging", "production"] and len({r["key"] for r in rows.values()}) == 3
    newest = rows["staging"]["serving"][0]
    assert (rows["staging"]["plane"]["state"], rows["dev"]["plane"]["state"]) == ("stopped", "private")
    assert shell.done("promote", FIRST) == {"flow": "", "environment": "staging", "already": True}
    assert shell.refused("promote", FIRST, "--to", "production")["code"] == "denied_by_policy"
    assert "nothing to do" in shell("promote", FIRST).out
    asked = shell.done("predict", MODEL, "--environment", "staging", "--data", "-", stdin=ROW)  # started for the moment
    assert f"{MODEL}@{asked['model_version']}" == newest["alias"]
    running = shell.done("env", "up", "staging")
    assert shell.done("env", "up", "staging") == running
    assert shell.done("status")["environments"]["staging"]["address"] == running["data_plane"]
    assert running["data_plane"] in shell("status").out and running["data_plane"] in shell("env", "list").out
    again = shell.done("predict", MODEL, "--environment", "staging", "--data", "-", stdin=ROW)
    assert again["outputs"] == asked["outputs"]
    found = shell.done("env", "diff", "staging", "production")
    assert {d["what"] for d in found["differences"]} >= {"key", "policy", "approvals"}
    assert [m["second"]["alias"] for m in found["models"]] == [FIRST] * (newest["alias"] != FIRST)
    assert "policy" in shell("env", "diff", "staging", "production").out
    assert shell.done("env", "down") == {"environment": "staging", "data_plane": "stopped"}
    assert shell.refused("env", "up", "dev", code=2)["code"] == "environment_without_plane"
    told = shell("evidence", "show", FIRST).out
    assert "in dev, staging, production; rehearsed with 200 requests (holdout), none failed" in told
    assert "dev, staging, production" in shell("versions", MODEL).out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("versions",), 2),
        (("nonsense",), 2),
        (("versions", MODEL, "--nonsense"), 2),
        (("features", "nonsense"), 2),
        (("ingest", "nothing"), 1),
        (("evidence", "show", "late-flight@99"), 1),
        (("versions", MODEL, "--as", "nobody"), 1),
        (("versions", MODEL, "--server", "http://127.0.0.1:9"), 3),
    ],
)
def test_exit_codes(up: Facts, arguments: tuple[str, ...], code: int) -> None:
    ended = up.shell(*arguments)
    assert ended.code == code, ended
    assert ended.err.strip() and "Traceback" not in ended.err


def test_a_copy_of_the_log_with_one_byte_changed_ends_with_4(up: Facts) -> None:
    shell = up.shell
    copy = shell.folder / "copy"
    shutil.copytree(shell.home / "audit", copy)
    assert shell("audit", "verify", "--folder", "copy").code == 0
    entries = max((copy / "tile" / "entries").rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(entries.read_bytes())
    data[len(data) // 2] ^= 1
    entries.chmod(0o600)
    entries.write_bytes(data)
    ended = shell("audit", "verify", "--folder", "copy")
    assert ended.code == 4 and "does not hold" in ended.err
    as_json = shell("audit", "verify", "--folder", "copy", "--json")
    assert as_json.code == 4 and as_json.json["code"] == "audit_broken" and as_json.json["details"]["problems"]


def test_without_a_terminal_nothing_is_coloured(up: Facts) -> None:
    for arguments in (
        ("versions", MODEL),
        ("status",),
        ("evidence", "show", FIRST),
        ("audit", "log"),
        ("lineage", FIRST),
    ):
        ended = up.shell(*arguments)
        assert ended.code == 0 and "\x1b" not in ended.out + ended.err, arguments
        assert ended.out.strip()


def test_a_home_that_another_process_holds_is_a_conflict_with_its_pid(up: Facts) -> None:
    """The holder runs, and its address file is gone, so that the command tries to open the home itself."""
    address = up.shell.home / "run" / "control-plane.json"
    kept = address.read_bytes()
    address.unlink()
    try:
        error = up.shell.refused("versions", MODEL)
    finally:
        address.write_bytes(kept)
    assert error["code"] == "home_locked" and str(msgspec.json.decode(kept)["pid"]) in error["error"]


def test_down_ends_everything_and_the_home_still_works(up: Facts) -> None:
    shell = up.shell
    shell.done("env", "up", "staging")
    stopped = {"data_plane": "stopped", "control_plane": "stopped", "staging_data_plane": "stopped"}
    assert shell.done("down") == stopped
    assert gone(shell.folder)
    assert shell.done("down") == {"data_plane": "was not running", "control_plane": "was not running"}
    assert shell.refused("console")["code"] == "control_plane_not_running"


def test_ctrl_c_ends_a_training_without_a_server_and_leaves_nothing(alone: Facts) -> None:
    shell = alone.shell
    (shell.folder / "sky.py").write_text((shell.folder / "sky.py").read_text() + _ENDLESS)
    shell.done("apply")
    process = shell.start("train", "endless")
    try:
        deadline = time.monotonic() + 60
        while not _training(shell.home):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the training did not start"
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err and "interrupted" in err
    assert gone(shell.folder)
    assert [v["state"] for v in shell.done("versions", MODEL)][:1] == ["serving"]
    assert gone(shell.folder)


def _training(home: Path) -> bool:
    return any(home.glob("tmp/bld_*/train/started"))


_ENDLESS = """

@fj.model(name="endless", task="binary", label="late", spine=flights, at="decided_at", features=[carrier_delay], purpose="operations")
def endless(data: fj.TrainingSet, params: fj.Params) -> fj.Estimator:
    import pathlib
    import time

    pathlib.Path("started").touch()
    while True:
        time.sleep(0.1)
"""
