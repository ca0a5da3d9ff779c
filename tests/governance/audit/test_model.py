from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.governance.audit import model
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Integrity, Invalid

ENTRY = model.Entry(
    "2026-03-01T12:00:00.000Z", "owner", "model.approve", "ModelVersion", "m@1", "done", "op_1", {"n": 1}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def entry(**changes: Any) -> model.Entry:
    return model.Entry(**{name: getattr(ENTRY, name) for name in model.Entry.__struct_fields__} | changes)


@given(st.text(max_size=2000), st.dictionaries(st.text(), JSON, max_size=6))
def test_what_is_recorded_survives_exactly(text: str, detail: dict[str, Any]) -> None:
    recorded = model.fitted(entry(resource_id=text, detail=detail))
    data = model.encode(recorded)
    assert len(data) <= model.MAX_ENTRY
    assert model.decode(data) == recorded
    assert model.encode(model.decode(data)) == data


@given(st.text(min_size=600, max_size=3000))
def test_six_long_fields_and_large_detail_fit(text: str) -> None:
    long = dict.fromkeys(("principal", "action", "resource_type", "resource_id", "outcome", "operation_id"), text)
    recorded = model.fitted(entry(**long, detail={"x": "y" * 5000}))
    assert len(model.encode(recorded)) <= model.MAX_ENTRY
    assert recorded.detail["truncated"] is True
    assert recorded.principal == model.bounded(text)
    assert model.bounded(recorded.principal) == recorded.principal


def test_worst_characters_fit() -> None:
    for char in ("\x00", "\U0001f600", '"'):
        long = dict.fromkeys(
            ("principal", "action", "resource_type", "resource_id", "outcome", "operation_id"), char * 999
        )
        assert len(model.encode(model.fitted(entry(**long, detail={"x": "y" * 5000})))) <= model.MAX_ENTRY


def test_large_detail_is_referred_to_by_its_digest() -> None:
    detail = {"text": "x" * 5000}
    assert model.fitted(entry(detail=detail)).detail == {"sha256": sha256(canonical_json(detail)), "truncated": True}


def test_detail_becomes_what_json_can_say() -> None:
    assert model.fitted(entry(detail={"pair": (1, 2), "nan": float("nan")})).detail == {"pair": [1, 2], "nan": None}


@pytest.mark.parametrize("detail", [{"x": object()}, {"x": "\ud800"}, {"x": {3: "three"}}])
def test_detail_that_is_not_json_is_refused(detail: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        model.fitted(entry(detail=detail))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: b" " + d,
        lambda d: d.replace(b'"n":1', b'"n":1.0').replace(b"1.0", b"1.00"),
        lambda d: d.replace(b'"outcome"', b'"outcomes"'),
        lambda d: d.replace(b'"detail":{"n":1},', b""),
        lambda d: d[:-1] + b',"zzz":1}',
        lambda d: d[:-1],
        lambda d: b"\xff" + d,
        lambda d: d.replace(b'"done"', b'"done","outcome":"denied"'),
    ],
)
def test_bytes_that_encode_would_not_write_are_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(Integrity):
        model.decode(change(model.encode(ENTRY)))


def test_an_entry_that_was_not_fitted_is_refused() -> None:
    with pytest.raises(Invalid):
        model.encode(entry(detail={"x": "y" * 5000}))


def test_conditions_are_checked() -> None:
    with pytest.raises(Invalid):
        model.Conditions(limit=0)
    with pytest.raises(Invalid):
        model.Conditions(limit=model.MAX_FOUND + 1)
    with pytest.raises(Invalid):
        model.Conditions(since=datetime(2026, 1, 1))  # noqa: DTZ001  a time without a zone is the point


def test_actions_have_their_groups() -> None:
    assert {(a.name, a.group, a.resource) for a in model.ACTIONS} == {
        ("audit.read", "audit", "AuditLog"),
        ("audit.verify", "read", "AuditLog"),
        ("audit.fetch", "audit", "AuditLog"),
        ("audit.prove", "audit", "AuditLog"),
        ("audit.export", "audit", "AuditLog"),
        ("audit.shard", "administration", "AuditLog"),
        ("audit.turn", "system", "AuditLog"),
    }
