"""What stands between Falaj and the real provider in hostile tests: everything passes through, until `tamper` is set.

The relay's address is the provider's issuer, so to Falaj it is the provider.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

Tamper = Callable[[dict[str, Any]], dict[str, Any]]
_PASSED = ("content-type", "location", "set-cookie", "cache-control")


class Relay:
    """Passes on. `nonce` is the last that a browser brought; `asked` counts the paths; `tamper` changes what the token
    endpoint answers, `override` answers a path with bytes of its own."""

    def __init__(self) -> None:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                relay.answer(self)

            def do_POST(self) -> None:
                relay.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.issuer = f"http://{self.host}"
        self.port = 0
        self.nonce = ""
        self.asked: dict[str, int] = {}
        self.tamper: Tamper | None = None
        self.override: dict[str, tuple[int, bytes]] = {}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """Pass a request on, and its answer back."""
        body = asked.rfile.read(int(asked.headers.get("content-length") or 0))
        at = urlsplit(asked.path)
        self.asked[at.path] = self.asked.get(at.path, 0) + 1
        self.nonce = parse_qs(at.query).get("nonce", [self.nonce])[0]
        if at.path in self.override:
            status, told = self.override[at.path]
            headers = [("content-type", "application/json")]
        else:
            status, headers, told = self._pass(asked, body)
        if at.path == "/token" and self.tamper is not None and status == 200:
            told = json.dumps(self.tamper(json.loads(told))).encode()
        asked.send_response(status)
        for name, value in headers:
            asked.send_header(name, value)
        asked.send_header("content-length", str(len(told)))
        asked.end_headers()
        asked.wfile.write(told)

    def _pass(self, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        behind = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {k: v for k, v in asked.headers.items() if k.lower() not in ("connection", "accept-encoding")}
            behind.request(asked.command, asked.path, body or None, headers)
            answer = behind.getresponse()
            told = answer.read()
            return answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() in _PASSED], told
        finally:
            behind.close()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
