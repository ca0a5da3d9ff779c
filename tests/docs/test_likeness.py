"""The comparison that the pages are judged by: what is shown must come, and nothing else will do."""

from __future__ import annotations

import pytest

from tests.docs.likeness import differences, learn

DIGEST = "sha256:" + "ab12" * 16
OTHER = "sha256:" + "cd34" * 16


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ("3 rows stored", "3 rows stored"),
        ("name   state", "name  state   "),
        (f"m@1 {DIGEST}", f"m@1 {OTHER}"),
        ("m@1 82c323643547 is awaiting", "m@1 9a589c2e546f is awaiting"),
        ("at 2013-01-27T03:00:00.003Z", "at 2026-11-22T04:36Z"),
        ("0.616284 meets >= 0.58", "0.7 meets >= 0.58"),
        ("present, 3,185 s old", "present, 58.6 min old".replace("min", "s")),
        ("digest sha256:…", f"digest {OTHER}"),
        ("bak_… is in …/backups", "bak_01m80rfhhaym1d4whnhvzmka5z is in /tmp/x/backups"),
        ("p_017hwz65bf33gbtcscrv9j8nnr_8", "p_01m80pcyqx2202ha67s0tbk0fk_201"),
    ],
)
def test_what_differs_each_time_is_alike(shown: str, came: str) -> None:
    assert differences([shown], [came]) == ""


@pytest.mark.parametrize(
    ("shown", "came"),
    [
        ("3 rows stored", "4 rows stored"),
        ("m@1 approved", "m@2 approved"),
        ("refused a may not", "refused b may not"),
        ("verdict Successful", "verdict Failed"),
        ("m@1 82c323643547 is awaiting", "m@1 nothing is awaiting"),
        ("… is well", "nothing is lost"),
        ("one", ""),
        ("", "one"),
    ],
)
def test_what_is_told_otherwise_is_not_alike(shown: str, came: str) -> None:
    assert differences([shown], [came])


def test_a_line_of_dots_stands_for_any_lines() -> None:
    assert differences(["a", "…", "z"], ["a", "b", "c", "z"]) == ""
    assert differences(["a", "…", "z"], ["a", "z"]) == ""
    assert differences(["…", "z"], ["a", "z", "b"])
    assert differences(["a", "…"], ["b"])


def test_a_shown_name_stands_for_the_one_that_came() -> None:
    shown = ["x", "m@1 82c323643547  p_017hwz65bf33gbtcscrv9j8nnr_8", "data plane http://127.0.0.1:1: … generation 3"]
    came = [
        "y",
        "m@1 9a589c2e546f  p_01m80pcyqx2202ha67s0tbk0fk_201",
        "data plane http://127.0.0.1:2: now, generation 3",
    ]
    assert learn(shown, came) == {
        "82c323643547": "9a589c2e546f",
        "p_017hwz65bf33gbtcscrv9j8nnr_8": "p_01m80pcyqx2202ha67s0tbk0fk_201",
        "http://127.0.0.1:1": "http://127.0.0.1:2",
    }
