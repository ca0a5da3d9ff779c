"""Numbers of entries as a project sees them: names, and no places in the log."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.audit.veil import Veil

VEIL = Veil(b"a secret")
ENTRIES = st.integers(0, 2**52 - 1)


@given(ENTRIES, st.sampled_from(["north", "south"]))
def test_a_number_leads_back_to_its_entry_and_json_keeps_it_exact(index: int, project: str) -> None:
    number = VEIL.number(project, index)
    assert 0 <= number < 2**52 and VEIL.index(project, number) == index


@given(ENTRIES)
def test_it_leads_elsewhere_for_another_project_and_in_another_home(index: int) -> None:
    number = VEIL.number("north", index)
    assert VEIL.index("south", number) != index and Veil(b"another").index("north", number) != index


def test_numbers_of_neighbours_say_nothing_of_their_order() -> None:
    numbers = [VEIL.number("north", n) for n in range(2_000)]
    assert len(set(numbers)) == 2_000
    rising = sum(a < b for a, b in itertools.pairwise(numbers))
    assert 850 < rising < 1150  # half of 1,999, within seven standard deviations
    assert min(numbers) < 2**45 and max(numbers) > 2**52 - 2**45  # all over the range
