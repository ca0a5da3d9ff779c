"""An import, start to end, as it runs in a step process. The stranger's model itself is touched in the sandbox only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.digests import canonical_json, manifest, manifest_digest, sha256_file
from falaj.kernel.errors import Denied, Integrity, Invalid
from falaj.lifecycle.training.foreign import ONNX, SOURCE_BYTES, UNKNOWN, ImportOutcome, ImportTask
from falaj.lifecycle.training.model import (
    FEATURE_TYPES,
    HOLDOUT_FILE,
    PARITY_FILE,
    PROFILE_FILE,
    TASKS,
    Input,
    ModelContract,
    Profile,
    TrainingSpec,
)
from falaj.lifecycle.training.steps.contract import LoadedModel, write_model
from falaj.lifecycle.training.steps.foreign.adapt import Adapted, adapt, described
from falaj.lifecycle.training.steps.foreign.contract import Agreed, agree
from falaj.lifecycle.training.steps.foreign.inside import ADAPTED, SOURCE, Scored
from falaj.lifecycle.training.steps.foreign.originals import Foreign
from falaj.lifecycle.training.steps.foreign.rows import made_up, no_profile
from falaj.lifecycle.training.steps.graphs import read_graph
from falaj.lifecycle.training.steps.parity import GROUP, NATIVE, parity_rows
from falaj.lifecycle.training.steps.profile import profile_of
from falaj.lifecycle.training.steps.split import Part, Split, split
from falaj.workflow.confine import Limits
from falaj.workflow.reporting import Reporter
from falaj.workflow.sandbox import Answer, Sandbox

WORK = "foreign"


class Labelled(msgspec.Struct, frozen=True):
    """The project's own data, as far as they are there: parts by time, with labels as the contract has them; else why not."""

    train: pl.DataFrame | None
    holdout: pl.DataFrame | None
    problem: str = ""


def run(task: ImportTask, frame: Callable[[], pl.DataFrame] | None, report: Reporter) -> ImportOutcome:
    """Convert, adapt, and lay out a model folder as training does, with the rows for parity and for measuring.

    `frame` gives the project's labelled rows where there are any. Raises `Invalid` and `Denied` with a code for each thing
    that can be wrong with the model, what is said of it, or the sandbox.
    """
    started = time.perf_counter()
    cage = Cage(task)
    report.progress("reading the model in the sandbox" if not cage.free else "reading the model")
    found, graph = _converted(task, cage)
    model = read_graph(graph)
    found = described(model, found)
    agreed = agree(found, task.declared, task.definition)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    adapted = adapt(made, agreed)
    read_graph(adapted.graph)
    contract = _contract(task.model, agreed, adapted)
    report.progress("reading the data")
    data = _labelled(task, agreed, frame)
    report.progress("asking the model and its conversion the same")
    contract, rows = _agreeing(task, cage, adapted, contract, model.graph, data, agreed)
    workspace = Path(task.workspace)
    _write(workspace, adapted, contract, data, task)
    rows.write_parquet(workspace / PARITY_FILE)
    files = manifest(workspace / "model")
    return ImportOutcome(
        files=files,
        digest=manifest_digest(files),
        artifacts={name: sha256_file(workspace / name) for name in (PARITY_FILE, HOLDOUT_FILE)},
        contract=contract,
        format=found.format,
        library=found.library,
        how=f"{'taken' if found.format == ONNX else 'converted'}, {adapted.how}",
        claims=found.claims,
        missing=missing(task.gates, data.problem),
        rows=data.holdout.height if data.holdout is not None else 0,
        seconds=round(time.perf_counter() - started, 3),
    )


def missing(gates: tuple[str, ...], unlabelled: str) -> dict[str, str]:
    """The gates that cannot be measured, with the reason. What could be measured is never among them."""
    found = {"provenance": f"imported: {', '.join(UNKNOWN)} are not known"}
    if unlabelled:
        asking = (g for g in gates if g.partition(" ")[0] in ("metric", "slice", "champion"))
        found |= dict.fromkeys(asking, f"there are no labelled data: {unlabelled}")
    return {g: found[g] for g in gates if g in found}


class Cage:
    """The sandbox of one import; where none can be had, a process under limits that refuses what needs one."""

    def __init__(self, task: ImportTask) -> None:
        self._kind = task.kind
        self._given = Path(task.folder)
        limits = Limits(memory_mb=task.memory_mb, seconds=task.seconds, patience=task.patience)
        self._sandbox = Sandbox(tuple(map(Path, task.hidden)), limits, SOURCE_BYTES)
        self.free = False

    def ask(self, **asked: Any) -> Answer:
        """Raises what was refused inside."""
        told = {"kind": self._kind, **asked}
        try:
            return self._sandbox.run(WORK, told, self._given, free=self.free)
        except Denied as e:
            if self.free or e.code != "no_sandbox":
                raise
            why = e.message
        try:
            answer = self._sandbox.run(WORK, told, self._given, free=True)
        except Denied as e:
            raise Denied(f"{e.message} ({why})", hint=e.hint, code=e.code) if e.code == "no_sandbox" else e from None
        self.free = True
        return answer

    def keep(self, graph: bytes) -> None:
        """Lay the graph that shall serve beside the source."""
        (self._given / ADAPTED).write_bytes(graph)


