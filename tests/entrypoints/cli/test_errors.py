"""`falaj errors`: what a code means, without a home and without a connection."""

from __future__ import annotations

from pathlib import Path

from tests.entrypoints.cli.shell import Shell


def test_a_code_is_explained_anywhere_and_nothing_is_made(tmp_path: Path) -> None:
    shell = Shell(tmp_path, COLUMNS="300")
    ended = shell("errors", "contract_breach")
    assert ended.code == 0 and ended.err == ""
    assert ended.out.startswith("More rows of a load break the source's contract than it allows.")
    assert shell.done("errors", "contract_breach") == {"code": "contract_breach", "about": " ".join(ended.out.split())}
    assert list(tmp_path.iterdir()) == []


def test_without_a_code_all_are_listed(tmp_path: Path) -> None:
    shell = Shell(tmp_path, COLUMNS="300")
    known = shell.done("errors")
    assert len(known) > 300 and list(known) == sorted(known)
    lines = shell("errors").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(known)


def test_a_code_that_is_not_there_says_which_are_like_it(tmp_path: Path) -> None:
    ended = Shell(tmp_path)("errors", "contract_brech")
    assert ended.code == 1
    said, following, more = ended.err.splitlines()
    assert said == "not found there is no error 'contract_brech'"
    assert following.startswith("next: perhaps contract_breach or ")
    assert more == "more: falaj errors no_such_error"
