"""Homes of earlier releases, unpacked for a test."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import msgspec

from falaj.kernel.clock import parse_iso, set_replay

FIXTURES = Path(__file__).parent / "fixtures"


def unpacked(version: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A home's project folder, its clock set to when it was left, and what must be found in it."""
    with tarfile.open(FIXTURES / f"home-{version}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    project = folder / "kept"
    for private in ("keys", "tokens"):  # unpacking leaves the rights of folders to the system
        (project / ".falaj" / private).chmod(0o700)
    expected: dict[str, Any] = msgspec.json.decode((project / "expected.json").read_bytes())
    set_replay(project / ".falaj", parse_iso(expected["shows"]))
    return project, expected
