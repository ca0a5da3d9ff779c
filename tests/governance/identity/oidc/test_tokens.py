"""ID tokens: what a provider's own key signs is not therefore good."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from falaj.governance.identity.oidc import tokens
from falaj.governance.identity.oidc.keys import AGAIN, LASTS, PublishedKeys
from falaj.governance.identity.oidc.model import Setup
from falaj.governance.identity.oidc.tokens import PublishedKey, read_keys, verify
from falaj.kernel.errors import Unauthenticated, Unavailable
from tests.governance.identity.forged import Forge, id_tokens
from tests.governance.support import StillClock

NONCE = "n-0S6_WzA2Mj"
SETUP = Setup("https://id.example", "falaj", "falaj", "openid", "groups", (("engineers", "ml-engineer"),), 12)
KEY = RSAKey.generate_key(2048, {"kid": "first", "alg": "RS256"}, private=True)
FORGE = Forge(SETUP.issuer, SETUP.client_id, "secret", KEY)
CORPUS = list(id_tokens(FORGE, NONCE))
MADE = datetime.now(UTC)
"""When: whatever time it is when they are tried, they are as old as they were."""


def published(*keys: Any, **more: Any) -> bytes:
    return json.dumps({"keys": [{**k.as_dict(private=False), **more} for k in keys]}).encode()


KEYS = read_keys(published(KEY)).get


def now() -> datetime:
    return datetime.now(UTC)


def test_a_good_token_says_who_signed_in() -> None:
    """Else nothing that is refused below would mean anything."""
    found = verify(FORGE.good(NONCE), SETUP, KEYS, NONCE, now())
    assert (found.principal, found.display, found.groups) == ("oidc:alice", "Alice", ("engineers",))
    for fine in ({"azp": "falaj"}, {"aud": ["falaj"]}, {"nbf": int(time.time())}, {"exp": time.time() + 9.5}):
        assert verify(FORGE.good(NONCE, **fine), SETUP, KEYS, NONCE, now()).subject == "alice"


@pytest.mark.parametrize("token", [t for _, t in CORPUS], ids=[name for name, _ in CORPUS])
def test_no_hostile_token_is_accepted(token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        verify(token, SETUP, KEYS, NONCE, MADE)
    assert (refused.value.code, refused.value.status) == ("bad_id_token", 401)


def test_the_corpus_is_large_and_its_tokens_differ() -> None:
    assert len({t for _, t in CORPUS}) == len({n for n, _ in CORPUS}) == len(CORPUS) >= 150


@pytest.mark.parametrize("check", ["_check_parties", "_check_time", "_check_nonce"])
def test_each_check_is_needed(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break it, and the corpus gets through."""
    monkeypatch.setattr(tokens, check, lambda *_args: None)
    assert [name for name, token in CORPUS if accepted(token)]


def accepted(token: str) -> bool:
    try:
        verify(token, SETUP, KEYS, NONCE, MADE)
    except Unauthenticated:
        return False
    return True


@given(st.text(max_size=200))
def test_no_text_by_chance_is_accepted(text: str) -> None:
    good = FORGE.good(NONCE)
    for token in (text, f"{text}.{text}.{text}", good + text[:1] if text else ""):
        assert token == good or not accepted(token)


@given(st.integers(0, 10_000), st.characters(codec="utf-8"))
def test_no_changed_character_is_accepted(at: int, character: str) -> None:
    good = FORGE.good(NONCE)
    at %= len(good)
    changed = good[:at] + character + good[at + 1 :]
    assert changed == good or not accepted(changed)


def test_a_token_without_a_nonce_is_for_devices_and_one_with_it_is_not() -> None:
    assert verify(FORGE.good("", nonce=None), SETUP, KEYS, "", now()).subject == "alice"
    with pytest.raises(Unauthenticated, match="another sign-in"):
        verify(FORGE.good(NONCE), SETUP, KEYS, "", now())


