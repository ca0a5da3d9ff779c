"""Every acknowledged change is in a backup that is taken while changes run, and the restored home carries on.

    python proofs/backup.py [--backups 12] [--seconds 90] [--sample]

Both planes of a home run under load: loads of new files, trainings, approvals, tokens, predictions and their labels. Every
answer is written into a ledger with its moment. Backups are taken at many moments; each is restored into a new folder and
compared with what had been acknowledged when it was begun: tokens, dataset versions and their rows, runs that ended,
versions, approvals, labels, each prediction's record. The restored log is verified from its bytes and must begin with the
entries of the one that went on. Each restored home is opened: every flow that was under way must end, with no operation
done twice. Then one byte is flipped in a sample of the backup's objects, and in its manifest: each must be refused.

Exits 1 when anything acknowledged is missing, when a flow does not end, when a flip goes unseen, or when a control does
not turn red: a plain copy of the database file in use, and a home without the tail of its journal, must be found out.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src")]

from falaj.bootstrap.doctor.examining import examine  # noqa: E402  # the paths come first
from falaj.bootstrap.doctor.model import BROKEN  # noqa: E402
from falaj.bootstrap.encryption import unlock  # noqa: E402
from falaj.bootstrap.keeping.restoring import Restoring, check_backup, restore  # noqa: E402
from falaj.entrypoints.cli.client import Client, connect, running_control_plane, token_of  # noqa: E402
from falaj.entrypoints.cli.commands.home import start, stop  # noqa: E402
from falaj.entrypoints.cli.commands.serve import PlaneClient  # noqa: E402
from falaj.governance.signing.kek import FILE, FileKey  # noqa: E402
from falaj.governance.signing.recovery import read_folder  # noqa: E402
from falaj.governance.signing.storekeys import BACKUPS, unwrapped  # noqa: E402
from falaj.kernel.clock import parse_iso, set_replay  # noqa: E402
from falaj.kernel.errors import FalajError, Integrity, NotFound  # noqa: E402
from falaj.kernel.settings import Settings  # noqa: E402
from falaj.lifecycle.serving.plane.journal import SUFFIX, read_record  # noqa: E402
from falaj.storage.archive.manifest import object_name  # noqa: E402
from falaj.workflow.moving import under_way  # noqa: E402

FIXTURE = ROOT / "tests" / "fixtures" / "home-0.1.0.tar.xz"
MODEL = "late-flight"
FLOW_SECONDS = 120.0
Fact = tuple[str, str]  # kind, name


class Ledger:
    """What was acknowledged, and when."""

    def __init__(self) -> None:
        self._facts: list[tuple[float, Fact]] = []
        self._lock = threading.Lock()

    def note(self, kind: str, name: str) -> None:
        with self._lock:
            self._facts.append((time.monotonic(), (kind, name)))

    def until(self, moment: float) -> list[Fact]:
        with self._lock:
            return [fact for at, fact in self._facts if at <= moment]


class World:
    """A running home with people who work in it."""

    def __init__(self, folder: Path) -> None:
        with tarfile.open(FIXTURE) as packed:
            packed.extractall(folder, filter="data")
        self.project = folder / "kept"
        expected = json.loads((self.project / "expected.json").read_text("utf-8"))
        self.rows: list[dict[str, Any]] = expected["rows"]
        self.settings = Settings(home=self.project / ".falaj", project=self.project)
        set_replay(self.settings.home, parse_iso(expected["shows"]))
        self.ledger = Ledger()
        self.stopping = threading.Event()
        self.loads: list[str] = []
        started = start(self.settings)
        self.url, self.plane = started["control_plane"], started["data_plane"]

    def client(self, name: str) -> Client:
        return Client(self.url, token_of(Settings(home=self.settings.home, project=self.project, principal=name)))

    def work(self, *, train: bool) -> list[threading.Thread]:
        """Begin the load; ends when `stopping` is set."""
        jobs: list[Callable[[], None]] = [self._grant, self._ask, self._load]
        threads = [
            threading.Thread(target=self._repeat, args=(job,), daemon=True) for job in jobs + [self._train] * train
        ]
        for thread in threads:
            thread.start()
        return threads

    def _repeat(self, job: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            try:
                job()
            except FalajError as e:
                if not self.stopping.is_set():
                    self.ledger.note("refused", f"{job.__name__}: {e.code}")
            time.sleep(0.05)

    def _grant(self) -> None:
        answer = self.client("owner").post(
            "/api/v1/tokens",
            {"name": f"s{random.randrange(10**9)}", "kind": "service", "roles": ["service"], "days": 1},
        )
        self.ledger.note("token", answer["id"])
        if random.random() < 0.3:
            self.client("owner").delete(f"/api/v1/tokens/{answer['id']}")
            self.ledger.note("revoked", answer["id"])

    def _ask(self) -> None:
        settings = Settings(home=self.settings.home, project=self.project, principal="timetable")
        answer = PlaneClient(self.plane, token_of(settings)).infer(MODEL, self.rows)
        prediction = answer["parameters"]["prediction_id"]
        self.ledger.note("prediction", prediction)
        value = float(random.randrange(2))
        with suppress(FalajError):
            told = self.client("engineer").post(
                f"/api/v1/models/{MODEL}/labels", {"labels": [{"prediction": prediction, "value": value}]}
            )
            if told["accepted"]:
                self.ledger.note("label", prediction)

    def _load(self) -> None:
        lines = (self.project / "data" / "flights.csv").read_text("utf-8").splitlines()
        some = random.sample(lines[1:], 40)
        name = f"flights-x{time.time_ns()}.csv"
        (self.project / "data" / name).write_text("\n".join([lines[0], *some]) + "\n", "utf-8")
        client = self.client("engineer")
        flow = client.post("/api/v1/datasets/flights/loads")["flow"]
        self.ledger.note("flow", flow)
        done = client.follow(flow, lambda _event: None)
        self.ledger.note("dataset", f"flights@{done['version']}:{done['digest']}")
        self.ledger.note("ended", flow)

    def _train(self) -> None:
        client = self.client("engineer")
        flow = client.post(f"/api/v1/models/{MODEL}/builds")["flow"]
        self.ledger.note("flow", flow)
        try:
            done = client.follow(flow, lambda _event: None)
        except FalajError as e:
            self.ledger.note("ended", flow)
            self.ledger.note("build_failed", e.code)
            return
        self.ledger.note("ended", flow)
        self.ledger.note("run", done["run"])
        self.ledger.note("version", done["digest"])
        if done["state"] == "awaiting approval":
            number = done["version"].rpartition("@")[2]
            risk = self.client("risk-officer")
            risk.post(f"/api/v1/models/{MODEL}/versions/{number}/approvals", {"reason": "seen", "hold": True})
            self.ledger.note("approval", done["digest"])

    def back_up(self, folder: Path) -> tuple[str, float, float]:
        """Take a backup; returns its id, the moment it was begun, and how long it took."""
        client = self.client("owner")
        begun = time.monotonic()
        backup = client.post("/api/v1/backups", {"to": str(folder)})["id"]
        while (state := client.get(f"/api/v1/backups/{backup}", wait=1.0))["state"] == "running":
            pass
        if state["state"] != "done":
            raise SystemExit(f"backup: {state['error']}")
        return backup, begun, time.monotonic() - begun


def missing(home: Path, facts: list[Fact]) -> list[str]:
    """What of the ledger a home does not hold."""
    with closing(sqlite3.connect(home / "falaj.db")) as truth, closing(sqlite3.connect(home / "metrics.db")) as metrics:

        def column(database: sqlite3.Connection, query: str) -> set[str]:
            return {str(row[0]) for row in database.execute(query)}

        held = {
            "token": column(truth, "SELECT id FROM tokens"),
            "revoked": column(truth, "SELECT id FROM tokens WHERE revoked_at IS NOT NULL"),
            "dataset": column(truth, "SELECT name || '@' || version || ':' || digest FROM dataset_versions"),
            "run": column(truth, "SELECT id FROM runs WHERE finished_at != ''"),
            "version": column(truth, "SELECT digest FROM versions WHERE state != 'candidate'"),
            "approval": column(truth, "SELECT digest FROM approvals"),
            "label": column(metrics, "SELECT prediction FROM labels"),
        }
    with closing(sqlite3.connect(home / "flows.db")) as flows:
        held["flow"] = {str(r[0]) for r in flows.execute("SELECT workflow_uuid FROM workflow_status")}
    found = [f"{kind} {name}" for kind, name in facts if kind in held and name not in held[kind]]
    unlock(home)
    for kind, name in facts:
        if kind == "prediction":
            try:
                read_record(home / "plane" / "journal", name)
            except (NotFound, Integrity):
                found.append(f"{kind} {name}")
    return found


def carried_on(home: Path, project: Path) -> list[str]:
    """Open a home and wait until its flows have ended; what is wrong then."""
    settings = Settings(home=home, project=project)
    going = [flow for flow, _, _ in under_way(home / "flows.db")]
    wrong: list[str] = []
    with connect(settings) as client:
        for flow in going:
            deadline = time.monotonic() + FLOW_SECONDS
            while (state := client.get(f"/api/v1/flows/{flow}", wait=5.0))["state"] == "running":
                if time.monotonic() > deadline:
                    wrong.append(f"{flow} does not end")
                    break
            if state["state"] == "failed" and state["error"]["code"] in ("flow_failed", ""):
                wrong.append(f"{flow} failed: {state['error']['error']}")
        if not client.post("/api/v1/audit/verification")["ok"]:
            wrong.append("the log does not verify")
    with closing(sqlite3.connect(home / "falaj.db")) as truth:
        entries = truth.execute(
            "SELECT operation_id, action FROM audit_entries WHERE outcome = 'done' AND operation_id != ''"
        )
        twice = [key for key, count in Counter(entries).items() if count > 1]
        wrong += [f"{operation} was done twice" for operation, _ in twice]
        for rows, added in truth.execute("SELECT max(rows), sum(added) FROM dataset_versions GROUP BY name"):
            if rows != added:
                wrong.append(f"{rows} rows where {added} were added")
    wrong += [f.text for f in examine(settings, deep=True).findings if f.level == BROKEN]
    return wrong


def same_beginning(home: Path, original: Path, size: int) -> bool:
    """Whether the first `size` entries of two logs are the same."""
    query = "SELECT leaf FROM audit_entries WHERE idx < ? ORDER BY idx"
    with closing(sqlite3.connect(home / "falaj.db")) as a, closing(sqlite3.connect(original / "falaj.db")) as b:
        return a.execute(query, (size,)).fetchall() == b.execute(query, (size,)).fetchall()


def unseen_flips(folder: Path, backup: str, keys: dict[str, bytes], count: int) -> tuple[int, int]:
    """Flip a byte of some files of a backup, one after another; (flips, those that were not refused)."""
    manifest = check_backup(folder, keys, backup, lambda *_: None)
    objects = sorted({f.sha256 for f in manifest.files if f.size})
    paths = [folder / "backups" / f"{backup}.json"]
    base = unwrapped(FileKey(keys[FILE]), BACKUPS, manifest.sealed)[0]
    paths += [folder / object_name(d, base) for d in random.sample(objects, min(count, len(objects)))]
    unseen = 0
    for path in paths:
        data = bytearray(path.read_bytes())
        place = random.randrange(len(data))
        data[place] ^= 1 << random.randrange(8)
        kept, _ = path.read_bytes(), path.write_bytes(data)
        try:
            check_backup(folder, keys, backup, lambda *_: None)
            unseen += 1
        except FalajError:
            pass
        path.write_bytes(kept)
    return len(paths), unseen


def controls(restored: Path, facts: list[Fact], plain: Path) -> list[str]:
    """Two ways that are no backup must be found out; returns those that were not."""
    passed = []
    spoilt = restored.with_name("spoilt")
    shutil.copytree(restored, spoilt)
    shutil.copyfile(plain, spoilt / "falaj.db")
    for path in spoilt.glob("falaj.db-*"):
        path.unlink()
    try:
        if not missing(spoilt, facts):
            passed.append("a plain copy of the database file")
    except sqlite3.Error:
        pass  # such a copy may be damaged, too
    shutil.copyfile(restored / "falaj.db", spoilt / "falaj.db")
    newest = max((spoilt / "plane" / "journal").glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_size)
    newest.unlink()
    if not missing(spoilt, facts):
        passed.append("a home without the tail of its journal")
    shutil.rmtree(spoilt)
    return passed


def prove(folder: Path, backups: int, seconds: float, sample: bool) -> int:
    world = World(folder)
    wrong: list[str] = []
    taken: list[tuple[str, float, float]] = []
    carried = compared = 0
    keys = read_folder(world.settings.home / "keys")
    plain = folder / "plain.db"
    try:
        threads = world.work(train=not sample)
        for _ in range(backups):
            time.sleep(seconds / backups * (0.5 + random.random()))
            taken.append(world.back_up(folder / "backups"))
        facts = world.ledger.until(time.monotonic())
        shutil.copyfile(world.settings.home / "falaj.db", plain)
        control = world.back_up(folder / "backups")
        world.stopping.set()
        for thread in threads:
            thread.join(FLOW_SECONDS)
        for number, (backup, begun, _) in enumerate(taken):
            home = folder / f"restored-{number}"
            done = restore(Restoring(folder / "backups", keys, home, backup), lambda *_: None)
            known = world.ledger.until(begun)
            compared += sum(kind not in ("refused", "ended", "build_failed") for kind, _ in known)
            wrong += [f"{backup}: {what} is missing" for what in missing(home, known)]
            if not same_beginning(home, world.settings.home, done.log_size):
                wrong.append(f"{backup}: its log is another one")
            carried += done.flows
            wrong += [f"{backup}: {what}" for what in carried_on(home, world.project)]
            shutil.rmtree(home)
        flips, unseen = unseen_flips(folder / "backups", taken[-1][0], keys, 20 if sample else 200)
        wrong += [f"{unseen} flipped bytes were not seen"] * bool(unseen)
        last = folder / "control"
        restore(Restoring(folder / "backups", keys, last, control[0]), lambda *_: None)
        wrong += [f"control: {what} was not found out" for what in controls(last, facts, plain)]
    finally:
        world.stopping.set()
        if running_control_plane(world.settings.home):
            stop(world.settings)
    for what in wrong[:20]:
        print(what, file=sys.stderr)
    kinds = Counter(kind for kind, _ in world.ledger.until(time.monotonic()))
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    slowest = max(took for _, _, took in taken)
    print(
        f"backup: {len(taken)} backups under load ({told}), the slowest in {slowest:.2f} s; restored, {compared:,} acknowledged"
        f" changes compared, {len(wrong)} differ; {carried} flows were carried on; {flips} flipped bytes, {unseen} unseen;"
        " both controls turned red"
        if not wrong
        else f"backup: {len(wrong)} things are wrong ({told})"
    )
    return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backups", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--sample", action="store_true", help="two backups within seconds, without trainings")
    options = parser.parse_args()
    backups, seconds = (2, 3.0) if options.sample else (options.backups, options.seconds)
    with tempfile.TemporaryDirectory(prefix="falaj-backup-") as folder:
        return prove(Path(folder), backups, seconds, options.sample)


if __name__ == "__main__":
    sys.exit(main())
