from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from falaj.governance.audit.note import COSIGNATURE, ED25519, verifier_of
from falaj.governance.audit.quorum import parse_policy
from falaj.kernel.errors import Invalid


def vkey(n: int, kind: int = COSIGNATURE) -> str:
    key = Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)
    return verifier_of(f"w{n}.example", key.public_key(), kind).vkey


NESTED = f"""
# two of ours, and any of theirs
log {vkey(9, ED25519)}
witness X1 {vkey(1)} https://x1.example/witness/
witness X2 {vkey(2)}
\twitness  X3 {vkey(3)}
group X 2 X1 X2 X3
witness Y1 {vkey(4)}
witness Y2 {vkey(5)}
group Y any Y1 Y2
group both all X Y
quorum both
"""


def test_groups_of_groups() -> None:
    policy = parse_policy(NESTED.encode())
    assert policy.witnesses[0].url == "https://x1.example/witness"
    assert [log.name for log in policy.logs] == ["w9.example"]
    for signers, met in (
        ((), False),
        ((1, 2), False),
        ((1, 4), False),
        ((1, 2, 4), True),
        ((2, 3, 5), True),
        ((4, 5, 1), False),
        ((1, 2, 3, 4, 5), True),
    ):
        assert policy.met([vkey(n) for n in signers]) is met, signers


def test_a_quorum_of_one_and_of_none() -> None:
    one = parse_policy(f"witness a {vkey(1)}\nquorum a\n".encode())
    assert (one.met([vkey(1)]), one.met([vkey(2)])) == (True, False)
    assert parse_policy(b"quorum none\n").met([])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no quorum"),
        (f"witness a {vkey(1)}\n", "no quorum"),
        ("quorum a\n", "not named"),
        (f"witness a {vkey(1)}\nquorum a\nquorum a\n", "one quorum"),
        (f"witness a {vkey(1)}\nwitness a {vkey(2)}\nquorum a\n", "taken"),
        (f"witness none {vkey(1)}\nquorum none\n", "taken"),
        (f"witness a {vkey(1)}\nwitness b {vkey(1)}\nquorum a\n", "one key is one witness"),
        (f"witness a {vkey(1, ED25519)}\nquorum a\n", "verification key"),
        (f"log {vkey(1)}\nquorum none\n", "verification key"),
        (f"witness a {vkey(1)} ftp://x\nquorum a\n", "no address"),
        (f"witness a {vkey(1)}\ngroup g 2 a\nquorum g\n", "needs 1 to 1"),
        (f"witness a {vkey(1)}\ngroup g 0 a\nquorum g\n", "needs 1 to 1"),
        (f"witness a {vkey(1)}\ngroup g 01 a\nquorum g\n", "needs 1 to 1"),
        (f"witness a {vkey(1)}\ngroup g 1 a a\nquorum g\n", "in a group already"),
        (f"group g any a\nwitness a {vkey(1)}\nquorum g\n", "not named above"),
        (f"witness a {vkey(1)}\ngroup g any a\ngroup h any a\nquorum h\n", "in a group already"),
        ("wittness a b\nquorum none\n", "begins no line"),
        ("quorum none\r\n", "control character"),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why) as e:
        parse_policy(text.encode())
    assert e.value.code == "bad_witness_policy"
