"""A home that an earlier release made opens in this one: everything is there, and a change works."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from falaj.governance.signing.dsse import STATEMENT_TYPE, verify_envelope
from falaj.governance.signing.keys import KeyRing
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.sql.migrate import revisions
from tests.entrypoints.cli.shell import Shell, cleaned
from tests.homes import FIXTURES, unpacked

VERSIONS = sorted(p.name.removeprefix("home-").removesuffix(".tar.xz") for p in FIXTURES.glob("home-*.tar.xz"))
NOT_GROWING = {
    "alembic_version", "approvals", "principals", "tokens", "dataset_versions", "ingested_files", "materializations",
    "runs", "statements", "admissions", "rehearsals", "versions", "definitions", "traffic_plans", "rollouts", "incidents",
}  # fmt: skip

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=VERSIONS)
def kept(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shell, dict[str, Any]]]:
    """A home of that release, opened once by this one, with both planes running."""
    folder = tmp_path_factory.mktemp("upgrade")
    project, expected = unpacked(request.param, folder)
    shell = Shell(project)
    with cleaned(folder):
        shell.done("up")
        yield shell, expected
        shell.done("down")


def counts(database: Path) -> dict[str, int]:
    with closing(sqlite3.connect(database)) as opened:
        tables = [t for (t,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {t: opened.execute(f'SELECT count(*) FROM "{t}"').fetchone()[0] for t in tables}  # noqa: S608  # of the schema


def test_every_release_since_the_first_is_kept() -> None:
    assert VERSIONS[0] == "0.1.0"


def test_the_schema_is_this_releases_and_the_old_one_was_copied_first(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, expected = kept
    with closing(sqlite3.connect(shell.home / "falaj.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == (revisions()[-1],)
    copied = shell.home / "falaj-schema-0001.db"
    assert counts(copied) == expected["tables"]
    assert copied.stat().st_mode & 0o077 == 0


def test_every_row_is_there(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, expected = kept
    now = counts(shell.home / "falaj.db")
    for table, count in expected["tables"].items():
        assert now[table] >= count, table
    for table in NOT_GROWING & expected["tables"].keys():
        assert now[table] == expected["tables"][table], table


def test_the_log_begins_with_the_signed_log_of_then(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, expected = kept
    report = shell.done("audit", "verify")
    assert report["ok"] and report["size"] >= expected["audit"]["size"]
    with (
        closing(sqlite3.connect(shell.home / "falaj.db")) as now,
        closing(sqlite3.connect(shell.home / "falaj-schema-0001.db")) as then,
    ):
        query, first = "SELECT idx, data, leaf FROM audit_entries WHERE idx < ? ORDER BY idx", expected["audit"]["size"]
        assert now.execute(query, (first,)).fetchall() == then.execute(query, (first,)).fetchall()


def test_the_evidence_verifies_and_the_version_is_as_it_was(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, expected = kept
    (version,) = shell.done("versions", "late-flight")
    assert version["state"] == "serving" and version["number"] == 1
    keys = KeyRing(shell.home / "keys")
    blobs = LocalBlobs(shell.home / "blobs", keys.kek)
    with closing(sqlite3.connect(shell.home / "falaj.db")) as database:
        filed = [row[0] for row in database.execute("SELECT envelope FROM statements")]
    assert len(filed) == expected["tables"]["statements"]
    for digest in filed:
        verify_envelope(msgspec.json.decode(blobs.get(digest)), STATEMENT_TYPE, (keys.attestation.public_key(),))
    assert "flights@" in shell("lineage", "late-flight@1").out


def test_it_answers_as_it_did(kept: tuple[Shell, dict[str, Any]], tmp_path: Path) -> None:
    shell, expected = kept
    rows = tmp_path / "rows.json"
    rows.write_text(str(expected["rows"]).replace("'", '"'), "utf-8")
    answer = shell.done("predict", "late-flight", "--data", str(rows), "--as", "timetable")
    assert {o["name"]: o["data"] for o in answer["outputs"]} == expected["answers"][0]["outputs"]


def test_datasets_labels_journal_and_incidents_are_there(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, expected = kept
    log = shell.done("data", "log", "flights")
    assert [(v["version"], v["rows"]) for v in log] == [(1, 4243), (0, 3997)]
    sealed = {s["segment"]: s for s in shell.done("journal", "list")}
    for segment in expected["segments"]:
        assert sealed[segment["segment"]]["root"] == segment["root"]
    assert [i["kind"] for i in shell.done("incidents", "list")] == ["journal"]
    for label in expected["labels"]:
        found = shell.done("why", label["prediction"])
        assert found["label"]["value"] == label["value"]


def test_doctor_finds_it_well_but_for_its_rights(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, _ = kept
    told = shell("doctor", "--deep", "--json")
    worse = {f["name"] for f in told.json["findings"] if f["level"] in ("problem", "broken")}
    assert worse <= {"open_to_others"}, told  # 0.1.0 made a home's folder readable for others


def test_a_change_works(kept: tuple[Shell, dict[str, Any]]) -> None:
    shell, _ = kept
    (shell.folder / "data" / "flights-3.csv").write_text(
        "\n".join((shell.folder / "data" / "flights.csv").read_text("utf-8").splitlines()[:50]) + "\n", "utf-8"
    )
    loaded = shell.done("ingest", "flights", "--as", "engineer")
    assert loaded["version"] == 2 and loaded["added"] == 49
    assert shell.done("token", "create", "newcomer", "--role", "viewer")["roles"] == ["viewer"]
    assert shell.done("audit", "verify")["ok"]
