"""Requests, failures and latency of a window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.lifecycle.monitoring.health import Health
from falaj.lifecycle.serving.model import LATENCY_SECONDS

TIMES = st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=40)


def counted(times: list[tuple[float, bool]]) -> Health:
    health = Health()
    for seconds, failed in times:
        health = health.add(seconds, failed=failed)
    return health


@given(TIMES, TIMES)
def test_two_windows_add_up_to_the_window_of_both(
    first: list[tuple[float, bool]], second: list[tuple[float, bool]]
) -> None:
    assert counted(first) + counted(second) == counted(first + second)
    both = counted(first + second)
    assert (both.requests, both.errors) == (len(first + second), sum(failed for _, failed in first + second))
    assert sum(both.latency) == both.requests - both.errors


@given(st.lists(st.floats(0.00001, 4.9), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_answer_that_it_is_of(times: list[float], share: float) -> None:
    found = counted([(t, False) for t in times]).quantile_ms(share)
    assert found is not None
    rank = sorted(times)[min(len(times) - 1, max(0, -(-int(share * len(times) * 1e9) // int(1e9)) - 1))]
    high = next(b for b in LATENCY_SECONDS if rank <= b)
    low = max((b for b in LATENCY_SECONDS if b < high), default=0.0)
    assert 1000 * low - 1e-6 <= found <= 1000 * high + 1e-6


def test_nothing_answered_has_no_latency_and_what_is_too_slow_has_the_last_bound() -> None:
    assert counted([(0.2, True)]).quantile_ms(0.5) is None
    assert counted([(60.0, False)]).quantile_ms(0.5) == pytest.approx(1000 * LATENCY_SECONDS[-1])
