"""What counts as evidence is read through a signature every time; what is filed in SQL proves nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import update

from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.digests import canonical_json, sha256
from falaj.kernel.errors import Denied, FalajError
from falaj.lifecycle.evidence.model import GateSpec, Measurement, Verdict, judge
from falaj.lifecycle.evidence.statements import test_result as statement_of
from falaj.lifecycle.evidence.store import statements_table
from falaj.lifecycle.registry.model import ModelVersion
from tests.lifecycle.house import MODEL, NAMES, House

GATE = NAMES[0]
_c = statements_table.c


def passed(digest: str, value: float = 0.9) -> dict[str, Any]:
    gate = GateSpec("metric", "roc_auc", at_least=0.6)
    return copy.deepcopy(statement_of(f"{MODEL}@1", digest, judge(gate, Measurement(gate.name, value))))


def file(home: House, version: ModelVersion, envelope: bytes, **more: str) -> None:
    """Put another envelope in the place of the first gate's."""
    where = (_c.digest == version.digest, _c.gate == GATE)
    assert home.sql(update(statements_table).where(*where).values(envelope=home.plane.blobs.put(envelope), **more)) == 1


def signed(home: House, statement: dict[str, Any]) -> bytes:
    return canonical_json(home.plane.signer.sign_statement(statement))


def by_another_key(home: House, version: ModelVersion) -> bytes:
    return canonical_json(EnvelopeSigner(Ed25519PrivateKey.generate()).sign_statement(passed(version.digest)))


def about_another(home: House, version: ModelVersion) -> bytes:
    return signed(home, passed(sha256(b"another")))


def about_two(home: House, version: ModelVersion) -> bytes:
    statement = passed(version.digest)
    statement["subject"] += passed(sha256(b"another"))["subject"]
    return signed(home, statement)


def about_nothing(home: House, version: ModelVersion) -> bytes:
    return signed(home, {**passed(version.digest), "subject": []})


def of_another_type(home: House, version: ModelVersion) -> bytes:
    return signed(home, {**passed(version.digest), "predicateType": "https://example.com/other/v1"})


def contradicting(home: House, version: ModelVersion) -> bytes:
    """The measurement failed, and the result says PASSED."""
    statement = passed(version.digest, 0.1)
    statement["predicate"]["result"] = "PASSED"
    return signed(home, statement)


def contradicting_the_other_way(home: House, version: ModelVersion) -> bytes:
    statement = passed(version.digest)
    statement["predicate"]["result"] = "FAILED"
    return signed(home, statement)


def changed_after_signing(home: House, version: ModelVersion) -> bytes:
    envelope = msgspec.json.decode(signed(home, passed(version.digest, 0.1)))
    envelope["payload"] = msgspec.json.decode(signed(home, passed(version.digest, 0.9)))["payload"]
    return canonical_json(envelope)


def without_signatures(home: House, version: ModelVersion) -> bytes:
    return canonical_json({**msgspec.json.decode(signed(home, passed(version.digest))), "signatures": []})


def as_another_payload(home: House, version: ModelVersion) -> bytes:
    return canonical_json(home.plane.signer.sign("application/json", canonical_json(passed(version.digest))))


def no_json(home: House, version: ModelVersion) -> bytes:
    return b"not an envelope"


def a_list(home: House, version: ModelVersion) -> bytes:
    return b"[]"


def an_incomplete_one(home: House, version: ModelVersion) -> bytes:
    statement = passed(version.digest)
    del statement["predicate"]["configuration"]
    return signed(home, statement)


FORGED: list[Callable[[House, ModelVersion], bytes]] = [
    by_another_key, about_another, about_two, about_nothing, of_another_type, contradicting, contradicting_the_other_way,
    changed_after_signing, without_signatures, as_another_payload, no_json, a_list, an_incomplete_one,
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED, ids=lambda f: f.__name__)
def test_a_statement_that_does_not_hold_is_not_counted(
    home: House, forged: Callable[[House, ModelVersion], bytes]
) -> None:
    version = home.packaged()
    home.measured(version)
    before, _ = home.plane.evidence.verdicts(version.digest)
    assert before[GATE] is Verdict.SUCCESSFUL
    file(home, version, forged(home, version))
    verdicts, _ = home.plane.evidence.verdicts(version.digest)
    assert set(verdicts) == set(NAMES) - {GATE}
    with pytest.raises(Denied, match="no evidence"):
        home.plane.registry.register(version.digest, "engineer", home.operation())
    with pytest.raises(FalajError):
        home.plane.evidence.findings(version.digest)
    wrong = [f for s, f in home.plane.evidence.examined(version.digest) if s.gate == GATE]
    assert len(wrong) == 1 and isinstance(wrong[0], FalajError)


def test_the_verdict_in_sql_is_not_believed(home: House) -> None:
    version = home.packaged()
    home.measured(version, metric_roc_auc=0.1)
    where = (_c.digest == version.digest, _c.gate == GATE)
    home.sql(update(statements_table).where(*where).values(verdict="Successful", reason="0.9 meets >= 0.6"))
    assert home.plane.evidence.verdicts(version.digest)[0][GATE] is Verdict.FAILED


def test_one_gate_s_statement_does_not_speak_for_another(home: House) -> None:
    version = home.packaged()
    home.measured(version, scan=3.0)
    filed = {s.gate: s.envelope for s in home.plane.evidence.statements(version.digest)}
    where = (_c.digest == version.digest, _c.gate == "scan")
    home.sql(update(statements_table).where(*where).values(envelope=filed[GATE]))
    assert "scan" not in home.plane.evidence.verdicts(version.digest)[0]


def test_what_is_recorded_is_audited_with_its_verdicts(home: House) -> None:
    version = home.packaged()
    evidence = home.measured(version, metric_roc_auc=0.2)
    detail = home.log(action="evidence.record", resource_id=version.alias)[0].entry.detail
    assert detail["evidence"] == evidence and detail["on_behalf_of"] == "engineer"
    assert detail["verdicts"] == {NAMES[0]: "Failed", NAMES[1]: "Successful", NAMES[2]: "Successful"}
    kinds = [s.gate for s, finding in home.plane.evidence.findings(version.digest) if finding is None]
    assert kinds == ["build"]
