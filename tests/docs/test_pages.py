"""Every command block of the documents runs, and gives what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.debian import needed
from tests.docs.blocks import ROOT, RUN, SHOWN, pages, skips, steps
from tests.docs.library import Library
from tests.governance.signing.hsm import MODULE

MOST_SKIPS = 18
FENCE = re.compile(r"^ *```(\w*)", re.MULTILINE)
FOLLOWED = [p for p in pages() if any(s.language in RUN or s.direction for s in steps(p))]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_page_can_be_followed(page: Path, library: Library) -> None:
    if "softhsm2-util" in page.read_text("utf-8"):
        needed("softhsm2", MODULE)
    if "golang-go" in page.read_text("utf-8"):
        needed("golang-go", "/usr/bin/go")
        needed("golang-golang-x-mod-dev", "/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog/tile.go")
    reader = library.follow(page)
    assert not reader.wrong, "\n\n".join(["", *reader.wrong])


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_block_says_what_it_is(page: Path) -> None:
    text = page.read_text("utf-8")
    opening = FENCE.findall(text)[::2]
    assert set(opening) <= {*RUN, *SHOWN}, "say console, python, toml, … or text behind the fence"
    assert len(opening) == sum(bool(s.language) for s in steps(page)), "a fence is indented or not closed"
    hidden = [s.line for s in steps(page) if s.language in SHOWN and re.search(r"^\$ ", s.text, re.MULTILINE)]
    assert hidden == [], "commands in a block that is only shown"


def test_few_blocks_are_skipped_and_each_says_why() -> None:
    assert len(skips()) <= MOST_SKIPS
    assert all(len(reason.split()) > 3 for _, reason in skips())
