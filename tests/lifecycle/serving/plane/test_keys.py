"""What a model asks for, and what a caller is told who may not ask."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from falaj.governance.identity.verify import KnownToken, make_token, token_hash
from falaj.governance.policy.decide import CedarAuthoriser, policy_text
from falaj.kernel.clock import iso
from falaj.kernel.errors import Denied, Invalid
from falaj.lifecycle.serving.model import OBSERVE, PLANE_ACTIONS
from falaj.lifecycle.serving.plane.protocol import metadata, read_columns, read_request, wanted_inputs
from falaj.lifecycle.serving.plane.state import Permits
from falaj.lifecycle.training.model import JoinKey
from tests.lifecycle.serving.plane.fleet import flight, flight_contract

BOTH = msgspec.structs.replace(
    flight_contract(), keys=(JoinKey("airport", "origin"), JoinKey("carrier", "carrier"))
)  # `carrier` is a request feature too


def test_a_request_feature_that_is_a_key_too_is_told_as_one() -> None:
    inputs = metadata(BOTH, ["1"], {"probability": [-1], "label": [-1]})["inputs"]
    told = {i["name"]: i["parameters"]["join_key"] for i in inputs}
    assert told == {"distance": False, "hour": False, "carrier": True, "origin": True}


def test_a_key_is_short_even_when_it_is_a_feature_too() -> None:
    body = flight()
    next(i for i in body["inputs"] if i["name"] == "carrier")["data"] = ["A" * 257]
    with pytest.raises(Invalid, match="too long"):
        read_columns(
            wanted_inputs(BOTH),
            ("distance", "hour", "carrier", "origin"),
            read_request(json.dumps(body).encode()).inputs,
        )


def test_a_denial_is_told_as_the_other_plane_tells_it() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    identifier, token = make_token()
    until = iso(now + timedelta(days=1))
    known = KnownToken(identifier, token_hash(token, b"pepper"), "timetable", "service", ("service",), until)
    permits = Permits((known,), b"pepper", CedarAuthoriser(policy_text("production"), PLANE_ACTIONS))
    with pytest.raises(Denied) as denial:
        permits.admit(f"Bearer {token}", OBSERVE, "production", now)
    assert denial.value.message.startswith(f"timetable may not {OBSERVE.summary} (production): no rule permits it")
