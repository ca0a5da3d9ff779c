"""Sources, contracts and dataset versions: frozen types and pure rules."""

from __future__ import annotations

import msgspec

from falaj.kernel.access import Action
from falaj.kernel.digests import digest_of

DATA_READ = Action("data.read", "read", "Dataset", "see a dataset's versions and its quarantine counts")
DATA_INGEST = Action("data.ingest", "engineering", "Dataset", "load new files of a source")
TABLE_HAND_OVER = Action("data.hand_over", "inference", "Table", "hand a table over, to be worked on")
TABLE_FETCH = Action("data.fetch_table", "inference", "Table", "fetch or take away one's own table")
ACTIONS = (DATA_READ, DATA_INGEST, TABLE_HAND_OVER, TABLE_FETCH)
INGEST = "ingest"
"""The name of the flow that loads a source, and of its step."""


class SourceSpec(msgspec.Struct, frozen=True):
    """Where rows come from, as declared by the project.

    `files` is a glob below the project's folder. `event_time` is when a row happened, `known_at` when
    it could first have been known; both name columns with a time zone, after `prepare`.
    `null_values` are the texts of a CSV field that mean "not known", besides an empty one.
    `max_bad` is the share of rows (0 to 1) that may break the contract before the load is refused.
    `contract` and `prepare` are `module:name` of project code, with the digest of that code in `code`.
    """

    name: str
    format: str  # csv | parquet | json
    files: str
    event_time: str
    known_at: str
    contract: str = ""
    prepare: str = ""
    max_bad: float = 0.05
    region: str = ""
    purposes: tuple[str, ...] = ()
    code: str = ""
    null_values: tuple[str, ...] = ()


class FileLoad(msgspec.Struct, frozen=True):
    """One file that was ingested: its name below the project, digest, and where its rows went."""

    path: str
    sha256: str
    rows: int
    stored: int
    quarantined: int


class BadRow(msgspec.Struct, frozen=True):
    """Where a row stands that went to quarantine, and the rule that it broke: never what is in it.

    `row` is its number in the file, the first being 1.
    """

    file: str
    row: int
    reason: str


class IngestTask(msgspec.Struct, frozen=True):
    """What a step process needs to load a source: one JSON object.

    `project` is the project's folder; `table` and `quarantine` are folders of Delta tables.
    `base_version` is the version that SQL names (-1: none yet), `known_files` the digests of the files
    in it and in what was quarantined, and `known_paths` these digests by the names that the files had.
    """

    source: SourceSpec
    project: str
    table: str
    quarantine: str
    operation_id: str
    base_version: int = -1
    known_files: tuple[str, ...] = ()
    known_paths: dict[str, tuple[str, ...]] = {}


class IngestOutcome(msgspec.Struct, frozen=True):
    """What a load came to: all that a `DatasetVersion` needs. Times are RFC 3339 in UTC.

    `rows` counts the whole version, `added` this load; added + quarantined is what the files held.
    `skipped` files were known already. With nothing new, `version` is the version before. The version
    holds `base_version` and this load, nothing else. `examples` are the first rows that were quarantined.
    """

    name: str
    version: int
    digest: str
    rows: int
    added: int
    quarantined: int
    reasons: dict[str, int]
    files: tuple[FileLoad, ...]
    skipped: int
    operation_id: str
    base_version: int = -1
    event_from: str = ""
    event_to: str = ""
    examples: tuple[BadRow, ...] = ()


class DatasetVersion(msgspec.Struct, frozen=True):
    """A version of a dataset: the Delta version and the digest of its file manifest name it."""

    name: str
    version: int  # Delta version of the table of good rows
    digest: str
    rows: int  # rows in this version, all files together
    added: int
    quarantined: int
    reasons: dict[str, int]  # contract rule → rows that broke it first
    files: tuple[FileLoad, ...]
    operation_id: str
    created_at: str


FILE_COLUMN = "_file"
"""In every stored row: the first twelve hex digits of the digest of the file it came from."""
ROW_COLUMN = "_row"
"""In every stored row: its number in that file, the first being 1."""


def dataset_digest(files: list[tuple[str, int]]) -> str:
    """The digest of a Delta version: its active data files' (path, size), sorted."""
    return digest_of([[path, size] for path, size in sorted(files)])


def breach(rows: int, bad: int, max_bad: float) -> bool:
    """Whether a load breaks its contract beyond the limit; an empty load does not."""
    return rows > 0 and bad / rows > max_bad
