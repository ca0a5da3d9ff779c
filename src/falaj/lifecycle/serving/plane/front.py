"""The data plane beyond loopback: a worker takes TLS 1.3 with a certificate on both sides, and hands on what it says in
the clear to the server on loopback, which knows no client certificate: `behind` says whose each connection is.

A connection reaches the server only after the handshake, in which the peer's identity is checked; it ends when the peer's
certificate does.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from falaj.governance.identity.peers import DATA_PLANE, SpiffeId, peer_of
from falaj.governance.identity.tls import Party, Renewed
from falaj.kernel.log import logger
from falaj.lifecycle.serving.plane.behind import Peers
from falaj.lifecycle.serving.plane.verify import read_trust

HANDSHAKE_SECONDS = 10.0
MOST = 4096  # connections at once in a worker; one more is refused
_DRAIN_SECONDS = 5.0


class Outward(msgspec.Struct, frozen=True):
    """Where a data plane listens beyond loopback, and where its certificates lie."""

    host: str
    port: int
    tls: str
    domain: str


def party_of(outward: Outward, folder: Path) -> Party:
    """Who the data plane of a folder is: its trust root names the environment."""
    environment = read_trust(folder / "trust.json").environment
    return Party(outward.tls, outward.domain, f"{DATA_PLANE}/{environment}")


def check(outward: Outward, folder: Path) -> None:
    """Raise `Invalid` or `Integrity` unless a data plane could listen there."""
    Renewed(party_of(outward, folder))


class Front:
    """Listens with TLS, for one worker."""

    def __init__(self, outward: Outward, folder: Path, server: tuple[str, int]) -> None:
        """`server` is where the plain one listens. Raises `Invalid` for certificates that cannot be used."""
        self._where = outward
        self._context = Renewed(party_of(outward, folder))
        self._server = server
        self._open: set[Outside] = set()
        self._listening: asyncio.Server | None = None

    @property
    def domain(self) -> str:
        """The trust domain of its identities."""
        return self._where.domain

    async def start(self, peers: Peers) -> None:
        """Listen; the workers share the port. `peers` is told whose each connection is. Raises `OSError`."""
        peers.sweep()
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: Outside(self._server, self._open, peers),
            sock=_shared(self._where.host, self._where.port),
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listening is not None  # noqa: S101  # it has been started
        return int(self._listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take nobody any more, and let those go whose answers have been written."""
        if self._listening is not None:
            self._listening.close()
        if self._open:
            ending = [asyncio.ensure_future(o.ended.wait()) for o in self._open]
            _, late = await asyncio.wait(ending, timeout=_DRAIN_SECONDS)
            for waiting in late:
                waiting.cancel()
        for outside in tuple(self._open):
            outside.hang_up()


class _End(asyncio.Protocol):
    """One end of a connection that is handed on: what it reads the other writes, no faster than that is taken."""

    other: _End | None = None
    transport: asyncio.Transport | None = None

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()  # what was written is sent first


class _Inside(_End):
    """The end at the server, which is told apart by the port that it comes from."""

    def __init__(self, peer: SpiffeId, peers: Peers) -> None:
        self._peer, self._peers = peer, peers
        self._port, self._use = 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who is behind it, before anything is handed on."""
        self.transport = cast(asyncio.Transport, transport)
        self._port = int(transport.get_extra_info("sockname")[1])
        self._use = self._peers.remember(self._port, self._peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is behind it any more."""
        super().connection_lost(exc)
        self._peers.forget(self._port, self._use)


class Outside(_End):
    """The end that whoever calls has: it stands once they have proved who they are."""

    def __init__(self, server: tuple[str, int], all_open: set[Outside], peers: Peers) -> None:
        self._server = server
        self._peers = peers
        self._all = all_open
        self._joining: asyncio.Task[None] | None = None
        self._until: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join it to the server; nothing is read before."""
        self.transport = cast(asyncio.Transport, transport)
        if len(self._all) >= MOST:
            self.transport.abort()
            return
        self._all.add(self)
        certificate = cast(ssl.SSLObject, transport.get_extra_info("ssl_object")).getpeercert(binary_form=True)
        peer = peer_of(certificate or b"")
        loop = asyncio.get_running_loop()
        self._until = loop.call_later(max(0.0, (peer.until - datetime.now(UTC)).total_seconds()), self.hang_up)
        self.transport.pause_reading()
        self._joining = loop.create_task(self._join(peer.id))

    async def _join(self, peer: SpiffeId) -> None:
        inside = _Inside(peer, self._peers)
        inside.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: inside, *self._server)
        except OSError as e:
            logger(__name__).error("server_not_reached", error=str(e))
            self.hang_up()
            return
        self.other = inside
        if self.transport is None or self.transport.is_closing():
            self.connection_lost(None)
            return
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever called is gone."""
        super().connection_lost(exc)
        if self._until is not None:
            self._until.cancel()
        self._all.discard(self)
        self.ended.set()

    def hang_up(self) -> None:
        """End it now."""
        if self.transport is not None:
            self.transport.close()


def _shared(host: str, port: int) -> socket.socket:
    """A socket on a port that other workers listen on as well."""
    found: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener
