"""Projects beside the flights, as their readers would run them: a regression by commands, a multiclass task in a notebook."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import nbformat

EXAMPLES = Path(__file__).parents[2] / "examples"
BIN = Path(sys.executable).parent


def project(name: str, folder: Path) -> Path:
    """A copy of an example, without what a reader may have left in it."""
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns(".falaj", "__pycache__")))


def falaj(folder: Path, *words: str, given: str = "") -> Any:
    command = [str(BIN / "falaj"), *words, "--json"]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return msgspec.json.decode(done.stdout)


def test_a_regression_on_bicycles(tmp_path: Path) -> None:
    bikes = project("bikes", tmp_path)
    falaj(bikes, "apply")
    falaj(bikes, "clock", "2011-12-20T12:00Z")
    loaded = falaj(bikes, "ingest", "rides")
    assert (loaded["rows"], loaded["quarantined"]) == (8645, 0)
    falaj(bikes, "features", "materialize")
    assert falaj(bikes, "train", "bikes-next-hour")["state"] == "awaiting approval"
    proven = {s["gate"]: s["finding"] for s in falaj(bikes, "evidence", "show", "bikes-next-hour@1")["statements"]}
    assert 0.9 < proven["metric r2"]["measurement"]["value"] < 0.97
    assert proven["slice workingday mae"]["verdict"] == "Successful"
    falaj(bikes, "token", "create", "risk", "--role", "risk-officer", "--keep")
    falaj(bikes, "approve", "bikes-next-hour@1", "--reason", "steady on weekends too", "--as", "risk")
    hour = {"city": "washington", "weekday": 2, "workingday": 1, "weathersit": "clear"}
    weather = {"temp": 0.3, "hum": 0.6, "windspeed": 0.1}
    rows = [{**hour, **weather, "hr": clock} for clock in (3, 8)]
    answer = falaj(bikes, "predict", "bikes-next-hour", "--data", "-", given=msgspec.json.encode(rows).decode())
    night, morning = answer["outputs"][0]["data"]
    assert answer["parameters"]["features"]["present"] == 2
    assert morning > night + 50


def test_a_multiclass_task_in_a_notebook(tmp_path: Path) -> None:
    folder = project("weather", tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [str(BIN / "jupyter"), "execute", "weather.ipynb", "--output=done.ipynb", "--timeout=240"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    notebook = nbformat.read(folder / "done.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    said = "\n".join(
        str(o.get("text") or o["data"]["text/plain"]) for c in notebook.cells for o in c.get("outputs", ())
    )
    assert "(1461, 0)" in said
    assert "('weather-tomorrow@1', 'awaiting approval')" in said
    assert "may not approve" in said
    assert "forbidden by four-eyes" in said
    answered = falaj(folder, "predict", "weather-tomorrow", "--data", "-", given='{"station":"seattle","month":7}')
    (probabilities,) = [o["data"] for o in answered["outputs"] if o["name"] == "probabilities"]
    assert len(probabilities) == 5
    assert abs(sum(probabilities) - 1) < 1e-6
