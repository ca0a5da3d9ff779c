"""A control plane for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifecycle.house import House, house


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for a module; its tests use versions of their own."""
    with house(tmp_path_factory.mktemp("house")) as opened:
        yield opened
