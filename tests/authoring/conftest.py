"""A project's folder, made for one test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """Loading a project changes the module path and what is loaded; put both back."""
    path, loaded = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        file = getattr(sys.modules[name], "__file__", None) or "site-packages"
        if "site-packages" not in file and not name.startswith(("falaj", "tests")):
            del sys.modules[name]


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """Write a project with one module, and other files by name."""

    def write(code: str, **files: str) -> Path:
        (tmp_path / "falaj.toml").write_text('[project]\nname = "some"\nmodule = "some"\n')
        (tmp_path / "some.py").write_text(code)
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path

    return write
