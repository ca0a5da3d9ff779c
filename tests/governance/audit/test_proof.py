from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.governance.audit import merkle, note, tiles
from falaj.governance.audit.proof import Proof, check_proof, encode_proof, parse_proof
from falaj.governance.audit.quorum import WitnessPolicy, parse_policy
from falaj.governance.audit.verify import check_extends
from falaj.kernel.errors import FalajError, Integrity, Invalid, NotFound
from tests.governance.audit.support import Log

Logs = Callable[[int], Log]
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 32) for name in "abc"}


def policy(needed: int) -> WitnessPolicy:
    lines = [f"witness {n} {note.verifier_of(n, k.public_key(), note.COSIGNATURE).vkey}" for n, k in KEYS.items()]
    return parse_policy("\n".join([*lines, f"group g {needed} a b c", "quorum g", ""]).encode())


def cosigned(proof: Proof, *names: str) -> Proof:
    text = note.unsigned(proof.checkpoint).text
    lines = "".join(note.cosign(text, n, KEYS[n], 1_700_000_000) for n in names)
    return msgspec.structs.replace(proof, checkpoint=proof.checkpoint + lines.encode())


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
def test_every_entry_is_proven_from_the_tiles(small_log: Logs, size: int) -> None:
    log = small_log(size)
    checkpoint = note.open_checkpoint(log.publisher.checkpoint, note.parse_vkey(log.publisher.vkey))
    rows = log.database.read(lambda tx: log.store.entries(tx, 0, size))
    nodes = tiles.stored_nodes(log.folder, size)
    leaves = [merkle.leaf_hash(r.data) for r in rows]
    kept = merkle.nodes_of(leaves)
    for index in range(size):
        path = merkle.inclusion_proof(nodes, index, size)
        assert path == merkle.inclusion_proof(kept, index, size)
        merkle.verify_inclusion(leaves[index], index, size, path, checkpoint.root)
    for old in {1, size // 2, size - 1, size} - {0}:
        path = merkle.consistency_proof(nodes, old, size)
        merkle.verify_consistency(old, size, merkle.root_from_leaves(leaves[:old]), checkpoint.root, path)


def test_a_proof_says_what_the_entry_is(small_log: Logs) -> None:
    log = small_log(300)
    data = log.service.prove(270)
    lines = data.decode().split("\n")
    assert (lines[0], lines[1][:6], lines[2]) == ("c2sp.org/tlog-proof@v1", "extra ", "index 270")
    found = check_proof(parse_proof(data), log.publisher.vkey)
    assert (found.index, found.size, found.entry.resource_id) == (270, 300, "m@270")
    with pytest.raises(NotFound, match="the log has 300"):
        log.service.prove(300)


def test_every_flipped_byte_of_a_proof_is_found(small_log: Logs) -> None:
    log = small_log(3)
    witnesses = policy(2)
    good = cosigned(parse_proof(log.service.prove(1)), "a", "b")
    data = encode_proof(good)
    assert len(check_proof(parse_proof(data), log.publisher.vkey, witnesses).witnesses) == 2
    for at in range(len(data)):
        for mask in (1 << at % 8, 0x20):
            flipped = data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
            with pytest.raises(FalajError):
                check_proof(parse_proof(flipped), log.publisher.vkey, witnesses)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 700))
def test_no_bytes_make_a_proof_by_chance(small_log: Logs, noise: bytes, at: int) -> None:
    log = small_log(3)
    data = log.service.prove(1)
    for bad in (noise, data[:at] + noise + data[at + 1 :]):
        if bad != data:
            with pytest.raises((Integrity, Invalid)):
                check_proof(parse_proof(bad), log.publisher.vkey)


def test_the_quorum_is_demanded(small_log: Logs) -> None:
    log = small_log(3)
    proof = parse_proof(log.service.prove(1))
    check_proof(proof, log.publisher.vkey)
    for names, needed, ok in (((), 1, False), (("a",), 1, True), (("a",), 2, False), (("a", "c"), 2, True)):
        given_proof = cosigned(proof, *names)
        if ok:
            check_proof(given_proof, log.publisher.vkey, policy(needed))
        else:
            with pytest.raises(Integrity, match="no quorum of witnesses") as e:
                check_proof(given_proof, log.publisher.vkey, policy(needed))
            assert e.value.code == "audit_unwitnessed"
    twice = cosigned(cosigned(proof, "a"), "a")
    with pytest.raises(Integrity, match="cosigned by a, needed: 2"):
        check_proof(twice, log.publisher.vkey, policy(2))
    other = msgspec.structs.replace(cosigned(proof, "a"), checkpoint=cosigned(proof, "a").checkpoint)
    wrong = note.cosign("falaj.example/log\n9\nAAAA\n", "b", KEYS["b"], 1)
    with pytest.raises(Integrity, match="signature by b is wrong"):
        check_proof(
            msgspec.structs.replace(other, checkpoint=other.checkpoint + wrong.encode()), log.publisher.vkey, policy(1)
        )


def test_a_proof_is_about_its_own_entry_index_and_log(small_log: Logs) -> None:
    log = small_log(3)
    proof = parse_proof(log.service.prove(1))
    other = parse_proof(log.service.prove(2))
    for changed in (
        msgspec.structs.replace(proof, index=2),
        msgspec.structs.replace(proof, extra=other.extra),
        msgspec.structs.replace(proof, hashes=other.hashes),
        msgspec.structs.replace(proof, hashes=proof.hashes[:-1]),
        msgspec.structs.replace(proof, hashes=(*proof.hashes, bytes(32))),
        msgspec.structs.replace(proof, extra=None),
    ):
        with pytest.raises(Integrity):
            check_proof(parse_proof(encode_proof(changed)), log.publisher.vkey)
    stranger = note.verifier_of("falaj.example/log", Ed25519PrivateKey.generate().public_key())
    with pytest.raises(Integrity, match="no signature by a known key"):
        check_proof(proof, stranger.vkey)
    with pytest.raises(Integrity, match="another entry"):
        check_proof(proof, log.publisher.vkey, entry=other.extra)


def test_two_checkpoints_are_consistent_or_not(log: Log, tmp_path: Path) -> None:
    log.append(5)
    log.publisher.publish()
    at_five = log.publisher.checkpoint
    log.append(290)
    found = log.service.consistency(5)
    hashes = [note.unbase64(h) for h in found.hashes]
    old, new = check_extends(at_five, found.checkpoint.encode(), log.publisher.vkey, hashes)
    assert (old.size, new.size) == (5, 295)
    fork = note.sign(note.Checkpoint(old.origin, 5, bytes(32)).text, [(old.origin, log.key)])
    with pytest.raises(Integrity, match="not proven to extend"):
        check_extends(fork, found.checkpoint.encode(), log.publisher.vkey, hashes)
    with pytest.raises(Integrity, match="no consistency proof from 295 to 5"):
        check_extends(found.checkpoint.encode(), at_five, log.publisher.vkey, hashes)
    middle = log.service.consistency(5, 100)
    leaves = [merkle.leaf_hash(r.data) for r in log.database.read(lambda tx: log.store.entries(tx, 0, 100))]
    merkle.verify_consistency(
        5, 100, old.root, merkle.root_from_leaves(leaves), [note.unbase64(h) for h in middle.hashes]
    )
    for old_size, new_size in ((0, 5), (6, 5), (5, 296)):
        with pytest.raises(Invalid):
            log.service.consistency(old_size, new_size)
