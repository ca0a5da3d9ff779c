"""The ML-BOM: CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) with a model card. Pure.

A digest of Falaj's is no hash of a file, so it is a property; `hashes` holds hashes of files only.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from falaj.kernel.digests import canonical_json
from falaj.lifecycle.evidence.documents.facts import Facts, Library, Part, figures, limits

SPEC = "1.6"
_SERIALS = uuid.UUID("6f0a2c0e-7f0b-5d0a-9a55-4f1c8d6f3b10")
"""The name space of serial numbers: the same version has the same."""


def bom(facts: Facts, tool: str) -> dict[str, Any]:
    """The BOM of a version, written by version `tool` of Falaj."""
    data = [_data(p) for p in (*facts.of("dataset"), *facts.of("feature view"), *facts.of("training set"))]
    libraries = [_library(one) for one in facts.libraries]
    refs = [c["bom-ref"] for c in (*data, *libraries)]
    serial = uuid.uuid5(_SERIALS, facts.digest)
    complete = [c["bom-ref"] for c in libraries]
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": facts.created_at,
            "tools": {"components": [{"type": "application", "name": "falaj", "version": tool}]},
            "component": _model(facts),
        },
        "components": [*data, *libraries],
        "dependencies": [{"ref": _ref(facts), "dependsOn": refs}, *({"ref": r} for r in refs)],
        "compositions": [
            {"aggregate": "incomplete" if complete else "unknown", "assemblies": [_ref(facts)]},
        ],
    }  # fmt: skip


def _ref(facts: Facts) -> str:
    return f"model:{facts.digest}"


def _model(facts: Facts) -> dict[str, Any]:
    files = [
        {
            "type": "file", "bom-ref": f"file:{facts.digest}:{f.path}", "name": f.path,
            "hashes": [{"alg": "SHA-256", "content": f.sha256.removeprefix("sha256:")}],
        }
        for f in facts.files
    ]  # fmt: skip
    made = {
        "falaj:digest": facts.digest,
        "falaj:author": facts.author,
        "falaj:run": facts.run,
        "falaj:as-of": facts.as_of,
        **{f"falaj:{p.kind}": p.digest for p in (*facts.of("code"), *facts.of("runtime"))},
        **{f"falaj:import:{k}": v for k, v in sorted(facts.origin.items())},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": _ref(facts),
        "name": facts.model,
        "version": facts.alias.rpartition("@")[2],
        "components": files,
        "modelCard": _card(facts),
        "properties": _properties(made),
    }


def _card(facts: Facts) -> dict[str, Any]:
    contract = facts.contract
    learnt = {f"falaj:hyperparameter:{k}": v for k, v in sorted(facts.params.items())}
    gates = {f"falaj:gate:{f.gate.name}": f"{f.verdict.value}: {f.reason}" for f in facts.findings}
    considered: dict[str, Any] = {"technicalLimitations": list(limits(facts))}
    if contract and contract.purpose:
        considered["useCases"] = [contract.purpose]
    return _known(
        {
            "bom-ref": f"card:{facts.digest}",
            "modelParameters": _parameters(facts),
            "quantitativeAnalysis": _known({"performanceMetrics": [_metric(f) for f in figures(facts.findings)]}),
            "considerations": _known(considered),
            "properties": _properties({**learnt, **gates}),
        }
    )


def _parameters(facts: Facts) -> dict[str, Any]:
    contract, sets = facts.contract, facts.of("dataset")
    if contract is None:
        return {}
    return _known(
        {
            "approach": {"type": "supervised"} if contract.label and not facts.origin else {},
            "task": contract.task,
            "datasets": [{"ref": _part_ref(p)} for p in sets],
            "inputs": [{"format": f"{i.name}: {i.type}"} for i in contract.inputs],
            "outputs": [{"format": f"{o.name}: {o.datatype}"} for o in contract.outputs],
        }
    )


def _metric(figure: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"type": figure.name, "value": repr(figure.value)}
    if figure.slice:
        told["slice"] = figure.slice
    if figure.interval:
        told["confidenceInterval"] = {"lowerBound": repr(figure.interval[0]), "upperBound": repr(figure.interval[1])}
    return told


def _data(part: Part) -> dict[str, Any]:
    known = {"falaj:kind": part.kind, "falaj:digest": part.digest, "falaj:rows": part.rows}
    version = {} if part.version is None else {"version": str(part.version)}
    return {
        "type": "data",
        "bom-ref": _part_ref(part),
        "name": part.name,
        **version,
        "data": [{"type": "dataset" if part.kind in ("dataset", "training set") else "other", "name": part.name}],
        "properties": _properties(known),
    }


def _part_ref(part: Part) -> str:
    return f"{part.kind.replace(' ', '-')}:{part.name}:{part.digest}"


def _library(one: Library) -> dict[str, Any]:
    name = one.name.lower().replace("_", "-")
    purl = f"pkg:pypi/{quote(name)}@{quote(one.version)}"
    licences = {"licenses": [{"expression": one.licence, "acknowledgement": "declared"}]} if one.licence else {}
    return {
        "type": "library", "bom-ref": purl, "name": one.name, "version": one.version, "purl": purl, **licences,
    }  # fmt: skip


def _properties(values: dict[str, Any]) -> list[dict[str, str]]:
    """Name and value pairs; what is not text is JSON, what is not known is left out."""
    return [
        {"name": name, "value": value if isinstance(value, str) else canonical_json(value).decode()}
        for name, value in values.items()
        if value not in ("", None)
    ]


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if v not in ("", None, [], {})}
