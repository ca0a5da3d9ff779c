"""Statements: a foreign library accepts them, and they say what the finding says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from falaj.kernel.digests import sha256
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence import statements
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, findings, judge
from falaj.lifecycle.training.model import DatasetUse

DIGEST = sha256(b"model")
FACTS = BuildFacts(
    project=sha256(b"code"),
    datasets=(DatasetUse("flights", 3, sha256(b"flights")),),
    views={"weather": sha256(b"view")},
    runtime=sha256(b"lock"),
    training_set=sha256(b"set"),
    as_of="2024-01-01T00:00:00.000Z",
    run="run_1",
    params={"trees": 3},
)


def foreign(found: dict[str, Any]) -> Statement:
    parsed = json_format.Parse(json.dumps(found), statement_pb2.Statement())
    statement = Statement.copy_from_pb(parsed)
    statement.validate()
    return statement


@pytest.mark.parametrize(
    ("value", "problem", "result"), [(0.8, "", "PASSED"), (0.6, "", "FAILED"), (None, "no holdout", "FAILED")]
)
def test_a_gate_s_statement_holds_its_result_limit_and_measurement(value: Any, problem: str, result: str) -> None:
    gate = GateSpec("metric", "roc_auc", at_least=0.7)
    finding = judge(gate, Measurement(gate.name, value, {"rows": 300}, problem))
    found = statements.test_result("flight-delay", DIGEST, finding)
    foreign(found)
    parsed = json_format.ParseDict(found["predicate"], test_result_pb2.TestResult())
    assert parsed.result == result
    gate_said, measured = found["predicate"]["configuration"]
    assert gate_said["annotations"]["at_least"] == 0.7
    assert measured["annotations"]["value"] == value
    assert measured["annotations"]["problem"] == problem
    assert found["subject"] == [{"name": "flight-delay", "digest": {"sha256": DIGEST.removeprefix("sha256:")}}]


def test_provenance_names_every_fact_by_digest() -> None:
    found = statements.provenance(
        "flight-delay",
        DIGEST,
        FACTS,
        builder="https://falaj.dev/home/1",
        started="2024-01-02T00:00:00Z",
        finished="2024-01-02T00:01:00Z",
    )
    foreign(found)
    parsed = json_format.ParseDict(found["predicate"], provenance_pb2.Provenance())
    named = {d.name: d.digest["sha256"] for d in parsed.build_definition.resolved_dependencies}
    assert named.keys() == {"project", "runtime", "training-set", "flights", "weather"}
    assert "sha256:" + named["flights"] == FACTS.datasets[0].digest


def test_a_subject_that_is_no_digest_is_refused() -> None:
    with pytest.raises(Invalid):
        statements.statement("m", "latest", statements.TEST_RESULT, {})


def test_a_gate_that_was_not_measured_is_an_error() -> None:
    gates = (GateSpec("metric", "roc_auc", at_least=0.7), GateSpec("scan"))
    judged = findings(gates, (Measurement("scan", 0.0),))
    assert [f.verdict.value for f in judged] == ["Error", "Successful"]
