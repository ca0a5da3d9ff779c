"""The reference profile: one form in bytes, and about one contract."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.digests import canonical_json
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import PROFILE_BYTES, Profile, read_profile
from tests.lifecycle.serving.plane.fleet import flight_contract, profile_of

CONTRACT = flight_contract()
GOOD = profile_of(CONTRACT)
FLAT = [0.0] * 8
"""What is said of days that are alike."""


def changed(**values: Any) -> bytes:
    """The good profile with other values, by path: `features__hour__nulls=3`."""
    profile = msgspec.json.decode(GOOD)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = profile
        for name in parents:
            place = place[name]
        place[last] = value
    return canonical_json(profile)


def daily(days: int = 9, **values: Any) -> bytes:
    """The good profile of some days, with other values for the hour."""
    return changed(days=days, **{f"features__hour__{name}": value for name, value in values.items()})


def test_a_profile_may_count_numbers_and_say_how_unlike_its_days_are() -> None:
    """The hour's quantiles lie evenly from 0 to 1: ten bins."""
    said = daily(binned=[6] * 10, spread=[0.5, -0.1, *[0.0] * 6], directions=2.5)
    hour = read_profile(said, CONTRACT).features["hour"]
    assert (hour.binned, hour.spread[:2], hour.directions) == ((6,) * 10, (0.5, -0.1), 2.5)
    assert read_profile(daily(1), CONTRACT).days == 1


def test_a_profile_is_read_back_as_it_was_written() -> None:
    profile = read_profile(GOOD, CONTRACT)
    assert canonical_json(profile) == GOOD
    assert profile.features.keys() == {i.name for i in CONTRACT.inputs}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not a profile"),
        (b"[]", "is not a profile"),
        (b"[" * 100_000, "is not a profile"),
        (b"\xff", "is not a profile"),
        (changed(rows="60"), "is not a profile"),
        (changed(features__hour__mean=None), "not in its canonical form"),
        (GOOD + b"\n", "not in its canonical form"),
        (GOOD[:-1] + b',"run":"rm -rf"}', "not in its canonical form"),
        (GOOD[:-1] + b',"rows":60}', "not in its canonical form"),
        (GOOD + b" " * PROFILE_BYTES, "has more than 16,777,216 bytes"),
        (changed(features={}), "not about the features"),
        (changed(features__seats={"type": "integer", "nulls": 0}), "not about the features"),
        (changed(features__hour__type="float"), "does not describe the integer hour"),
        (changed(features__hour__nulls=61), "does not describe the integer hour"),
        (changed(features__hour__quantiles=[0.0, 1.0]), "does not describe the integer hour"),
        (changed(features__hour__counts={"9": 60}), "does not describe the integer hour"),
        (changed(features__carrier__counts={"ZZ": 60}), "does not describe the category carrier"),
        (changed(features__carrier__counts={"AA": 59}), "does not describe the category carrier"),
        (changed(features__carrier__counts={"AA": 61, "B6": -1}), "does not describe the category carrier"),
        (changed(features__gusty__counts={"maybe": 60}), "does not describe the boolean gusty"),
        (changed(features__gusty__mean=0.5), "does not describe the boolean gusty"),
        (changed(score=[{"mean": 0.5, "deviation": 0.1, "quantiles": []}]), "does not describe the score"),
        (daily(-1), "speaks of -1 days in 60 rows"),
        (daily(61), "speaks of 61 days in 60 rows"),
        (daily(binned=[6] * 9), "does not describe the integer hour"),
        (daily(binned=[7] * 10), "does not describe the integer hour"),
        (daily(binned=[-1, 13, *[6] * 8]), "does not describe the integer hour"),
        (daily(nulls=60), "does not describe the integer hour"),
        (daily(spread=[0.0] * 7, directions=1.0), "does not describe the integer hour"),
        (daily(spread=[-0.1, *[0.0] * 7], directions=1.0), "does not describe the integer hour"),
        (daily(spread=FLAT, directions=0.5), "does not describe the integer hour"),
        (daily(spread=FLAT, directions=99.0), "does not describe the integer hour"),
        (daily(directions=2.0), "does not describe the integer hour"),
        (daily(1, spread=FLAT, directions=1.0), "does not describe the integer hour"),
        (daily().replace(b'"mean"', b'"directions":1.0,"mean"', 1).replace(b'"deviation"', b'"spread":[NaN],"deviation"', 1), "is not a profile"),
        (daily(spread=[1e308 * 10, *[0.0] * 7], directions=1.0), "is not a profile"),
        (changed(days=9, features__carrier__binned=[60]), "does not describe the category carrier"),
    ],
)  # fmt: skip
def test_anything_else_is_no_profile(data: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said) as refusal:
        read_profile(data, CONTRACT)
    assert refusal.value.code == "bad_profile" and refusal.value.hint


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_other_bytes_never_say_the_same(at: int, byte: int) -> None:
    data = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        profile: Profile | None = read_profile(data, CONTRACT)
    except Invalid:
        profile = None
    assert data == GOOD or profile != read_profile(GOOD, CONTRACT)
