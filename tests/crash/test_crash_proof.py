"""A few kill points of `proofs/crash.py`, what it takes for one moment, and what it does not let pass as equal."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.scripts import loaded

PROOFS = Path(__file__).parents[2] / "proofs"


@pytest.fixture(scope="module")
def proof() -> Iterator[ModuleType]:
    known = set(sys.modules)
    sys.path.insert(0, str(PROOFS))  # where a script that is run finds what lies beside it
    with loaded(PROOFS / "crash.py") as module:
        yield module
    sys.path.remove(str(PROOFS))
    for name in {"_crash_home", "_crash_summary"} - known:
        sys.modules.pop(name, None)


@pytest.mark.timeout(300)
def test_some_kill_points_end_like_the_undisturbed_run_and_the_control_does_not() -> None:
    command = [sys.executable, str(PROOFS / "crash.py"), "--only", "start", "load", "--sample", "4", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = re.match(r"crash: (\d) of (\d) kill points end like .*; idempotency off: 1 of 1 differ", done.stdout)
    assert told and told[1] == told[2] and int(told[1]) >= 3, done.stdout


def test_points_with_nothing_between_them_are_one_moment(proof: ModuleType) -> None:
    points = ["step:a:before", "falaj:1:before", "falaj:1:after", "step:a:after", "flows:1:before", "flows:1:after"]
    more = ["step:b:before", "says:train:1", "metrics:1:before", "metrics:1:after", "file:blobs:1:before"]
    assert proof.moments([*points, *more]) == [
        "step:a:before",
        "falaj:1:before",
        "falaj:1:after",
        "step:a:after",
        "flows:1:after",
        "says:train:1",
        "metrics:1:after",
        "file:blobs:1:before",  # its bytes are there under another name
    ]


def entry(operation: str, action: str = "registry.move", **detail: Any) -> dict[str, Any]:
    return {"action": action, "operation_id": operation, "resource_id": "m@1", "detail": detail}


def told(proof: ModuleType, *entries: dict[str, Any]) -> dict[str, Any]:
    tell = sys.modules["_crash_summary"].Teller()
    return {"audit": [tell(e) for e in entries]}


ONE = "bld_01m80n01n8gekd03esvmcqf3hq:a"
OTHER = "bld_01m80n01n8gekd03esvmcqf3hz:a"


def test_ids_times_and_digests_may_differ(proof: ModuleType) -> None:
    one = told(proof, entry(ONE, digest=f"sha256:{'1' * 64}", at="2026-01-01T00:00:00.000Z"))
    other = told(proof, entry(OTHER, digest=f"sha256:{'2' * 64}", at="2026-01-02T00:00:00.000Z"))
    assert proof.differences(one, other) == []


@pytest.mark.parametrize(
    "entries",
    [
        (entry(ONE), entry(ONE)),  # done twice
        (entry(ONE), entry(OTHER)),  # done again as another operation
        (),  # not done
        (entry(ONE, action="registry.admit"),),
        (entry(ONE, to="refused"),),
    ],
)
def test_what_was_done_twice_or_otherwise_is_found(proof: ModuleType, entries: tuple[dict[str, Any], ...]) -> None:
    assert proof.differences(told(proof, entry(ONE)), told(proof, *entries))


def test_what_refers_to_something_else_is_found(proof: ModuleType) -> None:
    """Ids may differ, but who is meant by them may not."""
    same, another = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    one = told(proof, entry(ONE, digest=same), entry(OTHER, digest=same))
    other = told(proof, entry(ONE, digest=same), entry(OTHER, digest=another))
    assert proof.differences(one, other)


def result(proof: ModuleType, **changed: Any) -> Any:
    return proof.Result(
        **{"story": "build", "at": "falaj:1:after", "reached": True, "wrong": [], "seconds": 1.0, **changed}
    )


@pytest.mark.parametrize(
    ("changed", "control", "children", "status"),
    [
        ({}, [True, True], [True], 0),
        ({"wrong": ["audit: more"]}, [True], [], 1),
        ({}, [True, False], [], 1),  # a control that stays green says that the proof sees nothing
        ({"reached": False}, [True], [], 1),  # nothing was killed at all
        ({}, [True], [False], 1),
    ],
)
def test_the_verdict(
    proof: ModuleType,
    changed: dict[str, Any],
    control: list[bool],
    children: list[bool],
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert proof._verdict([result(proof, **changed)], control, children, 1.0) == status
    said = capsys.readouterr().out
    assert said.startswith("crash: ") and f"idempotency off: {sum(control)} of {len(control)} differ" in said
