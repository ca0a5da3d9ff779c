"""A file at the moment when it is read, and what its bytes and its columns look like."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from falaj.kernel.errors import Invalid
from falaj.lifecycle.data.steps import looks
from falaj.lifecycle.data.steps.files import load


def until_refused(path: Path, project: Path) -> None:
    for _ in range(200):
        load(path, project)


def test_a_file_that_is_written_to_while_it_is_read_is_refused_and_read_later(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x" * (64 << 20))  # long enough for its time to be changed while it is read
    stop = threading.Event()

    def touch() -> None:
        for n in itertools.count(1):
            os.utime(path, ns=(n, n))
            if stop.is_set():
                return

    writer = threading.Thread(target=touch)
    writer.start()
    try:
        with pytest.raises(Invalid) as refused:
            until_refused(path, tmp_path)
    finally:
        stop.set()
        writer.join()
    assert refused.value.code == "source_file_changing" and "a.csv" in refused.value.message
    assert len(load(path, tmp_path).data) == 64 << 20


def test_a_file_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        load(tmp_path / "a.csv", tmp_path)
    assert refused.value.code == "source_file_unreadable" and "taken away" in refused.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch(0)
    with pytest.raises(Invalid) as refused:
        load(tmp_path / "a.csv", tmp_path)
    assert refused.value.code == "source_file_unreadable" and "rights" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "encoding", "found"),
    [
        ("a,b\n1,2\n", "utf-8", ""),
        ("a,b\n1,2\n", "utf-8-sig", ""),
        ("المتجر,b\n1,2\n", "utf-8", ""),
        ("a,b\n1,2\n", "utf-16", "utf-16"),
        ("a,b\n1,2\n", "utf-16-le", "utf-16le"),
        ("a,b\n1,2\n", "utf-16-be", "utf-16be"),
        ("a,b\n1,2\n", "utf-32", "utf-32"),
        ("\0" * 100, "utf-8", ""),
        ("", "utf-8", ""),
    ],
)
def test_wide_characters_are_known_with_and_without_their_mark(text: str, encoding: str, found: str) -> None:
    assert looks.wide_encoding(text.encode(encoding)) == found


@pytest.mark.parametrize(
    ("missing", "have", "found"),
    [
        ("visits", ["shop", "Visits"], "Visits"),
        ("visits", ["shop", " visits "], " visits "),
        ("sold_at", ["SoldAt", "shop"], "SoldAt"),
        ("sold_at", ["sold at", "shop"], "sold at"),
        ("price", ["prize", "shop"], "prize"),
        ("price", ["weight", "shop"], ""),
        ("price", [], ""),
    ],
)
def test_the_nearest_column_is_a_guess_only_where_it_is_near(missing: str, have: list[str], found: str) -> None:
    assert looks.nearest(missing, have) == found


def test_a_column_s_name_is_shown_so_that_nothing_hides_in_it() -> None:
    assert looks.listed(["a", " b", "c\0", "d" * 100, "المتجر"]) == f"a, ' b', 'c\\x00', {'d' * 59}…, المتجر"
    assert looks.listed([str(n) for n in range(14)]).endswith("11 and 2 more")
