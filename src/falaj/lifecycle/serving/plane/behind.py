"""Whose certificate stands behind a request that came from beyond loopback.

A front hands deciphered bytes to the server on loopback, and the system gives that connection to any worker. So a table that all
workers map has a place for each port that a front calls from: whose front it is, and a digest of the identity that the
handshake was with. It is written before the first byte is handed on, and kept for a while after the last: a request
that is still on its way must not pass for one from this machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import struct
from pathlib import Path

from falaj.governance.identity.peers import CONTROL_PLANE, SpiffeId, bearers, refused_bearer
from falaj.kernel.access import SYSTEM, Principal

LINGER_SECONDS = 30.0
"""How long a port keeps its identity after its connection: longer than any request waits for its turn."""
_PORTS = 65_536
_SLOT = struct.Struct(
    "<H30s"
)  # the worker whose front it is, 0 for none; of the identity the first 240 bits of SHA-256


class Peers:
    """The table, as one worker sees it. Raises `OSError` when it cannot be mapped: then a front must not listen."""

    def __init__(self, folder: Path, worker: int, domain: str, environment: str) -> None:
        self._worker, self._domain, self._environment = worker, domain, environment
        descriptor = os.open(folder / "peers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _PORTS * _SLOT.size)  # others may use it already: nothing is lost
            self._table = mmap.mmap(descriptor, _PORTS * _SLOT.size)
        finally:
            os.close(descriptor)
        self._uses: dict[int, int] = {}  # by port: which of its uses is the latest
        self._left = [port for port in range(_PORTS) if self._at(port)[0] == worker]  # by the one before, which died

    def sweep(self) -> None:
        """Let go, after a while, of what the worker before this one has left."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._swept)

    def remember(self, port: int, peer: SpiffeId) -> int:
        """From now on `peer` is behind this port; returns which use of the port it is, for `forget`."""
        use = self._uses[port] = self._uses.get(port, 0) + 1
        _SLOT.pack_into(self._table, port * _SLOT.size, self._worker, _digest(str(peer)))
        return use

    def forget(self, port: int, use: int) -> None:
        """Nobody is behind the port, a while from now, unless it is used again by then."""
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._forgotten, port, use)

    def check(self, client: str, principal: Principal) -> None:
        """Raise `Denied` when a principal's token comes over a certificate that is not the principal's.

        `client` is the address that the server saw. The control plane's certificate carries the platform's own tokens only.
        """
        worker, found = self._at(int(client.rpartition(":")[2]))
        if not worker:
            return  # from this machine, over loopback
        fitting = bearers(self._environment, principal.name)
        if principal.roles == SYSTEM.roles:
            fitting += ((CONTROL_PLANE,),)
        if found not in {_digest(str(SpiffeId(self._domain, segments))) for segments in fitting}:
            raise refused_bearer(principal.name)

    def _at(self, port: int) -> tuple[int, bytes]:
        worker, digest = _SLOT.unpack_from(self._table, port * _SLOT.size)
        return int(worker), bytes(digest)

    def _forgotten(self, port: int, use: int) -> None:
        if self._uses.get(port) == use:
            self._clear(port)

    def _swept(self) -> None:
        for port in self._left:
            if port not in self._uses and self._at(port)[0] == self._worker:
                self._clear(port)

    def _clear(self, port: int) -> None:
        _SLOT.pack_into(self._table, port * _SLOT.size, 0, b"")


def _digest(identity: str) -> bytes:
    return hashlib.sha256(identity.encode()).digest()[:30]
