"""Scoring a whole table: who may, by which version, from what, and what is written down of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.governance.privacy.model import allowed_purposes
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso, written_moment
from falaj.kernel.environments import ENVIRONMENTS, PRODUCTION
from falaj.kernel.errors import Conflict, Denied, FalajError, Invalid
from falaj.kernel.files import flush
from falaj.lifecycle.data.model import DatasetVersion, SourceSpec
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.registry.model import Admission, ModelVersion
from falaj.lifecycle.serving.model import (
    REJECTS,
    SCORE_FORMATS,
    SCORES,
    TABLE_FORMATS,
    TABLE_SCORE,
    Release,
    ScoreAsk,
    ScoreOutcome,
    ScoreTask,
    Target,
    TrustFile,
)
from falaj.lifecycle.serving.plane.journal import SUFFIX
from falaj.lifecycle.training.model import ModelContract
from falaj.storage.parcels import Parcels
from falaj.storage.sql.database import Database, Tx


class Defined(Protocol):
    """A model as the applied project declares it."""

    @property
    def spine(self) -> str:
        """The source whose rows are the decisions."""
        ...

    @property
    def at(self) -> str:
        """The column with the moment of decision."""
        ...


class Definitions(Protocol):
    """What scoring asks the applied project."""

    def model(self, name: str) -> Defined:
        """Raises `NotFound`."""
        ...

    def views(self) -> tuple[ViewSpec, ...]:
        """All views."""
        ...

    def source(self, name: str) -> SourceSpec:
        """Raises `NotFound`."""
        ...

    def code(self) -> str:
        """The folder of the project's code."""
        ...


