"""One process has a home: a second is told so, and a killed one has nothing any more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from falaj.bootstrap.control_plane import ControlPlane
from falaj.entrypoints.cli.client import await_address, control_plane_command
from falaj.kernel import locks
from falaj.kernel.errors import Conflict
from falaj.kernel.settings import Settings


@contextmanager
def started(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A control plane of this home as a process."""
    process = subprocess.Popen(
        control_plane_command(settings, "--private"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_and_a_killed_one_leaves_the_home_at_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", project=tmp_path)
    with started(settings) as first:
        await_address(first)
        with started(settings) as second, pytest.raises(Conflict, match=f"pid {first.pid}") as told:
            await_address(second)
        assert told.value.code == "home_locked" and f"kill {first.pid}" in told.value.hint
        assert second.returncode == told.value.exit_code
        first.kill()
        first.wait()
        assert not locks.held(settings.home / "lock")
        with started(settings) as third:
            assert await_address(third).startswith("http://127.0.0.1:")


def test_a_first_start_that_was_killed_still_leaves_an_administrator(tmp_path: Path) -> None:
    """The token is written down, granted, and gets its name: it is there wherever the process ends between these."""
    settings = Settings(home=tmp_path / "home", project=tmp_path)
    kept, promised = settings.home / "tokens" / "owner", settings.home / "tokens" / ".owner.new"
    promised.parent.mkdir(parents=True)
    promised.write_text("of a start that was killed before it granted anything\n")
    plane = ControlPlane(settings)
    plane.start()
    token = kept.read_text().strip()
    assert plane.identity.authenticate(token).roles == ("platform-admin",) and not promised.exists()
    plane.close()
    kept.rename(promised)  # as a start leaves it that is killed right after it granted
    plane = ControlPlane(settings)
    plane.start()
    assert kept.read_text().strip() == token and plane.identity.authenticate(token).name == "owner"
    assert len(plane.identity.known_tokens()) == 1
    plane.close()


def test_what_a_killed_process_left_half_done_is_gone_after_the_next_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", project=tmp_path)
    plane = ControlPlane(settings)
    digest = plane.blobs.put(b"whole")
    plane.close()
    half = settings.home / "blobs" / digest[7:9] / f".{digest[7:]}.0123abcd"
    half.write_bytes(b"ha")
    workspace = settings.home / "tmp" / "bld_1" / "train" / "rows.parquet"
    workspace.parent.mkdir(parents=True)
    workspace.write_bytes(b"rows")
    plane = ControlPlane(settings)
    assert not half.exists() and not workspace.exists() and plane.blobs.get(digest) == b"whole"
    plane.close()
