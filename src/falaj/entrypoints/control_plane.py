"""The control plane as a process: `python -m falaj.entrypoints.control_plane`.

The first line on standard output is JSON: where it listens, or why it cannot start. With
`--private` it serves one command line and ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import errno
import gc
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from falaj.bootstrap import api
from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints import outward
from falaj.entrypoints.console import oidc
from falaj.entrypoints.console import routes as console
from falaj.entrypoints.console.home import HomeReader
from falaj.entrypoints.console.security import LoopbackNames, SecurityHeaders
from falaj.entrypoints.console.sessions import ConsoleGuard, HomeSessions
from falaj.governance.identity.tls import Renewed
from falaj.kernel.disk import refusal
from falaj.kernel.errors import FalajError, Invalid, Unavailable
from falaj.kernel.log import configure, logger
from falaj.kernel.settings import LOOPBACK, Settings, load_settings

_BACKLOG = 2048  # as many connections wait as the server itself lets wait


def main() -> None:
    """Serve a home: `python -m falaj.entrypoints.control_plane --home … --project …`."""
    parser = argparse.ArgumentParser(prog="falaj-control-plane")
    parser.add_argument("--home", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--private", action="store_true", help="serve until standard input closes")
    arguments = parser.parse_args()
    try:
        settings = load_settings(os.environ, Path(arguments.project), home=arguments.home, project=arguments.project)
        configure("control-plane", settings.log_level)
        run(settings, private=arguments.private)
    except Exception as e:  # whoever started this process waits for an answer, whatever it is
        told = _why(e, Path(arguments.home))
        if told is not e:
            logger(__name__).error("home_not_opened", exc_info=e)
        say(told.as_dict())
        sys.exit(told.exit_code)
    finally:
        gc.freeze()  # ending, the interpreter would look through all that it loaded, for nothing


def run(settings: Settings, *, private: bool) -> None:
    """Serve until told to stop. Raises `FalajError` when the home cannot be opened, the port is taken, or the certificate
    that an address beyond loopback needs cannot be used. This machine's own command line stays on loopback."""
    outside = None if private else outward.party(settings)
    context = Renewed(outside) if outside else None
    plane = ControlPlane(settings)
    address = plane.layout.run / "control-plane.json"
    host, port = ("127.0.0.1", 0) if settings.host not in LOOPBACK else (settings.host, settings.port)
    listener = _listen(host, 0) if private else _listen_again(host, port, address, "url")
    beyond = _listen_again(settings.host, settings.port, address, "serves") if context else None
    url = f"http://{_host(host)}:{listener.getsockname()[1]}"
    told: dict[str, Any] = {"url": url, "pid": os.getpid()}
    if beyond is not None:
        beyond.listen()
        told["serves"] = f"https://{_host(settings.host)}:{beyond.getsockname()[1]}"

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        try:
            plane.start()
        except Exception as e:  # whoever started this process waits for an answer; the server then ends
            say(_why(e, settings.home).as_dict())
            raise
        listener.listen(_BACKLOG)  # the server listens after this only: whoever reads the address first is not refused
        if not private:
            plane.layout.run.mkdir(exist_ok=True, mode=0o700)
            address.write_bytes(msgspec.json.encode(told))
        say(told)
        try:
            yield
        finally:
            plane.close()

    app = application(plane)
    app.router.lifespan_context = lifespan
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=60,
        server_header=False,
    )
    server = _Server(config, plane, (beyond, context) if beyond is not None and context is not None else None)
    if private:
        threading.Thread(target=_stop_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """A server that lets go of those who wait for a flow's news as soon as it is to end."""

    def __init__(
        self, config: uvicorn.Config, plane: ControlPlane, beyond: tuple[socket.socket, Renewed] | None
    ) -> None:
        super().__init__(config)
        self._plane = plane
        self._beyond = beyond

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, on loopback and where else it shall."""
        await super().startup(sockets)
        if self._beyond is not None:
            self.servers.append(await outward.serve(self, *self._beyond))

    def end(self) -> None:
        """Finish what is in flight, then stop."""
        self.should_exit = True
        self._plane.events.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._plane.events.close()
        super().handle_exit(sig, frame)


def application(plane: ControlPlane) -> FastAPI:
    """The API and the console of an opened home, for loopback names only."""
    provider = plane.sign_ins is not None
    pages = console.build(HomeReader(plane), HomeSessions(plane), ConsoleGuard(plane.door), provider=provider)
    app = api.build(plane, [pages, oidc.build(oidc.HomeSignIns(plane))])
    as_json = app.exception_handlers[HTTPException]

    async def nowhere(request: Request, error: Exception) -> Response:
        """A page for people, JSON for programs."""
        if "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/"):
            return console.no_such_page(request)
        answer = as_json(request, error)
        return answer if isinstance(answer, Response) else await answer

    app.add_exception_handler(404, nowhere)
    app.add_exception_handler(405, nowhere)
    app.add_middleware(LoopbackNames)
    app.add_middleware(SecurityHeaders)
    return app


def say(message: dict[str, Any]) -> None:
    """One line for whoever started this process."""
    sys.stdout.write(msgspec.json.encode(message).decode() + "\n")
    sys.stdout.flush()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as e:
        listener.close()
        if e.errno != errno.EADDRINUSE:
            raise Invalid(
                f"{host}:{port} cannot be listened on: {e.strerror or e}",
                hint="set FALAJ_HOST to an address of this machine",
                code="no_such_address",
            ) from e
        raise Unavailable(
            f"port {port} is taken", hint="set FALAJ_PORT to a free one, or to 0 for any", code="port_taken"
        ) from e
    return listener


def _listen_again(host: str, port: int, address: Path, name: str) -> socket.socket:
    """Listen on the port that is set; else on the one that this home had last, or on any if that is taken."""
    if port:
        return _listen(host, port)
    try:
        last = urlsplit(msgspec.json.decode(address.read_bytes())[name]).port or 0
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        last = 0
    try:
        return _listen(host, last)
    except Unavailable:
        return _listen(host, 0)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _stop_with_parent(server: _Server) -> None:
    while os.read(0, 4096):  # not sys.stdin: a thread that waits there would be in the way of the process's end
        pass
    server.end()


def _why(error: Exception, home: Path) -> FalajError:
    """Why a home cannot be served, for whoever started this process."""
    if isinstance(error, FalajError):
        return error
    said = next(iter(str(error).splitlines()), "")
    return refusal(error, home) or Unavailable(
        f"the home cannot be opened: {type(error).__name__}: {said}"[:500],
        hint=f"the trace is in {home / 'run' / 'control-plane.log'}; compare the home with a backup",
        code="home_not_opened",
    )


if __name__ == "__main__":
    main()