def _converted(task: ImportTask, cage: Cage) -> tuple[Foreign, bytes]:
    if task.kind == ONNX:
        (file,) = (Path(task.folder) / SOURCE).iterdir()
        return Foreign(ONNX, ONNX), file.read_bytes()
    answer = cage.ask(do="convert")
    try:
        found = msgspec.json.decode(answer.header, type=Foreign)
    except msgspec.MsgspecError as e:
        raise Integrity(
            f"the sandbox answers what nothing here asks: {str(e)[:200]}",
            hint="do not trust this model; export it to ONNX yourself",
            code="sandbox_answer",
        ) from e
    return _plain(found), answer.body


def _plain(found: Foreign) -> Foreign:
    """The words that came out, without control characters and of a sane length; nothing else is taken from a sandbox."""
    names = (*found.names, *found.classes, *found.categories, *(c for cs in found.categories.values() for c in cs))
    if any(not n or not n.isprintable() or len(n) > 200 for n in names) or len(found.names) > 10_000:
        raise Invalid("its features or classes have names that cannot be names", hint="rename them", code="bad_source")
    told = (found.format, found.library, *found.claims, *found.claims.values())
    if (
        any(not t.isprintable() or len(t) > 200 for t in told)
        or len(found.claims) > 50
        or found.task not in ("", *TASKS)
        or not {*found.types.values()} <= {*FEATURE_TYPES}
    ):
        raise Invalid(
            "what it says of itself cannot be taken", hint="export the model to ONNX and import that", code="bad_source"
        )
    return found


def _contract(model: str, agreed: Agreed, adapted: Adapted) -> ModelContract:
    inputs = tuple(msgspec.structs.replace(i, null="refuse") if i.name in adapted.strict else i for i in agreed.inputs)
    classes = agreed.classes
    if agreed.task == "binary":
        classes = (classes[1 - agreed.positive], classes[agreed.positive])
    return ModelContract(
        model=model,
        task=agreed.task,
        inputs=inputs,
        keys=agreed.keys,
        views=agreed.views,
        outputs=adapted.outputs,
        score=adapted.outputs[0].name,
        classes=classes,
        tensor=adapted.tensor,
        label=agreed.label,
        purpose=agreed.purpose,
    )


# the project's data


def _labelled(task: ImportTask, agreed: Agreed, frame: Callable[[], pl.DataFrame] | None) -> Labelled:
    spec = task.definition
    if spec is None or frame is None or task.unlabelled:
        return Labelled(None, None, task.unlabelled or "no project defines the model")
    parts = split(spec, frame())
    holdout = parts.holdout.frame.with_columns(pl.Series(spec.label, _labels(parts.holdout, parts, agreed, spec)))
    return Labelled(_known(parts.train.frame, agreed.inputs), holdout)


def _labels(part: Part, parts: Split, agreed: Agreed, spec: TrainingSpec) -> NDArray[Any]:
    """The labels as places among the contract's classes. Raises `Invalid` where they are other classes."""
    if agreed.task == "regression":
        return part.label
    if agreed.task == "binary":
        if set(agreed.classes) in (set(parts.classes), {"0", "1"}, {"false", "true"}):
            return part.label
    elif set(parts.classes) == set(agreed.classes):
        return np.array([agreed.classes.index(c) for c in parts.classes])[part.label.astype(np.int64)]
    raise Invalid(
        f"the model tells {', '.join(agreed.classes)} apart, and {spec.label} is {', '.join(parts.classes)}",
        hint="name the classes as the data have them, in the order of the model's probabilities: --classes",
        code="classes_differ",
    )


def _known(frame: pl.DataFrame, inputs: tuple[Input, ...]) -> pl.DataFrame:
    """The rows with null for categories that the model does not have."""
    coded = [i for i in inputs if i.type == "category"]
    return frame.with_columns(
        pl.when(pl.col(i.name).is_in(list(i.categories))).then(pl.col(i.name)).otherwise(None).alias(i.name)
        for i in coded
    )


# agreement


