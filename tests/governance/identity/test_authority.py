from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from falaj.governance.identity.authority import Authority, create
from falaj.governance.identity.tls import Party, Renewed, own_peer
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Conflict, Invalid


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    create(tmp_path / "ca", "example.org", SystemClock())
    return Authority(tmp_path / "ca", SystemClock())


@pytest.mark.parametrize("role", ["control-plane", "data-plane/production", "data-plane/staging"])
def test_what_it_issues_can_be_listened_with(authority: Authority, tmp_path: Path, role: str) -> None:
    issued = authority.issue(role, ("192.0.2.1", "falaj.example.org"), 1, tmp_path / "to")
    party = Party(str(tmp_path / "to"), "example.org", role)
    Renewed(party)
    assert str(own_peer(party).id) == issued.id == f"spiffe://example.org/{role}"
    assert (own_peer(party).until - datetime.now(UTC)).total_seconds() <= 3600
    names = x509.load_pem_x509_certificate(party.certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["falaj.example.org"]


def test_keys_are_for_their_owner_only(authority: Authority, tmp_path: Path) -> None:
    authority.issue("operator/alice", (), 1, tmp_path / "to")
    for key in (tmp_path / "ca" / "ca.key", tmp_path / "to" / "operator.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_again_is_another_key_and_a_line_more(authority: Authority, tmp_path: Path) -> None:
    first = authority.issue("operator/alice", (), 1, tmp_path / "to")
    before = (tmp_path / "to" / "operator.key").read_bytes()
    again = authority.issue("operator/alice", (), 1, tmp_path / "to")
    assert (tmp_path / "to" / "operator.key").read_bytes() != before
    assert [first, again] == authority.issued()
    assert first.serial != again.serial


@pytest.mark.parametrize(
    "role", ["", "x", "operator", "operator/", "operator/a b", "caller/shop", "data-plane", "../x"]
)
def test_nobody_else_gets_one(authority: Authority, tmp_path: Path, role: str) -> None:
    with pytest.raises(Invalid):
        authority.issue(role, (), 1, tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("hours", [0, -1, 90 * 24 + 1])
def test_none_lasts_for_ever(authority: Authority, tmp_path: Path, hours: int) -> None:
    with pytest.raises(Invalid) as refused:
        authority.issue("control-plane", (), hours, tmp_path / "to")
    assert refused.value.code == "bad_lifetime"


def test_an_authority_is_made_once(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(Conflict) as refused:
        create(tmp_path / "ca", "example.org", SystemClock())
    assert refused.value.code == "authority_exists"
    for domain in ("Example.org", "a b", "", "a/b"):
        with pytest.raises(Invalid):
            create(tmp_path / "other", domain, SystemClock())
    with pytest.raises(Invalid) as missing:
        Authority(tmp_path / "other", SystemClock())
    assert missing.value.code == "no_authority"
