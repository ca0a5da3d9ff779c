"""Score a whole table, piece by piece, with a version that is loaded as a data plane loads it.

The admission and the very bytes of the model are verified by the data plane's own code, before any code of the project
runs. Scores are written in the table's order; the same table, version, lake and moment give the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec
import numpy as np
import polars as pl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from numpy.typing import NDArray

from falaj.kernel.clock import parse_iso
from falaj.kernel.digests import digest_of, sha256_file
from falaj.kernel.errors import Integrity, Invalid, from_dict
from falaj.kernel.files import flush
from falaj.lifecycle.data.steps.raw import prepared
from falaj.lifecycle.data.steps.tables import Piece, Reject, columns_of, moments, pieces
from falaj.lifecycle.features.steps.join import ViewFrame, enriched, timeline
from falaj.lifecycle.features.steps.views import KNOWN, Transform, view_rows
from falaj.lifecycle.serving.model import REJECTS, SCORES, ScoreOutcome, ScoreTask
from falaj.lifecycle.serving.plane.ciphers import Sealer
from falaj.lifecycle.serving.plane.journal import BATCH_ROLE, SUFFIX, Prediction, framed
from falaj.lifecycle.serving.plane.loading import Loader, Version
from falaj.lifecycle.serving.plane.verify import check_admission, trust_of
from falaj.lifecycle.training.encoding import Encoder, Values
from falaj.lifecycle.training.steps.values import Flags, values_of
from falaj.storage.keychain import keys_of
from falaj.storage.lake import delta
from falaj.storage.parcels import unpack
from falaj.workflow.reporting import Reporter

RECORD_ROWS = 100
"""Rows in one record of the journal."""
SEGMENT_ROWS = 200_000
_MOMENT = "__moment"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
Arrays = Mapping[str, NDArray[Any]]


class Code(NamedTuple):
    """The project's live objects: the views' functions by name; contract and `prepare` of the source of raw rows."""

    transforms: Mapping[str, Transform]
    contract: object = None
    prepare: Callable[..., Any] | None = None


def run(task: ScoreTask, code: Callable[[], Code], report: Reporter, key: str) -> ScoreOutcome:
    """Score the table of the task; `key` opens the model's files, `code` loads the project when it is needed.

    Leaves the scores, the rejected rows and the journal's segments in the workspace. Raises `Integrity` for a version
    that a data plane would not load, `Invalid` for a table that cannot be read, that lacks a column, or none of whose
    rows can be scored.
    """
    report.progress("verifying the version")
    task = msgspec.structs.replace(task, table=str(unpack(Path(task.table), Path(task.workspace))))
    version = load(task, key)
    live = code() if task.views or task.source else Code({})
    scoring = Scoring(task, version, live)
    for piece in pieces(Path(task.table), task.ask.format, scoring.wanted):
        scoring.take(piece)
        report.progress("scoring", scoring.rows)
    report.progress("writing the scores", scoring.rows, scoring.rows)
    return scoring.end()


def load(task: ScoreTask, key: str) -> Version:
    """The version, as a data plane of the environment loads it: admission, signature and every byte verified."""
    private = load_pem_private_key(key.encode(), None)
    if not isinstance(private, X25519PrivateKey):
        raise Integrity("the step was given no key", hint="score the table again", code="no_step_key")
    trust = trust_of(task.trust)
    admission = check_admission(task.release, trust, parse_iso(task.now))
    return Loader(trust, private, Path(task.blobs)).load(task.release, admission)


class Segment:
    """A segment of the prediction journal that is written at once and then only read."""

    def __init__(self, path: Path) -> None:
        self._sealer = Sealer(path.stem, keys_of(path).reader)
        self._file = path.open("wb")
        self._prefix = f"p_{path.stem}_"
        self._offset = self._file.write(self._sealer.head)

    @property
    def next_id(self) -> str:
        """The id of the record that comes next."""
        return f"{self._prefix}{self._offset:x}"

    def append(self, record: Prediction) -> None:
        """Write a record whose id is `next_id`."""
        self._offset += self._file.write(framed(self._sealer.seal(msgspec.msgpack.encode(record), self._offset)))

    def close(self) -> None:
        """Survives a power cut from here on."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


@dataclass
class _Rows:
    """Rows on their way: what they hold by input, their numbers in the table, the moment and the kept columns."""

    numbers: NDArray[np.int64]
    values: dict[str, Values]
    beside: pl.DataFrame  # what stands beside the scores, and the keys
    rejects: list[Reject] = field(default_factory=list)

    def keep(self, fine: Flags) -> _Rows:
        if fine.all():
            return self
        places = np.flatnonzero(fine)
        values: dict[str, Values] = {
            n: v[places] if isinstance(v, np.ndarray) else [v[i] for i in places.tolist()]
            for n, v in self.values.items()
        }
        beside = self.beside[places.tolist()] if self.beside.width else self.beside
        return _Rows(self.numbers[places], values, beside, self.rejects)


