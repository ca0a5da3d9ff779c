"""The data plane over HTTP: the protocol, identity, hostile input. One process for the whole module."""

from __future__ import annotations

import gzip
import json
import re
import socket
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.kernel.access import Action
from falaj.kernel.errors import Invalid
from falaj.lifecycle.serving.model import PLANE_ACTIONS
from falaj.lifecycle.serving.plane.app import ROUTES, Public, Route, Router, live
from falaj.lifecycle.serving.plane.journal import iter_records, read_record
from tests.lifecycle.serving.plane.conftest import Running
from tests.lifecycle.serving.plane.fleet import eventually, flight

INFER = "/v2/models/flight-delay/infer"


def infer(running: Running, body: Any, path: str = INFER) -> httpx.Response:
    return running.http.post(path, json=body, headers=running.headers())


# The protocol


def test_an_answer_names_version_and_prediction_and_echoes_the_id(running: Running) -> None:
    response = infer(running, flight(2))
    body = response.json()
    assert response.status_code == 200, body
    assert (body["model_name"], body["model_version"], body["id"]) == ("flight-delay", "1", "request-1")
    assert body["parameters"]["version_digest"] == running.digest
    assert body["parameters"]["features"] == {"present": 2, "expired": 0, "missing": 0}
    assert body["parameters"]["generation"] == 1
    probability, label = body["outputs"]
    assert (probability["name"], probability["shape"], probability["datatype"]) == ("probability", [2], "FP32")
    # 0.001·500 + 0.01·9 + 0.1·0 (AA) + 0.05·10 + 0.2·1 = 1.29
    assert probability["data"] == pytest.approx([0.78414720] * 2, abs=1e-6)
    assert label == {"name": "label", "shape": [2], "datatype": "INT64", "data": [1, 1]}


def test_an_answer_is_in_the_journal_as_it_was_given(running: Running) -> None:
    body = infer(running, flight()).json()
    record = read_record(running.home.plane / "journal", body["parameters"]["prediction_id"] + "/0")
    assert record.inputs == {"distance": [500.0], "hour": [9], "carrier": ["AA"], "origin": ["JFK"]}
    assert record.features == {"wind": [10.0], "gusty": [1.0]}
    assert record.statuses == {"airport_weather": ["present"]}
    assert record.outputs == {o["name"]: o["data"] for o in body["outputs"]}
    assert (record.digest, record.principal, record.generation, record.request) == (
        running.digest,
        "shop",
        1,
        "request-1",
    )


@pytest.mark.parametrize(
    "key", [("OLD", "expired"), ("FUTURE", "expired"), ("LAX", "missing"), (None, "missing"), ("", "missing")]
)
def test_features_that_are_stale_or_not_there_are_not_used_and_counted(
    running: Running, key: tuple[str | None, str]
) -> None:
    body = infer(running, flight(origin=key[0])).json()
    assert body["parameters"]["features"] == {"present": 0, "expired": 0, "missing": 0} | {key[1]: 1}
    assert body["outputs"][0]["data"] == pytest.approx([0.64336514], abs=1e-6)  # 0.59, without weather


def test_large_batches_are_answered_like_small_ones(running: Running) -> None:
    body = infer(running, flight(3000)).json()
    assert body["outputs"][0]["data"] == pytest.approx([0.78414720] * 3000, abs=1e-6)


def test_a_caller_may_ask_for_one_output(running: Running) -> None:
    body = infer(running, flight() | {"outputs": [{"name": "label"}]}).json()
    assert [o["name"] for o in body["outputs"]] == ["label"]
    assert infer(running, flight() | {"outputs": [{"name": "none"}]}).json()["code"] == "unknown_output"


def test_versions_are_addressed_by_number_and_by_digest(running: Running) -> None:
    for version in ("1", running.digest):
        assert infer(running, flight(), f"/v2/models/flight-delay/versions/{version}/infer").status_code == 200
        assert (
            running.http.get(f"/v2/models/flight-delay/versions/{version}", headers=running.headers()).status_code
            == 200
        )
    assert infer(running, flight(), "/v2/models/flight-delay/versions/2/infer").json()["code"] == "version_not_found"


def test_metadata_says_what_to_send(running: Running) -> None:
    body = running.http.get("/v2/models/flight-delay", headers=running.headers()).json()
    assert [(i["name"], i["datatype"]) for i in body["inputs"]] == [
        ("distance", "FP64"), ("hour", "INT64"), ("carrier", "BYTES"), ("origin", "BYTES"),
    ]  # fmt: skip
    assert [(o["name"], o["shape"]) for o in body["outputs"]] == [("probability", [-1]), ("label", [-1])]
    ready = running.http.get("/v2/models/flight-delay/ready", headers=running.headers())
    assert (ready.status_code, ready.json()) == (200, {"name": "flight-delay", "ready": True})


