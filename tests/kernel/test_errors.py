from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.kernel.errors import (
    KINDS,
    Conflict,
    Denied,
    FalajError,
    Integrity,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
    from_dict,
)

EXPECTED = {
    NotFound: (404, 1),
    Conflict: (409, 1),
    Invalid: (422, 1),
    Denied: (403, 1),
    Unauthenticated: (401, 1),
    Unavailable: (503, 3),
    Integrity: (500, 4),
}
TEXT = st.text(min_size=1, max_size=40)
CODE = st.from_regex(r"[a-z][a-z_]{0,30}", fullmatch=True)


@pytest.mark.parametrize(("kind", "status", "exit_code"), [(k, *v) for k, v in EXPECTED.items()])
def test_each_kind_has_its_status_and_exit_code(kind: type[FalajError], status: int, exit_code: int) -> None:
    error = kind("no", hint="do this", code="x")
    assert (error.status, error.exit_code) == (status, exit_code)
    assert isinstance(error, FalajError) and str(error) == error.message == "no"


def test_six_kinds_and_no_more() -> None:
    assert set(KINDS.values()) == set(EXPECTED) - {Unauthenticated}
    assert all(KINDS[kind.kind] is kind for kind in KINDS.values())


def test_an_error_without_a_code_cannot_be_made() -> None:
    assert NotFound("no", hint="h", code="blob_missing").code == "blob_missing"
    with pytest.raises(TypeError):
        NotFound("no", hint="h")  # type: ignore[call-arg]  # that is what is tried


@given(st.sampled_from(sorted(KINDS)), TEXT, TEXT, CODE, st.dictionaries(TEXT, st.integers() | TEXT, max_size=3))
def test_an_error_travels_as_json(kind: str, message: str, hint: str, code: str, details: dict[str, object]) -> None:
    error = KINDS[kind](message, hint=hint, code=code, details=details)
    arrived = from_dict(msgspec.json.decode(msgspec.json.encode(error.as_dict())))
    assert type(arrived) is type(error)
    assert arrived.as_dict() == error.as_dict()


def test_unauthenticated_arrives_as_a_denial() -> None:
    assert type(from_dict(Unauthenticated("no", hint="h", code="no_token").as_dict())) is Denied


@pytest.mark.parametrize(
    "body", [{}, {"kind": "success"}, {"kind": None, "details": None}, {"kind": "error"}, {"details": "said"}]
)
def test_what_nobody_understands_is_unavailable_and_says_what_to_do(body: dict[str, object]) -> None:
    error = from_dict(body)
    assert type(error) is Unavailable
    assert error.message and error.hint


def test_details_are_never_shared() -> None:
    one, two = NotFound("a", hint="h", code="x"), NotFound("b", hint="h", code="x")
    one.details["x"] = 1
    assert two.details == {}


def test_what_was_sent_can_always_be_told_again() -> None:
    error = Invalid("there is no \ud800", hint="not \udfff", code="x")
    assert error.message == str(error) == r"there is no \ud800" and error.hint == r"not \udfff"
    assert msgspec.json.encode(error.as_dict())
