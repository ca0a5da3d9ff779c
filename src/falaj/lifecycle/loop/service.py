"""The applied definition, and people's decisions about versions."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from falaj.governance.changes.model import Approval, missing_roles
from falaj.governance.changes.service import ChangeService
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import Clock, iso
from falaj.kernel.digests import FileEntry, digest_of, manifest, manifest_digest, sha256
from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound
from falaj.kernel.ids import new_id
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.loop.model import (
    DEFINITION_APPLY,
    RELEASE_FLOW,
    Applied,
    Change,
    ModelDefinition,
    ProjectDefinition,
    changes,
    check_names,
)
from falaj.lifecycle.loop.ports import DefinitionStore
from falaj.lifecycle.loop.starting import StartService
from falaj.lifecycle.monitoring.policy import MonitorPolicy
from falaj.lifecycle.registry.model import ModelVersion
from falaj.lifecycle.registry.service import RegistryService
from falaj.lifecycle.rollout.service import RolloutService
from falaj.lifecycle.rollout.strategy import Strategy
from falaj.storage.sql.database import Database, Tx
from falaj.workflow.flow import Workflows

N = TypeVar("N", SourceSpec, ModelDefinition)
MAX_FILES = 500
MAX_BYTES = 4 << 20
_LONGEST_PATH, _LONGEST_NAME = 1000, 255  # bytes; a file system takes no longer name
_PATH = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.py\Z|falaj\.toml\Z")


class DefinitionService:
    """Answers for the stages what is defined now."""

    def __init__(self, database: Database, store: DefinitionStore, door: Door, folder: Path) -> None:
        self._database = database
        self._store = store
        self._door = door
        self._folder = folder

    def unpack(self, files: dict[str, str]) -> tuple[str, Path]:
        """Keep a project's code under its digest; returns digest and folder. Raises `Invalid`."""
        bad = sorted(p for p in files if not _can_stand(p, files))
        content = {path: text.encode("utf-8", "replace") for path, text in files.items()}
        odd = sorted(p for p, text in files.items() if content[p].decode() != text)
        size = sum(map(len, content.values()))
        if bad or odd or not files or len(files) > MAX_FILES or size > MAX_BYTES:
            why = f"{bad[0][:80]!r} is no name that it takes" if bad else f"{len(files)} files of {size} bytes"
            why = f"{odd[0]} is not Unicode text" if odd and not bad else why
            raise Invalid(
                f"the project cannot be taken: {why}",
                hint=f"a project is falaj.toml and up to {MAX_FILES} Python files, {MAX_BYTES >> 20} MiB in all; call files and "
                "folders by letters from A to Z, digits, '.', '_' and '-'",
                code="bad_project",
            )
        digest = manifest_digest(FileEntry(path, len(body), sha256(body)) for path, body in content.items())
        folder = self._folder / digest.removeprefix("sha256:")
        if not folder.exists() or manifest_digest(manifest(folder)) != digest:
            shutil.rmtree(folder, ignore_errors=True)
            temporary = folder.with_name(f".{folder.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            for path, body in content.items():
                (temporary / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (temporary / path).write_bytes(body)
            temporary.rename(folder)
        return digest, folder

    def plan(self, new: ProjectDefinition) -> tuple[Change, ...]:
        """What applying `new` would change."""
        check_names(new)
        applied = self.newest()
        return changes(applied.definition if applied else None, new)

    def apply(self, actor: Principal, new: ProjectDefinition) -> dict[str, Any]:
        """Make `new` the definition that holds. The same definition again changes nothing."""
        digest = digest_of(new)
        current = self.newest()
        planned = self.plan(new)
        if current is not None and current.digest == digest:
            return {"number": current.number, "digest": digest, "changes": []}

        def do(tx: Tx) -> Done[dict[str, Any]]:
            newest = self._store.newest(tx)
            if newest != current:
                raise Conflict(
                    "another definition was applied meanwhile",
                    hint="look at `falaj plan` again",
                    code="changed_meanwhile",
                )
            number = newest.number + 1 if newest else 1
            self._store.add(tx, Applied(number, digest, new, actor.name, iso(self._door.clock.now())))
            return Done({"number": number, "digest": digest, "changes": msgspec.to_builtins(planned)})

        counts = {kind: sum(c.change == kind for c in planned) for kind in ("added", "changed", "removed")}
        detail = {"definition": digest, "code": new.code, **counts}
        return self._door.change(Intent(actor, DEFINITION_APPLY, Resource("Project", new.name), detail=detail), do)

    # what the stages ask

    def newest(self) -> Applied | None:
        """The definition that holds; None before the first."""
        return self._database.read(self._store.newest)

    def applied(self) -> Applied:
        """Raises `Conflict` when nothing is applied."""
        found = self.newest()
        if found is None:
            raise Conflict(
                "no project is applied to this home",
                hint="in the project's folder: `falaj apply`",
                code="nothing_applied",
            )
        return found

    def definition(self) -> ProjectDefinition:
        """What the applied project says. Raises `Conflict` when nothing is applied."""
        return self.applied().definition

    def source(self, name: str) -> SourceSpec:
        """Raises `NotFound`."""
        return _named(self.definition().sources, "source", name, "no_such_source")

    def model(self, name: str) -> ModelDefinition:
        """Raises `NotFound`."""
        return _named(self.definition().models, "model", name, "no_such_model")

    def strategy(self, name: str) -> Strategy | None:
        """How a challenger of this model gets its traffic; None: at once, or the model is no longer defined."""
        applied = self.newest()
        found = [m.strategy for m in applied.definition.models if m.name == name] if applied else []
        return found[0] if found else None

    def monitor(self, model: str) -> MonitorPolicy | None:
        """What is to be watched of this model; None when it is not defined."""
        applied = self.newest()
        found = [m.monitor for m in applied.definition.models if m.name == model] if applied else []
        return found[0] if found else None

    def views(self) -> tuple[ViewSpec, ...]:
        """Every feature view of the applied project."""
        return self.definition().views

    def code(self) -> str:
        """The folder of the applied project's code, compared with its digest just now."""
        digest = self.definition().code
        folder = self._folder / digest.removeprefix("sha256:")
        if not folder.is_dir() or manifest_digest(manifest(folder)) != digest:
            raise Integrity(
                "the applied project's code is missing or was changed in the home",
                hint="apply the project again: `falaj apply`",
                code="code_changed",
            )
        return str(folder)


def _can_stand(path: str, files: Container[str]) -> bool:
    """Whether a path names code below the project's folder, and no other file stands where one of its folders would."""
    parts = path.split("/")
    above = ("/".join(parts[:n]) for n in range(1, len(parts)))
    fits = len(path) <= _LONGEST_PATH and all(len(part) <= _LONGEST_NAME for part in parts)
    return bool(fits and _PATH.match(path)) and not any(folder in files for folder in above)


def _named(items: tuple[N, ...], what: str, name: str, code: str) -> N:
    for item in items:
        if item.name == name:
            return item
    names = ", ".join(i.name for i in items) or "none"
    raise NotFound(
        f"the applied project has no {what} {name[:80]!r}",
        hint=f"it has {names}; after editing the project: `falaj apply`",
        code=code,
    )


class DecisionPorts(msgspec.Struct, frozen=True):
    """What decisions work with."""

    registry: RegistryService
    changes: ChangeService
    flows: Workflows
    definitions: DefinitionService
    rollout: RolloutService
    starts: StartService
    clock: Clock


class DecisionService:
    """People's decisions about versions, and what follows from them."""

    def __init__(self, ports: DecisionPorts) -> None:
        self._registry = ports.registry
        self._changes = ports.changes
        self._flows = ports.flows
        self._definitions = ports.definitions
        self._rollout = ports.rollout
        self._starts = ports.starts
        self._clock = ports.clock

    def approve(self, actor: Principal, version: ModelVersion, reason: str, *, hold: bool = False) -> dict[str, Any]:
        """Approve a version; the approval that completes the quorum starts its way into traffic, unless it is to be held.

        It is complete with as many people as the version needs, and with each role that it demands among them.
        Whoever gave it may repeat it: what a crash left undone is done then, and nothing twice.
        Raises `Conflict` unless the version awaits approval, `Denied` for its author.
        """
        subject = self._registry.subject(version)
        approval = self._given(actor, version, "approved") if version.state == "approved" else None
        if approval is None:
            self._awaiting(version)
            approval = self._given(actor, version, "approved") or self._changes.decide(actor, subject, True, reason)
        counting = self._changes.counting(subject)
        missing = missing_roles(counting, subject)
        answer: dict[str, Any] = {
            "approval": approval.id,
            "approvals": len(counting),
            "needed": version.approvals,
            "missing_roles": list(missing),
        }
        if len(counting) < version.approvals or missing:
            return {**answer, "flow": "", "rollout": False}
        self._registry.decide(version.digest, "approved", "", actor.name, f"{approval.id}:approved")
        flow = "" if hold else self._starts.after_approval(actor, version, approval.id.partition("_")[2])
        return {**answer, "flow": flow, "rollout": flow.startswith("rol_")}

    def reject(self, actor: Principal, version: ModelVersion, reason: str) -> dict[str, Any]:
        """Reject a version for good."""
        self._awaiting(version)
        subject = self._registry.subject(version)
        approval = self._given(actor, version, "rejected") or self._changes.decide(actor, subject, False, reason)
        self._registry.decide(
            version.digest, "rejected", f"rejected by {actor.name}", actor.name, f"{approval.id}:rejected"
        )
        return {"approval": approval.id, "state": "rejected"}

    def _given(self, actor: Principal, version: ModelVersion, decision: str) -> Approval | None:
        """What this person decided about this evidence, if all that was to follow from it can follow now."""
        subject = self._registry.subject(version)
        counting = self._changes.counting(subject)
        if decision == "approved" and (len(counting) < version.approvals or missing_roles(counting, subject)):
            return None
        wanted = (actor.name, version.evidence, decision)
        found = (a for a in self.decisions(version.digest) if (a.principal, a.evidence, a.decision) == wanted)
        return next(found, None)

    def roll_back(self, actor: Principal, model: str, reason: str) -> dict[str, Any]:
        """Give all traffic back to the version that served before. Raises `Conflict` when there is none."""
        self.check_model(model)
        running = self._rollout.running(model)
        if running is not None:
            self._rollout.order(actor, model, "abort")
            return {"flow": running.id, "digest": running.stable}
        before = [v for v in self._registry.versions(model) if v.state == "retired"]
        if not before:
            raise Conflict(
                f"no version of {model} served before", hint="`falaj versions MODEL` shows them", code="nothing_before"
            )
        served = self._rollout.champions(model)
        back = min(before, key=lambda v: (served.index(v.digest) if v.digest in served else len(served), -v.number))
        self._rollout.check_roll_back(actor, model, back.digest, reason)
        flow = new_id("rel", self._clock.now())
        self._flows.start(RELEASE_FLOW, flow, {"digest": back.digest, "actor": actor.name})
        return {"flow": flow, "digest": back.digest}

    def check_model(self, name: str) -> None:
        """Raises `NotFound` unless a version of the model exists, or the applied project defines it."""
        applied = self._definitions.newest()
        defined = [m.name for m in applied.definition.models] if applied else []
        known = sorted({*defined, *self._registry.models()})
        if name not in known:
            raise NotFound(
                f"there is no model {name[:80]!r}",
                hint=f"there is {', '.join(known)}" if known else "apply a project that defines it: `falaj apply`",
                code="no_such_model",
            )

    def decisions(self, digest: str) -> list[Approval]:
        """What was decided about a version, oldest first."""
        return self._changes.of(digest)

    @staticmethod
    def _awaiting(version: ModelVersion) -> None:
        if version.state != "awaiting approval":
            raise Conflict(
                f"{version.alias} is {version.state}, it does not await approval",
                hint=f"`falaj versions {version.model}` shows where each version stands",
                code="not_awaiting",
            )
