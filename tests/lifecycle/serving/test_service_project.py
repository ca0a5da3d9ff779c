"""The bundle's file: written by whoever publishes and by whoever watches, and left half by a process that is killed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from falaj.kernel.access import SYSTEM
from falaj.kernel.digests import sha256
from falaj.lifecycle.serving.model import TrustFile
from falaj.lifecycle.serving.service import prepare_folder
from tests.lifecycle.house import House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as opened:
        yield opened


def test_the_newest_bundle_lies_there_however_many_write_it(home: House) -> None:
    serving, path = home.plane.serving, home.plane.layout.plane / "bundle.json"

    def again(n: int) -> None:
        if n % 4 == 0:
            serving.publish(SYSTEM.name)
        path.unlink(missing_ok=True) if n % 4 == 1 else serving.project()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(again, range(64)))
    serving.project()
    newest = home.plane.database.read(lambda tx: serving._p.store.envelope(tx, serving.target.environment))
    assert sha256(path.read_bytes()) == newest and serving.generation() >= 16


def test_what_a_killed_process_had_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    left = [tmp_path / ".bundle.json.4711.140", tmp_path / ".trust.json.4711.140"]
    own = tmp_path / ".last-good.json.4712.141"  # a data plane may be writing it now
    for path in (*left, own):
        path.write_bytes(b"half")
    prepare_folder(tmp_path, TrustFile("production", ("key",), ("model",)))
    assert not any(path.exists() for path in left) and own.exists() and (tmp_path / "trust.json").exists()
