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

pytestmark = pytest.mark.timeout(600)
ACTS = [
    "1  Data",
    "2  Features",
    "3  Training and evidence",
    "4  Approval and release",
    "5  Serving",
    "6  Refusals",
    "7  The year goes on",
    "8  Rollback",
    "9  Proof",
]
MONTHS = [f"2013-{month:02d}" for month in range(4, 13)]


class Told:
    """The events of one demo and the home that it left."""

    def __init__(self, folder: Path) -> None:
        self.shell = Shell(folder, FALAJ_HOME=str(folder / "home"))
        self.home = folder / "home"
        process = self.shell.start("demo", "--exit", "--json")
        out, err = process.communicate(timeout=570)
        assert process.returncode == 0, (out[-3000:], err)
        self.events: list[dict[str, Any]] = [msgspec.json.decode(line) for line in out.splitlines()]

    def of(self, event: str, *, containing: str = "", act: str = "") -> list[dict[str, Any]]:
        events = self.act(act) if act else self.events
        return [e for e in events if e["event"] == event and containing in e["subject"]]

    def act(self, title: str) -> list[dict[str, Any]]:
        """What was told in one act."""
        begins = [n for n, e in enumerate(self.events) if e["event"] == "begin"]
        (first,) = (n for n in begins if title in self.events[n]["subject"])
        return self.events[first : min((n for n in begins if n > first), default=len(self.events))]

    def table(self) -> dict[str, list[str]]:
        """The closing table's rows, by what they are about."""
        (table,) = self.of("note", containing="What stands where, and why")
        return {row[0]: row for row in table["detail"]["rows"]}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("demo")
    with cleaned(folder):
        yield Told(folder)


def number(pattern: str, text: str) -> int:
    """The number that a pattern finds in a text."""
    found = re.search(pattern, text)
    assert found, (pattern, text)
    return int(found[1].replace(",", ""))


def test_every_act_is_told_in_order(told: Told) -> None:
    assert [e["subject"] for e in told.of("begin")] == ACTS


def test_every_row_that_came_in_is_stored_or_in_quarantine(told: Told) -> None:
    loads = told.of("done", containing=" rows in = ")
    assert [e["subject"].partition("@")[0] for e in loads] == ["flights", "weather", "planes"]
    for load in loads:
        came, stored, quarantined = (
            int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:rows in|stored|quarantined)", load["subject"])
        )
        assert came == stored + quarantined and load["digest"].startswith("sha256:")
    assert "80,789 rows in" in loads[0]["subject"]
    assert told.of("done", containing="flights once more: 0 rows added")


def test_what_is_not_proven_is_refused_each_with_its_code(told: Told) -> None:
    """A rollout of the year may fail as well, and a retrained version need not beat the one that serves."""
    refused = told.of("refused")
    codes = [e["detail"]["code"] for e in refused]
    assert codes[:6] == [
        "contract_breach", "denied_by_policy", "denied_by_policy", "gate_failed", "unsigned", "blob_broken",
    ]  # fmt: skip
    assert codes[-3:] == ["rolled_back", "rolled_back", "audit_broken"]
    assert set(codes[6:-3]) <= {"gate_failed", "rolled_back"}
    assert [e["detail"]["code"] for e in told.of("refused", act="Rollback")] == codes[-3:-1]
    past, own = refused[1], refused[2]
    assert "production-is-entered-by-approval" in past["detail"]["reason"] and "four-eyes" in own["detail"]["reason"]
    assert refused[5]["subject"].endswith("at load")
    assert all(e["detail"]["reason"] and e["detail"]["hint"] for e in refused)


def test_both_tasks_are_rehearsed_approved_and_loaded(told: Told) -> None:
    rehearsed = told.of("done", containing=" rehearsed in staging", act="Training and evidence")
    released = told.of("done", containing=" loaded", act="Approval and release")
    for told_of in (rehearsed, released):
        assert [e["subject"].partition(" ")[0] for e in told_of] == ["flight-delay@1", "flight-delay-minutes@1"]
    assert all(e["detail"]["rehearsal"]["passed"] and e["detail"]["rehearsal"]["failures"] == 0 for e in rehearsed)
    assert [e["digest"] for e in rehearsed] == [e["digest"] for e in released], "the very bytes that were rehearsed"
    gates = [e for e in told.of("note") if "verdict" in e["detail"]]
    assert len(gates) >= 17 + 9 and {e["detail"]["verdict"] for e in gates} == {"Successful"}


def test_a_day_is_predicted_and_ranked(told: Told) -> None:
    (day,) = told.of("done", containing=" flights predicted at ")
    assert number(r"([\d,]+) flights predicted", day["subject"]) > 900
    looked = day["detail"]["features"]
    assert looked["present"] > 10 * (looked["missing"] + looked["expired"])
    assert 0.55 < day["detail"]["roc_auc"] < 0.95
    assert told.of("note", containing="flights landed meanwhile")


