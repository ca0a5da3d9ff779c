"""Models that somebody else serves: declared, heard of, watched like one's own; never admitted, rolled out or guarded.

What comes in is written to the prediction journal before it is acknowledged, and from there on goes the way of every
answer: scored rows, windows, drift, quality, incidents, the lake. The endpoint's own prediction ids are kept beside the
journal's: a record that comes again is known by its id, and labels join by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso, parse_iso
from falaj.kernel.digests import digest_of
from falaj.kernel.errors import Conflict, FalajError, Invalid, NotFound
from falaj.lifecycle.monitoring.model import (
    EXTERNAL,
    EXTERNAL_DECLARE,
    PREDICTIONS_PUSH,
    SILENT,
    Claimed,
    Declared,
    ExternalModel,
    Pushed,
    ReferenceOutcome,
    ReferenceTask,
    check_external,
)
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.monitoring.ports import Alarms, OwnVersions, Policies
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from falaj.lifecycle.training.model import CONTRACT_FILE, PROFILE_FILE, ModelContract
from falaj.storage.parcels import Parcels
from falaj.storage.sql.database import Database, Tx

MOST_CLAIMS = 100
"""Version labels of one model: each has windows of its own."""
_LONGEST = 200  # characters of an id or a label
_AHEAD = timedelta(minutes=5)  # how far an endpoint's clock may be ahead
_LONGEST_MS = 1e12  # of a latency: what is longer is no time
_LOOK_SECONDS = 1.0


class ExternalStore(Protocol):
    """Declarations and claimed labels in `falaj.db`; ids and when something was heard last in `metrics.db`."""

    def declared(self, tx: Tx) -> list[Declared]:
        """Every declaration, the newest of each model last."""
        ...

    def claimed(self, tx: Tx) -> list[Claimed]:
        """Every claimed label, the newest of each model last."""
        ...

    def add(self, tx: Tx, declared: Declared) -> None:
        """Write a declaration down."""
        ...

    def add_claim(self, tx: Tx, claimed: Claimed) -> None:
        """Write a label down; one that is there stays."""
        ...

    def predictions(self, tx: Tx, model: str, ids: Sequence[str]) -> dict[str, str]:
        """The journal's id of each of the endpoint's ids that is known."""
        ...

    def add_ids(self, tx: Tx, rows: Sequence[tuple[str, str, str]]) -> None:
        """(model, the endpoint's id, the journal's); an id that is known keeps its first."""
        ...

    def heard(self, tx: Tx) -> dict[str, int]:
        """When something was heard of each model last, in µs since 1970."""
        ...

    def hear(self, tx: Tx, model: str, at_us: int) -> None:
        """Something was heard."""
        ...


class Blobs(Protocol):
    """Where contracts and profiles are kept."""

    def put(self, plain: bytes) -> str:
        """Returns the digest."""
        ...

    def get(self, digest: str) -> bytes:
        """Raises `NotFound`, `Integrity`."""
        ...


class Ports(msgspec.Struct, frozen=True):
    """What this works with. `names` are the models of this home's own, `journal` the folder of its journal."""

    database: Database
    metrics: Database
    store: ExternalStore
    blobs: Blobs
    lineage: LineageService
    parcels: Parcels
    names: Callable[[], Sequence[str]]
    own: OwnVersions
    policies: Policies
    alarms: Alarms
    journal: Path


