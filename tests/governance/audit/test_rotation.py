"""The log's key is replaced: whoever holds any of its keys follows, a crash anywhere leaves one key or the other."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from falaj.governance.audit import merkle, note, rotation, tiles
from falaj.governance.audit.export import place
from falaj.governance.audit.proof import check_proof, encode_path, parse_proof
from falaj.governance.audit.quorum import parse_policy
from falaj.governance.audit.rotation import Rotation, follow, parse, state, stored
from falaj.governance.audit.sharded import prove_extends
from falaj.governance.audit.verify import check_extends, demanding_quorum, verify_folder
from falaj.governance.audit.witness import Witness, create
from falaj.governance.audit.witnessing import Answer, Witnesses
from falaj.kernel.errors import Conflict, FalajError, Integrity, Invalid, NotFound, Unavailable
from tests.governance.audit.loghome import ORIGIN, LogHome
from tests.governance.support import ADMIN


@pytest.fixture
def home(tmp_path: Path) -> Iterator[LogHome]:
    made = LogHome(tmp_path / "home")
    made.busy()
    yield made
    made.database.close()


def test_a_disk_that_fills_up_in_mid_rotation_lets_the_old_key_sign_nothing_more(
    home: LogHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rotation is committed by then: what the old key signed now would stand beyond its own end."""
    write, old = tiles.write_files, home.publisher.vkey

    def full(folder: Path, files: dict[str, bytes]) -> None:
        if any(name.startswith("rotation/") for name in files):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, files)

    monkeypatch.setattr(tiles, "write_files", full)
    with pytest.raises(Unavailable, match="went no further"):
        home.rotate()
    monkeypatch.undo()
    lying = (home.log / "checkpoint").read_bytes()
    for _ in range(2):
        with pytest.raises(Unavailable, match="went no further") as refused:
            home.busy(1)
        assert "restart" in refused.value.hint
    assert (home.log / "checkpoint").read_bytes() == lying
    home.restart()
    home.busy(1)
    report = verify_folder(home.log, old)
    assert report.ok and report.rotations == 1, report.problems
    assert home.publisher.vkey != old and home.audit.verify().ok


def test_every_key_that_the_log_had_leads_to_the_newest(home: LogHome, tmp_path: Path) -> None:
    vkeys, kept = [home.publisher.vkey], [home.publisher.checkpoint]
    for _ in range(2):
        told = home.rotate()
        assert told.vkey == home.publisher.vkey and told.vkey not in vkeys
        vkeys.append(told.vkey)
        kept.append(home.busy())
    folder = home.exported(tmp_path / "copy")
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint", "rotation", "tile", "vkey"]
    for vkey in vkeys:
        report = verify_folder(folder, vkey, exported=True)
        assert report.ok and report.rotations == 2, report.problems
        for checkpoint in kept:
            first, last = prove_extends(checkpoint, folder, vkey)
            assert first.size <= last.size == report.size
    assert verify_folder(folder, None, exported=True).ok and home.audit.verify().ok
    note.open_checkpoint(home.publisher.checkpoint, note.parse_vkey(vkeys[-1]))  # as any C2SP reader does
    stranger = note.verifier_of(ORIGIN, Ed25519PrivateKey.generate().public_key()).vkey
    assert not verify_folder(folder, stranger, exported=True).ok


def test_only_who_may_and_says_why_and_the_log_says_so(home: LogHome) -> None:
    with pytest.raises(Invalid):
        home.keys.rotate(ADMIN, " ")
    with pytest.raises(Invalid):
        home.keys.rotate(ADMIN, "é" * 2000)
    old = home.keys.records()[0]
    told = home.rotate()
    now, before = home.keys.records()
    assert (now.fingerprint, before.fingerprint) == (told.new, told.old) == (told.new, old.fingerprint)
    assert (before.until, before.why, before.reason, before.pem) == (told.until, "rotated", "a new year", old.pem)
    assert (home.log / told.statement).read_bytes() == stored(home.log)[0]
    home.restart()
    assert home.publisher.vkey == told.vkey and home.audit.verify().ok
    assert not (home.ring.folder / ".log.next").exists()


