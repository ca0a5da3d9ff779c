from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.governance.audit.support import Log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.publisher.stop()
    made.database.close()


@pytest.fixture(scope="session")
def small_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Log]]:
    """Published logs of a size, to be read only."""
    made: dict[int, Log] = {}

    def of(size: int) -> Log:
        if size not in made:
            made[size] = Log(tmp_path_factory.mktemp(f"log{size}"))
            made[size].append(size)
            made[size].publisher.publish()
        return made[size]

    yield of
    for one in made.values():
        one.database.close()
