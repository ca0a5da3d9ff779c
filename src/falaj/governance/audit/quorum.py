"""Who must have seen a checkpoint before it is believed: a policy file of c2sp.org/tlog-policy.

witness ours   witness.example/w1+8d66cf3f+BK…  https://witness.example
witness theirs other.example/w+03a1b2c4+BD…     https://other.example/witness
group   both   2 ours theirs
quorum  both
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

import msgspec

from falaj.governance.audit.note import COSIGNATURE, Verifier, parse_vkey
from falaj.kernel.errors import FalajError, Invalid

NONE = "none"
"""The quorum that asks for no witness."""
MAX_POLICY = 100_000
"""Bytes of a policy at the most."""
_URL = re.compile(r"https?://[^\s/?#]+[^\s?#]*\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}\Z")


class Witness(msgspec.Struct, frozen=True):
    """A witness as a policy names it. `url` is its submission prefix; empty where it is not to be asked."""

    name: str
    verifier: Verifier
    url: str = ""


class Group(msgspec.Struct, frozen=True):
    """`needed` of `members` (witnesses and earlier groups) must have seen a checkpoint."""

    name: str
    needed: int
    members: tuple[str, ...]


class WitnessPolicy(msgspec.Struct, frozen=True):
    """Which logs and witnesses are known, and which of the witnesses suffice."""

    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NONE
    logs: tuple[Verifier, ...] = ()

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The witnesses' keys."""
        return tuple(w.verifier for w in self.witnesses)

    def met(self, signers: Collection[str]) -> bool:
        """Whether the witnesses with these vkeys suffice."""
        if self.quorum == NONE:
            return True
        seen = {w.name: w.verifier.vkey in signers for w in self.witnesses}
        for group in self.groups:  # each names only what stands before it
            seen[group.name] = sum(seen[m] for m in group.members) >= group.needed
        return seen[self.quorum]

    @property
    def rule(self) -> str:
        """The quorum in words: `2 of ours, theirs`."""
        group = next((g for g in self.groups if g.name == self.quorum), None)
        return self.quorum if group is None else f"{group.needed} of {', '.join(group.members)}"


def parse_policy(data: bytes) -> WitnessPolicy:
    """Read a policy file. Raises `Invalid`, naming the line, for anything that the format does not allow."""
    if len(data) > MAX_POLICY:
        raise _wrong(0, f"it is larger than {MAX_POLICY} bytes")
    reader = _Reader()
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        if any(c < " " and c != "\t" for c in line):
            raise _wrong(number, "it holds a control character")
        words = line.replace("\t", " ").split(" ")
        words = [w for w in words if w]
        if words and not words[0].startswith("#"):
            reader.line(number, words)
    return reader.policy()


class _Reader:
    """The lines so far."""

    def __init__(self) -> None:
        self._logs: list[Verifier] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._free: dict[str, bool] = {}  # each name, and whether no group has it yet
        self._quorum = ""
        self._keys: set[bytes] = set()

    def line(self, number: int, words: list[str]) -> None:
        known: dict[str, Callable[[int, list[str]], None]] = {
            "log": self._log, "witness": self._witness, "group": self._group, "quorum": self._quorum_line,
        }  # fmt: skip
        if words[0] not in known:
            raise _wrong(number, f"{words[0][:40]!r} begins no line of a policy")
        known[words[0]](number, words[1:])

    def policy(self) -> WitnessPolicy:
        if not self._quorum:
            raise _wrong(0, "it has no quorum line")
        return WitnessPolicy(tuple(self._witnesses), tuple(self._groups), self._quorum, tuple(self._logs))

    def _log(self, number: int, words: list[str]) -> None:
        if not 1 <= len(words) <= 2:
            raise _wrong(number, "a log is `log VKEY [URL]`")
        self._logs.append(self._key(number, words[0], None))

    def _witness(self, number: int, words: list[str]) -> None:
        if not 2 <= len(words) <= 3:
            raise _wrong(number, "a witness is `witness NAME VKEY [URL]`")
        url = words[2].rstrip("/") if len(words) == 3 else ""
        if url and not _URL.match(url):
            raise _wrong(number, f"{url[:80]!r} is no address of a witness")
        self._name(number, words[0])
        self._witnesses.append(Witness(words[0], self._key(number, words[1], COSIGNATURE), url))

    def _group(self, number: int, words: list[str]) -> None:
        if len(words) < 3:
            raise _wrong(number, "a group is `group NAME K|any|all NAME…`")
        name, count, members = words[0], words[1], words[2:]
        for member in members:
            if not self._free.get(member, False):
                raise _wrong(number, f"{member[:40]!r} is not named above it, or is in a group already")
            self._free[member] = False
        needed = {"any": 1, "all": len(members)}.get(count) or (int(count) if _NUMBER.match(count) else 0)
        if not 1 <= needed <= len(members):
            raise _wrong(number, f"a group of {len(members)} needs 1 to {len(members)} of them, or any, or all")
        self._name(number, name)
        self._groups.append(Group(name, needed, tuple(members)))

    def _quorum_line(self, number: int, words: list[str]) -> None:
        if self._quorum or len(words) != 1:
            raise _wrong(number, "there is one quorum, with one name")
        if words[0] != NONE and words[0] not in self._free:
            raise _wrong(number, f"{words[0][:40]!r} is not named above it")
        self._quorum = words[0]

    def _name(self, number: int, name: str) -> None:
        if name == NONE or name in self._free:
            raise _wrong(number, f"the name {name[:40]!r} is taken")
        self._free[name] = True

    def _key(self, number: int, vkey: str, kind: int | None) -> Verifier:
        try:
            verifier = parse_vkey(vkey) if kind is None else parse_vkey(vkey, kind)
        except FalajError as e:
            raise _wrong(number, e.message) from e
        if verifier.public in self._keys:
            raise _wrong(number, "this key stands above already: one key is one witness")
        self._keys.add(verifier.public)
        return verifier


def _wrong(number: int, why: str) -> Invalid:
    at = f"line {number} of the witness policy" if number else "the witness policy"
    return Invalid(
        f"{at} is wrong: {why}",
        hint="the format is c2sp.org/tlog-policy: lines `witness NAME VKEY URL`, `group NAME K NAME…`, `quorum NAME`",
        code="bad_witness_policy",
    )
