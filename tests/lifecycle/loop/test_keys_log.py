"""The log's key is replaced in a whole home: by whom, what is told, and what a backup of it brings back."""

from __future__ import annotations

from pathlib import Path

from falaj.bootstrap.keeping.restoring import Restoring, restore
from falaj.governance.audit.verify import verify_folder
from falaj.governance.signing.recovery import public_ids, read_folder
from tests.lifecycle.house import house


def test_a_home_goes_on_under_a_new_log_key_and_comes_back_from_a_backup(tmp_path: Path) -> None:
    asked = {"name": "log", "reason": "a new year"}
    with house(tmp_path) as home:
        vkey = home.plane.publisher.vkey
        assert home.api("engineer").post("/api/v1/keys/rotations", asked).status_code == 403
        answer = home.api().post("/api/v1/keys/rotations", asked)
        assert answer.status_code == 200 and answer.json()["vkey"] == home.plane.publisher.vkey != vkey
        told = home.api().get("/api/v1/audit/log/rotation/1")
        assert told.content == (home.plane.layout.audit / "rotation/1").read_bytes()
        assert home.api().get("/api/v1/audit/log/rotation/2").json()["code"] == "no_such_rotation"
        (entry,) = home.log(action="keys.rotate", outcome="done")
        assert entry.entry.detail["statement"].encode() == told.content and entry.entry.principal == "owner"
        rows = [r for r in home.api().get("/api/v1/keys/signing").json() if r["name"] == "log"]
        assert [r["fingerprint"] for r in rows] == [answer.json()["new"], answer.json()["old"]]
        assert home.plane.audit.verify().ok
        backup = home.plane.keeping.backups.start(home.owner, str(tmp_path / "backups"))
        state = home.plane.keeping.backups.state(backup, 30.0)
        assert state.state == "done", state.error
        keys = read_folder(home.plane.layout.keys)
        assert public_ids(keys)["log"] == answer.json()["new"]
    restore(Restoring(tmp_path / "backups", keys, tmp_path / "new"), lambda *_: None)
    for known in (vkey, answer.json()["vkey"]):
        report = verify_folder(tmp_path / "new" / "audit", known)
        assert report.ok and report.rotations == 1, report.problems
