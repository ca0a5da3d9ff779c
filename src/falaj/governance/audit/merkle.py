"""The Merkle tree of RFC 6962, section 2.1: hashes, the growing edge, proofs and their verification.

Leaves are given as leaf *hashes* (32 bytes) everywhere but in `leaf_hash`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from falaj.kernel.errors import Integrity, Invalid

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Nodes = Callable[[int, int], bytes]
"""`nodes(level, i)`: the hash of the full subtree over leaves i·2^level to (i+1)·2^level."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_leaves(leaves: Sequence[bytes]) -> bytes:
    """The Merkle tree hash over leaf hashes (or over equal full subtrees); of none, SHA-256 of nothing."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        # An odd last node moves up as it is: the same tree as RFC 6962's recursive split.
        odd = level[len(level) & ~1 :]
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)] + odd
    return level[0]


def peaks(leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """The roots of the full subtrees that make up `leaves`, largest first."""
    found, start = [], 0
    for bit in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> bit & 1:
            found.append(root_from_leaves(leaves[start : start + (1 << bit)]))
            start += 1 << bit
    return tuple(found)


class Frontier(msgspec.Struct, frozen=True):
    """All that must be kept of a tree to let it grow: its size and the roots of its full subtrees, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes. Raises `Integrity` for a hash that is not 32 bytes."""
        stack, size = list(self.peaks), self.size
        for leaf in leaves:
            node, below = _hash32(leaf), size
            while below & 1:
                node = node_hash(stack.pop(), node)
                below >>= 1
            stack.append(node)
            size += 1
        return Frontier(size, tuple(stack))

    def root(self) -> bytes:
        """The root of the tree."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            root = node_hash(peak, root)
        return root


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """All full subtrees of a tree that is held in memory."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])
    return lambda level, i: levels[level][i]


def inclusion_proof(nodes: Nodes, index: int, size: int) -> tuple[bytes, ...]:
    """PATH(index, D[size]): what leads from leaf `index` to the root of the first `size` leaves."""
    if not 0 <= index < size:
        raise Invalid(
            f"entry {index} is not in a tree of {size}", hint="ask for an index below the size", code="no_such_proof"
        )
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_subtree(nodes, middle, end))
            end = middle
        else:
            proof.append(_subtree(nodes, start, middle))
            start = middle
    return tuple(reversed(proof))


def consistency_proof(nodes: Nodes, old: int, new: int) -> tuple[bytes, ...]:
    """PROOF(old, D[new]): that the first `old` leaves of the tree of `new` are the tree of `old`."""
    if not 0 < old <= new:
        raise Invalid(
            f"there is no consistency proof from {old} to {new}",
            hint="the sizes must satisfy 0 < old ≤ new; the first tree that one sees needs no proof",
            code="no_such_proof",
        )
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_subtree(nodes, middle, end))
            end = middle
        else:
            proof.append(_subtree(nodes, start, middle))
            start, whole = middle, False
    if not whole:
        proof.append(_subtree(nodes, start, end))
    return tuple(reversed(proof))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` is entry `index` of the tree (RFC 9162, 2.1.3.2). Raises `Integrity` if it is not proven."""
    if not 0 <= index < size:
        raise _unproven(f"entry {index} cannot be in a tree of {size}")
    place, last, node = index, size - 1, _hash32(leaf)
    for step in proof:
        if last == 0:
            raise _unproven("the inclusion proof is too long")
        if place & 1 or place == last:
            node = node_hash(_hash32(step), node)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, _hash32(step))
        place, last = place >> 1, last >> 1
    if last != 0 or node != _hash32(root):
        raise _unproven(f"entry {index} is not proven to be in the tree of {size}")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that one tree extends another (RFC 9162, 2.1.4.2). Raises `Integrity` if it is not proven.

    A proof from size 0 proves nothing and is refused.
    """
    if not 0 < old <= new:
        raise _unproven(f"there is no consistency proof from {old} to {new}")
    if old == new:
        if proof or _hash32(old_root) != _hash32(new_root):
            raise _unproven(f"two different trees of size {old}")
        return
    path = [_hash32(step) for step in proof]
    if old & (old - 1) == 0:
        path.insert(0, _hash32(old_root))
    if not path:
        raise _unproven("the consistency proof is empty")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for step in path[1:]:
        if last == 0:
            raise _unproven("the consistency proof is too long")
        if place & 1 or place == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, step)
        place, last = place >> 1, last >> 1
    if last != 0 or before != _hash32(old_root) or after != _hash32(new_root):
        raise _unproven(f"the tree of {new} is not proven to extend the tree of {old}")


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(nodes: Nodes, start: int, end: int) -> bytes:
    """MTH(D[start:end]), where `start` is a multiple of the power of two that splits the range."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return nodes(level, start >> level)
    middle = start + _split(count)
    return node_hash(_subtree(nodes, start, middle), _subtree(nodes, middle, end))


def _hash32(value: bytes) -> bytes:
    if len(value) != HASH_SIZE:
        raise _unproven(f"a hash has {len(value)} bytes instead of {HASH_SIZE}")
    return value


def _unproven(message: str) -> Integrity:
    return Integrity(message, hint="fetch the proof again; if it stays so, the log was changed", code="audit_unproven")
