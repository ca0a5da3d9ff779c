"""Gates alone: judge the predictions of a model that was trained elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import msgspec
from cyclopts import App, Parameter

from falaj.authoring.gatefile import read_gates
from falaj.bootstrap import gates as alone
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.commands.score import FORMATS, check_writable, readable, table_format
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.digests import sha256_file
from falaj.kernel.errors import Integrity, Invalid
from falaj.lifecycle.evidence.model import PredictionsOutcome, PredictionsTask, Verdict

gates_app = App(name="gates", help="Gates alone, for a model that was trained elsewhere.")
_KEY = "falaj-gates.key"


@Parameter(name="*")
@dataclass(frozen=True)
class What:
    """What is judged, and where the answer goes."""

    artifact: Annotated[
        Path | None,
        Parameter(help="The model's file, in any format: it is hashed, never loaded, and the evidence names it."),
    ] = None
    only: Annotated[
        list[str] | None, Parameter(negative="", help="Ask for these gates only, by kind or name; may be repeated.")
    ] = None
    sure: Annotated[
        bool, Parameter(negative=(), help="Pass a gate only if its whole 95 % interval does; else it is Inconclusive.")
    ] = False
    junit: Annotated[Path | None, Parameter(help="Write the verdicts as JUnit XML.")] = None
    evidence: Annotated[Path | None, Parameter(help="Write signed in-toto statements, one a line.")] = None
    key: Annotated[Path, Parameter(help="The key to sign with; made, with its .pub, if it is not there.")] = Path(_KEY)
    score: Annotated[
        list[str] | None,
        Parameter(negative="", help="The score's column, for a model of the project; one for each class."),
    ] = None
    champion: Annotated[
        list[str] | None, Parameter(negative="", help="The champion's column, for a model of the project.")
    ] = None


_AS_WRITTEN = What()


@gates_app.command(name="check")
def gates_check(
    gates: Annotated[str, Parameter(help="A file of gates (.toml), or a model of the project in this folder.")],
    /,
    *,
    predictions: Annotated[Path, Parameter(help="A table of labels and scores: .csv, .parquet or .jsonl.")],
    what: What = _AS_WRITTEN,
    common: Common = DEFAULT,
) -> None:
    """Judge a table of predictions by gates; exit 1 unless every one is Successful.

    Needs no home and no server, and registers nothing. A gate that cannot be measured on predictions, such as latency,
    is an Error: leave it out with --only, or it does not pass.
    """
    settings = common.settings(anywhere=True)
    check_writable(tuple(p for p in (what.junit, what.evidence) if p is not None), force=True)
    task = _task(gates, predictions, what)
    with render.progress(quiet=common.json) as show:
        found = alone.measure(task, str(settings.project) if task.model else "", settings, show)
    _write(found, what)
    if common.json:
        render.show_json({**msgspec.to_builtins(found), "passed": found.passed})
    else:
        _tell(found, what)
    if not found.passed:
        sys.exit(1)


@gates_app.command(name="verify")
def gates_verify(
    evidence: Annotated[Path, Parameter(help="The file that `falaj gates check --evidence` wrote.")],
    /,
    *,
    key: Annotated[Path, Parameter(help="The public key of whoever signed.")] = Path(f"{_KEY}.pub"),
    artifact: Annotated[Path | None, Parameter(help="The file that the evidence must be about.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Read evidence through its signatures, and compare it with the file that it is about."""
    statements = alone.read_signed(readable(evidence).read_bytes(), [alone.public_key(key)])
    rows = [_row(s) for s in statements]
    if artifact is not None:
        digest = sha256_file(readable(artifact))
        if any(row["subject"] != digest for row in rows):
            raise Integrity(
                f"the evidence is not about {artifact.name}",
                hint="compare the file that was measured, or measure this one",
                code="evidence_for_another_file",
            )
    if common.json:
        render.show_json(rows)
        return
    render.line(f"{rows[0]['name']} {rows[0]['subject']}: {len(rows)} signatures hold")
    render.table(("gate", "verdict", "reason"), [(r["gate"], r["verdict"], r["reason"]) for r in rows])


def _task(gates: str, predictions: Path, what: What) -> PredictionsTask:
    kind = table_format(readable(predictions), tuple(dict.fromkeys(FORMATS.values())))
    task = PredictionsTask(
        str(predictions.absolute()), kind, only=tuple(what.only or ()), sure=what.sure,
        artifact=str(readable(what.artifact).absolute()) if what.artifact else "",
        scores=tuple(what.score or ()), champion=tuple(what.champion or ()),
    )  # fmt: skip
    if not gates.endswith(".toml"):
        return msgspec.structs.replace(task, model=gates)
    if what.score or what.champion:
        raise Invalid(
            "a file of gates names its columns itself", hint="write score and champion there", code="wrong_definition"
        )
    file = read_gates(Path(gates))
    return msgspec.structs.replace(
        task,
        gates=file.gates(),
        task=file.task,
        label=file.label,
        scores=_columns(file.score),
        champion=_columns(file.champion),
        classes=file.classes,
        positive=file.positive,
    )


def _columns(given: str | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else given


def _write(found: PredictionsOutcome, what: What) -> None:
    if what.junit is not None:
        what.junit.write_bytes(junit(found))
    if what.evidence is not None:
        what.evidence.write_bytes(alone.signed(found, alone.signing_key(what.key)))


def _tell(found: PredictionsOutcome, what: What) -> None:
    more = f", {found.unlabelled:,} without a label" if found.unlabelled else ""
    render.line(f"{found.name} {render.digest(found.subject)}: {found.rows:,} rows{more}")
    render.table(("gate", "verdict", "reason"), [(f.gate.name, f.verdict.value, f.reason) for f in found.findings])
    failed = [f.gate.name for f in found.findings if f.verdict is not Verdict.SUCCESSFUL]
    render.line("every gate passes" if found.passed else f"not passed: {', '.join(failed)}")
    if what.evidence is not None:
        render.line(f"signed: {what.evidence}; check it: falaj gates verify {what.evidence} --key {what.key}.pub")


def junit(found: PredictionsOutcome) -> bytes:
    """The verdicts as JUnit XML: Failed and Inconclusive are failures, Error is an error."""
    counts = {v: sum(f.verdict is v for f in found.findings) for v in Verdict}
    failures = counts[Verdict.FAILED] + counts[Verdict.INCONCLUSIVE]
    head = {"tests": len(found.findings), "failures": failures, "errors": counts[Verdict.ERROR]}
    suite = ElementTree.Element("testsuite", {"name": f"gates {found.name}", **{k: str(v) for k, v in head.items()}})
    for finding in found.findings:
        case = ElementTree.SubElement(suite, "testcase", {"classname": found.subject, "name": finding.gate.name})
        if finding.verdict is not Verdict.SUCCESSFUL:
            tag = "error" if finding.verdict is Verdict.ERROR else "failure"
            told = {"type": finding.verdict.value, "message": finding.reason}
            ElementTree.SubElement(case, tag, told).text = finding.reason
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _row(statement: dict[str, Any]) -> dict[str, Any]:
    (subject,) = statement["subject"]
    measured = next(c for c in statement["predicate"]["configuration"] if c["name"] == "measurement")["annotations"]
    return {
        "name": subject["name"],
        "subject": f"sha256:{subject['digest']['sha256']}",
        "gate": measured["gate"],
        "verdict": measured["verdict"],
        "reason": measured["reason"],
    }