def test_health_and_server_metadata_are_public(running: Running) -> None:
    assert running.http.get("/v2/health/live").json() == {"live": True}
    assert running.http.get("/v2/health/ready").json() == {"ready": True}
    assert running.http.get("/v2").json()["name"] == "falaj"


def test_a_model_without_a_finite_answer_gives_none_and_is_blamed(running: Running) -> None:
    def body(x: float) -> dict[str, Any]:
        return {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [x]}]}

    assert infer(running, body(2.0), "/v2/models/overflow/infer").json()["outputs"][0]["data"] == pytest.approx([2e30])
    before = running.http.get("/falaj/v1/status", headers=running.headers(running.viewer)).json()["errors"]
    response = infer(running, body(1e30), "/v2/models/overflow/infer")
    assert (response.status_code, response.json()["code"]) == (422, "no_finite_answer")
    record = read_record(running.home.plane / "journal", response.json()["details"]["prediction_id"])
    assert record.error and record.not_finite
    assert record.outputs == {}
    assert running.http.get("/falaj/v1/status", headers=running.headers(running.viewer)).json()["errors"] == before + 1


def test_metrics_count_what_happened(running: Running) -> None:
    def count() -> float:
        text = running.http.get("/metrics", headers=running.headers(running.viewer)).text
        found = re.search(
            r'^falaj_predict_requests_total\{worker="1",model="flight-delay",[^}]*\} (\S+)$', text, re.MULTILINE
        )
        assert found, text
        return float(found[1])

    before = count()
    for _ in range(5):
        infer(running, flight())
    assert count() == before + 5


def test_the_status_file_says_what_is_served(running: Running) -> None:
    eventually(lambda: running.plane.status()["requests"] > 0, "the status was not written again")
    status = running.plane.status()
    assert (status["generation"], status["refused_bundle"], status["ready"]) == (1, "", True)
    assert {r["state"] for r in status["releases"]} == {"loaded"}


# Identity and access


def test_every_route_has_an_action_and_none_can_be_made_without() -> None:
    for route in ROUTES:
        assert route.access in PLANE_ACTIONS or isinstance(route.access, Public)
    with pytest.raises(Invalid):
        Route("GET", "/open", None, live)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if isinstance(r.access, Action)], ids=lambda r: f"{r.method} {r.path}"
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_answers_without_a_token(running: Running, route: Route, method: str) -> None:
    path = route.path.replace("{model}", "flight-delay").replace("{version}", "1")
    response = running.http.request(method, path)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_tokens_that_are_not_good_are_refused(running: Running) -> None:
    good = running.predictor
    other = running.home.token("unpublished", ("service",))
    for token in (
        running.expired,
        other,
        good[:-1],
        good.upper(),
        good[:40] + "A" + good[41:],
        "x",
        "é",
        good + " " + good,
    ):
        response = running.http.post(INFER, json=flight(), headers={b"authorization": f"Bearer {token}".encode()})
        assert response.status_code == 401, token
    for header in (good, f"Basic {good}", f"Bearer{good}", "Bearer"):
        assert running.http.post(INFER, json=flight(), headers={"authorization": header}).status_code == 401


def test_a_role_that_may_not_is_refused_with_the_reason(running: Running) -> None:
    response = running.http.post(INFER, json=flight(), headers=running.headers(running.viewer))
    assert (response.status_code, response.json()["code"]) == (403, "denied_by_policy")
    response = running.http.get("/metrics", headers=running.headers(running.predictor))
    assert response.status_code == 403


def test_wrong_method_unknown_path_unknown_model(running: Running) -> None:
    response = running.http.delete(INFER, headers=running.headers())
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert running.http.get("/v3", headers=running.headers()).status_code == 404
    assert infer(running, flight(), "/v2/models/nothing/infer").json()["code"] == "model_not_found"
    for path in (
        "/v2/models/..%2f..%2fetc/infer",
        "/v2/models/%00/infer",
        "/v2//infer",
        "/v2/models/flight-delay/infer/",
    ):
        assert running.http.post(path, json=flight(), headers=running.headers()).status_code == 404


# Hostile input


def test_a_body_that_is_too_large_is_refused(running: Running) -> None:
    big = b" " * (5 << 20)
    assert running.http.post(INFER, content=big, headers=running.headers()).status_code == 413
    chunks = (big[:65536] for _ in range(80))
    assert running.http.post(INFER, content=chunks, headers=running.headers()).status_code == 413
    assert infer(running, flight()).status_code == 200