def test_proofs_and_checkpoints_from_before_and_after_hold_by_either_key(home: LogHome) -> None:
    old, kept = home.publisher.vkey, home.publisher.checkpoint
    before = parse_proof(home.audit.prove(0))
    new = home.rotate().vkey
    home.busy()
    after, statements = parse_proof(home.audit.prove(0)), home.publisher.statements
    for vkey in (old, new):
        for proof in (before, after):
            assert check_proof(proof, vkey, rotations=statements).index == 0
    for vkey, proof in ((old, after), (new, before)):
        with pytest.raises(Integrity):
            check_proof(proof, vkey)
    found = home.audit.consistency(note.unsigned(kept).size)
    hashes = [note.unbase64(h) for h in found.hashes]
    told = [s.encode() for s in found.rotations]
    assert check_extends(kept, found.checkpoint.encode(), old, hashes, told)[1].size == found.new


def test_an_earlier_export_is_brought_up_to_date_by_the_key_that_it_has(home: LogHome, tmp_path: Path) -> None:
    place(home.exported(tmp_path / "new1"), tmp_path / "copy", None)
    home.rotate()
    home.busy()
    report = place(home.exported(tmp_path / "new2"), tmp_path / "copy", None)
    assert report.ok and (tmp_path / "copy" / "vkey").read_text().strip() == home.publisher.vkey
    stolen = home.exported(tmp_path / "new3")
    shutil.rmtree(stolen / "rotation")
    with pytest.raises(Integrity):
        place(stolen, tmp_path / "copy", None)
    assert verify_folder(tmp_path / "copy", home.publisher.vkey, exported=True).ok  # what was there stays


def test_the_old_key_signs_nothing_beyond_its_end(home: LogHome, tmp_path: Path) -> None:
    old, vkey = home.ring.log, home.publisher.vkey
    home.rotate()
    home.busy()
    folder = home.exported(tmp_path / "copy")
    head = note.unsigned((folder / "checkpoint").read_bytes())
    (folder / "checkpoint").write_bytes(note.sign(head.text, [(ORIGIN, old)]))
    report = verify_folder(folder, vkey, exported=True)
    assert not report.ok and "beyond" in report.problems[0]
    keys = rotation.keys_in(folder, vkey)
    end = keys.rotations[0]
    other = note.Checkpoint(ORIGIN, end.size, merkle.leaf_hash(b"another tree"))
    with pytest.raises(Integrity) as refused:
        keys.open(note.sign(other.text, [(ORIGIN, old)]))
    assert refused.value.code == "audit_key_replaced"


def test_every_flipped_byte_of_a_statement_is_found_and_named(home: LogHome, tmp_path: Path) -> None:
    vkey = home.publisher.vkey
    home.rotate()
    home.busy()
    folder = home.exported(tmp_path / "copy")
    path = folder / "rotation/1"
    good = path.read_bytes()
    for at in range(len(good)):
        for mask in (1, 0x20, 0x80):
            path.write_bytes(good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])
            report = verify_folder(folder, vkey, exported=True)
            assert not report.ok and "rotation/1" in report.problems[0], (at, mask, report.problems)
    for wrong in (good + good, good[:-1], good + b"\n", b""):
        path.write_bytes(wrong)
        assert not verify_folder(folder, vkey, exported=True).ok
    path.write_bytes(good)
    assert verify_folder(folder, vkey, exported=True).ok
    (folder / "rotation/2").write_bytes(good)
    assert not verify_folder(folder, vkey, exported=True).ok
    (folder / "rotation/2").rename(folder / "rotation/3")
    assert "rotation/3" in "".join(verify_folder(folder, vkey, exported=True).problems)


def test_a_statement_that_the_log_does_not_hold_leads_nowhere(home: LogHome, tmp_path: Path) -> None:
    """Who has the old key can write another one. It is no entry of this log."""
    vkey, thief = home.publisher.vkey, Ed25519PrivateKey.generate()
    last = note.unsigned(home.publisher.checkpoint)
    names = [note.verifier_of(ORIGIN, k.public_key()) for k in (home.ring.log, thief)]
    forged = state(Rotation(names[0], names[1], last.size, last.root), home.ring.log, thief)
    home.busy()
    folder = home.exported(tmp_path / "copy")
    (folder / "rotation").mkdir()
    (folder / "rotation/1").write_bytes(forged)
    (folder / "vkey").write_text(names[1].vkey + "\n")
    head = note.unsigned((folder / "checkpoint").read_bytes())
    (folder / "checkpoint").write_bytes(note.sign(head.text, [(ORIGIN, thief)]))
    assert any("no entry" in p for p in verify_folder(folder, vkey, exported=True).problems)


