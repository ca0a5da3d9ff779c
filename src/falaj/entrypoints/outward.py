"""The control plane beyond loopback: TLS 1.3 with a certificate on both sides, beside the plain listener on loopback.

The server under it hands no client certificate to the application, so its protocol is told here whom the handshake was
with; requests carry that as `request.state.peer`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from falaj.governance.identity.peers import CONTROL_PLANE, Peer, peer_of
from falaj.governance.identity.tls import Party, Renewed
from falaj.kernel.settings import LOOPBACK, Settings

HANDSHAKE_SECONDS = 10.0


def party(settings: Settings) -> Party | None:
    """Who the control plane is beyond loopback; None when it stays on it."""
    return None if settings.host in LOOPBACK else Party(settings.tls, settings.trust_domain, CONTROL_PLANE)


def peer_behind(transport: asyncio.BaseTransport) -> Peer:
    """Whom the handshake was with."""
    certificate = cast(ssl.SSLObject, transport.get_extra_info("ssl_object")).getpeercert(binary_form=True)
    return peer_of(certificate or b"")


class Known(H11Protocol):
    """HTTP with somebody who has shown a certificate, for as long as that holds."""

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base has it
        """Remember who it is."""
        peer = peer_behind(transport)
        self.app_state = {**self.app_state, "peer": peer.id}
        self._end = self.loop.call_later(max(0.0, (peer.until - datetime.now(UTC)).total_seconds()), transport.close)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Its certificate matters no more."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)


async def serve(server: uvicorn.Server, listener: socket.socket, context: Renewed) -> asyncio.Server:
    """Serve the application of a server that has started on another listener too."""

    def protocol() -> Known:
        return Known(server.config, server.server_state, server.lifespan.state)

    return await asyncio.get_running_loop().create_server(
        protocol,
        sock=listener,
        ssl=context,
        backlog=server.config.backlog,
        ssl_handshake_timeout=HANDSHAKE_SECONDS,
    )
