"""Models that exist already, as they are brought in: frozen types and pure rules. Nothing here reads a model.

What was trained elsewhere has no run, no datasets and no code that this platform knows: `UNKNOWN` names what is missing for
good. What its author or another system says of it are `claims`: told, never believed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.digests import FileEntry, manifest_digest
from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import FEATURE_TYPES, TASKS, Input, ModelContract, TrainingSpec

IMPORT = Action("training.import", "engineering", "Model", "bring in a model that exists already")
IMPORT_READ = Action("training.read_import", "read", "Import", "see where an imported version came from")
IMPORT_FINISH = Action("training.finish_import", "system", "Model", "record what came of an import")
ACTIONS = (IMPORT, IMPORT_READ, IMPORT_FINISH)

IMPORT_FLOW = "import"
"""The name of the flow that imports, and of its step."""
PREFIX = "imp"
"""What the id of an import begins with; that of a training run begins otherwise."""

ONNX, MLFLOW = "onnx", "mlflow"
KINDS = (ONNX, MLFLOW)
UNKNOWN = ("training run", "code", "datasets", "training set", "runtime")
"""What is not known of how an imported model was made, whoever says what of it."""

FILE_BYTES = 256 << 20
SOURCE_BYTES = 512 << 20
SOURCE_FILES = 200


def is_import(made_by: str) -> bool:
    """Whether a version was imported, by the id of what made it."""
    return made_by.startswith(f"{PREFIX}_")


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the importer says of a model, because the model does not: options and the contract file (TOML).

    `classes` are in the order of the model's probabilities. `inputs` in the order of its columns. `p99_ms` is the limit of
    the latency gate of a model that no project defines.
    """

    task: str = ""
    positive: str = ""
    classes: tuple[str, ...] = ()
    label: str = ""
    purpose: str = ""
    inputs: tuple[Input, ...] = ()
    p99_ms: float = 50.0


class ImportTask(msgspec.Struct, frozen=True):
    """One import, as a step process is told. `folder` holds the source's files, `hidden` what no sandbox may see.

    `definition` is how the applied project defines the model, None when it does not. `unlabelled` says why there is no labelled
    data to measure on, empty where there is. `seconds` of processor time and `patience` more by the wall are what each process
    in the sandbox may take.
    """

    model: str
    kind: str
    folder: str
    workspace: str
    declared: Declared
    gates: tuple[str, ...]
    definition: TrainingSpec | None = None
    unlabelled: str = ""
    hidden: tuple[str, ...] = ()
    memory_mb: int = 4096
    seconds: int = 300
    patience: int = 60
    seed: int = 0


class ImportOutcome(msgspec.Struct, frozen=True):
    """What an import leaves: the model folder as training leaves it, the other files, and what could not be had.

    `missing` says for each gate that cannot be measured why; `how` in words how the graph was made.
    """

    files: tuple[FileEntry, ...]
    digest: str
    artifacts: dict[str, str]
    contract: ModelContract
    format: str
    library: str
    how: str
    claims: dict[str, str]
    missing: dict[str, str]
    rows: int
    seconds: float


class Import(msgspec.Struct, frozen=True):
    """One import. `source` is the digest over the source's files (path, size, sha256) or, of one file, its sha256.

    `files` are the blobs of the source by path, `claims` what the source says of itself, `digest` the version that came of it.
    """

    id: str
    model: str
    state: str  # running | finished | failed
    author: str
    format: str
    uri: str
    source: str
    files: tuple[FileEntry, ...]
    claims: dict[str, str]
    contract: Declared
    artifacts: dict[str, str]
    digest: str
    missing: dict[str, str]
    started_at: str
    finished_at: str = ""
    reason: str = ""


def source_digest(files: tuple[FileEntry, ...]) -> str:
    """The name of what was imported: a single file's own sha256, else that of the manifest."""
    return files[0].sha256 if len(files) == 1 else manifest_digest(files)


def check_source(kind: str, files: tuple[FileEntry, ...]) -> None:
    """Raise `Invalid` unless these can be the files of a source: plain relative paths, not too many, not too large.

    `size` is what the caller says; the bytes themselves are named by their digest.
    """
    if kind not in KINDS:
        raise Invalid(
            f"{kind[:40]!r} cannot be imported", hint=f"{' or '.join(KINDS)} can", code="foreign_format_unknown"
        )
    bad = [f.path for f in files if not _plain(f.path) or f.size < 0]
    if bad:
        raise Invalid(
            f"{bad[0][:80]!r} is no plain path, or has less than no bytes",
            hint="import a folder of regular files",
            code="bad_source",
        )
    if not files or len({f.path for f in files}) != len(files) or (kind == ONNX and len(files) != 1):
        raise Invalid(f"{len(files)} files are no {kind} model", hint="import one model", code="bad_source")
    if len(files) > SOURCE_FILES or sum(f.size for f in files) > SOURCE_BYTES:
        raise Invalid(
            f"the model has {len(files)} files of {sum(f.size for f in files) >> 20} MB",
            hint=f"at most {SOURCE_FILES} files of {SOURCE_BYTES >> 20} MB together are imported",
            code="source_too_large",
        )


def _plain(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and len(path) <= 300 and all(p not in ("", ".", "..") for p in parts)


def read_declared(table: dict[str, Any]) -> Declared:
    """What a contract file says. Raises `Invalid` for an unknown name, task, type or a feature named twice."""
    try:
        declared = msgspec.convert(table, Declared, strict=False)
    except (msgspec.ValidationError, TypeError) as e:
        raise _bad_contract(str(e)) from e
    return check_declared(declared)


def check_declared(declared: Declared) -> Declared:
    """Return it if it can be meant; raise `Invalid` otherwise."""
    names = [i.name for i in declared.inputs]
    if declared.task and declared.task not in TASKS:
        raise _bad_contract(f"the task {declared.task[:40]!r} is none of {', '.join(TASKS)}")
    for i in declared.inputs:
        if i.type not in FEATURE_TYPES:
            raise _bad_contract(f"{i.name} is of type {i.type[:40]!r}, none of {', '.join(FEATURE_TYPES)}")
        if (
            (i.source, i.view) != ("request", "")
            or i.null not in ("allow", "refuse")
            or i.unknown not in ("null", "refuse")
        ):
            raise _bad_contract(f"{i.name}: only name, type, categories, null and unknown are said of a feature")
    if len(set(names)) != len(names) or "" in names:
        raise _bad_contract("a feature has no name, or stands twice")
    if declared.positive and declared.classes and declared.positive not in declared.classes:
        raise _bad_contract(f"the positive class {declared.positive[:40]!r} is not among its classes")
    if not 0 < declared.p99_ms < 60_000:
        raise _bad_contract("p99_ms is no time in milliseconds")
    return declared


def _bad_contract(why: str) -> Invalid:
    return Invalid(
        f"what is said of the model cannot be taken: {why[:300]}",
        hint="see the example of a contract file in docs/how-to/bring-a-model.md",
        code="bad_contract_file",
    )


def incomplete(missing: list[str]) -> Invalid:
    """What the model does not say and nobody said either. Nothing is guessed."""
    return Invalid(
        f"the model's contract is not complete: {'; '.join(missing)}",
        hint="say it: options of `falaj import`, or a contract file (--contract FILE); see docs/how-to/bring-a-model.md",
        code="contract_incomplete",
        details={"missing": missing},
    )
