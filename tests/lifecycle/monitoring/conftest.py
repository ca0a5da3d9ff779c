"""Somebody else's service for a module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifecycle.monitoring.visits import Endpoint, serving


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """It serves as long as the module's tests run."""
    with serving() as made:
        yield made
