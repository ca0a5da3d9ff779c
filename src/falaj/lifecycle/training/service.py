"""Start runs and record what they came to."""

from __future__ import annotations

from typing import Any

import msgspec

from falaj.governance.door import Done, Door, Intent
from falaj.governance.lineage.model import Node
from falaj.governance.lineage.service import LineageService
from falaj.kernel.access import SYSTEM, Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.errors import FalajError, NotFound
from falaj.lifecycle.training.foreign import is_import
from falaj.lifecycle.training.model import TRAIN_FINISH, TRAIN_START, Run, TrainOutcome
from falaj.lifecycle.training.ports import Curves, ImportStore, RunStore
from falaj.storage.sql.database import Database, Tx


class Ports(msgspec.Struct, frozen=True):
    """What the stage works with."""

    database: Database
    store: RunStore
    lineage: LineageService
    curves: Curves
    imports: ImportStore


class Allowed(msgspec.Struct, frozen=True):
    """The purpose that a model serves, and those that all its data may be used for."""

    purpose: str
    purposes: tuple[str, ...]


class TrainingService:
    """Training runs: started, ended, looked at."""

    def __init__(self, door: Door, ports: Ports) -> None:
        self._door = door
        self._p = ports

    def run(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        found = self._p.database.read(lambda tx: self._p.store.get(tx, run_id))
        if found is None:
            raise NotFound(
                f"there is no run {run_id[:60]}", hint="`falaj runs list MODEL` lists them", code="no_such_run"
            )
        return found

    def artifacts(self, made_by: str) -> dict[str, str]:
        """What a run or an import left beside the model: blob digests by name. Raises `NotFound` for an unknown run."""
        if is_import(made_by):
            found = self._p.database.read(lambda tx: self._p.imports.get(tx, made_by))
            return found.artifacts if found else {}
        return self.run(made_by).artifacts

    def runs(self, model: str) -> list[Run]:
        """Newest first."""
        return self._p.database.read(lambda tx: self._p.store.of_model(tx, model))

    def curves(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        """Learning curves of a run: key → [(step, value)]."""
        return self._p.curves.curves(run_id)

    def check_start(self, actor: Principal, model: str, allowed: Allowed) -> None:
        """Authorise a training before any data is read. Raises `Denied`."""
        self._door.check(self._start(actor, model, allowed, ""))

    def start(self, actor: Principal, run: Run, allowed: Allowed, operation_id: str) -> Run:
        """Commit the intent to train. A repeated operation returns the run as it was started first."""

        def do(tx: Tx) -> Done[dict[str, Any]]:
            self._p.store.add(tx, run)
            datasets = [Node("dataset", f"{name}@{version}") for name, version in run.datasets.items()]
            views = [Node("view", f"{name} {digest}") for name, digest in run.views.items()]
            for view in views:
                self._p.lineage.record(tx, view, [Node("project", run.project)])
            self._p.lineage.record(tx, Node("run", run.id), [*datasets, *views, Node("project", run.project)])
            return Done(msgspec.to_builtins(run))

        detail = {"run": run.id, "project": run.project, "datasets": run.datasets, "purpose": allowed.purpose}
        intent = self._start(actor, run.model, allowed, operation_id, detail)
        return msgspec.convert(self._door.change(intent, do), Run)

    def finish(self, run: Run, outcome: TrainOutcome, artifacts: dict[str, str], operation_id: str) -> None:
        """Record a run that went well. `artifacts` maps names to blob digests."""

        def do(tx: Tx) -> Done[str]:
            self._p.store.update(
                tx,
                run.id,
                state="finished",
                training_set=outcome.training_set,
                metrics=outcome.metrics,
                artifacts=artifacts,
                finished_at=iso(self._door.clock.now()),
            )
            return Done(run.id)

        detail = {"run": run.id, "training_set": outcome.training_set, "model": outcome.digest, "rows": outcome.rows}
        self._door.change(self._finish(run, operation_id, detail), do)

    def fail(self, run: Run, error: FalajError, operation_id: str) -> None:
        """Record a run that did not. What its code said stands in the run, and not in the log, which nobody can mend."""
        said = error.details.get("said", "")
        reason = f"{error.message}: {said}" if said else error.message

        def do(tx: Tx) -> Done[str]:
            self._p.store.update(
                tx, run.id, state="failed", reason=reason[:1000], finished_at=iso(self._door.clock.now())
            )
            return Done(run.id)

        detail = {"run": run.id, "code": error.code, "reason": error.message[:500]}
        self._door.change(self._finish(run, operation_id, detail), do)

    @staticmethod
    def _start(
        actor: Principal, model: str, allowed: Allowed, operation_id: str, detail: dict[str, Any] | None = None
    ) -> Intent:
        attributes = {"purpose": allowed.purpose, "purposes": list(allowed.purposes)}
        return Intent(actor, TRAIN_START, Resource("Model", model, attributes), operation_id, detail=detail or {})

    @staticmethod
    def _finish(run: Run, operation_id: str, detail: dict[str, Any]) -> Intent:
        context = {"on_behalf_of": run.author}
        return Intent(SYSTEM, TRAIN_FINISH, Resource("Model", run.model), operation_id, context, detail)
