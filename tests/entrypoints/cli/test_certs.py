"""`falaj certs keep` as a process: it renews what is due while it runs, and ends when it is told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from falaj.governance.identity.authority import Authority, create
from falaj.governance.identity.tls import Party, own_peer
from falaj.kernel.clock import SystemClock

COMMAND = (str(Path(sys.executable).with_name("falaj")), "certs", "keep")


class Earlier:
    """A clock that is behind."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return SystemClock().now() - self._by


@pytest.fixture
def issued(tmp_path: Path) -> Path:
    """A folder with a certificate of a day, of which in a moment a third is left."""
    create(tmp_path / "ca", "example.org", SystemClock())
    behind = Earlier(timedelta(hours=16) - timedelta(seconds=3))
    Authority(tmp_path / "ca", behind).issue("control-plane", (), 24, tmp_path / "to")
    return tmp_path / "to"


def test_it_renews_while_it_runs_and_ends_with_ctrl_c(issued: Path, tmp_path: Path) -> None:
    party = Party(str(issued), "example.org", "control-plane")
    before = own_peer(party).until
    with subprocess.Popen(
        [*COMMAND, str(tmp_path / "ca"), str(issued)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as keeping:
        assert keeping.stdout is not None
        assert "the next is renewed on" in keeping.stdout.readline()
        assert "spiffe://example.org/control-plane until" in keeping.stdout.readline()
        assert own_peer(party).until - before >= timedelta(hours=15)
        keeping.send_signal(signal.SIGINT)
        assert keeping.wait(20) == 130


def test_once_tells_what_was_renewed(issued: Path, tmp_path: Path) -> None:
    Authority(tmp_path / "ca", Earlier(timedelta(hours=20))).issue("control-plane", (), 24, issued)
    again = [*COMMAND, str(tmp_path / "ca"), str(issued), "--once", "--json"]
    done = subprocess.run(again, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["id"] == "spiffe://example.org/control-plane"
    assert subprocess.run(again, capture_output=True, text=True, check=True, timeout=60).stdout == ""
