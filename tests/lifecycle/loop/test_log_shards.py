"""The log's shards in a whole home: who begins one, what is served of each, what a backup brings back, what the doctor says."""

from __future__ import annotations

from pathlib import Path

from falaj.bootstrap.doctor.examining import examine
from falaj.bootstrap.doctor.model import WELL
from falaj.bootstrap.keeping.restoring import Restoring, restore
from falaj.governance.audit import note, tiles
from falaj.governance.audit.sharded import verify_log
from falaj.governance.audit.verify import verify_folder
from falaj.governance.signing.recovery import read_folder
from tests.lifecycle.house import house

LOG = "/api/v1/audit/log"


def test_a_home_whose_log_is_sealed_serves_both_and_comes_back_from_a_backup(tmp_path: Path) -> None:
    with house(tmp_path) as home:
        vkey = home.plane.publisher.vkey
        assert home.api("engineer").post("/api/v1/audit/shards", {"reason": "why not"}).status_code == 403
        assert home.api().post("/api/v1/audit/shards", {"reason": " "}).json()["code"] == "no_reason"
        told = home.api().post("/api/v1/audit/shards", {"reason": "the year is over"}).json()
        (entry,) = home.log(action="audit.shard", outcome="done")
        assert entry.index == told["first"] and entry.entry.principal == "owner"
        first, second = home.api().get("/api/v1/audit/shards").json()
        assert (first["sealed"], second["sealed"], second["origin"]) == (True, False, told["origin"])
        for prefix, key, name in ((LOG, vkey, "one"), (f"{LOG}/shard/2", told["vkey"], "two")):
            raw = home.api().get(f"{prefix}/checkpoint").content
            size = note.open_checkpoint(raw, note.parse_vkey(key)).size
            fetched = {"checkpoint": raw, "vkey": home.api().get(f"{prefix}/vkey").content}
            fetched |= {path: home.api().get(f"{prefix}/{path}").content for path in tiles.paths(size)}
            for path, data in fetched.items():
                (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name / path).write_bytes(data)
            assert verify_folder(tmp_path / name, key, exported=True).ok
        for path in ("shard/3/checkpoint", "shard/0/vkey", "shard/9/tile/0/000.p/1"):
            assert home.api().get(f"{LOG}/{path}").json()["code"] == "no_such_shard"
        (bundle, *_) = home.log(action="audit.fetch", outcome="done")
        assert bundle.entry.detail["bundle"].startswith("shard/2/tile/entries/")
        backup = home.plane.keeping.backups.start(home.owner, str(tmp_path / "backups"))
        state = home.plane.keeping.backups.state(backup, 30.0)
        assert state.state == "done" and state.result is not None, state.error
        assert state.result.log_size > told["first"]
        keys = read_folder(home.plane.layout.keys)
        assert home.plane.audit.verify().ok
        found = [f for f in examine(home.plane.settings).findings if f.check in ("audit", "keys")]
        assert sorted((f.name, f.level) for f in found) == [("audit", WELL), ("keys", WELL)], found
    restore(Restoring(tmp_path / "backups", keys, tmp_path / "new"), lambda *_: None)
    for known in (vkey, told["vkey"]):
        report = verify_log(tmp_path / "new" / "audit", known)
        assert report.ok and report.shards == 2 and report.size > state.result.log_size, report.problems
