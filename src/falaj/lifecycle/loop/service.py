"""The applied definition."""

from __future__ import annotations

import re
import shutil
from collections.abc import Container
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from falaj.governance.changes.inventory import Declared
from falaj.governance.door import Done, Door, Intent
from falaj.kernel.access import Principal, Resource
from falaj.kernel.clock import iso
from falaj.kernel.digests import FileEntry, digest_of, manifest, manifest_digest, sha256
from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound
from falaj.lifecycle.data.model import SourceSpec
from falaj.lifecycle.features.model import ViewSpec
from falaj.lifecycle.loop.model import (
    DEFINITION_APPLY,
    Applied,
    Change,
    ModelDefinition,
    ProjectDefinition,
    changes,
    check_names,
)
from falaj.lifecycle.loop.ports import DefinitionStore
from falaj.lifecycle.monitoring.policy import MonitorPolicy, ReviewPolicy
from falaj.lifecycle.rollout.strategy import Strategy
from falaj.storage.sql.database import Database, Tx

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
        self._owners: dict[str, tuple[int, dict[str, str]]] = {}
        self._reviews: tuple[int, dict[str, ReviewPolicy | None]] = (0, {})

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

    def reapply(self, actor: Principal, number: int, reason: str) -> dict[str, Any]:
        """Make an earlier definition hold again, with the code that it had. Raises `Denied`, `NotFound`, and `Integrity` when that code is
        not as it was."""
        self._door.check(Intent(actor, DEFINITION_APPLY, Resource("Project", "*")))
        again = self.numbered(number)
        self._check_code(again.definition.code)
        return self.apply(actor, again.definition, reason, again=again.digest)

    def apply(self, actor: Principal, new: ProjectDefinition, reason: str = "", *, again: str = "") -> dict[str, Any]:
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
        detail = {"definition": digest, "code": new.code, "reason": reason.strip()[:500], **counts}
        detail |= {"again": again} if again else {}
        return self._door.change(Intent(actor, DEFINITION_APPLY, Resource("Project", new.name), detail=detail), do)

    # what the stages ask

    def newest(self) -> Applied | None:
        """The definition that holds; None before the first."""
        return self._database.read(self._store.newest)

    def numbered(self, number: int) -> Applied:
        """A definition that holds or held. Raises `NotFound`."""
        found = self._database.read(lambda tx: self._store.get(tx, number))
        if found is None:
            raise NotFound(
                f"no definition {number} was ever applied to this home",
                hint="`falaj changes list --type definition` shows those that were",
                code="no_such_definition",
            )
        return found

    def stored(self, number: int, digest: str) -> ProjectDefinition | None:
        """The definition of this number; None when there is none, or it is not the one that this digest names."""
        body = self._database.read(
            lambda tx: self._store.body(tx, number)
        )  # as it is: a field that came later has no part in it
        if not body or digest_of(msgspec.json.decode(body)) != digest:
            return None
        return msgspec.json.decode(body, type=ProjectDefinition)

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

    def review(self, model: str) -> ReviewPolicy | None:
        """Which answers of this model people look at, by the newest definition that has it: its traffic outlives the project's turn.
        None when none says anything of it."""
        number = self._database.read(self._store.number)
        if self._reviews[0] != number:
            log = self._database.read(self._store.log)
            self._reviews = number, {m.name: m.review for a in reversed(log) for m in a.definition.models}
        return self._reviews[1].get(model)

    def oversight(self, model: str) -> Declared:
        """What the applied project tells the inventory of this model; nothing when it is not defined."""
        applied = self.newest()
        found = [m.oversight for m in applied.definition.models if m.name == model] if applied else []
        return found[0] if found else Declared()

    def tiers(self, model: str, since: str) -> tuple[str, ...]:
        """The risk tiers that definitions declared for this model which were applied at `since` or later (empty: ever)."""
        applied = self._database.read(self._store.log)
        declared = [m.oversight.tier for a in applied if a.at >= since for m in a.definition.models if m.name == model]
        return tuple(dict.fromkeys(t for t in declared if t))

    def owners(self, what: str) -> dict[str, str]:
        """The project of each of the `sources`, `views` or `models` that were ever defined; empty where several projects' were."""
        number = self._database.read(self._store.number)
        known, found = self._owners.get(what, (-1, {}))
        if known == number:  # definitions are only ever added
            return found
        owners: dict[str, str] = {}
        for applied in self._database.read(self._store.log):
            project = applied.definition.name
            for thing in getattr(applied.definition, what):
                owners[thing.name] = project if owners.get(thing.name, project) == project else ""
        self._owners[what] = (number, owners)
        return owners

    def regions(self) -> dict[str, str]:
        """Source → the region that its data may not leave, by the newest definition that names it (empty: it may go anywhere)."""
        log = self._database.read(self._store.log)
        return {s.name: s.region for applied in reversed(log) for s in applied.definition.sources}

    def views(self) -> tuple[ViewSpec, ...]:
        """Every feature view of the applied project."""
        return self.definition().views

    def code(self) -> str:
        """The folder of the applied project's code, compared with its digest just now."""
        return self._check_code(self.definition().code)

    def _check_code(self, digest: str) -> str:
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