def test_a_body_that_never_ends_is_given_up(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.plane.port), 20) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.predictor}\r\ncontent-length: 99\r\n\r\n"
        connection.sendall(head.encode() + b"{")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_compressed_body_is_refused(running: Running) -> None:
    bomb = gzip.compress(b" " * (1 << 20))
    response = running.http.post(INFER, content=bomb, headers=running.headers() | {"content-encoding": "gzip"})
    assert (response.status_code, response.json()["code"]) == (400, "binary_not_supported")


def test_broken_http_and_slow_bodies_keep_nobody_waiting(running: Running) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.predictor}\r\n"
    slow = []
    for start in (
        "content-length: 100\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\n5\r\n{",
        "content-length: nan\r\n\r\n",
        "x" * 9000,
    ):
        connection = socket.create_connection(("127.0.0.1", running.plane.port))
        connection.sendall((head + start).encode())
        slow.append(connection)
    for _ in range(20):
        assert infer(running, flight()).status_code == 200
    for connection in slow:
        connection.close()
    assert running.http.get("/v2/health/live").status_code == 200


def test_an_encoding_that_is_no_text_is_not_overlooked(running: Running) -> None:
    for encoding in (b"\xff", b"gzip\xe9", b"identity, gzip", b""):
        response = running.http.post(INFER, json=flight(), headers={b"content-encoding": encoding} | _bytes(running))
        assert (response.status_code, response.json()["code"]) == (400, "binary_not_supported")


def _bytes(running: Running) -> dict[bytes, bytes]:
    return {k.encode(): v.encode() for k, v in running.headers().items()}


def test_long_paths_and_headers_are_not_remembered() -> None:
    """Whoever may ask, or not even that, cannot fill the memory with what they ask."""
    router, path = Router(ROUTES), "/v2/models/{}/infer"
    for number in range(20):
        router.find(path.format("x" * 1000 + str(number)))
        router.find(path.format(number))
    assert sorted(router._found) == sorted(path.format(n) for n in range(20))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["distance", "hour", "carrier", "origin", "wind"]) | st.text(max_size=6)
DATATYPES = st.sampled_from(["FP64", "FP16", "INT64", "UINT8", "BOOL", "BYTES", "FP8", ""])
TENSOR = st.fixed_dictionaries(
    {
        "name": NAMES,
        "shape": st.lists(st.integers(-2, 3), max_size=3) | JSON,
        "datatype": DATATYPES,
        "data": st.lists(JSON, max_size=3),
    },
    optional={"parameters": JSON},
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=5)}, optional={"id": JSON, "parameters": JSON, "outputs": JSON}
)
VALUES = st.none() | st.floats(width=64) | st.integers() | st.text(max_size=5) | st.booleans()
LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "distance": st.floats(width=32) | st.integers(),
    "hour": st.integers(),
    "carrier": st.text(),
    "origin": st.text(),
}
NEARLY = st.fixed_dictionaries({}, optional={n: likely | VALUES for n, likely in LIKELY.items()}).map(
    lambda values: flight(1, **values)
)


def never_at_fault(running: Running, content: bytes) -> None:
    response = running.http.post(INFER, content=content, headers=running.headers())
    assert response.status_code in (200, 400), (response.status_code, content)
    body = response.json()
    if response.status_code == 400:
        assert body["error"]
        assert body["hint"]
        assert body["code"]
    else:
        assert 0 <= body["outputs"][0]["data"][0] <= 1


HOSTILE = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@HOSTILE
@given(body=REQUEST | JSON)
def test_any_json_is_answered_or_refused(running: Running, body: Any) -> None:
    never_at_fault(running, json.dumps(body).encode())


@HOSTILE
@given(body=NEARLY)
def test_any_value_is_answered_or_refused(running: Running, body: Any) -> None:
    never_at_fault(running, json.dumps(body).encode())


@HOSTILE
@given(data=st.data())
def test_any_damage_to_a_good_request_is_answered_or_refused(running: Running, data: st.DataObject) -> None:
    content = bytearray(json.dumps(flight()).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.integers(0, 2))
        piece = data.draw(st.binary(max_size=4))
        content[at : at + kind] = piece
    never_at_fault(running, bytes(content))


def test_the_journal_holds_every_answer_of_this_module(running: Running) -> None:
    """Runs last: as many records as requests that a model answered or failed."""
    status = running.http.get("/falaj/v1/status", headers=running.headers(running.viewer)).json()
    records = [r for s in (running.home.plane / "journal").glob("*.seg") for r in iter_records(s)]
    assert len(records) == status["requests"] > 50
    assert "500" not in status["responses"]
    assert "503" not in status["responses"]
