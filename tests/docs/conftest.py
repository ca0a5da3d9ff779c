"""One library of followed pages a run; at the end, the blocks that nothing runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import skips
from tests.docs.library import Library

KEPT = os.environ.get("FALAJ_DOCS_WORLDS", "")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """The pages that this run follows. FALAJ_DOCS_WORLDS names a folder in which worlds stay for the next run."""
    kept = KEPT and Path(KEPT).absolute()
    made = Library(tmp_path_factory.mktemp("docs"), kept or None)
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the blocks that no test runs, each with its reason."""
    followed = any("tests/docs/test_pages" in r.nodeid for r in terminalreporter.stats.get("passed", []))
    if followed:
        terminalreporter.section("blocks of the documents that are not run")
        for place, reason in skips():
            terminalreporter.write_line(f"{place}: {reason}")
