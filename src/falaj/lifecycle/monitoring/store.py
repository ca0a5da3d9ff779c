"""Incidents in `falaj.db`; predictions, labels and windows in `metrics.db`.

What is in `metrics.db` survives a process crash. It can be made again from the prediction journal,
except for labels, which their sender is asked to keep until the answer.

`labels` holds what is true now, corrections included; `first_labels` one row a request, as it came, so that what was
concluded from the order in which labels came can be concluded again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    case,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from falaj.lifecycle.monitoring.model import (
    Arrival,
    Claimed,
    Declared,
    ExternalModel,
    Incident,
    Label,
    Scored,
    Slot,
    WindowRow,
)
from falaj.storage.sql.database import Tx
from falaj.storage.sql.schema import metadata

incidents = Table(
    "incidents",
    metadata,
    Column("id", String, primary_key=True),
    Column("model", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("opened_at", String, nullable=False),
    Column("closed_at", String, nullable=False),
)
external_models = Table(
    "external_models",
    metadata,
    Column("name", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("digest", String, nullable=False),
    Column("model", String, nullable=False),
    Column("contract", String, nullable=False),
    Column("profile", String, nullable=False),
    Column("source", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("author", String, nullable=False),
    Column("at", String, nullable=False),
)
external_claims = Table(
    "external_claims",
    metadata,
    Column("digest", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("claims", String, nullable=False),
    Column("at", String, nullable=False),
)
records = MetaData()
predictions = Table(
    "predictions",
    records,
    Column("prediction", String, primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("role", String, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("score", Float),
    Index("ix_predictions_at", "model", "at_us"),
)
labels = Table(
    "labels",
    records,
    Column("prediction", String, primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("model", String, nullable=False),
    Column("value", Float, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
first_labels = Table(
    "first_labels",
    records,
    Column("number", Integer, primary_key=True),
    Column("prediction", String, nullable=False, unique=True),
    Column("row", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("value", Float, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("ix_first_labels_model", "model", "number"),
)
score_vectors = Table(
    "score_vectors",
    records,
    Column("prediction", String, primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("vector", String, nullable=False),
)
windows = Table(
    "windows",
    records,
    Column("model", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("start_us", BigInteger, primary_key=True),
    Column("window", String, nullable=False),
    Column("judged", Boolean, nullable=False),
)
cursors = Table(
    "journal_cursors",
    records,
    Column("segment", String, primary_key=True),
    Column("offset", BigInteger, nullable=False),
)
external_ids = Table(
    "external_ids",
    records,
    Column("model", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("prediction", String, nullable=False),
)
external_heard = Table(
    "external_heard",
    records,
    Column("model", String, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
_p, _l, _f, _v = predictions.c, labels.c, first_labels.c, score_vectors.c
_SOME = 500  # how many values one query names


class SqlIncidentStore:
    def open(self, tx: Tx, model: str) -> list[Incident]:
        c = incidents.c
        rows = tx.execute(select(incidents).where(c.model == model, c.state != "resolved").order_by(c.opened_at))
        return [Incident(**r._mapping) for r in rows]

    def all(self, tx: Tx) -> list[Incident]:
        rows = tx.execute(select(incidents).order_by(incidents.c.opened_at.desc(), incidents.c.id.desc()))
        return [Incident(**r._mapping) for r in rows]

    def get(self, tx: Tx, incident_id: str) -> Incident | None:
        row = tx.execute(select(incidents).where(incidents.c.id == incident_id)).first()
        return Incident(**row._mapping) if row else None

    def add(self, tx: Tx, incident: Incident) -> None:
        tx.execute(insert(incidents).values(msgspec.structs.asdict(incident)))

    def close(self, tx: Tx, incident_id: str, state: str, at: str) -> None:
        tx.execute(update(incidents).where(incidents.c.id == incident_id).values(state=state, closed_at=at))


class SqlRecordStore:
    """Over `metrics.db`."""

    def create(self, tx: Tx) -> None:
        records.create_all(tx)

    def cursors(self, tx: Tx) -> dict[str, int]:
        return {r.segment: r.offset for r in tx.execute(select(cursors))}

    def add_predictions(self, tx: Tx, rows: list[Scored], segment: str, offset: int) -> None:
        """Keep rows and how far the journal was read, together."""
        if rows:
            plain = [{k: v for k, v in msgspec.structs.asdict(r).items() if k != "vector"} for r in rows]
            tx.execute(insert(predictions).prefix_with("OR IGNORE"), plain)
        vectors = [
            {"prediction": r.prediction, "row": r.row, "vector": msgspec.json.encode(r.vector).decode()}
            for r in rows
            if r.vector is not None and r.role != "shadow"  # nobody knows a shadow's answers, so none gets a label
        ]
        if vectors:
            tx.execute(insert(score_vectors).prefix_with("OR IGNORE"), vectors)
        tx.execute(delete(cursors).where(cursors.c.segment == segment))
        tx.execute(insert(cursors).values(segment=segment, offset=offset))

    def add_labels(self, tx: Tx, rows: list[Label]) -> None:
        """A label that comes again replaces the first: a correction."""
        given = [msgspec.structs.asdict(r) for r in rows]
        tx.execute(insert(labels).prefix_with("OR REPLACE"), given)
        tx.execute(insert(first_labels).prefix_with("OR IGNORE"), given)

    def labels_of(self, tx: Tx, prediction: str) -> list[Label]:
        rows = tx.execute(select(labels).where(_l.prediction == prediction).order_by(_l.row))
        return [Label(**r._mapping) for r in rows]

    def arrivals(self, tx: Tx, model: str, after: int, limit: int) -> list[Arrival]:
        """The first labels of requests that came after number `after`, in the order in which they came."""
        query = select(first_labels).where(_f.model == model, _f.number > after).order_by(_f.number).limit(limit)
        return [Arrival(r.number, Label(r.prediction, r.row, r.model, r.value, r.at_us)) for r in tx.execute(query)]

    def arrived_before(self, tx: Tx, model: str, at_us: int) -> int:
        """The number of the last first label that came before a moment; 0 when none did."""
        query = select(func.max(_f.number)).where(_f.model == model, _f.at_us < at_us)
        return int(tx.execute(query).scalar() or 0)

    def scored(self, tx: Tx, ids: list[str]) -> dict[tuple[str, int], Scored]:
        """The rows of these predictions, by prediction and row."""
        same = (_v.prediction == _p.prediction) & (_v.row == _p.row)
        found: dict[tuple[str, int], Scored] = {}
        for i in range(0, len(ids), _SOME):
            asked = _p.prediction.in_(ids[i : i + _SOME])
            for r in tx.execute(select(predictions, _v.vector).join(score_vectors, same, isouter=True).where(asked)):
                vector = msgspec.json.decode(r.vector, type=tuple[float, ...]) if r.vector else None
                found[r.prediction, r.row] = Scored(**{**r._mapping, "vector": vector})
        return found

    def label_rows(self, tx: Tx, model: str) -> Iterator[tuple[str, int, float]]:
        """Every label of a model as it is true now: prediction, row, value; while the transaction lasts."""
        query = select(_l.prediction, _l.row, _l.value).where(_l.model == model)
        for r in tx.execute(query.execution_options(yield_per=10_000)):
            yield r.prediction, r.row, r.value

    def known(self, tx: Tx, model: str, rows: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Which of these rows, by prediction and row, the model was asked."""
        found: set[tuple[str, int]] = set()
        for i in range(0, len(rows), _SOME):
            asked = tuple_(_p.prediction, _p.row).in_(rows[i : i + _SOME])
            query = select(_p.prediction, _p.row).where(_p.model == model, asked)
            found |= {(r.prediction, r.row) for r in tx.execute(query)}
        return found

    def labelled(self, tx: Tx, model: str, digest: str, start_us: int, end_us: int) -> list[tuple[float, float]]:
        """(score, label) of the rows that a version answered in a span and whose label has come."""
        same = (_p.prediction == _l.prediction) & (_p.row == _l.row)
        inside = (_p.model == model) & (_p.digest == digest) & (_p.at_us >= start_us) & (_p.at_us < end_us)
        query = select(_p.score, _l.value).join(labels, same).where(inside, _p.score.is_not(None), _p.role != "shadow")
        return [(float(r.score), float(r.value)) for r in tx.execute(query)]

    def slots(self, tx: Tx, model: str, digests: list[str], span_us: tuple[int, int], width_us: int) -> list[Slot]:
        """What these versions did from span_us[0] up to and with span_us[1], shadows included, by slots of `width_us`."""
        number = _p.at_us // width_us
        asked = func.sum(case((_p.row == 0, 1), else_=0))  # every request has a first row
        inside = (_p.model == model) & _p.digest.in_(digests) & (_p.at_us >= span_us[0]) & (_p.at_us <= span_us[1])
        query = select(_p.digest, number, asked, func.avg(_p.score)).where(inside).group_by(_p.digest, number)
        return [Slot(d, int(n), int(a), s) for d, n, a, s in tx.execute(query.order_by(number, _p.digest))]

    def put_window(self, tx: Tx, row: WindowRow) -> None:
        c = windows.c
        same = (c.model == row.model) & (c.digest == row.digest) & (c.start_us == row.start_us)
        tx.execute(delete(windows).where(same))
        tx.execute(insert(windows).values(msgspec.structs.asdict(row)))

    def windows(self, tx: Tx, model: str) -> list[WindowRow]:
        """Oldest first."""
        query = select(windows).where(windows.c.model == model).order_by(windows.c.start_us, windows.c.digest)
        return [WindowRow(**r._mapping) for r in tx.execute(query)]


