from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.governance.support import Desk

ROOT = Path(__file__).parents[2]


def run(home: Path, where: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.workflow.crashing", str(home), "flow_1", where]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def tries(home: Path) -> list[str]:
    return (home / "tries").read_text().split()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("before-three", ["one", "two", "three", "three"]),  # what is done is not done again
        ("inside-two", ["one", "two", "two", "three"]),  # the step comes again, its change does not
        ("stop", ["one", "two", "two", "three"]),  # an orderly stop is no worse than a crash
    ],
)
def test_a_flow_is_carried_on_and_each_change_is_done_once(tmp_path: Path, where: str, expected: list[str]) -> None:
    first = run(tmp_path, where)
    if where == "stop":
        assert first.stdout.splitlines()[-1:] == ["stopped"], first.stderr
    else:
        assert first.returncode == -signal.SIGKILL, first.stderr
    second = run(tmp_path, where)
    assert second.returncode == 0, second.stderr
    ended = msgspec.json.decode(second.stdout.splitlines()[-1])
    assert ended == {
        "state": "done",
        "result": {name: {"did": name} for name in ("one", "two", "three")},
        "error": None,
    }
    assert tries(tmp_path) == expected
    desk = Desk(tmp_path)
    assert [e.resource_id for e in desk.entries()] == ["one", "two", "three"]
    assert set(desk.stored_operations()) == {"flow_1:one", "flow_1:two", "flow_1:three"}
    desk.database.close()
