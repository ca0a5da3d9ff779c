"""The area under the curve, against counting every pair."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from falaj.statistics.ranking import roc_auc

scored = st.lists(st.tuples(st.integers(-5, 5).map(float), st.booleans()), max_size=40)


@given(scored)
def test_equals_counting_every_pair(pairs: list[tuple[float, bool]]) -> None:
    above = [s for s, positive in pairs if positive]
    below = [s for s, positive in pairs if not positive]
    found = roc_auc(pairs)
    if not above or not below:
        assert math.isnan(found)
        return
    wins = sum((a > b) + 0.5 * (a == b) for a in above for b in below)
    assert math.isclose(found, wins / (len(above) * len(below)))


def test_a_perfect_and_a_reversed_order() -> None:
    assert roc_auc([(0.1, False), (0.9, True)]) == 1
    assert roc_auc([(0.9, False), (0.1, True)]) == 0
