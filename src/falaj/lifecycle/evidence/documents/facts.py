"""What the documents about a version may say. Empty means not known, and what is not known is left out."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.digests import FileEntry
from falaj.lifecycle.evidence.model import CHAMPION, Finding, Verdict
from falaj.lifecycle.training.model import ModelContract


class Part(msgspec.Struct, frozen=True):
    """Something that a version was made from. `digest` names it in Falaj's way, and is no hash of a file.

    kind: dataset | feature view | training set | code | runtime
    """

    kind: str
    name: str
    digest: str
    version: int | None = None
    rows: int | None = None


class Library(msgspec.Struct, frozen=True):
    """A Python distribution of the runtime. `licence` is the SPDX expression that it declares of itself."""

    name: str
    version: str
    licence: str = ""


class Figure(msgspec.Struct, frozen=True):
    """One measured value. `slice` is empty for the whole; `interval` is a 95 % interval; `judged` by a gate or only told."""

    name: str
    value: float
    slice: str = ""
    interval: tuple[float, float] | None = None
    rows: int | None = None
    judged: bool = True


class Decision(msgspec.Struct, frozen=True):
    """Somebody's decision about the version. `what` is approved, rejected, waived, or revoked a waiver."""

    what: str
    who: str
    roles: tuple[str, ...]
    at: str
    reason: str
    about: str  # an environment, or the gates that are waived


class Passage(msgspec.Struct, frozen=True):
    """An environment's signed word about the version: an admission, or a rehearsal with how it went."""

    environment: str
    what: str  # admission | rehearsal
    at: str
    until: str = ""
    words: str = ""


class Facts(msgspec.Struct, frozen=True):
    """A version, as far as it is known. `origin` is where an imported one came from, empty for one trained here."""

    alias: str
    model: str
    digest: str
    author: str
    created_at: str
    state: str
    files: tuple[FileEntry, ...]
    findings: tuple[Finding, ...]
    contract: ModelContract | None = None
    params: dict[str, Any] = {}
    as_of: str = ""
    run: str = ""
    origin: dict[str, str] = {}
    unknown: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    libraries: tuple[Library, ...] = ()
    decisions: tuple[Decision, ...] = ()
    passages: tuple[Passage, ...] = ()

    def of(self, kind: str) -> tuple[Part, ...]:
        """The parts of one kind."""
        return tuple(p for p in self.parts if p.kind == kind)


def figures(findings: tuple[Finding, ...]) -> tuple[Figure, ...]:
    """Every value in verified findings, slice by slice; what could not be measured is not there."""
    found: list[Figure] = []
    for finding in findings:
        gate, measured = finding.gate, finding.measurement
        if gate.kind == "slice":
            found += _slices(gate.by, gate.metric, measured.detail.get("slices") or {})
        elif gate.kind in ("metric", "latency") and measured.value is not None:
            span = measured.detail.get("interval_95")
            interval = (float(span[0]), float(span[1])) if isinstance(span, list | tuple) and len(span) == 2 else None
            found.append(Figure(gate.metric, measured.value, interval=interval, rows=measured.detail.get("rows")))
    return tuple(found)


def limits(facts: Facts) -> tuple[str, ...]:
    """What speaks against trusting the figures further than they go, each a sentence from the facts."""
    said = [
        f"{name} is not known: the version was imported, and nobody here saw how it was made" for name in facts.unknown
    ]
    for finding in facts.findings:
        gate, detail = finding.gate, finding.measurement.detail
        if finding.verdict is Verdict.MISSING:
            said.append(f"{gate.name} was not measured: {finding.reason}")
        small = sorted(str(k) for k, v in (detail.get("slices") or {}).items() if not v.get("judged", True))
        if small:
            said.append(f"{gate.name} is not judged for {', '.join(small)}: fewer than {gate.min_rows} rows each")
        if gate.kind == CHAMPION and detail.get(CHAMPION) == "":
            said.append("it was compared with no other version: none served when it was measured")
        if detail.get("refused_rows"):
            said.append(f"{gate.name} leaves {detail['refused_rows']} rows out that the model's contract refuses")
    if facts.as_of:
        said.append(f"it was trained on what was known at {facts.as_of}; nothing later is in it")
    said += [f"unknown values of {name} count as missing" for name in _open_categories(facts.contract)]
    return tuple(dict.fromkeys(said))


def _slices(by: str, metric: str, slices: dict[str, Any]) -> list[Figure]:
    return [
        Figure(metric, float(found["value"]), f"{by}={value}", None, found.get("rows"), bool(found.get("judged")))
        for value, found in sorted(slices.items())
        if found.get("value") is not None
    ]


def _open_categories(contract: ModelContract | None) -> list[str]:
    inputs = contract.inputs if contract else ()
    return [i.name for i in inputs if i.type == "category" and i.unknown == "null"]
