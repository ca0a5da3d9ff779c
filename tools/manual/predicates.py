"""The page of predicate types: every kind of signed statement, with an example made by the code that makes them."""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import hashing, signing

from falaj.governance.signing import model_signature
from falaj.kernel.digests import FileEntry, digest_of, manifest_digest
from falaj.lifecycle.evidence import statements as evidence
from falaj.lifecycle.evidence.model import BuildFacts, GateSpec, Measurement, Origin, judge
from falaj.lifecycle.registry import statements as verdicts
from falaj.lifecycle.registry import waiver
from falaj.lifecycle.registry.model import Admission, Rehearsal
from falaj.lifecycle.training.model import DatasetUse
from tools.manual import errors
from tools.manual.tables import block, table

_GRAPH, _CONTRACT = (digest_of({"example": name}) for name in ("model.onnx", "signature.json"))
_FILES = (FileEntry("model.onnx", 74291, _GRAPH), FileEntry("signature.json", 1480, _CONTRACT))
_DIGEST = manifest_digest(_FILES)
_SET = digest_of({"example": "evidence"})
_AT, _LATER = "2013-01-27T03:00:23.927Z", "2013-04-27T03:00:23.927Z"
NO_PREDICATES = ("https://in-toto.io/Statement/v1", evidence.BUILD_TYPE, "https://falaj.dev/builder/control-plane/v1")
"""Addresses with a version at their end that name something else: the statement's own type, a build type, a builder."""


class Kind(msgspec.Struct, frozen=True):
    """A predicate type: what it says, who makes and who checks it, its fields, and how an example is made."""

    uri: str
    title: str
    text: str
    made: str
    checked: str
    fields: dict[str, str]
    example: Callable[[], dict[str, Any]]


def predicates() -> str:
    """Every predicate type that is made or accepted."""
    parts = [_part(kind) for kind in KINDS]
    return f"""# Predicate types

Every signed claim is an [in-toto Statement v1](https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md) in a
[DSSE](https://github.com/secure-systems-lab/dsse) envelope of the payload type `application/vnd.in-toto+json`. Its subject is
a version's digest; what is claimed stands in the predicate. [Evidence](../explanation/evidence.md) tells how they come together.
Digests and times in the examples are made up; the code that makes the real ones made them.

{chr(10).join(parts)}"""


def _part(kind: Kind) -> str:
    example = msgspec.json.format(msgspec.json.encode(kind.example()), indent=2).decode()
    rows = [(f"`{path}`", text) for path, text in kind.fields.items()]
    return (
        f"## {kind.title}\n\n`{kind.uri}`\n\n{kind.text}\n\n"
        f"{table(('part', 'who'), [('made by', kind.made), ('checked by', kind.checked)])}\n"
        f"{table(('field of the predicate', 'what it is'), rows)}\n{block(example, 'json')}"
    )


def declared() -> set[str]:
    """Every address in the code that looks like a predicate type: it ends in a version."""
    found = set()
    for module in errors.modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\Ahttps?://[^\s{}]+/v\d+(?:\.\d+)?\Z", node.value))
    return found - set(NO_PREDICATES)


def fields_of(predicate: Any, path: str = "") -> Iterator[str]:
    """The paths of the leaves of a predicate; a list shows its first element."""
    if isinstance(predicate, dict) and predicate and path.rpartition(".")[2] not in _OPEN:
        for name, value in predicate.items():
            yield from fields_of(value, f"{path}.{name}" if path else name)
    elif isinstance(predicate, (list, tuple)) and predicate and isinstance(predicate[0], dict):
        yield from fields_of(predicate[0], f"{path}[]")
    else:
        yield path


_OPEN = ("digest", "annotations", "params", "statuses", "claims", "hash")
"""Objects whose keys depend on what they tell."""


# ── Examples ─────────────────────────────────────────────────────────────────────────────────────


def _test_result() -> dict[str, Any]:
    gate = GateSpec("metric", "roc_auc", at_least=0.58)
    return evidence.test_result("late-flight", _DIGEST, judge(gate, Measurement(gate.name, 0.616284, {"rows": 848})))


def _provenance() -> dict[str, Any]:
    facts = BuildFacts(
        project=digest_of({"example": "project"}),
        datasets=(DatasetUse("flights", 0, digest_of({"example": "flights"})),),
        views={"carrier_delay": digest_of({"example": "view"})},
        runtime=digest_of({"example": "runtime"}),
        training_set=digest_of({"example": "training set"}),
        as_of="2013-01-27T03:00:05.335Z",
        run="run_017hwz542wq4ta0cm3hpp3p5c8",
        params={"n_estimators": 60},
    )
    builder = "https://falaj.dev/builder/control-plane/v1"
    return evidence.provenance("late-flight", _DIGEST, facts, builder=builder, started=_AT, finished=_AT)


