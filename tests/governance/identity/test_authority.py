from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from falaj.governance.identity.authority import Authority, create
from falaj.governance.identity.tls import Party, Renewed, own_peer
from falaj.kernel.clock import SystemClock, parse_iso
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


class Moved:
    """A clock that somebody sets."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def test_what_has_a_third_of_its_time_left_is_renewed_for_as_long_again(authority: Authority, tmp_path: Path) -> None:
    clock = Moved(SystemClock().now().replace(microsecond=0))
    at = Authority(tmp_path / "ca", clock)
    to, phone = tmp_path / "to", tmp_path / "phone"
    day = at.issue("control-plane", ("falaj.example.org",), 24, to)
    week = at.issue("data-plane/production", (), 7 * 24, to)
    at.issue("operator/alice", (), 24, phone)
    (to / "foreign.pem").write_text("no certificate")
    assert at.renew([to]) == ([], parse_iso(day.until) - timedelta(hours=8))
    clock.at += timedelta(hours=16)
    (again,), due = at.renew([to])
    assert (again.id, again.names, again.serial != day.serial) == (day.id, day.names, True)
    assert parse_iso(again.until) - clock.at == timedelta(hours=24)
    assert due == parse_iso(again.until) - timedelta(hours=8)
    party = Party(str(to), "example.org", "control-plane")
    assert own_peer(party).until == parse_iso(again.until) and at.renew([to]) == ([], due)
    clock.at += timedelta(days=30)  # nobody kept them for a month
    renewed, _ = at.renew([to, phone])
    assert [r.id.rpartition("/")[2] for r in renewed] == ["control-plane", "production", "alice"]
    assert parse_iso(renewed[1].until) - clock.at == parse_iso(week.until) - parse_iso(week.at)


def test_what_ends_with_its_authority_is_not_renewed_again_and_again(authority: Authority, tmp_path: Path) -> None:
    clock = Moved(SystemClock().now().replace(microsecond=0) + timedelta(days=350))
    at = Authority(tmp_path / "ca", clock)
    at.issue("control-plane", (), 30 * 24, tmp_path / "to")
    assert at.renew([tmp_path / "to"]) == ([], None)
    clock.at += timedelta(days=14)
    assert at.renew([tmp_path / "to"]) == ([], None)


def test_only_ones_own_are_renewed(authority: Authority, tmp_path: Path) -> None:
    create(tmp_path / "other", "example.org", SystemClock())
    Authority(tmp_path / "other", SystemClock()).issue("control-plane", (), 1, tmp_path / "to")
    before = (tmp_path / "to" / "control-plane.pem").read_bytes()
    for folder in (tmp_path / "to", tmp_path / "nowhere"):
        with pytest.raises(Invalid) as refused:
            authority.renew([folder])
        assert refused.value.code == "nothing_to_renew" and refused.value.hint
    assert (tmp_path / "to" / "control-plane.pem").read_bytes() == before
