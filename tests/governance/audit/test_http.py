"""The published log over HTTP, read as a client of tlog-tiles reads it."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from falaj.bootstrap import api
from falaj.bootstrap.control_plane import ControlPlane
from falaj.governance.audit import merkle, note, tiles
from falaj.governance.audit.model import Conditions
from falaj.governance.audit.verify import verify_folder
from falaj.kernel.access import SYSTEM, Principal
from falaj.kernel.settings import load_settings

LOG = "/api/v1/audit/log"


class Home:
    """A home's application, and a token for each role."""

    def __init__(self, folder: Path) -> None:
        self.plane = ControlPlane(load_settings({}, folder))
        self.app: FastAPI = api.build(self.plane)
        grant = self.plane.identity.grant
        self.tokens = {r: grant(SYSTEM, Principal(r, "person", (r,)), 1).token for r in ("viewer", "auditor")}

    def get(self, path: str, role: str = "auditor") -> httpx.Response:
        async def ask() -> httpx.Response:
            headers = {"authorization": f"Bearer {self.tokens[role]}"}
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
                answer = await client.get(path)
            await self.plane.steps.dismiss()  # this loop ends here
            return answer

        return asyncio.run(ask())

    def actions(self) -> list[tuple[str, str]]:
        found = self.plane.audit.search(Conditions(principal="auditor", limit=50))
        return [(f.entry.action, str(f.entry.detail)) for f in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"))
    yield made
    made.plane.close()


def test_a_client_of_tiles_finds_the_log_that_the_checkpoint_signs(home: Home, tmp_path: Path) -> None:
    vkey = home.get(f"{LOG}/vkey").text.strip()
    answer = home.get(f"{LOG}/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    checkpoint = note.open_checkpoint(answer.content, note.parse_vkey(vkey))
    fetched = {"checkpoint": answer.content, "vkey": f"{vkey}\n".encode()}
    for path in tiles.paths(checkpoint.size):  # each bundle that is read adds an entry, and the log grows meanwhile
        tile = home.get(f"{LOG}/{path}")
        assert (tile.status_code, tile.headers["content-type"]) == (200, "application/octet-stream")
        fetched[path] = tile.content
    assert home.plane.audit.size() > checkpoint.size
    for name, data in fetched.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    report = verify_folder(tmp_path, vkey, exported=True)
    assert (report.ok, report.size) == (True, checkpoint.size)


def test_what_tells_entries_is_an_entry(home: Home) -> None:
    home.get(f"{LOG}/tile/0/000.p/1")
    home.get(f"{LOG}/checkpoint")
    before = home.actions()
    home.get(f"{LOG}/tile/entries/000.p/1")
    home.get("/api/v1/audit/proofs/0")
    home.get("/api/v1/audit/export")
    now = home.actions()
    assert [a for a, _ in now[: len(now) - len(before)]] == ["audit.export", "audit.prove", "audit.fetch"]
    assert "tile/entries/000.p/1" in now[2][1]


@pytest.mark.parametrize(
    "path",
    [f"{LOG}/checkpoint", f"{LOG}/vkey", f"{LOG}/tile/0/000.p/1", f"{LOG}/tile/entries/000.p/1", "/api/v1/audit/export",
     "/api/v1/audit/proofs/0", "/api/v1/audit/consistency?old=1", "/api/v1/audit/witnesses"],
)  # fmt: skip
def test_a_viewer_gets_nothing_of_it(home: Home, path: str) -> None:
    assert home.get(path, "viewer").status_code == 403
    assert home.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["0/1", "0/999", "entries/999", "9/000", "0/000.p/0", "0/..%2f..%2fvkey", "..%2f..%2fkeys%2flog.pem", "0/%2e%2e/000",
     "0/000.p/1/", "x", "entries/000.p/257"],
)  # fmt: skip
def test_a_path_that_names_no_tile_gets_none(home: Home, path: str) -> None:
    answer = home.get(f"{LOG}/tile/{path}")
    assert answer.status_code == 404
    assert b"PRIVATE" not in answer.content


def test_consistency_over_http(home: Home) -> None:
    vkey = note.parse_vkey(home.get(f"{LOG}/vkey").text.strip())
    old = note.open_checkpoint(home.get(f"{LOG}/checkpoint").content, vkey)
    home.get("/api/v1/audit/proofs/0")
    answer = home.get(f"/api/v1/audit/consistency?old={old.size}").json()
    new = note.open_checkpoint(answer["checkpoint"].encode(), vkey)
    assert new.size > old.size
    hashes = [note.unbase64(h) for h in answer["hashes"]]
    merkle.verify_consistency(old.size, new.size, old.root, new.root, hashes)
    for wrong in ("old=0", f"old=1&new={new.size + 50}", "old=2&new=1", "old=x"):
        assert home.get(f"/api/v1/audit/consistency?{wrong}").status_code == 422


def test_an_export_is_a_tar_of_the_log(home: Home, tmp_path: Path) -> None:
    (tmp_path / "log.tar").write_bytes(home.get("/api/v1/audit/export").content)
    with tarfile.open(tmp_path / "log.tar") as tar:
        tar.extractall(tmp_path / "log", filter="data")
    assert verify_folder(tmp_path / "log", home.plane.publisher.vkey, exported=True).ok
