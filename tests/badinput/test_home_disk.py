"""A disk of 8 MB that fills up, and one that is read-only: a clear error, nothing lost, and the same command works once
there is room. The sweep over how much room is left is `proofs/disk.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from falaj.kernel.disk import refusal
from tests.badinput.disks import seen
from tests.badinput.machine import private_mounts, project  # noqa: F401 - a fixture


def is_full(told: dict[str, Any]) -> bool:
    """Whether a command said that the disk is full, what to free and where, and ended with 3."""
    assert told["out"] is not None and "Traceback" not in told["err"], told
    assert told["code"] == 3 and told["out"]["code"] == "disk_full", told
    assert "KiB are left" in told["out"]["error"] and ".falaj" in told["out"]["error"]
    assert told["out"]["details"]["free_bytes"] < 2 << 20
    return "free some room" in told["out"]["hint"]


def test_in_mid_ingest(project: Path, tmp_path: Path) -> None:  # noqa: F811
    found = seen(private_mounts(), "ingest", tmp_path / "disk", project, 480)
    assert is_full(found["full"])
    assert found["again"]["code"] == 0 and found["audit"]["code"] == 0, found
    newest, *_, first = found["kept"]
    assert first["added"] == 4243 and newest["added"] > 3000
    assert newest["rows"] == sum(v["added"] for v in found["kept"])


def test_while_it_serves_and_registers(project: Path, tmp_path: Path) -> None:  # noqa: F811
    """Predictions that cannot be recorded are refused, those that were answered are there; a training rests."""
    found = seen(private_mounts(), "serving", tmp_path / "disk", project, 600)
    assert is_full(found["training"]) and is_full(found["token"])
    assert found["refused"]["code"] == 3 and found["refused"]["out"]["code"] in ("journal_unavailable", "disk_full")
    assert found["status"]["code"] == 0, found["status"]
    assert found["recorded"] and set(found["recorded"]) == {0}
    for again in ("predicted", "token again", "training again", "audit", "down"):
        assert found[again]["code"] == 0, (again, found[again])


def test_a_read_only_home(project: Path, tmp_path: Path) -> None:  # noqa: F811
    found = seen(private_mounts(), "read-only", tmp_path / "disk", project)
    for command, told in found.items():
        assert (told["code"], told["out"]["code"]) == (3, "not_writable"), (command, told)
        assert ".falaj" in told["out"]["error"] and "read-only" in told["out"]["hint"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), "disk_full"),
        (OSError(122, "Disk quota exceeded"), "disk_full"),
        (RuntimeError("Generic LocalFileSystem error: No space left on device (os error 28)"), "disk_full"),
        (OSError(30, "Read-only file system", "/x/y"), "not_writable"),
        (PermissionError(13, "Permission denied", "/x/y"), "not_writable"),
        (OSError(5, "Input/output error"), None),
        (ValueError("something else"), None),
    ],
)
def test_what_a_failure_means(tmp_path: Path, error: Exception, code: str | None) -> None:
    """Also behind another error that it caused."""
    behind = RuntimeError("it failed")
    behind.__cause__ = error
    for e in (error, behind):
        told = refusal(e, tmp_path / "not" / "there")
        assert (told.code if told else None) == code
