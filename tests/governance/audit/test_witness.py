"""A witness beside a log: what it cosigns, what it refuses, and what the log makes of it."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.governance.audit import merkle, note, tiles
from falaj.governance.audit.model import WitnessStanding
from falaj.governance.audit.proof import encode_path
from falaj.governance.audit.publisher import Publisher
from falaj.governance.audit.quorum import parse_policy
from falaj.governance.audit.verify import demanding_quorum, verify_folder
from falaj.governance.audit.witness import Witness, create
from falaj.governance.audit.witnessing import Answer, Witnesses
from falaj.kernel.errors import Conflict, Integrity
from tests.governance.audit.support import Log
from tests.governance.support import StillClock


class Watched:
    """A log with three witnesses; `down` do not answer."""

    def __init__(self, log: Log, folder: Path, needed: int = 2) -> None:
        self.log = log
        self.clock = StillClock()
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.told: list[tuple[str, ...]] = []
        self.witnesses = {}
        lines = []
        log.publisher.publish()
        for name in ("one", "two", "three"):
            vkey = create(folder / name, f"{name}.example")
            self.witnesses[name] = Witness(folder / name, self.clock)
            self.witnesses[name].trust(log.publisher.vkey)
            lines.append(f"witness {name} {vkey} http://{name}")
        self.policy = parse_policy("\n".join([*lines, f"group g {needed} one two three", "quorum g", ""]).encode())
        self.attach()

    def attach(self) -> None:
        """A new process of the home asks the same witnesses."""
        self.log.restart()
        self.log.publisher.cosigners = Witnesses(self.policy, self.post, self.tell)

    def tell(self, refusing: tuple[WitnessStanding, ...]) -> None:
        self.told.append(tuple(w.name for w in refusing))

    def post(self, url: str, body: bytes) -> Answer:
        name = url.removeprefix("http://").removesuffix("/add-checkpoint")
        self.asked.append(name)
        if name in self.down:
            raise ConnectionRefusedError("nobody is there")
        reply = self.witnesses[name].add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)

    def publish(self) -> bool | None:
        self.log.publisher.publish()
        return self.log.publisher.witnessed()

    def states(self) -> dict[str, str]:
        return {s.name: s.state for s in self.log.service.standing().witnesses}


@pytest.fixture
def watched(log: Log, tmp_path: Path) -> Watched:
    return Watched(log, tmp_path / "witnesses")


def request(old: int, checkpoint: bytes, hashes: tuple[bytes, ...] = ()) -> bytes:
    return "\n".join([f"old {old}", *encode_path(hashes), "", ""]).encode() + checkpoint


def made(log: Log, size: int, root: bytes) -> bytes:
    return note.sign(note.Checkpoint("falaj.example/log", size, root).text, [("falaj.example/log", log.key)])


def test_a_checkpoint_is_cosigned_and_verified(watched: Watched) -> None:
    log = watched.log
    for step in (1, 3, 300, 0, 700):
        log.append(step)
        assert watched.publish() is True
        report = verify_folder(log.folder, log.publisher.vkey, watched.policy)
        assert (report.ok, report.quorum, sorted(report.witnesses)) == (True, True, ["one", "three", "two"])
    for one in watched.witnesses.values():
        (seen,) = one.logs()
        assert (seen.size, seen.refused) == (1004, {})
    assert watched.told == [()]
    assert verify_folder(log.folder, log.publisher.vkey).unchecked == 3


def test_a_checkpoint_without_quorum_is_shown_as_such(watched: Watched) -> None:
    log = watched.log
    log.append(3)
    watched.down = {"one", "two"}
    assert watched.publish() is False
    assert watched.states() == {"one": "silent", "two": "silent", "three": "cosigned"}
    standing = log.service.standing()
    assert (standing.quorum, standing.rule) == (False, "2 of one, two, three")
    verification = log.service.verify()
    assert verification.ok
    assert verification.folder.quorum is False
    report = demanding_quorum(verify_folder(log.folder, log.publisher.vkey, watched.policy), watched.policy)
    assert not report.ok
    assert report.problems == (
        "checkpoint: it has no quorum of witnesses: cosigned by three, needed: 2 of one, two, three",
    )
    watched.down = {"one"}
    assert log.publisher.witnessed() is True  # the same checkpoint gets the line that was missing
    assert watched.told == []


def test_a_silent_witness_is_asked_again_only_after_a_pause(watched: Watched) -> None:
    watched.down = {"two"}
    watched.log.append(1)
    watched.publish()
    watched.asked.clear()
    watched.log.append(1)
    watched.log.publisher.publish()
    watched.log.publisher.witnessed(patient=True)
    assert sorted(watched.asked) == ["one", "three"]


def test_the_background_asks(watched: Watched) -> None:
    log, done = watched.log, threading.Event()
    cosigners = log.publisher.cosigners
    assert isinstance(cosigners, Witnesses)
    cosigners.trouble = lambda _refusing: done.set()  # told once every witness has cosigned
    log.append(5)
    log.publisher.start()
    assert done.wait(10)
    log.publisher.stop()
    assert verify_folder(log.folder, log.publisher.vkey, watched.policy).quorum


def test_an_old_backup_that_was_restored_is_noticed(watched: Watched, tmp_path: Path) -> None:
    log = watched.log
    log.append(10)
    watched.publish()
    log.database.close()
    shutil.copytree(log.home, tmp_path / "backup", ignore=shutil.ignore_patterns("witnesses"))
    log.open()
    watched.attach()
    log.append(20)
    assert watched.publish() is True
    log.database.close()
    for name in ("falaj.db", "falaj.db-wal", "falaj.db-shm"):
        (log.home / name).unlink(missing_ok=True)
    shutil.rmtree(log.folder)
    shutil.copytree(tmp_path / "backup", log.home, dirs_exist_ok=True)  # database and published log, both old and whole
    log.open()
    watched.attach()
    watched.publish()
    assert log.service.verify().folder.ok  # by its own bytes nothing is wrong
    assert set(watched.states().values()) == {"refused"}
    assert watched.told[-1] == ("one", "two", "three")
    assert "it has seen 30 entries of this log, which has 10 now" in log.service.standing().witnesses[0].why
    log.clock.shows = log.clock.shows.replace(year=2027)
    log.append(25)  # it goes on, past what was seen, with another history
    assert watched.publish() is False
    assert "are no beginning of the 35" in log.service.standing().witnesses[0].why
    assert watched.witnesses["one"].logs()[0].refused == {"behind": 1, "unproven": 1}
    assert watched.told[-1] == ("one", "two", "three")


def test_a_fork_of_the_same_size_is_kept_as_proof(watched: Watched) -> None:
    log = watched.log
    log.append(7)
    watched.publish()
    one = watched.witnesses["one"]
    fork = made(log, 7, bytes(32))
    assert one.add_checkpoint(request(7, fork)).status == 409
    assert one.logs()[0].refused == {"fork": 1}
    (kept,) = (one.folder / "logs").glob("*/refused/fork-*")
    assert kept.read_bytes() == fork
    assert one.add_checkpoint(request(7, fork)).status == 409
    assert one.logs()[0].refused == {"fork": 1}


def test_statuses_of_the_protocol(watched: Watched) -> None:
    log, one = watched.log, watched.witnesses["one"]
    log.append(7)
    log.publisher.publish()
    raw = log.publisher.checkpoint
    assert one.add_checkpoint(request(8, raw)).status == 400  # old is above the size
    assert one.add_checkpoint(request(0, raw, (bytes(32),))).status == 422  # from 0 nothing is proven
    other = Ed25519PrivateKey.generate()
    text = note.unsigned(raw).text
    assert one.add_checkpoint(request(0, note.sign(text, [("falaj.example/log", other)]))).status == 403
    stranger = note.Checkpoint("stranger.example/log", 1, bytes(32)).text
    assert one.add_checkpoint(request(0, note.sign(stranger, [("stranger.example/log", other)]))).status == 404
    good = one.add_checkpoint(request(0, raw))
    assert good.status == 200
    _, opened = note.open_witnessed(
        raw + good.body, note.parse_vkey(log.publisher.vkey), [note.parse_vkey(one.vkey, note.COSIGNATURE)]
    )
    assert opened.times == {one.vkey: int(watched.clock.shows.timestamp())}
    again = one.add_checkpoint(request(0, raw))
    assert (again.status, again.body, again.kind) == (409, b"7\n", "text/x.tlog.size")
    assert one.add_checkpoint(request(7, raw)).status == 200  # once more, with the time of now
    assert one.add_checkpoint(request(7, raw, (bytes(32),))).status == 422
    log.append(3)
    log.publisher.publish()
    newer = log.publisher.checkpoint
    path = merkle.consistency_proof(tiles.stored_nodes(log.folder, 10), 7, 10)
    assert one.add_checkpoint(request(7, newer, (bytes(32),) * len(path))).status == 422
    assert one.add_checkpoint(request(7, newer, path)).status == 200
    assert one.add_checkpoint(request(7, raw)).body == b"10\n"
    assert one.logs()[0].refused == {"behind": 1, "unproven": 2}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"old 0\n", b"old 00\n\nx", b"old -1\n\nx", b"old 1 \n\nx", b"old 0\nAAAA=\n\nx", b"old 0\n\nx\n",
        b"old 0\n" + b"AAAA\n" * 64 + b"\nx", b"old 0\n\n" + b"x" * 70_000, "old ٣\n\nx".encode(),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(watched: Watched, body: bytes) -> None:
    assert watched.witnesses["one"].add_checkpoint(body).status == 400


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 60))
def test_no_bytes_are_cosigned_by_chance(watched: Watched, noise: bytes, at: int, gone: int) -> None:
    log, one = watched.log, watched.witnesses["one"]
    if log.service.size() < 7:
        log.append(7)
        log.publisher.publish()
    good = request(0, log.publisher.checkpoint)
    bad = good[:at] + noise + good[at + gone :]
    if not bad.startswith(good):  # further lines by strangers change nothing
        assert one.add_checkpoint(bad).status in (400, 403, 404, 409, 422)


def test_many_logs_ask_at_once_and_the_memory_never_goes_back(watched: Watched) -> None:
    log, one = watched.log, watched.witnesses["one"]
    checkpoints = []
    for _ in range(12):
        log.append(3)
        log.publisher.publish()
        checkpoints.append((log.publisher.signed_size, log.publisher.checkpoint))
    last = checkpoints[-1][0]
    nodes = tiles.stored_nodes(log.folder, last)

    def climb(place: int) -> list[int]:
        old, sizes = 0, []
        for size, raw in checkpoints[place % 3 :: 3]:
            while old <= size:
                path = merkle.consistency_proof(nodes, old, size) if 0 < old < size else ()
                reply = one.add_checkpoint(request(old, raw, path))
                assert reply.status in (200, 409), reply
                if reply.status == 200:
                    sizes.append(size)
                    old = size
                    break
                old = int(reply.body)
        return sizes

    with ThreadPoolExecutor(6) as pool:
        cosigned = [s for found in pool.map(climb, range(6)) for s in found]
    (seen,) = one.logs()
    assert seen.size == max(cosigned) == last
    assert set(seen.refused) <= {"behind"}  # late ones only: nothing was taken for a fork


def test_the_memory_is_written_before_the_answer(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    log, one = watched.log, watched.witnesses["one"]
    log.append(2)
    log.publisher.publish()

    def full(_folder: Path, _files: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiles, "write_files", full)
    with pytest.raises(OSError, match="No space"):
        one.add_checkpoint(request(0, log.publisher.checkpoint))
    monkeypatch.undo()
    assert one.logs()[0].size == 0


def test_a_memory_that_was_changed_is_not_gone_on_from(watched: Watched) -> None:
    log, one = watched.log, watched.witnesses["one"]
    log.append(2)
    watched.publish()
    (path,) = (one.folder / "logs").glob("*/checkpoint")
    path.write_bytes(made(log, 1, bytes(32)))  # by the log's own key, and not cosigned
    with pytest.raises(Integrity, match="not what it cosigned"):
        one.add_checkpoint(request(1, log.publisher.checkpoint))


def test_a_witness_has_one_key_and_a_log_one(tmp_path: Path, log: Log) -> None:
    vkey = create(tmp_path / "w", "w.example")
    with pytest.raises(Conflict, match="not empty"):
        create(tmp_path / "w", "w.example")
    one = Witness(tmp_path / "w", StillClock())
    assert one.vkey == vkey
    assert (one.folder / "key.pem").stat().st_mode & 0o077 == 0
    one.trust(log.publisher.vkey)
    assert one.trust(log.publisher.vkey) == "falaj.example/log"
    other = note.verifier_of("falaj.example/log", Ed25519PrivateKey.generate().public_key())
    with pytest.raises(Conflict, match="another key"):
        one.trust(other.vkey)
    create(tmp_path / "v", "v.example")
    shutil.copy(tmp_path / "v/key.pem", tmp_path / "w/key.pem")
    with pytest.raises(Integrity, match="not the folder of a witness"):
        Witness(tmp_path / "w", StillClock())


def test_an_answer_by_another_key_is_not_believed(watched: Watched) -> None:
    watched.witnesses["one"] = watched.witnesses["two"]
    watched.log.append(1)
    watched.publish()
    assert watched.states()["one"] == "silent"
    assert "no line by its own key" in watched.log.service.standing().witnesses[0].why


def test_a_stranger_is_told_apart_from_a_refusal(watched: Watched) -> None:
    shutil.rmtree(watched.witnesses["one"].folder / "logs")
    watched.log.append(1)
    assert watched.publish() is True
    assert watched.states()["one"] == "stranger"
    assert watched.told == []


def test_lines_by_witnesses_that_are_not_asked_any_more_are_dropped(watched: Watched) -> None:
    log = watched.log
    log.append(2)
    watched.publish()
    log.restart()
    log.publisher.publish()
    assert len(note.lines_of((log.folder / "checkpoint").read_bytes())) == 1
    assert verify_folder(log.folder, log.publisher.vkey, watched.policy).ok


def test_a_changed_cosignature_stops_the_publisher_and_is_named(watched: Watched) -> None:
    log = watched.log
    log.append(2)
    watched.publish()
    path = log.folder / "checkpoint"
    data = path.read_bytes()
    path.write_bytes(data[:-6] + (b"A" if data[-6:-5] != b"A" else b"B") + data[-5:])
    report = verify_folder(log.folder, log.publisher.vkey, watched.policy)
    assert report.problems == ("checkpoint: the signature by three.example is wrong",)
    watched.attach()
    log.append(1)
    with pytest.raises(Integrity, match=r"three\.example is wrong"):
        log.publisher.publish()


def test_every_flipped_byte_of_a_cosigned_checkpoint_is_found(watched: Watched) -> None:
    log = watched.log
    log.append(3)
    watched.publish()
    path = log.folder / "checkpoint"
    data = path.read_bytes()
    for at in range(len(data)):
        for mask in (1 << at % 8, 0x20):
            path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            report = verify_folder(log.folder, log.publisher.vkey, watched.policy)
            assert not report.ok, (at, mask)
            assert any("checkpoint" in p for p in report.problems), (at, mask, report.problems)
    path.write_bytes(data)


def test_the_publisher_is_the_same_without_witnesses(log: Log) -> None:
    log.append(1)
    publisher = Publisher(log.database, log.store, log.folder, log.key, "falaj.example/log", log.clock)
    publisher.publish()
    assert publisher.witnessed() is None
    assert msgspec.to_builtins(log.service.standing())["quorum"] is None
