"""SVG from numbers: the numbers are right, and nothing else gets in."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.entrypoints.console import charts

numbers = st.floats(allow_nan=True, allow_infinity=True)


def paths(markup: str, kind: str = "line") -> list[list[tuple[float, float]]]:
    found = [e for e in ET.fromstring(markup).iter() if kind in (e.get("class") or "").split()]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", e.get("d") or "")] for e in found
    ]


def test_a_sparkline_goes_through_its_points() -> None:
    drawn = charts.sparkline([[(0, 1.0), (1, 3.0), (2, 2.0)]], 108, 28)
    assert paths(drawn) == [[(3, 24), (53, 4), (103, 14)]]  # box 3..103 by 4..24, upwards
    dot = next(e for e in ET.fromstring(drawn) if e.tag == "circle")
    assert (dot.get("cx"), dot.get("cy")) == ("103", "14")


def test_lines_share_one_scale() -> None:
    first, second = paths(charts.curve([[(0, 0.0), (10, 1.0)], [(0, 0.5), (10, 0.5)]], 562, 236))
    assert first == [(52, 210), (552, 10)]
    assert second == [(52, 110), (552, 110)]


def test_what_is_not_finite_lifts_the_pen() -> None:
    drawn = charts.sparkline([[(0, 0.0), (1, math.nan), (2, 1.0), (3, math.inf), (4, 0.5)]])
    d = re.search(r' d="([^"]+)"', drawn)
    assert d is not None and d[1].count("M") == 3 and "L" not in d[1]


@pytest.mark.parametrize("lines", [[], [[]], [[(0, math.nan)]], [[(math.inf, 1.0)]]])
def test_nothing_to_draw_draws_nothing(lines: list[list[tuple[float, float]]]) -> None:
    assert [str(charts.sparkline(lines)), str(charts.curve(lines))] == ["", ""]


def test_a_flat_line_runs_through_the_middle() -> None:
    assert {y for _, y in paths(charts.sparkline([[(0, 7.0), (5, 7.0)]], 100, 28))[0]} == {14}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.5, 1]), (0.41, 0.69, [0.5, 0.6]), (-3, 9, [0, 5]), (0, 199, [0, 50, 100, 150]), (5, 5, [5])],
)
def test_ticks_are_round_numbers_inside(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == expected


def test_axis_labels_name_the_ticks() -> None:
    drawn = charts.curve([[(0, 0.0), (100, 1.0)]])
    texts = {e.text for e in ET.fromstring(drawn).iter() if "tick" in (e.get("class") or "")}
    assert texts == {"0", "0.5", "1", "20", "40", "60", "80", "100"}


def test_thinning_keeps_ends_and_extremes() -> None:
    points: list[tuple[float, float]] = [(i, math.sin(i / 50)) for i in range(10_000)]
    points[4321] = (4321, 9.0)
    kept = charts.thin(points, 200)
    assert len(kept) <= 210
    assert [kept[0], kept[-1]] == [points[0], points[-1]]
    assert (4321, 9.0) in kept


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "bar", "tick", "look"),
    [
        (0.75, 0.5, True, "120", "80", "passed"),
        (0.25, 0.5, True, "40", "80", "missed"),
        (2.5, 5, False, "66.67", "133.33", "passed"),
        (10, 5, False, "133.33", "66.67", "missed"),
    ],
)
def test_a_bullet_shows_value_limit_and_verdict(
    value: float, limit: float, at_least: bool, bar: str, tick: str, look: str
) -> None:
    parts = {(e.get("class") or "").split()[0]: e for e in ET.fromstring(charts.bullet(value, limit, at_least))}
    assert parts["bar"].get("width") == bar and look in (parts["bar"].get("class") or "")
    assert (parts["limit"].get("d") or "").startswith(f"M{tick} ")


def test_a_share_is_a_share() -> None:
    assert 'class="part" x="0" y="0" width="16"' in charts.share_bar(25, 100)
    assert 'class="part" x="0" y="0" width="1.5"' in charts.share_bar(1, 1_000_000)
    assert 'class="part" x="0" y="0" width="0"' in charts.share_bar(0, 10)
    assert charts.share_bar(1, 0) == ""


@given(st.lists(st.lists(st.tuples(st.integers(0, 10_000), numbers), max_size=30), max_size=4), numbers, numbers)
def test_any_numbers_give_well_formed_pictures(lines: list[list[tuple[int, float]]], a: float, b: float) -> None:
    shares = [y for line in lines for _, y in line]
    more = (charts.pairs(shares, shares[::-1]), charts.against(a, b, 0.1), charts.duel(a, b, 0.02), charts.reach(a, b))
    old = (charts.sparkline(lines), charts.curve(lines), charts.bullet(a, b, True), charts.share_bar(a, b))
    for drawn in (*old, *more, charts.evidence(a, b)):
        if drawn:
            ET.fromstring(drawn)
            assert not re.search(r"nan|inf", drawn)


def rects(markup: str, kind: str) -> list[tuple[float, ...]]:
    found = [e for e in ET.fromstring(markup).iter("rect") if kind in (e.get("class") or "").split()]
    return [tuple(float(e.get(k) or 0) for k in ("x", "y", "width", "height")) for e in found]


def test_paired_bars_stand_side_by_side_on_one_scale() -> None:
    drawn = charts.pairs((0.5, 0.25, 0.25), (0.1, 0.8, 0.1), 300, 93)
    assert rects(drawn, "was") == [(12, 36.38, 38, 55.62), (112, 64.19, 38, 27.81), (212, 64.19, 38, 27.81)]
    assert rects(drawn, "is") == [(50, 80.88, 38, 11.12), (150, 3, 38, 89), (250, 80.88, 38, 11.12)]


def test_a_tiny_share_is_seen_and_an_empty_one_is_not() -> None:
    drawn = charts.pairs((1.0, 0.0), (0.9999, 0.0001))
    assert [r[3] for r in rects(drawn, "was")] == [92, 0] and rects(drawn, "is")[1][3] == 1


@pytest.mark.parametrize(("p", "q"), [((), ()), ((0.1,), ()), ((math.nan,), (0.1,)), ((-0.1,), (0.1,))])
def test_shares_that_are_none_draw_nothing(p: tuple[float, ...], q: tuple[float, ...]) -> None:
    assert charts.pairs(p, q) == ""


@pytest.mark.parametrize(
    ("before", "weight", "stable", "challenger"),
    [
        (0, 10, "M0 80C48 80 48 70.5 96 70.5H240V0H0Z", "M0 80C48 80 48 73.5 96 73.5H240V80H0Z"),
        (10, 50, "M0 70.5C48 70.5 48 38.5 96 38.5H240V0H0Z", "M0 73.5C48 73.5 48 41.5 96 41.5H240V80H0Z"),
        (50, 100, "M0 38.5C48 38.5 48 0 96 0H240V0H0Z", "M0 41.5C48 41.5 48 0 96 0H240V80H0Z"),
        (0, 0, "M0 80C48 80 48 80 96 80H240V0H0Z", ""),
        (100, 100, "", "M0 0C48 0 48 0 96 0H240V80H0Z"),
    ],
)
def test_the_channel_splits_by_weight(before: float, weight: float, stable: str, challenger: str) -> None:
    parts = {(e.get("class") or "").split()[-1]: e.get("d") for e in ET.fromstring(charts.reach(before, weight))}
    assert (parts.get("stable", ""), parts.get("challenger", "")) == (stable, challenger)
    assert "mirrored" not in parts and "mirrored" in charts.reach(before, weight, True)


def test_a_weight_that_is_none_draws_nothing() -> None:
    assert [str(charts.reach(a, b)) for a, b in ((0, 101), (-1, 5), (math.nan, 5), (0, math.inf))] == [""] * 4


@pytest.mark.parametrize(
    ("psi", "limit", "floor", "look"),
    [(0.3, 0.25, 0.01, "missed"), (0.3, 0.25, 0.4, "passed"), (0.1, 0.25, 0.01, "passed"), (0.25, 0.25, 0, "passed")],
)
def test_a_psi_is_bad_beyond_limit_and_noise_only(psi: float, limit: float, floor: float, look: str) -> None:
    parts = {(e.get("class") or "").split()[0]: e for e in ET.fromstring(charts.against(psi, limit, floor, 115))}
    end = max(psi, limit, floor) * 1.15
    assert look in (parts["bar"].get("class") or "")
    assert float(parts["bar"].get("width") or 0) == pytest.approx(psi / end * 115, abs=0.01)
    for kind, value in (("limit", limit), ("floor", floor)):
        at = re.match(r"M([\d.]+) 0V14", parts[kind].get("d") or "")
        assert at is not None and float(at[1]) == pytest.approx(value / end * 115, abs=0.01)


def test_a_duel_is_on_one_scale_with_its_margin() -> None:
    drawn = charts.duel(0.4, 0.2, 0.1, 115)
    assert rects(drawn, "stable")[0][2] == pytest.approx(80) and rects(drawn, "challenger")[0][2] == pytest.approx(40)
    assert 'd="M100 0V18"' in drawn and "over" not in drawn
    assert "challenger over" in charts.duel(0.4, 0.6, 0.1) and charts.duel(0, 0, 0.02)


@pytest.mark.parametrize(("value", "part"), [(1, 0), (0.2, 0), (10, 32), (100, 64), (1e300, 64), (math.inf, 64)])
def test_evidence_is_on_a_logarithmic_scale(value: float, part: float) -> None:
    assert rects(charts.evidence(value, 100), "part")[0][2] == pytest.approx(part)
    assert charts.evidence(math.nan, 100) == "" and charts.evidence(5, 1) == ""