def _agreeing(
    task: ImportTask, cage: Cage, adapted: Adapted, contract: ModelContract, graph: onnx.GraphProto, data: Labelled,
    agreed: Agreed,
) -> tuple[ModelContract, pl.DataFrame]:  # fmt: skip
    """The rows for the parity gate with the original's own answers; and the contract, with what it cannot take refused."""
    open_to_all = tuple(msgspec.structs.replace(i, null="allow", unknown="null") for i in contract.inputs)
    trying = msgspec.structs.replace(contract, inputs=open_to_all)
    base = made_up(graph, contract.inputs, task.seed) if data.holdout is None else data.holdout
    train = base if data.train is None else data.train
    names = [i.name for i in contract.inputs]
    rows = parity_rows(trying, train.select(names), base.select(names), task.seed)
    rows = rows.filter(~pl.any_horizontal(pl.col(n).is_null() for n in adapted.strict)) if adapted.strict else rows
    cage.keep(adapted.graph)
    asked = {n: rows[n].to_list() for n in names}
    answer = cage.ask(do="score", contract=msgspec.to_builtins(trying), columns=asked, score=adapted.score)
    native = _native(answer, rows.height, agreed)
    failed = np.array([not n for n in native])
    contract = _ruled(contract, rows, failed)
    accepted = LoadedModel(contract, adapted.graph).accepts(rows)
    kept = accepted & ~failed
    if not (kept & (rows[GROUP] == "unseen").to_numpy()).any():
        raise Invalid(
            "the model answers none of the rows that it was tried on",
            hint="look at the model with the library that wrote it: features, their order, and nulls",
            code="foreign_cannot_answer",
        )
    scores = [list(n) for n, keep in zip(native, kept, strict=True) if keep]
    column = pl.Series(NATIVE, scores, dtype=pl.List(pl.Float64))
    return contract, rows.filter(pl.Series(kept)).with_columns(column)


def _native(answer: Answer, rows: int, agreed: Agreed) -> list[tuple[float, ...]]:
    """The original's answers, in the contract's order of classes. Raises `Invalid` for answers of another shape."""
    try:
        scored = msgspec.json.decode(answer.header, type=Scored)
    except msgspec.MsgspecError as e:
        raise Integrity(
            "the sandbox answers what nothing here asks", hint="do not trust this model", code="sandbox_answer"
        ) from e
    wide = max(1, len(agreed.classes))
    native = [n if len(n) != 1 or wide != 2 else (1 - n[0], n[0]) for n in scored.native]
    if len(native) != rows or any(n and len(n) != wide for n in native):
        raise Invalid(
            f"the model answers {max(map(len, native), default=0)} numbers a row, and {wide} are expected",
            hint="name its classes as they are: --classes; or its task: --task",
            code="contract_differs",
        )
    if agreed.task == "binary" and agreed.positive == 0:
        return [n[::-1] for n in native]
    return native


def _ruled(contract: ModelContract, rows: pl.DataFrame, failed: NDArray[np.bool_]) -> ModelContract:
    """What the original fails on, the contract refuses: nulls of a feature, and categories that it has never seen."""
    inputs = []
    wrong = rows.filter(pl.Series(failed)).filter(pl.col(GROUP).is_in(["null", "unknown"]))
    names = [i.name for i in contract.inputs]
    single = wrong.filter(pl.sum_horizontal(pl.col(n).is_null() for n in names) <= 1)
    for i in contract.inputs:
        null = bool(single.filter((pl.col(GROUP) == "null") & pl.col(i.name).is_null()).height)
        strange = i.type == "category" and bool(
            single.filter((pl.col(GROUP) == "unknown") & ~pl.col(i.name).is_in(list(i.categories))).height
        )
        inputs.append(
            msgspec.structs.replace(
                i, null="refuse" if null else i.null, unknown="refuse" if null or strange else i.unknown
            )
        )
    return msgspec.structs.replace(contract, inputs=tuple(inputs))


# what is left


def _write(workspace: Path, adapted: Adapted, contract: ModelContract, data: Labelled, task: ImportTask) -> None:
    folder = workspace / "model"
    write_model(folder, contract, adapted.graph)
    profile: Profile = no_profile(contract.inputs)
    spec = task.definition
    if data.train is not None and spec is not None:
        profile = profile_of(data.train, spec.at, LoadedModel(contract, adapted.graph))
    (folder / PROFILE_FILE).write_bytes(canonical_json(profile))
    if data.holdout is not None and spec is not None:
        names = [i.name for i in contract.inputs]
        kept = dict.fromkeys([*names, *(k.name for k in spec.keys), *spec.slices, spec.at, spec.label])
        data.holdout.select(*kept).write_parquet(workspace / HOLDOUT_FILE)
        return
    rows = made_up(read_graph(adapted.graph).graph, contract.inputs, task.seed + 1)
    keys = [pl.lit("").alias(k.name) for k in contract.keys if k.name not in rows.columns]
    rows.with_columns(*keys).write_parquet(workspace / HOLDOUT_FILE)