def test_a_rotation_without_its_statement_is_missed(home: LogHome, tmp_path: Path) -> None:
    new = home.rotate().vkey
    folder = home.exported(tmp_path / "copy")
    shutil.rmtree(folder / "rotation")
    report = verify_folder(folder, new, exported=True)
    assert not report.ok and "has no statement" in report.problems[0]


@pytest.mark.parametrize("wrong", ["one key", "swapped", "other name", "a checkpoint", "long", "no text", "size"])
def test_what_is_no_statement_is_refused(wrong: str) -> None:
    one, two = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    old, new = (note.verifier_of(ORIGIN, k.public_key()) for k in (one, two))
    told = Rotation(old, new, 3, bytes(32))
    good = state(told, one, two)
    assert parse(good) == told
    made: dict[str, Callable[[], bytes]] = {
        "one key": lambda: note.sign(told.text, [(ORIGIN, one)]),
        "swapped": lambda: note.sign(told.text, [(ORIGIN, two), (ORIGIN, one)]),
        "other name": lambda: state(Rotation(old, note.verifier_of("x", two.public_key()), 3, bytes(32)), one, two),
        "a checkpoint": lambda: note.sign(note.Checkpoint(ORIGIN, 3, bytes(32)).text, [(ORIGIN, one), (ORIGIN, two)]),
        "long": lambda: good + b" " * rotation.MAX_STATEMENT,
        "no text": lambda: b"\xff" + good,
        "size": lambda: note.sign(told.text.replace("\n3\n", "\n03\n"), [(ORIGIN, one), (ORIGIN, two)]),
    }
    with pytest.raises(Integrity) as refused:
        parse(made[wrong]())
    assert refused.value.code == "bad_rotation"
    with pytest.raises(Integrity):  # and no reader takes a statement for a checkpoint
        note.open_checkpoint(good, old)


def test_statements_that_do_not_follow_each_other_are_refused(home: LogHome) -> None:
    vkeys = [home.publisher.vkey, *(home.rotate().vkey for _ in range(3))]
    one, two, three = home.publisher.statements
    trusted = note.parse_vkey(vkeys[0])
    assert follow(trusted, [one, two, three]).newest.vkey == vkeys[3]
    for wrong in ([one, three], [two, one], [one, one], [two, three]):
        with pytest.raises(Integrity):
            follow(trusted, wrong)


