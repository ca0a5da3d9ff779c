"""Scripts that belong to no package, such as proofs and examples, as modules that a test can look into."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def loaded(path: Path) -> Iterator[ModuleType]:
    """The script as a module, for the time of the block. What it does to `sys.path` is undone afterwards."""
    name, before = f"script_{path.stem}", list(sys.path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and msgspec look their own module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = before
        del sys.modules[name]
