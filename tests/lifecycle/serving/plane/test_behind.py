"""Who is behind a connection of the front: told to every worker, kept while a request may be on its way, and no longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from falaj.governance.identity.peers import SpiffeId
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.errors import Denied
from falaj.lifecycle.serving.plane import behind
from falaj.lifecycle.serving.plane.behind import Peers

SHOP = Principal("shop", "service", ("service",))
GUEST = Principal("rehearsal", "service", SYSTEM.roles)
PLACE = "127.0.0.1:50000"


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    return Peers(tmp_path, 1, "example.org", "production")


def spiffe(*segments: str, domain: str = "example.org") -> SpiffeId:
    return SpiffeId(domain, segments)


@pytest.mark.parametrize(
    ("peer", "principal"),
    [
        (spiffe("caller", "production", "shop"), SHOP),
        (spiffe("operator", "shop"), SHOP),
        (spiffe("control-plane"), GUEST),
        (spiffe("operator", "rehearsal"), GUEST),
    ],
    ids=str,
)
def test_a_token_is_good_over_its_own_certificate(peers: Peers, peer: SpiffeId, principal: Principal) -> None:
    peers.remember(50000, peer)
    peers.check(PLACE, principal)


@pytest.mark.parametrize(
    "peer",
    [
        spiffe("caller", "production", "eve"), spiffe("caller", "staging", "shop"), spiffe("operator", "eve"), spiffe("control-plane"),
        spiffe("data-plane", "production"), spiffe("operator", "shop", domain="example.com"), spiffe("caller", "shop"),
    ],
    ids=str,
)  # fmt: skip
def test_and_over_nobody_elses(peers: Peers, tmp_path: Path, peer: SpiffeId) -> None:
    peers.remember(50000, peer)
    for worker in (peers, Peers(tmp_path, 2, "example.org", "production")):  # whichever the connection reaches
        with pytest.raises(Denied) as refused:
            worker.check(PLACE, SHOP)
        assert refused.value.code == "certificate_of_another"
    peers.check("127.0.0.1:50001", SHOP)  # another connection, from this machine


def test_a_port_keeps_its_identity_until_no_request_can_be_on_its_way(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "LINGER_SECONDS", 0.0)

    async def turn() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, done.set)  # after what is due at once
        await done.wait()

    async def run() -> None:
        first = peers.remember(50000, spiffe("caller", "production", "eve"))
        peers.forget(50000, first)
        with pytest.raises(Denied):
            peers.check(PLACE, SHOP)  # it has ended; what it sent may still wait
        second = peers.remember(50000, spiffe("caller", "production", "eve"))
        await turn()
        with pytest.raises(Denied):
            peers.check(PLACE, SHOP)  # it is used again: the first use lets nothing go
        peers.forget(50000, second)
        await turn()
        peers.check(PLACE, SHOP)

    asyncio.run(run())


def test_what_a_dead_worker_left_goes_with_its_successor_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behind, "LINGER_SECONDS", 0.0)
    eve = spiffe("caller", "production", "eve")
    dead, other = Peers(tmp_path, 1, "example.org", "production"), Peers(tmp_path, 2, "example.org", "production")
    for port in (50000, 50001):
        dead.remember(port, eve)
    other.remember(50002, eve)

    async def run() -> None:
        successor = Peers(tmp_path, 1, "example.org", "production")
        successor.remember(50001, eve)
        successor.sweep()
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.001, done.set)
        await done.wait()
        successor.check("127.0.0.1:50000", SHOP)
        for port in (50001, 50002):
            with pytest.raises(Denied):
                successor.check(f"127.0.0.1:{port}", SHOP)

    asyncio.run(run())