def test_an_audience_of_its_own_can_be_asked_for() -> None:
    setup = msgspec.structs.replace(SETUP, audience="falaj-api")
    both = {"aud": ["falaj-api", "falaj"], "azp": "falaj"}
    assert verify(FORGE.good(NONCE, **both), setup, KEYS, NONCE, now()).subject == "alice"
    assert verify(FORGE.good(NONCE, aud="falaj-api"), setup, KEYS, NONCE, now()).subject == "alice"
    for bad in ({"aud": "falaj"}, {"aud": ["falaj-api", "falaj"]}, {"aud": ["falaj-api", "x"], "azp": "falaj"}):
        with pytest.raises(Unauthenticated):
            verify(FORGE.good(NONCE, **bad), setup, KEYS, NONCE, now())


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", ECKey.generate_key("P-256", {"kid": "k"}, private=True)),
        ("ES384", ECKey.generate_key("P-384", {"kid": "k"}, private=True)),
        ("ES512", ECKey.generate_key("P-521", {"kid": "k"}, private=True)),
        ("Ed25519", OKPKey.generate_key("Ed25519", {"kid": "k"}, private=True)),
        ("EdDSA", OKPKey.generate_key("Ed25519", {"kid": "k"}, private=True)),
        ("PS256", RSAKey.generate_key(2048, {"kid": "k"}, private=True)),
        ("RS512", RSAKey.generate_key(3072, {"kid": "k"}, private=True)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
@pytest.mark.filterwarnings("ignore:.*EdDSA")  # its name is on the way out, and providers still use it
def test_every_algorithm_of_the_list_works_with_its_own_key_only(algorithm: str, key: Any) -> None:
    header = {"alg": algorithm, "kid": "k"}
    claims = json.dumps(FORGE.claims(NONCE))
    token = jws.serialize_compact(header, claims, key, algorithms=[algorithm])
    assert verify(token, SETUP, read_keys(published(key)).get, NONCE, now()).subject == "alice"
    with pytest.raises(Unauthenticated, match="for another algorithm"):
        verify(token, SETUP, {"k": PublishedKey("k", key, "RS384")}.get, NONCE, now())
    other = ECKey.generate_key("secp256k1", private=True)
    with pytest.raises(Unauthenticated):
        verify(token, SETUP, {"k": PublishedKey("k", other)}.get, NONCE, now())


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b'{"keys": [], "keys": []}',
        published(KEY, KEY), published(KEY, d="x"), published(KEY, k="x"),
        json.dumps({"keys": [KEY.as_dict(private=True)]}).encode(),
        json.dumps({"keys": [{"kty": "oct", "k": "eHh4", "kid": "x"}]}).encode(),
        json.dumps({"keys": [{"kty": "RSA", "kid": "x", "n": "!", "e": "AQAB"}]}).encode(),
        json.dumps({"keys": [{}] * 65}).encode(),
    ],
)  # fmt: skip
def test_a_key_set_that_no_provider_publishes_is_refused(text: bytes) -> None:
    with pytest.raises(Unauthenticated):
        read_keys(text)


def test_keys_for_other_ends_are_left_out() -> None:
    for more in (
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"alg": "RSA-OAEP"},
        {"alg": "HS256"},
        {"kid": ""},
        {"kty": "x"},
        {"alg": ["RS256"]},
        {"key_ops": 1},
    ):
        assert read_keys(published(KEY, **more)) == {}
    assert list(read_keys(published(KEY, x5u="http://127.0.0.1:9/", more="x"))) == ["first"]


def test_a_short_key_is_not_enough() -> None:
    short = published(KEY).replace(str(KEY.as_dict(private=False)["n"])[:2].encode(), b"", 1)
    assert read_keys(short) == {} and list(read_keys(published(KEY))) == ["first"]


class Published:
    """A key set that can be changed, and how often it was asked for."""

    def __init__(self) -> None:
        self.clock, self.now, self.asked = StillClock(), published(KEY), 0
        self.keys = PublishedKeys(self.fetch, self.clock)

    def fetch(self) -> bytes:
        self.asked += 1
        if not self.now:
            raise Unavailable("gone", hint="x", code="provider_unavailable")
        return self.now


def test_keys_are_kept_and_a_rotation_is_noticed() -> None:
    at = Published()
    assert at.keys("first") and at.keys("first") and at.asked == 1
    second = RSAKey.generate_key(2048, {"kid": "second"}, private=True)
    at.now = published(KEY, second)
    assert at.keys("second") and at.asked == 2
    at.now = published(second)
    at.clock.forward(seconds=LASTS.total_seconds() - 1)
    assert at.keys("first"), "kept for a while"
    at.clock.forward(seconds=1)
    assert at.keys("first") is None and at.keys("second") and at.asked == 3


def test_unknown_ids_do_not_make_us_ask_again_and_again() -> None:
    at = Published()
    for n in range(1000):
        assert at.keys(f"unknown-{n}") is None
    assert at.asked == 2
    at.clock.forward(seconds=AGAIN.total_seconds())
    assert at.keys("unknown") is None and at.keys("first") and at.asked == 3


def test_keys_that_cannot_be_asked_for_again_are_good_no_longer() -> None:
    at = Published()
    assert at.keys("first")
    at.now = b""
    at.clock.forward(seconds=LASTS.total_seconds())
    with pytest.raises(Unavailable):
        at.keys("first")
    at.clock.shows -= timedelta(days=1)  # nor is a clock that went back a way around it
    with pytest.raises(Unavailable):
        at.keys("first")