def test_the_logs_key_moves_to_where_the_settings_say(home: LogHome, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    monkeypatch.setenv("LOG_KEY", pem.decode())
    old = home.publisher.vkey
    home.restart(log="env:LOG_KEY")
    assert home.publisher.vkey == old  # a setting alone changes nothing
    told = home.rotate()
    home.restart()
    assert home.ring.place("log") == "env:LOG_KEY" and home.publisher.vkey == told.vkey
    home.busy()
    monkeypatch.delenv("LOG_KEY")  # the place is away: nothing is signed, and nothing is lost
    with pytest.raises(Unavailable):
        home.busy()
    monkeypatch.setenv("LOG_KEY", pem.decode())
    home.busy(1)
    assert home.audit.verify().ok and verify_folder(home.log, old).ok


# crashes


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("where", ["prepare", "committed", "statement", "vkey", "taken over", "published"])
def test_a_crash_leaves_one_key_or_the_other(home: LogHome, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, size = home.publisher.vkey, home.audit.size()

    def crash(*_: Any, **__: Any) -> Any:
        raise Crash

    def after(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: (real(*a, **k), crash()))

    written = rotation_files = 0
    if where == "prepare":
        monkeypatch.setattr(home.door, "change", crash)
    elif where == "committed":
        after(home.door, "change")
    elif where in ("statement", "vkey"):
        from falaj.governance.audit import tiles

        real = tiles.write_files

        def counted(folder: Path, files: dict[str, bytes]) -> None:
            nonlocal rotation_files
            real(folder, files)
            rotation_files += bool({"rotation/1", "vkey"} & files.keys())
            if rotation_files == (1 if where == "statement" else 2):
                crash()

        monkeypatch.setattr(tiles, "write_files", counted)
    elif where == "taken over":
        after(home.ring, "take_over")
    else:
        after(home.publisher, "take_over")
    with pytest.raises(Crash):
        home.rotate()
    monkeypatch.undo()
    home.restart()
    home.publisher.publish()
    rotated = where != "prepare"
    assert (home.publisher.vkey != old) is rotated and len(home.publisher.statements) == rotated + written
    assert home.audit.size() == size + rotated
    assert home.audit.verify().ok and verify_folder(home.log, old).ok, verify_folder(home.log, old)
    assert home.rotate().vkey != old  # and it goes on from there
    assert verify_folder(home.log, old).rotations == rotated + 1 and home.audit.verify().ok


# witnesses


class Watched:
    """A home with one witness that must cosign."""

    def __init__(self, home: LogHome, folder: Path) -> None:
        self.home = home
        vkey = create(folder, "w.example")
        self.witness = Witness(folder, home.clock)
        self.witness.trust(home.publisher.vkey)
        self.policy = parse_policy(f"witness w {vkey} http://w\nquorum w\n".encode())
        home.witnesses = self.ask()
        home.restart()
        home.publisher.publish()
        assert home.publisher.witnessed()

    def ask(self) -> Witnesses:
        return Witnesses(self.policy, self._post)

    def _post(self, _url: str, body: bytes) -> Answer:
        reply = self.witness.add_checkpoint(body)
        return Answer(reply.status, reply.kind.partition(";")[0], reply.body)


def test_a_witness_follows_when_its_operator_says_so(home: LogHome, tmp_path: Path) -> None:
    watched, old = Watched(home, tmp_path / "w"), home.publisher.vkey
    told = home.rotate()
    assert home.publisher.quorum is False
    standing = home.audit.standing().witnesses[0]
    assert standing.state == "stranger" and "rotation" in standing.why
    statement = (home.log / told.statement).read_bytes()
    with pytest.raises(Conflict) as refused:
        watched.witness.trust(told.vkey)
    assert "follow" in refused.value.hint
    assert watched.witness.follow(statement) == told.vkey == watched.witness.follow(statement)
    assert watched.witness.logs()[0].vkey == told.vkey  # what it cosigned before, by the old key, holds
    home.publisher.cosigners = watched.ask()
    home.busy()
    assert home.publisher.witnessed()
    report = demanding_quorum(verify_folder(home.log, old, watched.policy), watched.policy)
    assert report.ok and report.quorum, report.problems
    for _ in range(2):
        watched.witness.follow((home.log / home.rotate().statement).read_bytes())
    home.publisher.cosigners = watched.ask()
    assert home.publisher.witnessed() and watched.witness.logs()[0].size == home.publisher.signed_size


def test_a_witness_follows_no_statement_that_does_not_fit(home: LogHome, tmp_path: Path) -> None:
    watched, old = Watched(home, tmp_path / "w"), home.ring.log
    seen, thief = note.unsigned(home.publisher.checkpoint), Ed25519PrivateKey.generate()
    names = [note.verifier_of(ORIGIN, k.public_key()) for k in (old, thief)]

    def told(size: int, root: bytes, by: Any = old) -> bytes:
        first = note.verifier_of(ORIGIN, by.public_key())
        return state(Rotation(first, names[1], size, root), by, thief)

    for wrong in (
        told(seen.size - 1, seen.root),
        told(seen.size, bytes(32)),
        told(9999, bytes(32), Ed25519PrivateKey.generate()),
    ):
        with pytest.raises(Integrity) as refused:
            watched.witness.follow(wrong)
        assert refused.value.code == "rotation_not_followed"
    elsewhere = note.verifier_of("other.example", thief.public_key())
    other = note.verifier_of("other.example", old.public_key())
    with pytest.raises(NotFound):
        watched.witness.follow(state(Rotation(other, elsewhere, 0, merkle.EMPTY_ROOT), old, thief))
    assert watched.witness.logs()[0].vkey == home.publisher.vkey
    body = b"old %d\n" % seen.size + b"\n" + note.sign(seen.text, [(ORIGIN, thief)])
    assert watched.witness.add_checkpoint(body).status == 403 and encode_path(()) == []


def test_a_broken_memory_of_a_witness_is_no_key(home: LogHome, tmp_path: Path) -> None:
    watched = Watched(home, tmp_path / "w")
    watched.witness.follow((home.log / home.rotate().statement).read_bytes())
    (path,) = (tmp_path / "w").glob("logs/*/rotation/1")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FalajError):
        watched.witness.logs()
