"""A sample of the proof that no marker is found in a home, and that one would be: the whole is `make prove NAME=markers`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scripts import loaded

SCRIPT = Path(__file__).parents[2] / "proofs" / "markers.py"


def test_the_search_finds_every_form_and_every_store_without_its_encryption_and_none_with_it(tmp_path: Path) -> None:
    with loaded(SCRIPT) as proof:
        assert proof.controls(proof.Markers(3), tmp_path) == []


@pytest.mark.timeout(900)
def test_a_hundred_markers_through_a_whole_home_leave_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with loaded(SCRIPT) as proof:
        assert proof.prove(tmp_path, 100) == 0, capsys.readouterr().err
    assert "0 files with one; controls all turned red" in capsys.readouterr().out
