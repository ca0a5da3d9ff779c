"""Debian packages that tests need and a fresh machine lacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tools.debian import one_at_a_time


def needed(package: str, file: str) -> Path:
    """A file of a Debian package, which is installed if it is not there. Without a way to install it the test fails."""
    path = Path(file)
    if path.exists():
        return path
    if os.geteuid() != 0:
        pytest.fail(f"this test needs Debian's {package} ({file}): apt-get install {package}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    said = ""
    with one_at_a_time():
        for command in (install, ["apt-get", "update"], install):
            if path.exists():  # by now, perhaps by another test
                return path
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
            said = done.stderr[-500:]
    if path.exists():
        return path
    pytest.fail(f"Debian's {package} could not be installed: {said}")
