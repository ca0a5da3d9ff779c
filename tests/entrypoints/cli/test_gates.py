"""Gates alone: somebody's predictions, a file of gates, no home and no project."""

from __future__ import annotations

import random
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sklearn.metrics import roc_auc_score

from tests.entrypoints.cli.shell import Shell
from tests.lifecycle.project import lay_out

GATES = """
task = "binary"
label = "late"
score = "p"
champion = "p_now"

[[gate]]
metric = "roc_auc"
at_least = 0.7

[[gate]]
metric = "roc_auc"
by = "carrier"
at_least = 0.6

[[gate]]
metric = "roc_auc"
not_worse_than_champion = 0.005
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A folder with predictions and gates, and nothing of Falaj's."""
    chance = random.Random(3)
    rows = []
    for _ in range(1500):
        late = chance.random() < 0.3
        p = min(max(chance.gauss(0.4 if late else 0.25, 0.15), 0.0), 1.0)
        rows.append((int(late), p, p + chance.gauss(0, 0.1), chance.choice(("AA", "DL"))))
    lines = ["late,p,p_now,carrier", *(",".join(map(str, r)) for r in rows), ",0.5,0.5,AA"]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "gates.toml").write_text(GATES)
    (tmp_path / "model.bin").write_bytes(b"anything at all: it is only hashed")
    return Shell(tmp_path)


def table(shell: Shell) -> tuple[list[int], list[float]]:
    rows = [line.split(",") for line in (shell.folder / "p.csv").read_text().splitlines()[1:]]
    return [int(r[0]) for r in rows if r[0]], [float(r[1]) for r in rows if r[0]]


def test_every_gate_passes_and_the_evidence_can_be_shown(shell: Shell) -> None:
    found = shell.done(
        "gates", "check", "gates.toml", "--predictions", "p.csv", "--artifact", "model.bin",
        "--evidence", "e.jsonl", "--junit", "j.xml",
    )  # fmt: skip
    assert (found["passed"], found["rows"], found["unlabelled"]) == (True, 1500, 1)
    assert [f["verdict"] for f in found["findings"]] == ["Successful"] * 3
    assert found["findings"][0]["measurement"]["value"] == pytest.approx(roc_auc_score(*table(shell)))
    assert ElementTree.parse(shell.folder / "j.xml").getroot().attrib["failures"] == "0"
    told = shell.done("gates", "verify", "e.jsonl", "--artifact", "model.bin")
    assert [(r["name"], r["verdict"]) for r in told] == [("model.bin", "Successful")] * 3
    assert (
        shell.refused("gates", "verify", "e.jsonl", "--artifact", "p.csv", code=4)["code"]
        == "evidence_for_another_file"
    )
    evidence = (shell.folder / "e.jsonl").read_bytes()
    (shell.folder / "e.jsonl").write_bytes(evidence.replace(b'"payload":"ey', b'"payload":"eX', 1))
    assert shell.refused("gates", "verify", "e.jsonl", code=4)["kind"] == "integrity"
    assert not (shell.folder / ".falaj").exists(), "no home is made"


def test_what_does_not_pass_ends_with_one(shell: Shell) -> None:
    (shell.folder / "gates.toml").write_text(GATES.replace("0.7\n", "0.99\n").replace('champion = "p_now"\n', ""))
    ended = shell("gates", "check", "gates.toml", "--predictions", "p.csv", "--junit", "j.xml", "--json")
    assert ended.code == 1 and ended.json["passed"] is False
    assert [f["verdict"] for f in ended.json["findings"]] == ["Failed", "Successful", "Error"]
    suite = ElementTree.parse(shell.folder / "j.xml").getroot()
    assert (suite.attrib["failures"], suite.attrib["errors"]) == ("1", "1")
    assert shell("gates", "check", "gates.toml", "--predictions", "p.csv", "--only", "slice").code == 0
    assert (
        shell.refused("gates", "check", "gates.toml", "--predictions", "p.csv", "--only", "latency")["code"]
        == "no_such_gate"
    )


def test_an_interval_across_the_limit_is_inconclusive(shell: Shell) -> None:
    value = roc_auc_score(*table(shell))
    (shell.folder / "gates.toml").write_text(GATES.replace("0.7\n", f"{value - 0.001}\n"))
    assert shell("gates", "check", "gates.toml", "--predictions", "p.csv", "--only", "metric").code == 0
    ended = shell("gates", "check", "gates.toml", "--predictions", "p.csv", "--only", "metric", "--sure", "--json")
    assert ended.code == 1 and [f["verdict"] for f in ended.json["findings"]] == ["Inconclusive"]


def test_a_model_of_the_project_brings_its_own_gates(tmp_path: Path) -> None:
    """The mandatory gates need the model itself: not measured is not passed, unless they were not asked for."""
    shell = Shell(lay_out(tmp_path))
    rows = ["back,probability", *(f"{n % 2},{0.8 - 0.5 * (n % 2 == 0)}" for n in range(400))]
    (tmp_path / "p.csv").write_text("\n".join(rows) + "\n")
    ended = shell("gates", "check", "back", "--predictions", "p.csv", "--json")
    verdicts = {f["gate"]["kind"]: f["verdict"] for f in ended.json["findings"]}
    assert ended.code == 1
    assert verdicts == {"metric": "Successful", "parity": "Error", "scan": "Error", "provenance": "Error"}
    assert shell("gates", "check", "back", "--predictions", "p.csv", "--only", "metric").code == 0
    assert shell.refused("gates", "check", "nobody", "--predictions", "p.csv")["code"] == "no_such_model"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("at_least = 0.7", "at_leest = 0.7"), "bad_gate_file"),
        (("at_least = 0.7", ""), "wrong_gate"),
        (('metric = "roc_auc"\nat_least', 'metric = "mae"\nat_least'), "wrong_gate"),
        (('label = "late"', 'label = "later"'), "missing_column"),
        (('label = "late"', 'label = "carrier"'), "wrong_label_type"),
        (('task = "binary"', 'task = "guess"'), "bad_gate_file"),
    ],
)
def test_what_cannot_be_understood_is_refused(shell: Shell, change: tuple[str, str], code: str) -> None:
    (shell.folder / "gates.toml").write_text(GATES.replace(*change, 1))
    said_here = code in ("bad_gate_file", "wrong_gate")  # by the command itself, before anything is measured
    found = shell.refused("gates", "check", "gates.toml", "--predictions", "p.csv", code=2 if said_here else 1)
    assert found["code"] == code


@pytest.mark.parametrize(
    ("option", "place", "code"),
    [("--junit", "none/j.xml", "no_such_folder"), ("--evidence", "there", "not_a_regular_file")],
)
def test_a_place_where_no_file_can_be_is_told_before_anything_is_measured(
    shell: Shell, option: str, place: str, code: str
) -> None:
    (shell.folder / "there").mkdir()
    assert (
        shell.refused("gates", "check", "gates.toml", "--predictions", "p.csv", option, place, code=2)["code"] == code
    )