def _imported() -> dict[str, Any]:
    origin = Origin(
        imported="imp_017hwz542wq4ta0cm3hpp3p5c8", uri="file:churn.onnx", source=digest_of({"example": "source"}),
        format="onnx", how="taken as it is", claims={"producer": "skl2onnx"}, unknown=("training data", "code"),
    )  # fmt: skip
    return evidence.imported("churn", _DIGEST, origin, started=_AT, finished=_AT)


def _admission() -> dict[str, Any]:
    admission = Admission(
        _DIGEST,
        "late-flight",
        "late-flight@1",
        "production",
        _FILES,
        _SET,
        ("apr_017hwz5p7qjnxffz8hpmngy7ym",),
        _AT,
        _LATER,
    )
    return verdicts.admission_statement(admission)


def _rehearsal() -> dict[str, Any]:
    rehearsal = Rehearsal(
        _DIGEST, "late-flight", "late-flight@1", "staging", _SET, passed=True, requests=200, failures=0, at=_AT,
        source="holdout", p50_ms=1.2, p99_ms=8.4, statuses={"present": 197, "expired": 3, "missing": 0},
    )  # fmt: skip
    return verdicts.rehearsal_statement(rehearsal)


def _waiver() -> dict[str, Any]:
    signatures = tuple(
        waiver.Signature(name, (role,), "the data's source is known to us", _AT)
        for name, role in (("nadia", "risk-officer"), ("omar", "platform-admin"))
    )
    waived = waiver.Waived(
        "wai_017hwz5p7qjnxffz8hpmngy7ym", _DIGEST, "churn", "churn@1", "engineer", _SET, ("provenance",),
        "the data's source is known to us", _AT, _LATER, signatures,
    )  # fmt: skip
    return waiver.waiver_statement(waived)


def _model_signature() -> dict[str, Any]:
    """What OpenSSF's library signs for a folder of two files; the key is made for it and forgotten."""
    with tempfile.TemporaryDirectory(prefix="falaj-reference-") as folder:
        model, key, bundle = Path(folder, "model"), Path(folder, "key.pem"), Path(folder, "model.sig")
        model.mkdir()
        for name in ("model.onnx", "signature.json"):
            (model / name).write_text(f"example of {name}\n", "utf-8")
        private = ec.generate_private_key(ec.SECP256R1())
        encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        key.write_bytes(private.private_bytes(*encoding))
        everything = hashing.Config()  # type: ignore[no-untyped-call]
        everything.set_ignored_paths(paths=[], ignore_git_paths=False)
        config = signing.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_signer(private_key=key).set_hashing_config(everything).sign(model, bundle)
        payload = msgspec.json.decode(bundle.read_bytes())["dsseEnvelope"]["payload"]
        found = msgspec.json.decode(msgspec.convert(payload, bytes, strict=False))
        statement: dict[str, Any] = msgspec.to_builtins(found, order="deterministic")  # the library's order is chance
        return statement