class Versions(Protocol):
    """What scoring asks the registry."""

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises `NotFound`."""
        ...

    def by_digest(self, digest: str) -> ModelVersion:
        """Raises `NotFound`."""
        ...

    def contract(self, digest: str) -> ModelContract:
        """Raises `NotFound`, `Integrity`."""
        ...

    def admission(self, digest: str, environment: str) -> tuple[Admission, dict[str, Any]] | None:
        """The newest admission with its envelope, if there is one."""
        ...


class Datasets(Protocol):
    """What scoring asks the lake."""

    def head(self, name: str) -> DatasetVersion:
        """The newest version. Raises `NotFound`."""
        ...

    def table(self, name: str) -> Path:
        """The folder of the Delta table."""
        ...


class Ports(msgspec.Struct, frozen=True):
    """What scoring works with. `trust` is whom an environment trusts; `killed` raises for a model that is killed."""

    definitions: Definitions
    versions: Versions
    champion: Callable[[str, str], str]
    release: Callable[[str, Target], Release]
    datasets: Datasets
    database: Database
    lineage: LineageService
    parcels: Parcels
    trust: Callable[[str], TrustFile]
    blobs: Path
    journal: Path
    killed: Callable[[str], None]


class LaidOut(msgspec.Struct, frozen=True):
    """A step's task, the folder of the project's code that it runs (empty: none), and the key that it needs (PEM)."""

    task: ScoreTask
    project: str
    key: str


class Scored(msgspec.Struct, frozen=True):
    """What was asked, what came of it, and the dataset versions that could be read."""

    ask: ScoreAsk
    outcome: ScoreOutcome
    datasets: dict[str, int]


class ScoreService:
    """Asks, lays out, collects, records; what runs in between is the step."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def ask(self, actor: Principal, model: str, number: int | None, wanted: dict[str, Any]) -> ScoreAsk:
        """What is asked, once it is clear that it may be. Without a number: the version that answers now.

        Raises `Denied` by policy, by purpose, or for a version that is not admitted; `NotFound`, `Invalid`.
        """
        environment = wanted["environment"]
        if environment not in ENVIRONMENTS:
            raise Invalid(
                f"there is no environment {environment[:40]!r}",
                hint=f"there is {', '.join(ENVIRONMENTS)}",
                code="no_such_environment",
            )
        for what, known in (("format", TABLE_FORMATS), ("to", SCORE_FORMATS)):
            if wanted[what] not in known:
                raise Invalid(
                    f"a table cannot be {'read' if what == 'format' else 'written'} as {wanted[what][:20]!r}",
                    hint=f"use one of {', '.join(known)}",
                    code="unknown_format",
                )
        version = self._version(model, number, environment)
        as_of = written_moment(wanted["as_of"]) if wanted["as_of"] else iso(self._door.clock.now())
        ask = ScoreAsk(
            version.model, version.alias, version.digest, environment, wanted["table"], wanted["format"], wanted["to"],
            as_of, wanted["at"], wanted["raw"], tuple(wanted["keep"]), wanted["record"],
        )  # fmt: skip
        self._door.check(self._intent(actor, ask))
        self._check_killed(actor, ask)
        self._p.parcels.path(actor.name, ask.table)
        if self._p.versions.admission(version.digest, environment) is None:
            error = Denied(
                f"{version.alias} was never admitted to {environment}, so it scores nothing there",
                hint=f"someone other than {version.author} approves it: `falaj approve {version.alias} --reason '…'`",
                code="not_admitted",
            )
            self.refuse(actor, ask, error, "")
            raise error
        return ask

    def lay_out(self, actor: Principal, ask: ScoreAsk, workspace: Path) -> LaidOut:
        """The step's task. The version is handed over as to a data plane: sealed to a key made for this step alone."""
        self._check_killed(actor, ask)
        p, contract = self._p, self._p.versions.contract(ask.digest)
        key = X25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        views, unjoinable = self._joinable(contract, ask)
        source = p.definitions.source(p.definitions.model(ask.model).spine) if ask.raw else None
        heads = [p.datasets.head(name) for name in sorted({v.source for v in views})]
        at = ask.at or (p.definitions.model(ask.model).at if views or source else "")
        task = ScoreTask(
            ask=msgspec.structs.replace(ask, at=at),
            release=p.release(ask.digest, Target("", ask.environment, public)),
            trust=p.trust(ask.environment),
            blobs=str(p.blobs),
            now=iso(self._door.clock.now()),
            table=str(p.parcels.path(actor.name, ask.table)),
            views=views,
            tables={h.name: str(p.datasets.table(h.name)) for h in heads},
            versions={h.name: h.version for h in heads},
            workspace=str(workspace),
            principal=actor.name,
            source=source,
            unjoinable=unjoinable.as_dict() if unjoinable else {},
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return LaidOut(task, p.definitions.code() if views or source else "", private)

    def collect(self, actor: Principal, ask: ScoreAsk, outcome: ScoreOutcome, workspace: Path, flow: str) -> None:
        """Make parcels of what the step left: the workspace goes with the step."""
        name = flow.partition("_")[2]
        self._p.parcels.keep(actor.name, f"scr_{name}.{ask.to}", workspace / SCORES)
        self._p.parcels.keep(actor.name, f"rej_{name}.csv", workspace / REJECTS)
        for segment in outcome.segments:
            self._p.parcels.keep("", f"seg_{segment}", workspace / f"{segment}{SUFFIX}")

    def record(self, actor: Principal, scored: Scored, operation_id: str) -> dict[str, Any]:
        """Write down what was scored: one entry of the log, and the edges that lead to it."""
        ask, outcome = scored.ask, scored.outcome
        flow = operation_id.partition(":")[0]
        name = flow.partition("_")[2]
        result: dict[str, Any] = {
            **msgspec.to_builtins(outcome),
            "run": flow,
            "environment": ask.environment,
            "as_of": ask.as_of,
            "datasets": scored.datasets if outcome.features == "lake" else {},
            "files": {"scores": f"scr_{name}.{ask.to}", "rejects": f"rej_{name}.csv"},
        }

        def do(tx: Tx) -> Done[dict[str, Any]]:
            read = [Node("dataset", f"{n}@{v}") for n, v in result["datasets"].items()]
            parents = [Node("version", outcome.digest), Node("table", outcome.table), *read]
            self._p.lineage.record(tx, Node("scores", flow), parents)
            return Done(result)

        told = ("table", "rows", "scored", "rejected", "reasons", "features", "scores", "rejects", "segments")
        facts = {"run": flow, "datasets": result["datasets"], **{k: getattr(outcome, k) for k in told}}
        facts["segments"] = list(outcome.segments)[:20]
        return self._door.change(self._intent(actor, ask, operation_id, facts), do)

    def journal(self, segments: tuple[str, ...]) -> int:
        """Put the segments among those of the data plane; again does nothing. Returns how many were new.

        A segment is named by what was scored, so the same table scored again is not recorded twice.
        """
        new = 0
        self._p.journal.mkdir(parents=True, exist_ok=True, mode=0o700)
        for segment in segments:
            place = self._p.journal / f"{segment}{SUFFIX}"
            try:
                self._p.parcels.path("", f"seg_{segment}")
            except FalajError:
                continue  # a repeated step: it was moved already
            if place.exists():
                self._p.parcels.remove("", f"seg_{segment}")
                continue
            hidden = place.with_name(f".{place.name}.new")  # no reader takes it for a segment
            with hidden.open("wb") as f:
                f.writelines(self._p.parcels.read("", f"seg_{segment}")[1])
            flush(hidden)
            hidden.rename(place)
            self._p.parcels.remove("", f"seg_{segment}")
            new += 1
        return new

    def refuse(self, actor: Principal, ask: ScoreAsk, error: FalajError, operation_id: str) -> None:
        """Audit that a table was not scored."""
        self._door.refuse(self._intent(actor, ask, operation_id), error)

    def _check_killed(self, actor: Principal, ask: ScoreAsk) -> None:
        """A killed model scores nothing either, where callers are answered. Raises `Unavailable`."""
        try:
            if ask.environment == PRODUCTION:
                self._p.killed(ask.model)
        except FalajError as e:
            self.refuse(actor, ask, e, "")
            raise

    def _version(self, model: str, number: int | None, environment: str) -> ModelVersion:
        if number is not None:
            return self._p.versions.version(model, number)
        digest = self._p.champion(model, environment)
        if not digest:
            raise Conflict(
                f"no version of {model[:80]} serves in {environment}",
                hint="name a version that is admitted there: MODEL@N",
                code="nothing_serves",
            )
        return self._p.versions.by_digest(digest)

    def _views(self, contract: ModelContract, ask: ScoreAsk) -> tuple[ViewSpec, ...]:
        """The views that the version reads, as the applied project has them. Raises `Conflict` when it has others."""
        if not contract.views:
            return ()
        defined = {v.name: v for v in self._p.definitions.views()}
        other = [u.name for u in contract.views if u.name not in defined or defined[u.name].digest != u.digest]
        if other:
            raise Conflict(
                f"{ask.alias} reads another version of {', '.join(other)} than the applied project has",
                hint="apply the project that it was trained with, or train it again",
                code="view_changed",
            )
        return tuple(defined[u.name] for u in contract.views)

    def _joinable(self, contract: ModelContract, ask: ScoreAsk) -> tuple[tuple[ViewSpec, ...], FalajError | None]:
        """The views, or why they cannot be joined: a table that has their columns is scored all the same."""
        try:
            return self._views(contract, ask), None
        except FalajError as e:
            return (), e

    def _intent(
        self, actor: Principal, ask: ScoreAsk, operation_id: str = "", detail: dict[str, Any] | None = None
    ) -> Intent:
        contract = self._p.versions.contract(ask.digest)
        purposes: list[str] = [contract.purpose]
        views, _ = self._joinable(contract, ask)
        if views:
            used = {v.source for v in views}
            purposes = list(allowed_purposes(self._p.definitions.source(name).purposes for name in sorted(used)))
        facts = {"digest": ask.digest, "environment": ask.environment, "as_of": ask.as_of, "purpose": contract.purpose}
        attributes = {"purpose": contract.purpose, "purposes": purposes, "environment": ask.environment}
        resource = Resource("ModelVersion", ask.alias, attributes)
        return Intent(actor, TABLE_SCORE, resource, operation_id, detail={**facts, **(detail or {})})