class ExternalService:
    """Answers for the observer what it asks about versions and policies: for these models, and for the home's own."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports
        declared = ports.database.read(ports.store.declared)
        self._models = {d.model.name: d for d in declared}
        self._declared = {d.digest: d for d in declared}
        self._claims = {c.digest: c for c in ports.database.read(ports.store.claimed)}
        self._newest = {c.name: c.digest for c in self._claims.values()}
        self._heard = ports.metrics.read(ports.store.heard)
        self._journal: Journal | None = None
        self._writing = threading.Lock()
        self._silent: dict[str, bool] = {}
        self._looked = 0.0

    def close(self) -> None:
        """End the journal's segment."""
        with self._writing:
            if self._journal is not None:
                self._journal.close()
                self._journal = None

    # declaring

    def ask(self, actor: Principal, body: dict[str, Any], table: str) -> ExternalModel:
        """A declaration that may be made. Raises `Denied`, `Invalid`, `Conflict` for a name of the home's own models."""
        try:
            model = check_external(msgspec.convert(body, ExternalModel))
        except msgspec.ValidationError as e:
            raise Invalid(
                f"the declaration cannot be read: {e}",
                hint="see docs/how-to/watch-somebody-elses-model.md",
                code="wrong_external_model",
            ) from e
        self._door.check(self._intent(actor, model.name))
        if model.name in self._p.names():
            raise Conflict(
                f"{model.name} is a model of this home's own, and is watched already",
                hint="give the other one another name",
                code="name_taken",
            )
        self._p.parcels.path(actor.name, table)
        return model

    def lay_out(self, actor: Principal, model: ExternalModel, table: str, kind: str, workspace: Path) -> ReferenceTask:
        """The step's task."""
        return ReferenceTask(model, str(self._p.parcels.path(actor.name, table)), kind, str(workspace))

    def keep(self, workspace: Path) -> None:
        """Keep what the step wrote."""
        for name in (CONTRACT_FILE, PROFILE_FILE):
            self._p.blobs.put((workspace / name).read_bytes())

    def declare(
        self, actor: Principal, model: ExternalModel, outcome: ReferenceOutcome, operation_id: str
    ) -> dict[str, Any]:
        """Make this declaration the one that holds for the model. The same again changes nothing."""
        before = self._models.get(model.name)
        digest = digest_of([model, outcome.contract, outcome.profile])
        if before is not None and before.digest == digest:
            return _told(before)
        now = iso(self._door.clock.now())
        number = before.number + 1 if before else 1
        declared = Declared(
            model, number, digest, outcome.contract, outcome.profile, outcome.table, outcome.rows, actor.name, now
        )

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._p.store.add(tx, declared)
            self._p.lineage.record(tx, Node("external", digest), [Node("table", outcome.table)])
            return Done(_told(declared))

        facts = {"digest": digest, "reference": outcome.profile, "table": outcome.table, "rows": outcome.rows}
        done = self._door.change(self._intent(actor, model.name, operation_id, facts), do)
        self._models[model.name] = self._declared[digest] = declared
        return done

    def refuse(self, actor: Principal, name: str, error: FalajError, operation_id: str) -> None:
        """Audit that a declaration was refused."""
        self._door.refuse(self._intent(actor, name, operation_id), error)

    # looking

    def names(self) -> list[str]:
        """The models that somebody else serves."""
        return sorted(self._models)

    def model(self, name: str) -> Declared:
        """Raises `NotFound`."""
        found = self._models.get(name)
        if found is None:
            raise NotFound(
                f"no model {name[:80]!r} of somebody else is watched here",
                hint="`falaj external list` shows them; declare one: `falaj external watch FILE --reference TABLE`",
                code="no_such_external_model",
            )
        return found

    def all(self) -> list[dict[str, Any]]:
        """Every watched model: its declaration, what it claims to be, when it was heard last."""
        return [self.told(name) for name in self.names()]

    def told(self, name: str) -> dict[str, Any]:
        """One watched model. Raises `NotFound`."""
        heard = self._heard.get(name)
        return {
            **_told(self.model(name)),
            "claims": [c.claims for c in list(self._claims.values()) if c.name == name],  # others may push meanwhile
            "heard_at": _moment(heard) if heard else "",
            "silent": self._silent.get(name, False),
        }

    def claim(self, digest: str) -> Claimed | None:
        """The label that a window's digest stands for; None for a version of the home's own."""
        return self._claims.get(digest)

    # what the observer asks

    def contract(self, digest: str) -> ModelContract:
        """As the registry's, for both kinds."""
        declared = self._of(digest)
        if declared is None:
            return self._p.own.contract(digest)
        return msgspec.json.decode(self._p.blobs.get(declared.contract), type=ModelContract)

    def profile_of(self, digest: str) -> bytes:
        """As the registry's, for both kinds."""
        declared = self._of(digest)
        return self._p.own.profile_of(digest) if declared is None else self._p.blobs.get(declared.profile)

    def author(self, digest: str) -> str:
        """Who made the version, or declared what somebody else serves. Raises `NotFound`."""
        declared = self._of(digest)
        return self._p.own.by_digest(digest).author if declared is None else declared.author

    def monitor(self, model: str) -> MonitorPolicy | None:
        """As the applied project's, for both kinds."""
        declared = self._models.get(model)
        return self._p.policies.monitor(model) if declared is None else declared.model.monitor

    def answering(self) -> dict[str, str]:
        """Model → the digest that stands for what answered last."""
        return dict(self._newest)

    # hearing

    def push(self, actor: Principal, name: str, rows: Sequence[Pushed]) -> dict[str, Any]:
        """Take answers of an endpoint; those that came before are counted and not taken again.

        What is not declared is not kept. When this returns, what was accepted survives a crash of the process. Raises
        `Denied`, `NotFound`, `Unavailable`.
        """
        declared = self.model(name)
        self._door.check(Intent(actor, PREDICTIONS_PUSH, Resource("ExternalModel", name)))
        now = self._door.clock.now()
        taken: dict[str, Prediction] = {}
        refused: list[dict[str, str]] = []
        again = 0
        known = self._known(name, [row.id for row in rows])
        for row in rows:
            if row.id in known or row.id in taken:
                again += 1
                continue
            try:
                taken[row.id] = self._record(actor, declared, row)
            except Invalid as e:
                refused.append({"id": row.id[:_LONGEST], "code": e.code, "reason": e.message})
        written = self._append(list(taken.values()))
        heard = int(now.timestamp() * 1e6)

        def do(tx: Tx) -> None:
            self._p.store.add_ids(tx, [(name, r.request, r.id) for r in written])
            self._p.store.hear(tx, name, heard)

        if written:
            self._p.metrics.change(do)
            self._heard[name] = heard
            self._newest[name] = written[-1].digest
        return {"accepted": len(written), "duplicates": again, "refused": refused}

    def translate(self, name: str, rows: Sequence[tuple[str, float]]) -> tuple[list[tuple[str, float]], int]:
        """Labels by the endpoint's ids as labels by the journal's, and how many name no answer that came."""
        known = self._known(name, [i for i, _ in rows])
        return [(known[i], value) for i, value in rows if i in known], sum(i not in known for i, _ in rows)

    def first_of(self, batch: list[Prediction]) -> list[Prediction]:
        """A batch of the journal without the records that an endpoint had sent before.

        A sender that got no answer sends again, and may do so while the first is still on its way: here it is decided
        once and for all which counts, so that nothing is counted twice.
        """
        ours = [r for r in batch if r.role == EXTERNAL]
        if not ours:
            return batch

        def do(tx: Tx) -> dict[tuple[str, str], str]:
            self._p.store.add_ids(tx, [(r.model, r.request, r.id) for r in ours])
            found: dict[tuple[str, str], str] = {}
            for model in {r.model for r in ours}:
                ids = [r.request for r in ours if r.model == model]
                found |= {(model, i): p for i, p in self._p.store.predictions(tx, model, ids).items()}
            return found

        first = self._p.metrics.change(do)
        return [r for r in batch if r.role != EXTERNAL or first[r.model, r.request] == r.id]

    def listen(self) -> None:
        """Open an incident for each endpoint that fell silent, and resolve it when it is heard again."""
        machine = time.monotonic()
        if machine - self._looked < _LOOK_SECONDS:
            return
        self._looked = machine
        now = self._door.clock.now()
        for name, declared in list(self._models.items()):
            heard = self._heard.get(name)
            last = parse_iso(declared.at) if heard is None else parse_iso(_moment(heard))
            patience = timedelta(seconds=declared.model.monitor.window_seconds * declared.model.silent_after)
            silent = now - last > patience
            if silent is self._silent.get(name):
                continue
            if silent:
                since = (
                    f"nothing has come since {iso(last)}"
                    if heard
                    else f"nothing came since it was declared, {iso(last)}"
                )
                self._p.alarms.open(name, SILENT, self._newest.get(name, ""), since)
            else:
                self._p.alarms.settle(name, SILENT)
            self._silent[name] = silent

    def _record(self, actor: Principal, declared: Declared, row: Pushed) -> Prediction:
        """An answer as the journal keeps it; its id is given when it is written. Raises `Invalid`."""
        model = declared.model
        if not 0 < len(row.id) <= _LONGEST or len(row.version) > _LONGEST:
            raise _unusable("bad_prediction_id", f"an id has 1 to {_LONGEST} characters, and so has a version at most")
        try:
            at = parse_iso(row.at)
        except ValueError as e:
            raise _unusable("bad_moment", f"at is {row.at[:40]!r}, and that is no moment with a zone") from e
        if at > self._door.clock.now() + _AHEAD:
            raise _unusable("from_the_future", f"at is {row.at[:40]}, which is still to come")
        inputs = {name: [_input(name, kind, row.inputs.get(name))] for name, kind in model.inputs.items()}
        outputs = {} if row.error else {model.score: [_score(model, row.outputs.get(model.score))]}
        latency = row.latency_ms
        if latency is not None and not 0 <= latency < _LONGEST_MS:
            raise _unusable("wrong_type", "latency_ms is no time")
        return Prediction(
            id="",
            at=int(at.timestamp() * 1e6),
            model=model.name,
            version=row.version,
            digest=self._claim(actor, declared, row.version),
            principal=actor.name,
            generation=0,
            worker=EXTERNAL,
            rows=1,
            inputs=inputs,
            outputs=outputs,
            duration=-1 if latency is None else int(latency * 1000),
            request=row.id,
            error=row.error[:300],
            role=EXTERNAL,
        )

    def _claim(self, actor: Principal, declared: Declared, label: str) -> str:
        """The digest that stands for a label; a new one is written down, and audited. Raises `Invalid` for too many."""
        name = declared.model.name
        digest = digest_of({"external": declared.digest, "claims": label})
        if digest in self._claims:
            return digest
        claims = list(self._claims.values())  # others may push meanwhile
        if sum(c.name == name and c.number == declared.number for c in claims) >= MOST_CLAIMS:
            raise _unusable("too_many_versions", f"{name} has claimed {MOST_CLAIMS} versions already")
        claimed = Claimed(digest, name, declared.number, label, iso(self._door.clock.now()))

        def do(tx: Tx) -> Done[str]:
            self._p.store.add_claim(tx, claimed)
            return Done(digest)

        detail = {"claims": label, "digest": digest}
        self._door.change(Intent(actor, PREDICTIONS_PUSH, Resource("ExternalModel", name), detail=detail), do)
        self._claims[digest] = claimed
        return digest

    def _append(self, records: list[Prediction]) -> list[Prediction]:
        with self._writing:
            if records and self._journal is None:
                self._journal = Journal(self._p.journal, self._door.clock)
            written = []
            for record in records:
                journal = self._journal
                if journal is not None:
                    written.append(msgspec.structs.replace(record, id=journal.next_id))
                    journal.append(written[-1])
            return written

    def _known(self, name: str, ids: Sequence[str]) -> dict[str, str]:
        return self._p.metrics.read(lambda tx: self._p.store.predictions(tx, name, ids))

    def _of(self, digest: str) -> Declared | None:
        claimed = self._claims.get(digest)
        if claimed is None:
            return None
        wanted = (claimed.name, claimed.number)
        return next(d for d in list(self._declared.values()) if (d.model.name, d.number) == wanted)

    def _intent(
        self, actor: Principal, name: str, operation_id: str = "", detail: dict[str, Any] | None = None
    ) -> Intent:
        return Intent(actor, EXTERNAL_DECLARE, Resource("ExternalModel", name), operation_id, detail=detail or {})


