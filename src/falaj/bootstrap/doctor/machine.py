"""Python, the installed distributions, ONNX Runtime. Heavy libraries are tried in a process of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata

import falaj
from falaj.bootstrap.doctor.model import PROBLEM, WELL, Finding, Patient

_LEAST = (3, 11)
_HEAVY = ("onnxruntime", "polars", "deltalake", "pandera", "lightgbm", "onnx")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SECONDS = 60


def python(_patient: Patient) -> Iterator[Finding]:
    """Whether this Python, and what is installed in it, is what this release needs."""
    if sys.version_info < _LEAST:
        needed = ".".join(map(str, _LEAST))
        yield Finding(
            "machine", "python_too_old", PROBLEM, f"this is Python {sys.version.split()[0]}", f"use {needed} or newer"
        )
    missing = []
    for requirement in metadata.requires("falaj") or []:
        name = _NAME.match(requirement)
        if name and "extra ==" not in requirement and ";" not in requirement and not _installed(name[0]):
            missing.append(name[0])
    if missing:
        told = f"not installed: {', '.join(missing)}"
        yield Finding("machine", "distribution_missing", PROBLEM, told, "install the release again: make install")
    else:
        told = f"falaj {falaj.__version__} on Python {sys.version.split()[0]}, with everything that it requires"
        yield Finding("machine", "python", WELL, told)


def libraries(_patient: Patient) -> Iterator[Finding]:
    """Whether the libraries of steps and of the data plane load."""
    code = "import importlib, sys\nfor n in sys.argv[1:]:\n    importlib.import_module(n)"
    command = [sys.executable, "-I", "-c", code, *_HEAVY]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        why = (
            done.stderr.strip().splitlines()[-1]
            if done.returncode and done.stderr.strip()
            else f"exit {done.returncode}"
        )
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        failed, why = True, f"it takes longer than {_SECONDS} s"
    if failed:
        told = f"a library cannot be loaded: {why[:300]}"
        yield Finding("machine", "library_not_loaded", PROBLEM, told, "install the release again: make install")
    else:
        yield Finding("machine", "libraries", WELL, f"ONNX Runtime and {len(_HEAVY) - 1} others load")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
