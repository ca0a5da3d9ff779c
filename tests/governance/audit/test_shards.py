"""The log in shards: whoever holds a key or a checkpoint of any of them gets to all, and none can be dropped or exchanged."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, update

from falaj.governance.audit import note, shards, tiles
from falaj.governance.audit.export import place
from falaj.governance.audit.model import Conditions
from falaj.governance.audit.proof import check_proof, parse_proof
from falaj.governance.audit.quorum import parse_policy
from falaj.governance.audit.sharded import extended, prove_extends, verify_log, verify_rows
from falaj.governance.audit.sharding import ShardService
from falaj.governance.audit.store import audit_entries, audit_head
from falaj.governance.audit.verify import demanding_quorum, verify_folder
from falaj.governance.audit.witness import Witness, create
from falaj.governance.audit.witnessing import Answer, Witnesses
from falaj.kernel.errors import Denied, Integrity, Invalid, NotFound
from falaj.storage.sql.sqlite import SqliteDatabase
from tests.governance.audit.loghome import ORIGIN, LogHome
from tests.governance.support import ADMIN, ENGINEER


@pytest.fixture
def home(tmp_path: Path) -> Iterator[LogHome]:
    made = LogHome(tmp_path / "home")
    made.busy()
    yield made
    made.database.close()


def test_a_shard_is_a_log_of_its_own_that_links_lead_to_and_from(home: LogHome, tmp_path: Path) -> None:
    vkeys, kept = [home.publisher.vkey], [home.publisher.checkpoint]
    for number in (2, 3):
        before = home.audit.size()
        told = home.shard()
        assert (told.number, told.first, told.place) == (number, before, f"shard/{number}/")
        vkeys.append(told.vkey)
        kept.append(home.busy(300))
    assert [s.origin for s in home.audit.shards()] == [ORIGIN, f"{ORIGIN}/2026", f"{ORIGIN}/2026.2"]
    assert [s.sealed for s in home.audit.shards()] == [True, True, False]
    home.holds()
    folder = home.exported(tmp_path / "copy")
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "shard", "tile", "vkey"]
    assert sorted(p.name for p in (folder / "shard").iterdir()) == ["2", "3"]
    for vkey in vkeys:  # whoever trusts any of them
        report = verify_log(folder, vkey, exported=True)
        assert report.ok and (report.shards, report.size) == (3, home.audit.size()), report.problems
        for checkpoint in kept:
            first, last = prove_extends(checkpoint, folder, vkey)
            assert last.origin == f"{ORIGIN}/2026.2" and first == note.unsigned(checkpoint)
    for number, vkey in enumerate(vkeys, 1):  # each by itself, as a foreign C2SP reader sees it
        raw = (folder / shards.place(number) / "checkpoint").read_bytes()
        head = note.open_checkpoint(raw, note.parse_vkey(vkey))
        assert bool(head.extensions) is (number < 3)
    assert verify_folder(folder / "shard/2", vkeys[1], exported=True).ok
    stranger = note.verifier_of(ORIGIN, Ed25519PrivateKey.generate().public_key()).vkey
    assert not verify_log(folder, stranger, exported=True).ok


def test_a_log_that_was_never_sealed_is_what_it_was(home: LogHome, tmp_path: Path) -> None:
    folder = home.exported(tmp_path / "copy")
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "tile", "vkey"]
    by_one = verify_folder(folder, home.publisher.vkey, exported=True)
    assert verify_log(folder, home.publisher.vkey, exported=True) == by_one
    kept = parse_proof(home.audit.prove(1))
    home.shard()
    home.busy()
    assert check_proof(kept, note.verifier_of(ORIGIN, home.ring.log.public_key()).vkey).index == 1


def test_only_who_may_and_says_why_and_the_log_says_so(home: LogHome) -> None:
    for wrong in (" ", "é" * 2000):
        with pytest.raises(Invalid):
            home.shards.begin(ADMIN, wrong)
    with pytest.raises(Denied):
        home.shards.begin(ENGINEER, "why not")
    assert len(home.audit.shards()) == 1
    ended = home.publisher.publish()
    told = home.shard()
    (found,) = home.audit.search(Conditions(action="audit.shard", outcome="done"))
    detail = found.entry.detail
    assert found.index == told.first == ended.size and detail["reason"] == "a new year" and detail["vkey"] == told.vkey
    assert detail["previous"] == {"vkey": detail["previous"]["vkey"], "size": ended.size, "root": ended.root}
    assert detail["previous"]["vkey"].startswith(f"{ORIGIN}+")


def test_proofs_consistency_and_search_over_all_shards(home: LogHome) -> None:
    kept = home.publisher.checkpoint
    home.shard()
    later = home.busy()
    home.shard()
    home.busy()
    shown = home.audit.search(Conditions(limit=1000))
    assert [f.index for f in shown] == list(range(home.audit.size()))[::-1] and all(f.signed for f in shown)
    for index in range(home.audit.size()):
        proof = parse_proof(home.audit.prove(index))
        shard = next(s for s in reversed(home.audit.shards()) if s.first <= index)
        proven = check_proof(proof, shard.vkey)
        assert (proven.index, proven.origin) == (index - shard.first, shard.origin)
        assert proven.entry == shown[-1 - index].entry
    with pytest.raises(NotFound):
        home.audit.prove(home.audit.size())
    for old in (kept, later):
        head = note.unsigned(old)
        answer = home.audit.consistency(head.size, origin=head.origin)
        parts = [
            shards.Part(s.checkpoint.encode(), tuple(r.encode() for r in s.rotations), s.link.encode())
            for s in answer.shards
        ]
        hashes = [note.unbase64(h) for h in answer.hashes]
        for shard in home.audit.shards():
            assert extended(old, parts, shard.vkey, lambda *_: hashes)[1].origin == f"{ORIGIN}/2026.2"  # noqa: B023
        with pytest.raises(Integrity):
            extended(old, parts[:-1], home.publisher.vkey, lambda *_: hashes)  # noqa: B023
    with pytest.raises(Invalid):
        home.audit.consistency(1, origin="falaj.example/other")
    with pytest.raises(NotFound):
        home.audit.tree(4)


def test_an_export_grows_over_shards_and_is_refused_when_they_went_back(home: LogHome, tmp_path: Path) -> None:
    place(home.exported(tmp_path / "new1"), tmp_path / "copy", None)
    home.shard()
    home.busy()
    place(home.exported(tmp_path / "new2"), tmp_path / "copy", None)
    home.shard()
    assert place(home.exported(tmp_path / "new3"), tmp_path / "copy", None).shards == 3
    shorter = home.exported(tmp_path / "new4")
    shutil.rmtree(shorter / "shard/3")
    with pytest.raises(Integrity):
        place(shorter, tmp_path / "copy", None)
    assert verify_log(tmp_path / "copy", None, exported=True).ok  # what was there stays


def test_the_key_is_replaced_within_a_shard_and_the_next_begins_with_it(home: LogHome, tmp_path: Path) -> None:
    vkeys = [home.publisher.vkey, home.keys.rotate(ADMIN, "old").vkey]
    vkeys.append(home.shard().vkey)
    assert home.publisher.statements == []
    told = home.keys.rotate(ADMIN, "old again")
    assert told.statement == "shard/2/rotation/1" and (home.log / told.statement).exists()
    vkeys.append(told.vkey)
    home.restart()
    home.busy()
    home.shard()
    home.holds()
    folder = home.exported(tmp_path / "copy")
    for vkey in vkeys:
        report = verify_log(folder, vkey, exported=True)
        assert report.ok and (report.shards, report.rotations) == (3, 2), report.problems
    assert len(home.keys.records()) == 3


def test_entries_of_many_writers_lose_nothing_over_the_switch(home: LogHome) -> None:
    started, stop, written = threading.Barrier(5), threading.Event(), []

    def write(name: int) -> None:
        started.wait()
        for n in range(2000):
            if stop.is_set():
                return
            event = f"op_{name}_{n}"
            with pytest.raises(Denied):
                home.keys.rotate(ENGINEER, event)
            written.append(event)

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    home.publisher.start()
    for one in writers:
        one.start()
    started.wait()
    begun = [home.shard() for _ in range(5)]
    stop.set()
    for one in writers:
        one.join()
    home.publisher.stop()
    home.holds()
    assert [s.first for s in home.audit.shards()] == [0, *(b.first for b in begun)]
    denied = home.audit.search(Conditions(principal=ENGINEER.name, limit=1000, outcome="denied"))
    assert len(written) == 0 or len(denied) == min(1000, len(written) + 3)
    assert home.audit.size() == len(written) + 3 + 5


# periods


def test_a_shard_begins_with_its_period_and_only_once(home: LogHome) -> None:
    home.clock.shows = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    home.restart("year")
    assert home.shards.turn() is None
    home.clock.forward(minutes=2)
    assert ShardService(home.publisher, home.database, home.store, home.door, "none").turn() is None
    told = home.shards.turn()
    assert told is not None and told.origin == f"{ORIGIN}/2027" and home.shards.turn() is None
    home.clock.shows = datetime(2026, 5, 1, tzinfo=UTC)  # a clock that goes back begins nothing
    assert home.shards.turn() is None
    home.restart("month")
    home.clock.shows = datetime(2027, 2, 1, tzinfo=UTC)
    told = home.shards.turn()
    assert told is not None and told.origin == f"{ORIGIN}/2027-02"
    (entry,) = home.audit.search(Conditions(action="audit.turn", limit=1))
    assert entry.entry.principal == "falaj" and entry.entry.detail["reason"] == "2027-02 has begun"
    home.holds()


def test_names_of_shards() -> None:
    assert shards.name_for("a/log", "2027", []) == "a/log/2027"
    assert shards.name_for("a/log", "2027", ["a/log/2027", "a/log/2027.2"]) == "a/log/2027.3"
    assert shards.is_shard_of("a/log/2027", "a/log") and shards.is_shard_of("a/log/2028-01.2", "a/log/2027")
    for other in ("a/other", "a/log", "a/log/x", "b/log/2027", "2027", "a/log/2027/2028", "a/2027"):
        assert not shards.is_shard_of(other, "a/log"), other
    for path in ("shard/2/checkpoint", "checkpoint", "tile/0/000"):
        assert shards.split(path) is not None
    for path in ("shard/1/checkpoint", "shard/02/vkey", "shard/x/vkey", "shard/99999/vkey", "shard/0/vkey"):
        assert shards.split(path) is None


# what may not pass


@pytest.fixture
def copy(home: LogHome, tmp_path: Path) -> Callable[[], Path]:
    """Fresh copies of a log in three shards."""
    for _ in range(2):
        home.shard()
        home.busy()
    folder = home.exported(tmp_path / "good")
    made = iter(range(100))

    def again() -> Path:
        to = tmp_path / f"copy{next(made)}"
        shutil.copytree(folder, to)
        return to

    return again


def other_log(tmp_path: Path, home: LogHome) -> Path:
    """Another log by the same key under the same names, in three shards."""
    made = LogHome(tmp_path / "other")
    shutil.rmtree(made.folder / "keys")
    shutil.copytree(home.folder / "keys", made.folder / "keys")
    made.restart()
    made.busy(4)
    for _ in range(2):
        made.shard()
        made.busy(4)
    folder = made.exported(tmp_path / "foreign")
    made.database.close()
    return folder


def test_a_dropped_or_exchanged_shard_and_a_cut_link_are_found_and_named(
    home: LogHome, copy: Callable[[], Path], tmp_path: Path
) -> None:
    foreign = other_log(tmp_path, home)
    vkeys = [s.vkey for s in home.audit.shards()]

    def swap(folder: Path, number: int) -> None:
        shutil.rmtree(folder / f"shard/{number}")
        shutil.copytree(foreign / f"shard/{number}", folder / f"shard/{number}")

    def behead(folder: Path) -> None:
        second = folder.with_name(f"{folder.name}-second")
        shutil.move(folder / "shard/2", second)
        shutil.move(folder / "shard/3", second / "shard/2")
        shutil.rmtree(folder)
        shutil.move(second, folder)

    def unsealed(folder: Path) -> None:
        head = note.unsigned((folder / "checkpoint").read_bytes())
        text = note.Checkpoint(head.origin, head.size, head.root).text
        (folder / "checkpoint").write_bytes(note.sign(text, [(ORIGIN, home.ring.log)]))

    def moved(folder: Path) -> None:
        shutil.move(folder / "shard/2", folder / "shard/4")

    deeds: list[tuple[Callable[[Path], object], str]] = [
        (lambda f: shutil.rmtree(f / "shard/3"), "shard/3: it is missing"),
        (lambda f: shutil.rmtree(f / "shard/2"), "shard/2: it is missing"),
        (lambda f: swap(f, 2), "shard/"),
        (lambda f: swap(f, 3), "shard/3"),
        (unsealed, "the first shard: its checkpoint is not final"),
        (behead, f"{ORIGIN}: it is missing"),
        (moved, "shard/4"),
        (lambda f: shutil.copytree(f / "shard/3", f / "shard/4"), "shard/4"),
        (lambda f: shutil.copytree(f / "shard/3", f / "shard/x"), "shard/x"),
        (lambda f: (f / "shard/2/checkpoint").unlink(), "shard/2: checkpoint"),
    ]
    for deed, named in deeds:
        folder = copy()
        deed(folder)
        for vkey in (*vkeys, None):
            report = verify_log(folder, vkey, exported=True)
            assert not report.ok, named
        reports = [verify_log(folder, vkey, exported=True).problems for vkey in vkeys]
        assert any(named in text for problems in reports for text in problems), (named, reports)
    assert verify_log(copy(), vkeys[0], exported=True).ok


def test_every_byte_of_the_link_is_bound(home: LogHome, copy: Callable[[], Path]) -> None:
    folder, vkey = copy(), home.audit.shards()[1].vkey
    for name in ("checkpoint", "shard/2/checkpoint", "shard/2/vkey"):
        good = (folder / name).read_bytes()
        for at in range(len(good)):
            (folder / name).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            report = verify_log(folder, vkey, exported=True)
            at_fault = name.replace("shard/2/", "shard/2: ")
            assert not report.ok and any(at_fault in text for text in report.problems), (name, at, report.problems)
        (folder / name).write_bytes(good)


def test_rows_are_held_against_the_shard_that_they_are_in(home: LogHome) -> None:
    first = home.audit.shards()[0].size
    home.shard()
    home.busy()
    rows = home.database.read(lambda tx: home.store.entries(tx, 0, 10_000))

    def some(start: int, end: int | None) -> list[Any]:
        return [r for r in rows if start <= r.index < (10_000 if end is None else end)]

    assert verify_rows(some, home.log).ok
    good = list(rows)
    for at in (0, first - 1, first, len(rows) - 1):
        rows[at : at + 1] = []
        problems = verify_rows(some, home.log).problems
        assert any(f"entry {at}: it is missing" in text for text in problems), (at, problems)
        rows[:] = good


def test_a_database_that_forgot_a_shard_signs_nothing(home: LogHome) -> None:
    told = home.shard()
    home.busy()
    home.database.change(lambda tx: tx.execute(delete(audit_entries).where(audit_entries.c.idx >= told.first)))
    home.database.change(lambda tx: tx.execute(update(audit_head).values(size=told.first)))
    home.restart()
    with pytest.raises(Integrity) as refused:
        home.publisher.publish()
    assert "sealed" in refused.value.message
    with pytest.raises(Integrity):
        home.busy()
    assert not home.audit.verify().ok


# crashes


class Crash(BaseException):
    """The process ends here."""


def test_a_crash_at_any_file_of_the_switch_ends_before_or_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, limit = tiles.write_files, 0, 0

    def counted(folder: Path, files: dict[str, bytes]) -> None:
        nonlocal calls
        for name, data in files.items():
            if calls == limit:
                raise Crash
            calls += 1
            real(folder, {name: data})

    done = False
    for limit in range(100):
        home, calls = LogHome(tmp_path / f"home{limit}"), 0
        old = home.publisher.vkey
        home.busy()
        monkeypatch.setattr(tiles, "write_files", counted)
        try:
            home.shard()
            done = True
        except Crash:
            done = False
        monkeypatch.undo()
        committed = len(home.audit.search(Conditions(action="audit.shard", outcome="done")))
        if not done:
            assert verify_log(home.log, old, midway=True).ok, verify_log(home.log, old, midway=True).problems
        home.restart()
        home.busy()
        home.holds()
        assert len(home.audit.shards()) == 1 + committed and committed == (1 if done else committed)
        assert verify_log(home.log, old).ok
        home.database.close()
        if done:
            break
    assert limit >= 5 and done  # files of the switch: at least one of each kind


# witnesses


class Watched:
    """A home with a witness that must cosign; `silent` ones answer nothing."""

    def __init__(self, home: LogHome, folder: Path) -> None:
        self.home, self.silent = home, False
        vkey = create(folder, "w.example")
        self.witness = Witness(folder, home.clock)
        self.witness.trust(home.publisher.vkey)
        self.policy = parse_policy(f"witness w {vkey} http://w\nquorum w\n".encode())
        self.restart()
        home.publisher.publish()
        assert home.publisher.witnessed()

    def restart(self) -> None:
        self.home.witnesses = Witnesses(self.policy, self._post)
        self.home.restart()

    def _post(self, _url: str, body: bytes) -> Answer:
        if self.silent:
            raise OSError("away")
        reply = self.witness.add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)


def test_a_witness_follows_along_the_link_by_itself(home: LogHome, tmp_path: Path) -> None:
    watched, old = Watched(home, tmp_path / "w"), home.publisher.vkey
    for _ in range(2):
        home.shard()
        home.busy()
        assert home.publisher.witnessed() and home.publisher.quorum
    seen = watched.witness.logs()
    assert [s.origin for s in seen] == [s.origin for s in home.audit.shards()]
    assert [s.next for s in seen] == [f"{ORIGIN}/2026", f"{ORIGIN}/2026.2", ""]
    report = demanding_quorum(verify_log(home.log, old, watched.policy), watched.policy)
    assert report.ok and report.quorum, report.problems
    home.holds()


def test_a_witness_that_was_away_over_two_switches_catches_up(home: LogHome, tmp_path: Path) -> None:
    watched = Watched(home, tmp_path / "w")
    watched.silent = True
    for _ in range(2):
        home.shard()
        home.busy()
    assert home.publisher.witnessed() is False
    watched.silent = False
    watched.restart()
    home.publisher.publish()
    assert home.publisher.witnessed() and len(watched.witness.logs()) == 3


def test_a_crash_while_a_sealed_shard_gets_its_lines_is_tidied_up(home: LogHome) -> None:
    home.shard()
    (home.log / "checkpoint.new").write_bytes(b"half")
    home.restart()
    home.holds()


def test_a_witness_goes_nowhere_but_along_the_link(home: LogHome, tmp_path: Path) -> None:
    watched = Watched(home, tmp_path / "w")
    told = home.shard()
    last = note.unsigned((home.log / "checkpoint").read_bytes())
    plain = note.Checkpoint(last.origin, last.size, last.root)

    def ask(head: note.Checkpoint, old: int, key: Any = home.ring.log) -> int:
        body = f"old {old}\n\n".encode() + note.sign(head.text, [(head.origin, key)])
        return watched.witness.add_checkpoint(body).status

    assert ask(last, last.size) == 200  # what it is sealed with is said again
    elsewhere = shards.sealed(plain, note.verifier_of(f"{ORIGIN}/2031", home.ring.log.public_key()).vkey)
    for other in (plain, elsewhere, note.Checkpoint(ORIGIN, last.size + 1, bytes(32))):
        assert ask(other, last.size) == 422
    assert watched.witness.logs()[0].refused == {"beyond": 3}
    assert ask(note.Checkpoint(f"{ORIGIN}/2031", 1, bytes(32)), 0) == 404
    # A link to another key, or to a name that is no shard of this log, leads nowhere.
    stranger = Ed25519PrivateKey.generate()
    grows = note.unsigned(home.publisher.checkpoint)
    before = len(watched.witness.logs())
    for vkey in (
        note.verifier_of(f"{ORIGIN}/2027", stranger.public_key()).vkey,
        note.verifier_of("somebody.else/log", home.ring.log.public_key()).vkey,
        "no key",
    ):
        fresh = Witness(tmp_path / "w", home.clock)
        final = shards.sealed(note.Checkpoint(told.origin, grows.size, grows.root), vkey)
        assert ask(final, grows.size) in (200, 422)
        assert len(fresh.logs()) == before


def test_an_old_copy_of_the_home_from_before_the_switch_is_noticed(home: LogHome, tmp_path: Path) -> None:
    watched = Watched(home, tmp_path / "w")
    home.database.close()
    shutil.copytree(home.folder, tmp_path / "old")
    home.database = SqliteDatabase(home.folder / "falaj.db", durable=False)
    watched.restart()
    home.busy()
    home.shard()
    home.database.close()
    shutil.rmtree(home.folder)
    shutil.copytree(tmp_path / "old", home.folder)
    home.database = SqliteDatabase(home.folder / "falaj.db", durable=False)
    watched.restart()
    home.publisher.publish()
    home.publisher.witnessed()
    assert home.audit.standing().witnesses[0].state == "refused"
    home.shard()  # and sealing it does not help
    assert home.publisher.witnessed() is False and len(watched.witness.logs()) == 2
