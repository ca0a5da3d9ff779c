"""Many small requests over a few connections, against a server on a socket of its own."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest

from falaj.entrypoints.cli.demo import asking
from falaj.entrypoints.cli.demo.asking import post_all
from falaj.kernel.errors import Unavailable

Answer = Callable[[bytes], bytes | None]
"""What is sent back for a content; None closes the connection without a word."""


class Server(socketserver.ThreadingTCPServer):
    """Speaks HTTP/1.1 as far as the data plane does. Keeps what it was asked, and how many connections there were."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.heads: list[bytes] = []
        self.connections = 0
        self.answer: Answer = echo
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join(20)
        self.server_close()


class Connection(socketserver.StreamRequestHandler):
    """One question after the other, until there are no more."""

    server: Server

    def handle(self) -> None:
        self.server.connections += 1
        while lines := self._head():
            self.server.heads.append(b"".join(lines))
            (length,) = (int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length:"))
            said = self.server.answer(self.rfile.read(length))
            if said is None:
                return
            self.wfile.write(said)

    def _head(self) -> list[bytes]:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            lines.append(line)
        return lines


def said(status: int, content: bytes, *more: bytes) -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 %d Whatever" % status, b"content-type: text/plain", *more])
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def echo(content: bytes) -> bytes | None:
    return said(200, b"you said " + content)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def ask(server: Server, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    return asyncio.run(post_all(server.base, "/v2/models/m/infer", "secret", bodies))


BODIES = [b"%d" % n for n in range(200)]


def test_answers_come_in_the_order_of_the_questions(server: Server) -> None:
    """Whatever order the server takes: every third answer waits until five others were given."""
    given, count = threading.Condition(), [0]

    def answer(content: bytes) -> bytes | None:
        with given:
            if int(content) % 3 == 0:
                wanted = min(count[0] + 5, 100)
                assert given.wait_for(lambda: count[0] >= wanted, 20)
            else:
                count[0] += 1
            given.notify_all()
        return echo(content)

    server.answer = answer
    assert ask(server, BODIES) == [(200, b"you said " + b) for b in BODIES]
    assert 1 < server.connections <= 16, "a few connections that stay open"


def test_what_is_asked(server: Server) -> None:
    ask(server, [b"{}"])
    (head,) = server.heads
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == "POST /v2/models/m/infer HTTP/1.1"
    assert {"Authorization: Bearer secret", "Content-Type: application/json", "Content-Length: 2"} <= set(lines)
    assert f"Host: {server.base.removeprefix('http://')}" in lines


def test_a_status_comes_with_what_the_server_said(server: Server) -> None:
    server.answer = lambda content: said(500 + int(content) % 4, b"" if int(content) % 2 else b"long " * 20_000)
    found = ask(server, BODIES[:40])
    assert [status for status, _ in found] == [500 + n % 4 for n in range(40)]
    assert [len(content) for _, content in found] == [0 if n % 2 else 100_000 for n in range(40)]


def test_a_connection_that_breaks_fails_its_request_and_the_rest_goes_on(server: Server) -> None:
    broken = {b"7", b"8", b"55", b"199"}
    server.answer = lambda content: None if content in broken else echo(content)
    found = ask(server, BODIES)
    assert found == [(0, b"") if b in broken else (200, b"you said " + b) for b in BODIES]
    asked = [h for h in server.heads if h.startswith(b"POST")]
    assert len(asked) == len(BODIES), "none is asked twice"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_answer_that_cannot_be_read_counts_as_failed(server: Server, answer: bytes) -> None:
    server.answer = lambda content: answer if content == b"3" else echo(content)
    found = ask(server, BODIES[:60])
    assert [n for n, (status, _) in enumerate(found) if status != 200] == [3]
    assert found[3] == (0, b"")


def test_half_an_answer_is_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says how long its answer is and stops in the middle: nobody waits for ever."""
    monkeypatch.setattr(asking, "_SECONDS", 0.3)
    server.answer = lambda content: said(200, bytes(100))[:-50] if content == b"3" else echo(content)
    found = ask(server, BODIES[:20])
    assert found[3] == (0, b"") and all(status == 200 for n, (status, _) in enumerate(found) if n != 3)


def test_nothing_asked_nothing_answered(server: Server) -> None:
    assert ask(server, []) == []
    assert server.heads == []


def test_a_server_that_is_not_there_is_said() -> None:
    gone = Server()
    gone.stop()
    with pytest.raises(Unavailable, match="does not answer") as refusal:
        ask(gone, BODIES[:3])
    assert refusal.value.hint