class Scoring:
    """One table on its way through one version."""

    def __init__(self, task: ScoreTask, version: Version, code: Code) -> None:
        self._task, self._version, self._code = task, version, code
        self._encoder = Encoder(version.contract.inputs)
        self._folder = Path(task.workspace)
        self._columns = columns_of(Path(task.table), task.ask.format)
        self._joins, self._timed = self._look()
        self._known = self._timelines() if self._joins else []
        self.rows = self._scored = 0
        self._reasons: dict[str, int] = {}
        self._first = ""
        self._parts: list[Path] = []
        self._rejects: TextIO = (self._folder / REJECTS).open("w", encoding="utf-8", newline="")
        self._reject_lines = csv.writer(self._rejects, lineterminator="\n")
        self._reject_lines.writerow(("row", "code", "reason"))
        self._table = sha256_file(Path(task.table))
        self._name = self._identity()
        self._segments: list[str] = []
        self._segment: Segment | None = None
        self._in_segment = 0

    @property
    def wanted(self) -> list[str] | None:
        """The columns of the table that matter; None for all."""
        contract, ask = self._version.contract, self._task.ask
        if ask.raw:
            return None
        keys = [k.name for k in contract.keys] if self._joins else []
        at = [ask.at] if self._timed else []
        views = {i.name for i in contract.inputs if i.source == "view"} if self._joins else set()
        return list(dict.fromkeys([*(i.name for i in contract.inputs if i.name not in views), *keys, *at, *ask.keep]))

    def take(self, piece: Piece) -> None:
        """Score a piece."""
        self.rows += len(piece.numbers) + len(piece.rejects)
        rows = self._read(piece)
        matrix, refused = self._encoder.read(rows.values) if len(rows.numbers) else (None, None)
        if matrix is None or refused is None:
            self._reject(rows.rejects)
            return
        rows.rejects += self._refusals(rows, refused)
        fine: Flags = np.logical_not(np.any(refused, axis=1))
        rows, matrix = rows.keep(fine), matrix[fine]
        answers = self._version.run(matrix) if len(matrix) else {}
        finite = _finite(answers, len(matrix))
        rows.rejects += [
            Reject(int(n), "no_finite_answer", "the model gives no finite number for it") for n in rows.numbers[~finite]
        ]
        if not finite.all():
            rows, answers = rows.keep(finite), {name: a[finite] for name, a in answers.items()}
        self._reject(rows.rejects)
        if len(rows.numbers):
            self._write(rows, answers)

    def end(self) -> ScoreOutcome:
        """Finish the files. Raises `Invalid` when no row could be scored."""
        self._rejects.close()
        if self._segment is not None:
            self._segment.close()
        if not self._scored:
            raise Invalid(
                f"none of the {self.rows:,} rows can be scored: {self._first}"
                if self.rows
                else "the table has no rows",
                hint="mend the table; see the model's inputs with `falaj evidence show`",
                code="nothing_scored",
                details={"rows": self.rows, "reasons": self._reasons},
            )
        self._join_parts()
        for name in (SCORES, REJECTS):
            flush(self._folder / name)
        reads_views = any(i.source == "view" for i in self._version.contract.inputs)
        return ScoreOutcome(
            version=self._version.alias,
            digest=self._version.digest,
            table=self._table,
            rows=self.rows,
            scored=self._scored,
            rejected=self.rows - self._scored,
            reasons=dict(sorted(self._reasons.items())),
            features=("lake" if self._joins else "table") if reads_views else "",
            moment=self._task.ask.at if self._timed else "",
            scores=sha256_file(self._folder / SCORES),
            rejects=sha256_file(self._folder / REJECTS),
            segments=tuple(self._segments),
            first=self._first,
        )

    # reading

    def _look(self) -> tuple[bool, bool]:
        """Whether the views are joined, and whether rows have a moment of their own. Raises `Invalid` for what lacks."""
        contract, ask = self._version.contract, self._task.ask
        have = set(self._columns)
        views = [i.name for i in contract.inputs if i.source == "view"]
        given = [name for name in views if name in have]
        if given and len(given) < len(views):
            lacking = ", ".join(n for n in views if n not in have)
            raise Invalid(
                f"the table has {', '.join(given)} and not {lacking}: features are joined or given, not half of each",
                hint="give all of them, or leave them out to have them joined as they were known",
                code="features_in_part",
            )
        joins = bool(views) and not given
        if joins and self._task.unjoinable:
            raise from_dict(self._task.unjoinable)
        timed = joins and (ask.raw or ask.at in have)
        if ask.raw:
            return joins, timed
        requests = [i.name for i in contract.inputs if i.source == "request"]
        keys = [k.name for k in contract.keys] if joins else []
        missing = [n for n in dict.fromkeys([*requests, *keys, *ask.keep]) if n not in have]
        if missing:
            raise Invalid(
                f"the table has no column {', '.join(missing)}",
                hint=f"it has {', '.join(self._columns[:20])}; for rows as in the source's files: --raw",
                code="missing_column",
                details={"columns": missing},
            )
        return joins, timed

    def _timelines(self) -> list[tuple[Any, pl.DataFrame]]:
        """Every view as it grew, up to what was known at the moment that is asked as of."""
        task, as_of = self._task, parse_iso(self._task.ask.as_of)
        found = []
        for spec in task.views:
            scan = delta.scan(Path(task.tables[spec.source]), task.versions[spec.source])
            rows = view_rows(spec, self._code.transforms[spec.name], scan).filter(pl.col(KNOWN) <= as_of)
            found.append((spec, timeline(ViewFrame(spec, rows))))
        return found

    def _read(self, piece: Piece) -> _Rows:
        """The piece's rows that can be encoded."""
        task, frame, numbers = self._task, piece.frame, piece.numbers
        rejects = list(piece.rejects)
        if task.source is not None:
            frame, numbers, broken = prepared(task.source, self._code.contract, self._code.prepare, frame, numbers)
            rejects += [Reject(row, "contract_broken", reason) for row, reason in broken]
        if self._joins:
            frame, numbers, late = self._joined(frame, numbers)
            rejects += late
        values: dict[str, Values] = {}
        bad = np.zeros(len(numbers), dtype=bool)
        for spec in self._version.contract.inputs:
            values[spec.name], wrong = values_of(spec, frame[spec.name])
            for n in np.flatnonzero(wrong & ~bad).tolist():
                said = f"{spec.name} is {str(frame[spec.name][n])[:40]!r}, and that is no {spec.type}"
                rejects.append(Reject(int(numbers[n]), "wrong_type", said))
            bad |= wrong
        names = dict.fromkeys([*task.ask.keep, *(k.name for k in self._version.contract.keys)])
        beside = frame.select(name for name in names if name in frame.columns)
        return _Rows(numbers, values, beside, rejects).keep(~bad)

    def _joined(
        self, frame: pl.DataFrame, numbers: NDArray[np.int64]
    ) -> tuple[pl.DataFrame, NDArray[np.int64], list[Reject]]:
        """The rows with each view as it was known at their moment; a row without one cannot be joined."""
        ask, late = self._task.ask, []
        if self._timed:
            if ask.at not in frame.columns:
                raise Invalid(
                    f"the rows have no column {ask.at}",
                    hint="name the column with each row's moment: --at COLUMN",
                    code="no_time_column",
                )
            at = moments(frame[ask.at])
            fine = at.is_not_null().to_numpy()
            late = [
                Reject(int(n), "no_time", f"{ask.at} is not a moment with a zone, such as 2013-04-01T06:00:00Z")
                for n in numbers[~fine]
            ]
            frame, numbers, at = frame.filter(pl.Series(fine)), numbers[fine], at.filter(pl.Series(fine))
        else:
            at = pl.Series([parse_iso(ask.as_of)], dtype=pl.Datetime("us", "UTC")).new_from_index(0, frame.height)
        keys = [k.name for k in self._version.contract.keys]
        asked = frame.select(pl.col(k).cast(pl.String) for k in keys).with_columns(at.alias(_MOMENT))
        found = enriched(asked, _MOMENT, self._known).drop(_MOMENT, *keys)
        return frame.drop(c for c in found.columns if c in frame.columns).hstack(found), numbers, late

    def _refusals(self, rows: _Rows, refused: NDArray[np.bool_]) -> Iterator[Reject]:
        for place in np.flatnonzero(refused.any(axis=1)).tolist():
            spec = self._encoder.inputs[int(np.argmax(refused[place]))]
            value = rows.values[spec.name][place]
            if isinstance(value, str):
                said = f"{spec.name} is {value[:40]!r}, which the model has never seen"
                yield Reject(int(rows.numbers[place]), "unknown_category", said)
            else:
                said = f"{spec.name} is not known, and the model cannot do without it"
                yield Reject(int(rows.numbers[place]), "null_refused", said)

    def _reject(self, rejects: list[Reject]) -> None:
        for reject in sorted(rejects):
            self._first = self._first or f"row {reject.row}: {reject.reason}"
            self._reasons[reject.code] = self._reasons.get(reject.code, 0) + 1
            self._reject_lines.writerow(reject)

    # writing

    def _identity(self) -> str:
        """The digest that names this scoring: the same table, version and facts have the same name."""
        task, lake = self._task, self._joins
        facts = {
            "table": self._table,
            "version": self._version.digest,
            "as_of": task.ask.as_of if lake else "",
            "lake": [[v.name, v.digest, v.source, task.versions[v.source]] for v in task.views] if lake else [],
            "at": task.ask.at if self._timed else "",
            "raw": task.source.code if task.source else "",
        }
        return digest_of(facts)

    def _write(self, rows: _Rows, answers: Arrays) -> None:
        ids = self._recorded(rows, answers) if self._task.ask.record else self._numbered(rows)
        columns: dict[str, Any] = {"prediction": ids, "row": rows.numbers}
        scores = {name: column for o in answers for name, column in self._flat(o, answers[o])}
        beside = {n: rows.beside[n] for n in self._task.ask.keep}
        taken = [n for n in beside if n in columns or n in scores or n in ("version", "digest")]
        if taken:
            raise Invalid(
                f"{taken[0]} cannot stand beside the scores: they have a column of that name",
                hint="rename it in the table, or leave it out of --keep",
                code="column_clash",
            )
        frame = pl.DataFrame({**columns, **beside, **scores}).with_columns(
            pl.lit(self._version.alias).alias("version"), pl.lit(self._version.digest).alias("digest")
        )
        part = self._folder / f"part-{len(self._parts):06}.parquet"
        frame.write_parquet(part)
        self._parts.append(part)
        self._scored += frame.height

    def _flat(self, name: str, answer: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
        """An answer as columns: itself, or one for each class."""
        if answer.ndim == 1:
            yield name, answer
            return
        classes = self._version.contract.classes
        for n in range(answer.shape[1]):
            yield f"{name}_{classes[n] if len(classes) == answer.shape[1] else n}", answer[:, n]

    def _numbered(self, rows: _Rows) -> list[str]:
        head = f"s_{_characters(self._name)}_"
        return [f"{head}{n:x}" for n in rows.numbers.tolist()]

    def _recorded(self, rows: _Rows, answers: Arrays) -> list[str]:
        """Write the rows to the journal's segments; their ids."""
        ids: list[str] = []
        contract = self._version.contract
        sources = {i.name: i.source for i in contract.inputs}
        for start in range(0, len(rows.numbers), RECORD_ROWS):
            part = slice(start, start + RECORD_ROWS)
            segment = self._open_segment()
            inputs = {n: _plain(v[part]) for n, v in rows.values.items() if sources[n] == "request"}
            inputs |= {
                k.name: rows.beside[k.name][part].cast(pl.String).to_list()
                for k in contract.keys
                if k.name in rows.beside.columns and k.name not in inputs
            }
            record = Prediction(
                id=segment.next_id,
                at=int(parse_iso(self._task.now).timestamp() * 1e6),
                model=contract.model,
                version=self._version.alias,
                digest=self._version.digest,
                principal=self._task.principal,
                generation=0,
                worker=BATCH_ROLE,
                rows=len(rows.numbers[part]),
                inputs=inputs,
                outputs={n: a[part].tolist() for n, a in answers.items()},
                duration=-1,
                features={n: _plain(v[part]) for n, v in rows.values.items() if sources[n] == "view"},
                role=BATCH_ROLE,
            )
            segment.append(record)
            self._in_segment += record.rows
            ids += [record.id, *(f"{record.id}/{n}" for n in range(1, record.rows))]
        return ids

    def _open_segment(self) -> Segment:
        """The segment that is written to; a new one when it is full."""
        if self._segment is None or self._in_segment >= SEGMENT_ROWS:
            if self._segment is not None:
                self._segment.close()
            # An id holds its record's place, which is another one when another's name stands in the records before it.
            name = _characters(digest_of([self._name, self._task.principal, len(self._segments)]))
            self._segments.append(name)
            self._segment, self._in_segment = Segment(self._folder / f"{name}{SUFFIX}"), 0
        return self._segment

    def _join_parts(self) -> None:
        path = self._folder / SCORES
        if self._task.ask.to == "csv":
            with path.open("wb") as f:
                for n, part in enumerate(self._parts):
                    pl.read_parquet(part).write_csv(f, include_header=n == 0)
        else:
            pl.scan_parquet(self._parts).sink_parquet(path, maintain_order=True, row_group_size=100_000)


def _finite(answers: Arrays, rows: int) -> Flags:
    fine = np.ones(rows, dtype=bool)
    for answer in answers.values():
        if answer.dtype.kind == "f":
            fine &= np.isfinite(answer.reshape(rows, -1)).all(axis=1)
    return fine


def _plain(values: Sequence[Any] | NDArray[Any]) -> list[Any]:
    """Values as the journal keeps them: None for what is not known."""
    if isinstance(values, np.ndarray):
        return [None if v != v else v for v in values.tolist()]
    return list(values)


def _characters(digest: str) -> str:
    """The 26 characters, in the alphabet of ids, of 128 bits of a digest."""
    value = int.from_bytes(hashlib.sha256(digest.encode()).digest()[:16], "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))
