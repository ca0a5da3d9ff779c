"""A model that exists already, from MLflow's folder to traffic and out of it again, by commands alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from falaj.workflow.confine import supported
from tests.entrypoints.cli.shell import Shell, cleaned

TRAINED_ELSEWHERE = """
import sys, numpy as np, pandas as pd, mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
chance = np.random.default_rng(0)
rows = pd.DataFrame({"age": chance.normal(40, 9, 400), "visits": chance.normal(5, 2, 400)})
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows.age + 9 * rows.visits > 85)
mlflow.sklearn.save_model(
    model, sys.argv[1], serialization_format="skops", skops_trusted_types=[], pip_requirements=["skops"],
    signature=infer_signature(rows, model.predict(rows)),
)
print(model.predict_proba(pd.DataFrame({"age": [50.0], "visits": [6.0]}))[0, 1])
"""


@pytest.mark.timeout(300)
def test_an_imported_model_serves_under_a_waiver_and_no_longer_without_it(tmp_path: Path) -> None:
    if supported():
        pytest.skip("no sandbox on this machine: what can run code is refused, which tests/workflow sees to")
    shell = Shell(tmp_path, FALAJ_HOME=str(tmp_path / ".falaj"), MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TRAINED_ELSEWHERE, str(tmp_path / "bought")],
        env=shell.environment, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    expected = float(made.stdout.split()[-1])
    with cleaned(tmp_path):
        shell.done("up")
        for name, role in (("rita", "risk-officer"), ("adam", "platform-admin"), ("omar", "risk-officer")):
            shell.done("token", "create", name, "--role", role, "--keep")
        asked = ("import", "mlflow", "bought", "--model", "buys", "--task", "binary")
        brought = shell.done(*asked, "--classes", "no,yes", "--positive", "yes")
        assert (brought["state"], list(brought["missing"])) == ("registered", ["provenance"])
        shown = shell.done("evidence", "show", "buys@1")["statements"]
        proven = {s["gate"]: s["finding"]["verdict"] for s in shown if s["finding"]}
        assert proven["provenance"] == "Missing" and proven["parity max_abs_difference"] == "Successful"

        # nothing takes it anywhere while something is missing
        approval = ("approve", "buys@1", "--reason", "we need it", "--as", "rita")
        assert shell.refused(*approval)["code"] == "not_awaiting"
        assert shell.refused("promote", "buys@1", "--to", "staging")["code"] == "waiver_missing"
        assert "model_not_found" in shell("predict", "buys", "--data", "-", "--json", stdin=ROW).out

        # two people, neither of whom brought it in
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 30 * 86400))
        propose = ("waiver", "propose", "buys@1", "--missing", "provenance", "--reason", "no records", "--until", day)
        assert shell.refused(*propose)["code"] == "denied_by_policy"
        shell.done(*propose, "--as", "rita")
        sign = ("waiver", "sign", "buys@1", "--reason", "until ours is trained")
        assert shell.refused(*sign, "--as", "rita")["code"] == "waiver_signed_already"
        assert shell.refused("promote", "buys@1", "--to", "staging")["code"] == "waiver_unsigned"
        shell.done(*sign, "--as", "adam")

        shell.done(*approval)
        assert [v["state"] for v in shell.done("versions", "buys")] == ["serving"]
        answer = msgspec.json.decode(shell("predict", "buys", "--data", "-", "--json", stdin=ROW).out)
        probability = next(o["data"] for o in answer["outputs"] if o["name"] == "probability")
        assert probability[-1] == pytest.approx(expected, abs=1e-5)

        # one of them thinks better of it
        shell.done("waiver", "revoke", "buys@1", "--reason", "ours is trained", "--as", "adam")
        until(lambda: "model_not_found" in shell("predict", "buys", "--data", "-", "--json", stdin=ROW).out)
        done = {line["action"] for line in msgspec.json.decode(shell("audit", "log", "--limit", "500", "--json").out)}
        assert done >= {"training.import", "registry.propose_waiver", "registry.sign_waiver", "registry.revoke_waiver"}
        assert shell.done("audit", "verify")["ok"]
        shell.done("down")


ROW = '{"age": 50.0, "visits": 6.0}'


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
