from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.audit import merkle
from falaj.kernel.errors import Integrity, Invalid

REFERENCE = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
REFERENCE_ROOT = "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg="


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(str(i).encode()) for i in range(count)]


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


def test_reference_tree() -> None:
    hashes = [merkle.leaf_hash(bytes.fromhex(text)) for text in REFERENCE]
    assert base64.b64encode(merkle.root_from_leaves(hashes)).decode() == REFERENCE_ROOT
    assert base64.b64encode(merkle.Frontier().extend(hashes).root()).decode() == REFERENCE_ROOT


def test_empty_tree() -> None:
    assert merkle.root_from_leaves([]) == merkle.Frontier().root() == hashlib.sha256(b"").digest()


@given(st.integers(0, 70), st.integers(0, 70))
def test_frontier_grows_to_the_same_root(first: int, more: int) -> None:
    hashes = leaves(first + more)
    frontier = merkle.Frontier().extend(hashes[:first])
    assert frontier.root() == merkle.root_from_leaves(hashes[:first]) == mth(hashes[:first])
    grown = frontier.extend(hashes[first:])
    assert grown.size == first + more
    assert grown.root() == merkle.root_from_leaves(hashes) == mth(hashes)
    assert grown.peaks == merkle.peaks(hashes)


@given(st.data())
def test_inclusion_is_proven_and_nothing_else(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    hashes = leaves(size)
    root = merkle.root_from_leaves(hashes)
    proof = list(merkle.inclusion_proof(merkle.nodes_of(hashes), index, size))
    merkle.verify_inclusion(hashes[index], index, size, proof, root)

    other = hashlib.sha256(b"other").digest()
    wrong = [
        (other, index, size, proof, root),
        (hashes[index], index, size, proof, other),
        (hashes[index], index, size, [*proof, other], root),
        (hashes[index], size, size, proof, root),
        (hashes[index], -1, size, proof, root),
        (hashes[index], index, size, proof, root[:-1]),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong.append((hashes[index], index, size, [*proof[:at], other, *proof[at + 1 :]], root))
        wrong.append((hashes[index], index, size, [*proof[:at], proof[at][:31], *proof[at + 1 :]], root))
        wrong.append((hashes[index], index, size, proof[:-1], root))
        wrong.append(
            (hashes[index], data.draw(st.integers(0, size - 1).filter(lambda i: i != index)), size, proof, root)
        )
    for case in wrong:
        with pytest.raises(Integrity):
            merkle.verify_inclusion(*case)


@given(st.data())
def test_consistency_is_proven_and_nothing_else(data: st.DataObject) -> None:
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, new))
    hashes = leaves(new)
    old_root, new_root = merkle.root_from_leaves(hashes[:old]), merkle.root_from_leaves(hashes)
    proof = list(merkle.consistency_proof(merkle.nodes_of(hashes), old, new))
    merkle.verify_consistency(old, new, old_root, new_root, proof)

    other = hashlib.sha256(b"other").digest()
    wrong = [
        (old, new, other, new_root, proof),
        (old, new, old_root, other, proof),
        (old, new, old_root, new_root, [*proof, other]),
        (0, new, merkle.EMPTY_ROOT, new_root, proof),
        (new + 1, new, old_root, new_root, proof),
        (old, new, old_root[:31], new_root, proof),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong.append((old, new, old_root, new_root, [*proof[:at], other, *proof[at + 1 :]]))
        wrong.append((old, new, old_root, new_root, [*proof[:at], proof[at] + b"\0", *proof[at + 1 :]]))
        wrong.append((old, new, old_root, new_root, proof[:-1]))
        wrong.append((old, new, old_root, new_root, []))
    for case in wrong:
        with pytest.raises(Integrity):
            merkle.verify_consistency(*case)


def test_consistency_of_every_small_pair() -> None:
    hashes = leaves(40)
    nodes = merkle.nodes_of(hashes)
    for new in range(1, 41):
        for old in range(1, new + 1):
            roots = merkle.root_from_leaves(hashes[:old]), merkle.root_from_leaves(hashes[:new])
            merkle.verify_consistency(old, new, *roots, merkle.consistency_proof(nodes, old, new))


def test_what_cannot_be_asked() -> None:
    nodes = merkle.nodes_of(leaves(3))
    with pytest.raises(Invalid):
        merkle.consistency_proof(nodes, 0, 3)
    with pytest.raises(Invalid):
        merkle.inclusion_proof(nodes, 3, 3)
    with pytest.raises(Integrity):
        merkle.Frontier().extend([b"short"])
