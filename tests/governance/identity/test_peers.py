from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.identity.peers import (
    SpiffeId,
    check_bearer,
    check_call,
    check_server,
    known_role,
    peer_of,
    spiffe_id,
)
from falaj.kernel.errors import Denied, FalajError, Invalid
from tests.governance.identity.forge import Forge

FORGE = Forge()


def der(*uris: str, authority: bool = False) -> bytes:
    pem, _ = FORGE.leaf(uris, authority=authority)
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def test_a_certificate_with_one_uri_says_who() -> None:
    peer = peer_of(der("spiffe://example.org/data-plane/production"))
    assert peer.id == SpiffeId("example.org", ("data-plane", "production"))
    assert peer.until > datetime.now(UTC)


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("spiffe://example.org/a", "spiffe://example.org/b"),
        ("spiffe://example.org/a", "spiffe://example.org/a"),
        ("spiffe://example.org/a", "https://example.org/a"),
        ("https://example.org/a",),
        ("spiffe://example.org",),
    ],
)
def test_any_other_certificate_says_nobody(uris: tuple[str, ...]) -> None:
    with pytest.raises(Denied) as refused:
        peer_of(der(*uris))
    assert refused.value.code == "wrong_peer"


def test_an_authority_is_nobody() -> None:
    with pytest.raises(Denied, match="authority"):
        peer_of(der("spiffe://example.org/a", authority=True))


@given(st.binary(max_size=300))
def test_bytes_are_nobody(data: bytes) -> None:
    with pytest.raises(Denied):
        peer_of(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:/example.org/a",
        "SPIFFE://example.org/a",
        "spiffe://Example.org/a",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/./a",
        "spiffe://example.org:443/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%20b",
        "spiffe://example.org/a\n",
        "spiffe:///a",
        f"spiffe://example.org/{'a' * 2048}",
    ],
)
def test_what_the_standard_does_not_allow_is_no_id(text: str) -> None:
    with pytest.raises(Invalid):
        spiffe_id(text)


_PART = st.text("abcXYZ019._-", min_size=1, max_size=12).filter(lambda s: s not in (".", ".."))


@given(st.text("abc019._-", min_size=1, max_size=20), st.lists(_PART, min_size=1, max_size=5))
def test_an_id_is_read_as_it_is_written(domain: str, parts: list[str]) -> None:
    own = SpiffeId(domain, tuple(parts))
    assert spiffe_id(str(own)) == own


ROLES = (
    "control-plane",
    "data-plane/production",
    "data-plane/staging",
    "operator/alice",
    "caller/production/shop",
    "caller/staging/shop",
    "nobody",
    "operator/alice/more",
    "operator",
    "caller/production",
)
MAY = {
    ("operator/alice", "control-plane"),
    *((who, f"data-plane/{e}") for e in ("production", "staging") for who in ("control-plane", "operator/alice")),
    *((f"caller/{e}/shop", f"data-plane/{e}") for e in ("production", "staging")),
}


@pytest.mark.parametrize("server", ROLES)
@pytest.mark.parametrize("caller", ROLES)
def test_who_may_call_whom(caller: str, server: str) -> None:
    def allowed(caller_domain: str) -> bool:
        try:
            check_call(spiffe_id(f"spiffe://{caller_domain}/{caller}"), spiffe_id(f"spiffe://example.org/{server}"))
        except FalajError:
            return False
        return True

    assert allowed("example.org") == ((caller, server) in MAY)
    assert not allowed("example.com")


def test_only_the_server_that_was_meant_will_do() -> None:
    meant = spiffe_id("spiffe://example.org/data-plane/production")
    check_server(meant, meant)
    for other in ("spiffe://example.org/data-plane/staging", "spiffe://example.com/data-plane/production"):
        with pytest.raises(Denied):
            check_server(spiffe_id(other), meant)


def test_a_token_comes_with_its_own_certificate() -> None:
    check_bearer(None, "alice")
    check_bearer(spiffe_id("spiffe://example.org/operator/alice"), "alice")
    for other in ("operator/bob", "control-plane", "caller/production/alice"):
        with pytest.raises(Denied) as refused:
            check_bearer(spiffe_id(f"spiffe://example.org/{other}"), "alice")
        assert refused.value.code == "certificate_of_another"


def test_roles_are_a_short_list() -> None:
    known = {r for r in ROLES if known_role(spiffe_id(f"spiffe://example.org/{r}"))}
    assert known == {r for r in ROLES if r not in ("nobody", "operator/alice/more", "operator", "caller/production")}
