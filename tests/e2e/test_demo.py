"""`falaj demo`, once, in full: what it tells, what it leaves, and what it must never leave."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.governance.signing.keys import KeyRing
from falaj.kernel.digests import FileEntry
from falaj.storage.blobs.local import LocalBlobs
from tests.entrypoints.cli.shell import Shell, cleaned, gone

pytestmark = pytest.mark.timeout(400)
ACTS = [
    "1  Data",
    "2  Features",
    "3  Training and evidence",
    "4  Approval and release",
    "5  Serving",
    "6  Refusals",
    "7  Rollback",
    "8  Proof",
]


class Told:
    """The events of one demo and the home that it left."""

    def __init__(self, folder: Path) -> None:
        self.shell = Shell(folder, FALAJ_HOME=str(folder / "home"))
        self.home = folder / "home"
        process = self.shell.start("demo", "--exit", "--json")
        out, err = process.communicate(timeout=380)
        assert process.returncode == 0, (out[-3000:], err)
        self.events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in out.splitlines()]

    def of(self, event: str, *, containing: str = "") -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == event and containing in e["subject"]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("demo")
    with cleaned(folder):
        yield Told(folder)


def test_every_act_is_told_in_order(told: Told) -> None:
    assert [e["subject"] for e in told.of("begin")] == ACTS


def test_every_row_that_came_in_is_stored_or_in_quarantine(told: Told) -> None:
    loads = told.of("done", containing=" rows in = ")
    assert {e["subject"].partition("@")[0] for e in loads} == {"flights", "weather", "planes"}
    for load in loads:
        came, stored, quarantined = (
            int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:rows in|stored|quarantined)", load["subject"])
        )
        assert came == stored + quarantined and load["digest"].startswith("sha256:")
    assert "80,789 rows in" in loads[0]["subject"]
    assert told.of("done", containing="flights once more: 0 rows added")


def test_what_is_not_proven_is_refused_each_with_its_code(told: Told) -> None:
    refused = told.of("refused")
    assert [e["detail"]["code"] for e in refused][:4] == [
        "contract_breach",
        "denied_by_policy",
        "gate_failed",
        "unsigned",
    ]
    assert refused[-1]["detail"]["code"] == "audit_broken" and len(refused) == 8
    assert refused[4]["subject"].endswith("at load")
    assert [e["detail"]["code"] for e in refused[5:7]] == ["rolled_back", "rolled_back"]
    assert all(e["detail"]["reason"] and e["detail"]["hint"] for e in refused)


def test_both_tasks_are_approved_and_loaded(told: Told) -> None:
    released = told.of("done", containing=" loaded")
    assert [e["subject"].partition(" ")[0] for e in released] == ["flight-delay@1", "flight-delay-minutes@1"]
    gates = [e for e in told.of("note") if "verdict" in e["detail"]]
    assert len(gates) >= 12 and {e["detail"]["verdict"] for e in gates} == {"Successful"}


def test_three_days_are_predicted_and_ranked(told: Told) -> None:
    days = told.of("done", containing=" flights predicted at ")
    assert [e["subject"][:10] for e in days] == ["2013-04-01", "2013-04-02", "2013-04-03"]
    for day in days:
        assert day["detail"]["features"]["present"] > day["detail"]["features"]["missing"]
        assert 0.55 < day["detail"]["roc_auc"] < 0.95


def test_a_version_that_answers_differently_loses_its_traffic_and_nobody_notices(told: Told) -> None:
    """One while it is mirrored; the other by the data plane alone, with the control plane stopped."""
    shadow, canary = (e["subject"] for e in told.of("refused", containing="lost its traffic"))
    assert "canary" not in shadow and "0 failed" in shadow
    assert "0 failed" in canary
    (acted,) = told.of("note", containing="own guard has acted")
    assert "canary" in acted["subject"]
    (figures,) = told.of("done", containing="verdict → no traffic")
    assert figures["detail"]["to_zero"] <= 1.0 and figures["detail"]["bad_answers"] > 0
    assert told.of("note", containing="the control plane is stopped")


def test_the_closing_table_says_what_stands_where_and_why(told: Told) -> None:
    (table,) = told.of("note", containing="What stands where, and why")
    rows = {row[0]: row for row in table["detail"]["rows"]}
    assert [rows[v][1] for v in ("flight-delay@1", "flight-delay-minutes@1")] == ["serving", "serving"]
    assert len([r for r in rows.values() if r[1] == "refused"]) >= 5
    assert all(row[4] for row in rows.values())


def test_the_log_holds_and_knows_everyone(told: Told) -> None:
    (last,) = told.of("done", containing="audited changes")
    entries = int(re.search(r"([\d,]+) audited changes", last["subject"])[1].replace(",", ""))  # type: ignore[index]
    assert entries > 40
    ended = told.shell("audit", "verify", "--json")
    assert ended.code == 0 and ended.json["ok"] and ended.json["size"] >= entries
    rows = told.shell.done("audit", "log", "--limit", "1000")
    assert {r["principal"] for r in rows} >= {"owner", "engineer", "risk-officer", "falaj"}
    assert {r["outcome"] for r in rows} == {"done", "denied", "refused"}


def test_no_process_is_left(told: Told) -> None:
    assert gone(told.home)


def test_no_plaintext_of_a_model_lies_in_the_home(told: Told) -> None:
    """Pieces from inside of each model file, looked for in every file of the home."""
    blobs = LocalBlobs(told.home / "blobs", KeyRing(told.home / "keys").kek)
    with closing(sqlite3.connect(told.home / "falaj.db")) as database:
        versions = [row[0] for row in database.execute("select files from versions")]
    pieces: dict[str, bytes] = {}
    for files in versions:
        for file in msgspec.json.decode(files, type=list[FileEntry]):
            plain = blobs.get(file.sha256)
            for share in (0.2, 0.5, 0.8):
                at = int(len(plain) * share)
                pieces[f"{file.path} of {file.sha256[:14]} at {at}"] = plain[at : at + 48]
    assert len(pieces) >= 12
    for path in told.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [name for name, piece in pieces.items() if piece in content], path