class SqlExternalStore:
    """Declarations and claimed labels in `falaj.db`; ids, and when something was heard last, in `metrics.db`."""

    def declared(self, tx: Tx) -> list[Declared]:
        """Every declaration, the newest of each model last."""
        rows = tx.execute(select(external_models).order_by(external_models.c.name, external_models.c.number))
        return [
            Declared(
                msgspec.json.decode(r.model, type=ExternalModel), r.number, r.digest, r.contract, r.profile, r.source,
                r.rows, r.author, r.at,
            )
            for r in rows
        ]  # fmt: skip

    def claimed(self, tx: Tx) -> list[Claimed]:
        """Every claimed label, the newest of each model last."""
        rows = tx.execute(select(external_claims).order_by(external_claims.c.at, external_claims.c.digest))
        return [Claimed(**r._mapping) for r in rows]

    def add(self, tx: Tx, declared: Declared) -> None:
        """Write a declaration down."""
        body = msgspec.json.encode(declared.model).decode()
        plain = {k: v for k, v in msgspec.structs.asdict(declared).items() if k not in ("model", "table")}
        values = {"name": declared.model.name, "model": body, "source": declared.table, **plain}
        tx.execute(insert(external_models).values(values))

    def add_claim(self, tx: Tx, claimed: Claimed) -> None:
        """Write a label down; one that is there stays."""
        if tx.execute(select(external_claims.c.at).where(external_claims.c.digest == claimed.digest)).first() is None:
            tx.execute(insert(external_claims).values(msgspec.structs.asdict(claimed)))

    def predictions(self, tx: Tx, model: str, ids: Sequence[str]) -> dict[str, str]:
        """The journal's id of each of the endpoint's ids that is known."""
        c, found = external_ids.c, {}
        for i in range(0, len(ids), _SOME):
            query = select(c.id, c.prediction).where(c.model == model, c.id.in_(ids[i : i + _SOME]))
            found.update({r.id: r.prediction for r in tx.execute(query)})
        return found

    def add_ids(self, tx: Tx, rows: Sequence[tuple[str, str, str]]) -> None:
        """(model, the endpoint's id, the journal's); an id that is known keeps its first."""
        given = [{"model": m, "id": i, "prediction": p} for m, i, p in rows]
        if given:
            tx.execute(insert(external_ids).prefix_with("OR IGNORE"), given)

    def heard(self, tx: Tx) -> dict[str, int]:
        """When something was heard of each model last, in µs since 1970."""
        return {r.model: r.at_us for r in tx.execute(select(external_heard))}

    def hear(self, tx: Tx, model: str, at_us: int) -> None:
        """Something was heard."""
        tx.execute(insert(external_heard).prefix_with("OR REPLACE"), [{"model": model, "at_us": at_us}])
