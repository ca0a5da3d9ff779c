from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.identity.verify import KnownToken, TokenVerifier, bearer, make_token, token_hash
from falaj.kernel.access import Principal
from falaj.kernel.clock import iso
from falaj.kernel.errors import Unauthenticated
from tests.governance.identity.forged import falaj_tokens, summed

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PEPPER = b"p" * 32


def known(identifier: str, token: str, pepper: bytes = PEPPER, until: datetime = NOW + timedelta(days=1)) -> KnownToken:
    return KnownToken(identifier, token_hash(token, pepper), "ann", "person", ("viewer",), iso(until))


IDENTIFIER, TOKEN = make_token()
OTHER_ID, OTHER = make_token()
EXPIRED_ID, EXPIRED = make_token()
FOREIGN_ID, FOREIGN = make_token()
_, REVOKED = make_token()
BODY, SUM = TOKEN.rsplit("_", 1)
SECRET = BODY.split("_", 2)[2]
VERIFIER = TokenVerifier(
    [
        known(IDENTIFIER, TOKEN),
        known(OTHER_ID, OTHER),
        known(EXPIRED_ID, EXPIRED, until=NOW),
        known(FOREIGN_ID, FOREIGN, pepper=b"q" * 32),
    ],
    PEPPER,
)


GONE = {"a revoked token": REVOKED, "an expired token": EXPIRED, "a token of another pepper": FOREIGN}
CORPUS = list(falaj_tokens(TOKEN, OTHER, GONE, token_hash(TOKEN, PEPPER)))


def test_the_corpus_is_large_and_its_tokens_differ() -> None:
    assert len({token for _, token in CORPUS}) == len(CORPUS) >= 40


def test_good_tokens_are_accepted() -> None:
    """Else nothing that is refused below would mean anything."""
    for token in (TOKEN, OTHER):
        assert VERIFIER.verify(token, NOW) == Principal("ann", "person", ("viewer",))
    assert VERIFIER.verify(EXPIRED, NOW - timedelta(milliseconds=1)).name == "ann"
    assert TokenVerifier([known(FOREIGN_ID, FOREIGN)], PEPPER).verify(FOREIGN, NOW).name == "ann"


@pytest.mark.parametrize("token", [t for _, t in CORPUS], ids=[name for name, _ in CORPUS])
def test_no_hostile_token_is_accepted(token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        VERIFIER.verify(token, NOW)
    assert refused.value.status == 401
    assert refused.value.hint
    assert SECRET not in str(refused.value.as_dict())


@given(st.text(max_size=100))
def test_no_text_by_chance_is_accepted(text: str) -> None:
    for token in (text, "falaj_" + text, BODY + text):
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(token, NOW)


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
def test_no_changed_character_is_accepted(at: int, character: str) -> None:
    changed = TOKEN[:at] + character + TOKEN[at + 1 :]
    for token in {changed, summed(changed.rsplit("_", 1)[0])} - {TOKEN}:
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(token, NOW)


def test_unknown_forged_and_revoked_tokens_are_refused_alike() -> None:
    answers = set()
    for token in (make_token()[1], REVOKED, FOREIGN, summed(f"falaj_{OTHER_ID}_{SECRET}")):
        with pytest.raises(Unauthenticated) as refused:
            VERIFIER.verify(token, NOW)
        answers.add(str(refused.value.as_dict()))
    assert len(answers) == 1


def test_a_token_ends_at_its_moment_whatever_the_zone() -> None:
    verifier = TokenVerifier(
        [msgspec.structs.replace(known(IDENTIFIER, TOKEN), expires_at="2026-03-01T14:00:00+02:00")], PEPPER
    )
    assert verifier.verify(TOKEN, NOW - timedelta(seconds=1)).name == "ann"
    with pytest.raises(Unauthenticated, match="expired"):
        verifier.verify(TOKEN, NOW)


def test_tokens_are_random_and_well_formed() -> None:
    made = [make_token() for _ in range(200)]
    assert len({t for _, t in made}) == len({i for i, _ in made}) == 200
    for identifier, token in made:
        assert re.fullmatch(rf"falaj_{identifier}_[A-Za-z0-9_-]{{43}}_[0-9a-f]{{8}}", token)
        assert summed(token.rsplit("_", 1)[0]) == token


def test_the_hash_needs_the_pepper() -> None:
    assert token_hash(TOKEN, PEPPER) != token_hash(TOKEN, b"q" * 32)
    assert len(bytes.fromhex(token_hash(TOKEN, PEPPER))) == 32


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_the_header_holds_the_token(header: str) -> None:
    assert bearer(header.format(TOKEN)) == TOKEN


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "{}", "Basic {}", "Token {}", "Bearer:{}"])
def test_any_other_header_holds_none(header: str) -> None:
    header = header.format(TOKEN)
    with pytest.raises(Unauthenticated) as refused:
        bearer(header)
    assert refused.value.code == "no_token"