def _input(name: str, kind: str, value: Any) -> Any:
    """A value as the journal keeps it; null where it is not known. Raises `Invalid` for one of another type."""
    if value is None or value != value:
        return None
    fits = {
        "category": isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)),
        "boolean": isinstance(value, bool) or value in (0, 1),
    }.get(kind, isinstance(value, int | float) and not isinstance(value, bool))
    kept = str(value) if kind == "category" else value
    if not (fits and _recordable(kept)):
        raise _unusable("wrong_type", f"{name} is {str(value)[:40]!r}, and that is no {kind}")
    return kept


def _score(model: ExternalModel, value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    wanted = len(model.classes) if model.task == "multiclass" else 1
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != wanted or not numbers or isinstance(value, list) is not (model.task == "multiclass"):
        said = f"a list of {wanted} numbers" if model.task == "multiclass" else "a number"
        raise _unusable("no_answer", f"outputs has no {model.score} that is {said}, and no error says why")
    if not _recordable(value):
        raise _unusable("wrong_type", f"{model.score} is {str(value)[:40]!r}, which no record can hold")
    return value


def _recordable(value: Any) -> bool:
    """Whether a record of the journal can hold it: an integer has 64 bits at most, text is Unicode."""
    try:
        msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):
        return False
    return True


def _told(declared: Declared) -> dict[str, Any]:
    return {
        "name": declared.model.name,
        "number": declared.number,
        "digest": declared.digest,
        "task": declared.model.task,
        "inputs": declared.model.inputs,
        "score": declared.model.score,
        "served_by": declared.model.served_by,
        "reference": {"table": declared.table, "rows": declared.rows, "profile": declared.profile},
        "monitor": msgspec.to_builtins(declared.model.monitor),
        "silent_after": declared.model.silent_after,
        "author": declared.author,
        "declared_at": declared.at,
        "governed": False,
    }


def _moment(us: int) -> str:
    from_1970 = timedelta(microseconds=us)
    return iso(parse_iso("1970-01-01T00:00:00Z") + from_1970)


def _unusable(code: str, why: str) -> Invalid:
    return Invalid(why, hint="mend the record and send it again; the others of the batch were taken", code=code)