_SVR = {
    "verifier.id": "`falaj`",
    "timeCreated": "when",
    "properties": "what was found; a rehearsal that failed has none",
    "falaj.digest": "the version's digest, as in the subject",
    "falaj.model": "the model",
    "falaj.alias": "the version's name for people",
    "falaj.environment": "the environment that it is for, and whose key signs it",
    "falaj.evidence": "digest of the set of evidence that the version was registered with",
}
KINDS = (
    Kind(
        evidence.TEST_RESULT, "Test result",
        "One gate: its limit, the reading with its detail, the verdict. "
        "An Error counts as `FAILED`, and so does what is missing: what was not measured is not passed.",
        "the control plane, for each gate of each candidate; attestation key", "each admission, from its bytes",
        {
            "result": "`PASSED`, `WARNED` (Inconclusive) or `FAILED`",
            "configuration[].name": "first the gate, then `measurement`",
            "configuration[].digest": "digest of what the annotations hold",
            "configuration[].annotations": "the gate with its limit; the reading with its detail, verdict and reason",
            "passedTests": "the gate, in the list that the result names: `passedTests`, `warnedTests` or `failedTests`",
        },
        _test_result,
    ),
    Kind(
        evidence.PROVENANCE, "Provenance", "How a version was built, each ingredient by its digest: SLSA provenance v1.",
        "the control plane, once for each version that was trained here; attestation key",
        "each admission; the provenance gate fails while a fact is missing",
        {
            "buildDefinition.buildType": "training by this platform",
            "buildDefinition.externalParameters.model": "the model",
            "buildDefinition.externalParameters.params": "the parameters of the run",
            "buildDefinition.externalParameters.asOf": "the moment after which nothing was known to it",
            "buildDefinition.internalParameters": "none",
            "buildDefinition.resolvedDependencies[].name": "project, runtime, training set, each dataset, each view",
            "buildDefinition.resolvedDependencies[].digest": "its digest",
            "buildDefinition.resolvedDependencies[].annotations": "its kind; of a dataset its version too",
            "runDetails.builder.id": "the platform",
            "runDetails.metadata.invocationId": "the training run",
            "runDetails.metadata.startedOn": "when it began",
            "runDetails.metadata.finishedOn": "when it ended",
        },
        _provenance,
    ),
    Kind(
        evidence.IMPORTED, "Import",
        "Where a version came from that was not trained here. It is no provenance: how it was built, nobody here knows.",
        "the control plane, once for each version that was imported; attestation key", "each admission",
        {
            "source.uri": "what was imported, as it was named",
            "source.digest": "its digest, before anything was done with it",
            "source.format": "its format",
            "conversion": "how it became ONNX",
            "invocationId": "the import",
            "claims": "what the source says of itself; nobody checked it",
            "unknown": "what is not known of how it was made",
            "startedOn": "when the import began",
            "finishedOn": "when it ended",
        },
        _imported,
    ),
    Kind(
        verdicts.SVR, "Admission",
        f"That a version may be served in one environment, until it expires: a simple verification result with the property `{verdicts.ADMITTED}`.",
        "the control plane, when evidence, signature and approvals are there; the environment's key",
        "the data plane, before it loads the version; the admission to the next environment",
        {
            **_SVR,
            "falaj.files[].path": "a file of the version",
            "falaj.files[].size": "its bytes",
            "falaj.files[].sha256": "its hash; the data plane compares the bytes that it loads",
            "falaj.approvals": "ids of the approvals that it rests on",
            "falaj.issued_at": "when it was given",
            "falaj.expires_at": "when it ends",
            "falaj.waiver": "digest of the waiver that it rests on, if it does",
            "falaj.waived": "the gates that the waiver lifts",
            "falaj.tier": "the model's risk tier then; empty where callers are not answered",
            "falaj.marks": "how it was let in, for good: `one-person`, by its author alone",
        },
        _admission,
    ),
    Kind(
        verdicts.SVR, "Rehearsal",
        f"How a version answered real requests in staging: a simple verification result, with the property `{verdicts.REHEARSED}` if it passed.",
        "the control plane, after staging's data plane has answered; staging's key", "the admission to production",
        {
            **_SVR,
            "falaj.passed": "whether every request was answered",
            "falaj.requests": "how many were asked",
            "falaj.failures": "how many were not answered",
            "falaj.at": "when",
            "falaj.source": "where they came from: `journal` (what production was asked) or `holdout`",
            "falaj.p50_ms": "milliseconds that half of them took at most",
            "falaj.p99_ms": "milliseconds that 99 of 100 took at most",
            "falaj.statuses": "looked-up values: present, expired, missing",
            "falaj.reason": "why it failed; empty if it passed",
        },
        _rehearsal,
    ),
    Kind(
        waiver.PREDICATE, "Waiver",
        "That two people answer for admitting a version although some of its evidence is missing. It lifts what is missing, never what failed.",
        "the control plane, once the second person has signed; the key of each environment",
        "each admission that rests on it, and the data plane",
        {
            "waiver.id": "the waiver",
            "waiver.digest": "the version's digest, as in the subject",
            "waiver.model": "the model",
            "waiver.alias": "the version's name for people",
            "waiver.author": "who imported the version, and so may not sign",
            "waiver.evidence": "digest of the set of evidence that it is about",
            "waiver.waived": "the gates that it lifts",
            "waiver.reason": "why",
            "waiver.proposed_at": "when it was proposed",
            "waiver.until": "when it ends",
            "waiver.signatures[].principal": "who signed",
            "waiver.signatures[].roles": "the roles that they held then",
            "waiver.signatures[].reason": "why",
            "waiver.signatures[].at": "when",
        },
        _waiver,
    ),
    Kind(
        model_signature.PREDICATE, "Model signature",
        "That these are the files of the version, each by name and hash: [OpenSSF model signing](https://github.com/sigstore/model-transparency) v1.0, "
        "in a Sigstore bundle.",
        "the step that packages a version; model key",
        "each admission, and the data plane, which compares every file; anybody with `model_signing verify`",
        {
            "serialization.hash_type": "how a file is hashed",
            "serialization.allow_symlinks": "never",
            "serialization.method": "file by file",
            "resources[].digest": "hash of a file",
            "resources[].algorithm": "`sha256`",
            "resources[].name": "the file's path",
        },
        _model_signature,
    ),
)  # fmt: skip
"""Every predicate type that is made or accepted; two verdicts share a type."""
