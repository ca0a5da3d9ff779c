"""Many small requests to the home's own data plane, over a few connections that stay open.

A general HTTP client spends some ten times as long on a request of this size as the data plane does on its answer, so
a year of traffic would show the client. What is spoken here is HTTP/1.1 as the data plane answers it: with a length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

from falaj.kernel.errors import Unavailable

_CONNECTIONS = 16
_SECONDS = 30.0
_HEAD_BYTES = 1 << 16


async def post_all(base: str, path: str, token: str, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    """Send each body to `path`; returns status and content of each, in order; status 0 where the connection broke."""
    address = urlsplit(base)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode("ascii")
    answers: list[tuple[int, bytes]] = [(0, b"")] * len(bodies)
    left = iter(range(len(bodies)))
    await asyncio.gather(
        *(
            _connection(address.hostname or "", address.port or 80, head, bodies, left, answers)
            for _ in range(_CONNECTIONS)
        )
    )
    return answers


async def _connection(
    host: str, port: int, head: bytes, bodies: list[bytes], left: Iterator[int], answers: list[tuple[int, bytes]]
) -> None:
    """Ask for what is left, one after the other; a connection that breaks fails its request and is opened again."""
    reader, writer = await _open(host, port)
    try:
        for n in left:
            try:
                writer.write(b"%b%d\r\n\r\n%b" % (head, len(bodies[n]), bodies[n]))
                answers[n] = await asyncio.wait_for(_answer(reader), _SECONDS)
            except (OSError, EOFError, ValueError, TimeoutError):
                writer.close()
                reader, writer = await _open(host, port)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and content. Raises ValueError for an answer without a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.index(b"\r\ncontent-length:")
    length = int(head[at + 17 : head.index(b"\r\n", at + 2)])
    return int(head[9:12]), await reader.readexactly(length)


async def _open(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(host, port, limit=_HEAD_BYTES)
    except OSError as e:
        raise Unavailable(
            "the data plane does not answer",
            hint="see data-plane.log in the home's plane folder",
            code="plane_does_not_answer",
        ) from e
