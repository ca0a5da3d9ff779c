"""Findings and build facts as in-toto Statement v1, ready to be signed. Pure.

Predicates: test-result v0.1 for each gate (https://in-toto.io/attestation/test-result/v0.1), SLSA
provenance v1 (https://slsa.dev/provenance/v1). The subject of each is the version's digest.
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.digests import digest_of, parse_digest
from falaj.lifecycle.evidence.model import BuildFacts, Finding, Origin, Verdict

STATEMENT = "https://in-toto.io/Statement/v1"
"""The `_type` of every statement."""
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
IMPORTED = "https://falaj.dev/predicates/import/v1"
BUILD_TYPE = "https://falaj.dev/build/training/v1"

_RESULTS = {
    Verdict.SUCCESSFUL: "PASSED",
    Verdict.INCONCLUSIVE: "WARNED",
    Verdict.MISSING: "FAILED",
    Verdict.FAILED: "FAILED",
    Verdict.ERROR: "FAILED",
}
_LISTS = {"PASSED": "passedTests", "WARNED": "warnedTests", "FAILED": "failedTests"}


def statement(model: str, digest: str, predicate_type: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """An in-toto Statement v1 about one version; `model` names it for people. Raises `Invalid` if `digest` is none."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": model, "digest": _digest_set(digest)}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def test_result(model: str, digest: str, finding: Finding) -> dict[str, Any]:
    """The statement of one gate.

    An Error counts as FAILED, and so does what is Missing: what was not measured is not passed. `configuration` holds the
    gate, and as a second descriptor the measurement with its detail, each under its own digest.
    """
    result = _RESULTS[finding.verdict]
    gate = msgspec.to_builtins(finding.gate)
    measured = {
        **msgspec.to_builtins(finding.measurement),
        "verdict": finding.verdict.value,
        "reason": finding.reason,
    }
    predicate = {
        "result": result,
        "configuration": [
            {"name": finding.gate.name, "digest": _digest_set(digest_of(gate)), "annotations": gate},
            {"name": "measurement", "digest": _digest_set(digest_of(measured)), "annotations": measured},
        ],
        _LISTS[result]: [finding.gate.name],
    }
    return statement(model, digest, TEST_RESULT, predicate)


test_result.__test__ = False  # type: ignore[attr-defined]  # its name is the predicate's; it is no test


def provenance(
    model: str, digest: str, facts: BuildFacts, *, builder: str, started: str, finished: str
) -> dict[str, Any]:
    """The statement of how a version was built: code, data, views, runtime and parameters by digest.

    `builder` is the identity of the platform that trained it (a URI); the times are RFC 3339.
    """
    dependencies = [
        *_named("project", "code", facts.project),
        *_named("runtime", "runtime", facts.runtime),
        *_named("training-set", "training set", facts.training_set),
        *(
            {"name": d.name, "digest": _digest_set(d.digest), "annotations": {"kind": "dataset", "version": d.version}}
            for d in facts.datasets
        ),
        *(
            {"name": name, "digest": _digest_set(view), "annotations": {"kind": "feature view"}}
            for name, view in sorted(facts.views.items())
        ),
    ]
    predicate = {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"model": model, "params": facts.params, "asOf": facts.as_of},
            "internalParameters": {},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": builder},
            "metadata": {"invocationId": facts.run, "startedOn": started, "finishedOn": finished},
        },
    }
    return statement(model, digest, PROVENANCE, predicate)


def imported(model: str, digest: str, origin: Origin, *, started: str, finished: str) -> dict[str, Any]:
    """The statement of where an imported version came from. It is no provenance: how it was built, nobody here knows."""
    predicate = {
        "source": {"uri": origin.uri, "digest": _digest_set(origin.source), "format": origin.format},
        "conversion": origin.how,
        "invocationId": origin.imported,
        "claims": origin.claims,
        "unknown": list(origin.unknown),
        "startedOn": started,
        "finishedOn": finished,
    }
    return statement(model, digest, IMPORTED, predicate)


def _named(name: str, kind: str, digest: str) -> list[dict[str, Any]]:
    return [{"name": name, "digest": _digest_set(digest), "annotations": {"kind": kind}}] if digest else []


def _digest_set(digest: str) -> dict[str, str]:
    return {"sha256": parse_digest(digest).removeprefix("sha256:")}
