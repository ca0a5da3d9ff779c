"""A witness as a process: `POST add-checkpoint` over HTTP, TLS 1.3 on any address but loopback. Nothing else is answered.

No identity is asked for: a checkpoint is signed by its log, and what a witness says is for everybody.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.concurrency import run_in_threadpool

from falaj.governance.audit.witness import MAX_REQUEST, Reply, Witness
from falaj.kernel import locks
from falaj.kernel.clock import SystemClock
from falaj.kernel.errors import Conflict, Invalid, Unavailable
from falaj.kernel.log import configure, logger

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
_log = logger(__name__)


class Listening(msgspec.Struct, frozen=True):
    """Whose witness, and where it listens; a certificate and its key are PEM files."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None


def serve(where: Listening, *, as_json: bool = False) -> None:
    """Answer until stopped. Raises `Invalid` for an address beyond loopback without a certificate, `Conflict` when
    another process answers for this folder, `Unavailable` when the port is taken."""
    _check_address(where)
    configure("witness", "info")
    witness = Witness(where.folder, SystemClock())
    lock = locks.take(where.folder / "lock")
    if lock is None:
        raise Conflict(
            f"another process (pid {locks.holder(where.folder / 'lock')}) answers for this witness",
            hint="one witness has one memory: end the other process first",
            code="witness_runs",
        )
    try:
        listener = _listen(where.host, where.port)
        scheme = "https" if where.certificate else "http"
        host = f"[{where.host}]" if ":" in where.host else where.host
        url = f"{scheme}://{host}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            application(witness),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            ssl_certfile=where.certificate,
            ssl_keyfile=where.key,
        )
        config.load()
        if config.ssl is not None:
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
        told = {"url": url, "vkey": witness.vkey, "pid": os.getpid()}
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n" if as_json else f"{witness.name} listens on {url}\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        os.close(lock)


def application(witness: Witness) -> App:
    """The ASGI application over a witness."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != "/add-checkpoint" or scope["method"] != "POST":
            await _send(send, Reply(404, b"this is a witness: POST /add-checkpoint\n"))
            return
        body = await _body(receive)
        if body is None:
            await _send(send, Reply(413, b"the request is too large\n"))
            return
        try:
            reply = await run_in_threadpool(witness.add_checkpoint, body)
        except Exception as e:  # a full disk, a memory that was changed: nothing is cosigned, and the log asks again
            _log.error("not_cosigned", error=str(e))
            reply = Reply(500, b"the witness cannot answer; its own log says why\n")
        await _send(send, reply)

    return app


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None for one that is larger than any request, or that was broken off."""
    parts = b""
    while len(parts) <= MAX_REQUEST:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts += message.get("body", b"")
        if not message.get("more_body", False):
            return parts if len(parts) <= MAX_REQUEST else None
    return None


async def _send(send: Send, reply: Reply) -> None:
    headers = [(b"content-type", reply.kind.encode()), (b"content-length", str(len(reply.body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _check_address(where: Listening) -> None:
    try:
        loopback = where.host == "localhost" or ipaddress.ip_address(where.host).is_loopback
    except ValueError:
        loopback = False
    if (where.certificate is None) != (where.key is None) or not (loopback or where.certificate):
        raise Invalid(
            f"refusing to listen on {where.host} without TLS",
            hint="name --certificate and --key, or listen on 127.0.0.1 behind a proxy that terminates TLS",
            code="not_loopback",
        )


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        raise Unavailable(
            f"{host}:{port} cannot be listened on: {e.strerror or e}",
            hint="name another --port, or 0 for any",
            code="port_taken",
        ) from e
    return listener
