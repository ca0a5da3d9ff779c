"""What a worker takes beyond loopback is handed on whole, both ways, and ends when it should."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from falaj.governance.identity.tls import Mutual, Party, client_of
from falaj.kernel.access import Principal
from falaj.kernel.errors import Denied
from falaj.lifecycle.serving.plane import front
from falaj.lifecycle.serving.plane.behind import Peers
from falaj.lifecycle.serving.plane.front import Front, Outward
from falaj.lifecycle.serving.plane.verify import read_trust
from tests.governance.identity.forge import DOMAIN, Forge
from tests.lifecycle.serving.plane.fleet import Home

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class Scene:
    """A front, the server behind it, and an operator's certificate."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "home")
        self.forge, self.root = Forge(), root
        self.environment = read_trust(self.home.plane / "trust.json").environment
        role = f"data-plane/{self.environment}"
        self.forge.write(root / "host", role, role)
        self.forge.write(root / "laptop", "operator", "operator/alice")
        self.peers = Peers(self.home.plane, 1, DOMAIN, self.environment)
        self.context: Mutual = client_of(str(root / "laptop"), DOMAIN, "operator", role)

    @contextlib.asynccontextmanager
    async def open(self, answer: Answer = echo) -> AsyncIterator[tuple[Front, int]]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        outward = Outward("127.0.0.1", 0, str(self.root / "host"), DOMAIN)
        found = Front(outward, self.home.plane, server.sockets[0].getsockname())
        await found.start(self.peers)
        try:
            yield found, found.port
        finally:
            await found.stop()
            server.close()

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, ssl=self.context)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_hands_on_every_byte_both_ways_and_no_faster_than_is_read(scene: Scene) -> None:
    sent = bytes(range(256)) * 40_000  # ten megabytes: more than any buffer holds

    async def run() -> None:
        async with scene.open() as (_, port):
            reader, writer = await scene.connect(port)

            async def send() -> None:
                for at in range(0, len(sent), 65536):
                    writer.write(sent[at : at + 65536])
                    await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(sent)) == sent
            await sending
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_whose_connection_it_is_is_known_before_the_first_byte(scene: Scene) -> None:
    told: list[str] = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        host, port = writer.get_extra_info("peername")
        for name in ("alice", "eve"):
            try:
                scene.peers.check(f"{host}:{port}", Principal(name, "person", ("viewer",)))
                told.append(name)
            except Denied:
                continue
        writer.close()

    async def run() -> None:
        async with scene.open(ask) as (_, port):
            reader, writer = await scene.connect(port)
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    assert told == ["alice"]


def test_when_either_side_ends_so_does_the_other(scene: Scene) -> None:
    ended = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"x":
            writer.write(b"bye")
            await writer.drain()
            writer.close()
        else:
            ended.set()
            writer.close()

    async def run() -> None:
        async with scene.open(once) as (_, port):
            reader, writer = await scene.connect(port)
            writer.write(b"x")
            assert await reader.read() == b"bye"
            writer.close()
            _, writer = await scene.connect(port)
            writer.close()
            await ended.wait()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_connection_ends_with_its_certificate(scene: Scene) -> None:
    role = f"data-plane/{scene.environment}"
    party = Party(str(scene.root / "laptop"), DOMAIN, "operator")
    certificate, key = scene.forge.leaf([f"spiffe://{DOMAIN}/operator/alice"], until=timedelta(seconds=3))
    party.certificate.write_bytes(certificate)
    party.key.write_bytes(key)
    scene.context = client_of(party.folder, DOMAIN, "operator", role)

    async def run() -> None:
        async with scene.open() as (_, port):
            reader, writer = await scene.connect(port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            assert await reader.read() == b""  # nobody has closed it but the front
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_one_more_than_the_most_is_hung_up_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "MOST", 1)

    async def run() -> None:
        async with scene.open() as (_, port):
            reader, writer = await scene.connect(port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                again, other = await scene.connect(port)
                other.write(b"x")
                assert await again.read(1) == b""
                other.close()
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_an_answer_that_is_under_way_is_sent_before_it_stops(scene: Scene) -> None:
    async def run() -> None:
        asked = asyncio.Event()

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            asked.set()
            await asyncio.sleep(0)
            writer.write(b"a" * 100_000)
            await writer.drain()
            writer.close()

        async with scene.open(slowly) as (found, port):
            reader, writer = await scene.connect(port)
            writer.write(b"x")
            await asked.wait()
            stopping = asyncio.create_task(found.stop())
            assert len(await reader.read(-1)) == 100_000
            writer.close()
            await stopping

    asyncio.run(asyncio.wait_for(run(), 60))