def test_the_year_drifts_and_the_platform_trains_again_by_itself(told: Told) -> None:
    year = "The year goes on"
    incidents = told.of("done", containing="drift opens inc_", act=year)
    again = told.of("done", containing="the platform trains again by itself", act=year)
    promoted = told.of("done", containing="promoted step by step", act=year)
    assert incidents and again and promoted
    assert told.events.index(incidents[0]) < told.events.index(again[0]) < told.events.index(promoted[0])
    assert all("drifted: " in e["subject"] and "PSI" in e["subject"] for e in incidents)
    rows = told.table()
    for e in promoted:
        alias = e["subject"].partition(":")[0]
        assert rows[alias][3] == "falaj" and e["digest"].startswith(f"sha256:{rows[alias][2]}")
        assert "; 0 failed)" in e["subject"]
    assert rows[promoted[-1]["subject"].partition(":")[0]][1] == "serving"
    assert rows["flight-delay@1"][1] == "retired"


def test_in_the_year_no_request_fails_and_labels_come(told: Told) -> None:
    (year,) = told.of("done", containing="times the clock moved on")
    told_of = {k: year["detail"][k] for k in ("incidents", "retrainings", "failed")}
    assert told_of["failed"] == 0 and told_of["incidents"] >= told_of["retrainings"] >= 1
    asked = number(r"([\d,]+) flights asked for", year["subject"])
    labels = number(r"([\d,]+) labels joined", year["subject"])
    assert asked > 15_000 and 0.8 * asked < labels <= 1.1 * asked
    assert "0 requests failed" in year["subject"]
    months = [e for e in told.of("note", act="The year goes on") if "roc_auc" in e["detail"]]
    assert [e["subject"][:7] for e in months] == MONTHS
    assert all(0.5 < e["detail"]["roc_auc"] < 0.9 and 0 < e["detail"]["late"] < 0.6 for e in months)


def test_what_retraining_made_of_each_month(told: Told) -> None:
    """Until another version answers, the first one's answers are those that were given; then they are not."""
    (compared,) = told.of("done", containing="ROC AUC by month", act="The year goes on")
    months, lines = compared["detail"]["months"], compared["detail"]["lines"]
    assert [m["month"] for m in months] == [line[:7] for line in lines] == MONTHS
    alone = [line.partition("answered ")[2].endswith(" by @1") and "," not in line.split(" by @1")[1] for line in lines]
    assert alone[0] and not alone[-1]
    for month, first_alone in zip(months, alone, strict=True):
        same = abs(month["served"] - month["without"]) < 1e-9
        assert same if first_alone else not same
    reproduced = compared["detail"]["reproduced"]
    assert reproduced["rows"] > 1000 and reproduced["largest_difference"] <= reproduced["tolerance"]


def test_a_version_that_answers_differently_loses_its_traffic_and_nobody_notices(told: Told) -> None:
    """One while it is mirrored; the other by the data plane alone, with the control plane stopped."""
    shadow, canary = (e["subject"] for e in told.of("refused", containing="lost its traffic", act="Rollback"))
    assert "canary" not in shadow and "0 failed" in shadow
    assert "0 failed" in canary
    (stopped,) = told.of("note", containing="the control plane is stopped")
    (acted,) = told.of("note", containing="own guard has acted")
    (back,) = told.of("note", containing="the control plane is back")
    assert told.events.index(stopped) < told.events.index(acted) < told.events.index(back)
    assert "stable" in acted["subject"] and "canary" in acted["subject"]
    (figures,) = told.of("done", containing="verdict → no traffic")
    assert 0 <= figures["detail"]["to_zero"] <= 1.0 and 0 < figures["detail"]["bad_answers"] < 5000
    assert figures["subject"].endswith("failed requests 0")


def test_the_closing_table_says_what_stands_where_and_why(told: Told) -> None:
    rows = told.table()
    assert rows["flight-delay-minutes@1"][1] == "serving"
    serving = [name for name, row in rows.items() if row[1] == "serving"]
    assert len(serving) == 2
    assert len([r for r in rows.values() if r[1] == "rolled back"]) >= 2
    assert {name for name, row in rows.items() if row[1] == "refused"} >= {
        "a broken feed", "a promotion past the approval", "the author's own approval", "an unsigned version",
        "a tampered model file", "a version with shifted answers", "a version with moved answers",
        "a log with a flipped byte",
    }  # fmt: skip
    assert all(row[4] for row in rows.values())


def test_the_log_holds_and_knows_everyone(told: Told) -> None:
    (last,) = told.of("done", containing="audited changes")
    entries = number(r"([\d,]+) audited changes", last["subject"])
    assert entries > 400 and number(r"([\d,]+) predictions", last["subject"]) > 20_000
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
