"""A project's folder → its module → one frozen, digestible definition.

Loading imports the project's code, so it happens in step processes, never in the control plane.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from falaj.authoring.definitions import Entity, FeatureView, Model, Source
from falaj.authoring.describe import Described, describe
from falaj.kernel.digests import FileEntry, manifest_digest, sha256_file
from falaj.kernel.errors import Invalid, NotFound
from falaj.kernel.names import check_name
from falaj.lifecycle.loop.model import ProjectDefinition

CONFIGURATION = "falaj.toml"

_SKIPPED = {"__pycache__", "node_modules", "venv", "env", "build", "dist", "site-packages"}

Named = TypeVar("Named", Source, Entity, FeatureView, Model)


@dataclass(frozen=True)
class Project:
    """A loaded project: its live objects. `definition()` is the same without the code."""

    name: str
    folder: Path
    module: ModuleType
    code: str
    sources: dict[str, Source]
    entities: dict[str, Entity]
    views: dict[str, FeatureView]
    models: dict[str, Model]

    def source(self, name: str) -> Source:
        """A source with its contract class and prepare function. Raises `NotFound`."""
        return _find(self.sources, "source", name, "no_such_source")

    def view(self, name: str) -> FeatureView:
        """A feature view with its transform. Raises `NotFound`."""
        return _find(self.views, "feature view", name, "no_such_view")

    def model(self, name: str) -> Model:
        """A model with its training function. Raises `NotFound`."""
        return _find(self.models, "model", name, "no_such_model")

    def definition(self) -> ProjectDefinition:
        """Everything declared, frozen. Raises `Invalid` for what does not fit together."""
        found = Described(
            name=self.name,
            code=self.code,
            sources=tuple(self.sources.values()),
            entities=tuple(self.entities.values()),
            views=tuple(self.views.values()),
            models=tuple(self.models.values()),
        )
        return describe(found)


def load_project(folder: Path | str) -> Project:
    """Import a project and collect what its module holds.

    The folder is put first on the module path and stays there, for code that imports later; modules of
    its names that came from elsewhere, such as another project, are dropped first. Raises `Invalid`
    with file and line for what is wrong in the project's own code.
    """
    root = Path(folder).resolve()
    name, module_name = _configuration(root)
    code = code_digest(root)
    module = _import(root, module_name)
    found = [value for key, value in vars(module).items() if not key.startswith("__")]
    models = [v for v in found if isinstance(v, Model)]
    used = [f for m in models for f in m.features if isinstance(f, FeatureView)]
    views = [v for v in (*found, *used) if isinstance(v, FeatureView)]
    sources = [v for v in (*found, *(x.source for x in views), *(m.spine for m in models)) if isinstance(v, Source)]
    entities = [v for v in (*found, *(x.entity for x in views)) if isinstance(v, Entity)]
    if not models and not sources:
        raise Invalid(
            f"{module_name} declares no source and no model",
            hint="make them with fj.Source.csv(...) and @fj.model(...) at the top level of the module",
            code="empty_project",
        )
    return Project(
        name=name,
        folder=root,
        module=module,
        code=code,
        sources=_by_name("source", sources),
        entities=_by_name("entity", entities),
        views=_by_name("feature view", views),
        models=_by_name("model", models),
    )


def code_digest(root: Path) -> str:
    """The name of a project's code: its Python files and falaj.toml, by path and content."""
    files = [root / CONFIGURATION, *_python_files(root)]
    return manifest_digest(FileEntry(f.relative_to(root).as_posix(), f.stat().st_size, sha256_file(f)) for f in files)


def _configuration(root: Path) -> tuple[str, str]:
    path = root / CONFIGURATION
    if not path.is_file():
        raise Invalid(
            f"{root.name or root} is not a project: it has no {CONFIGURATION}",
            hint="run the command in the project's folder, or set FALAJ_PROJECT; `falaj init` makes a new one",
            code="no_project",
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Invalid(
            f"{CONFIGURATION} is not TOML: {e}", hint="mend the line that is named", code="bad_toml"
        ) from None
    name = table.get("name") if isinstance(table, dict) else None
    module = table.get("module", name) if isinstance(table, dict) else None
    if not isinstance(name, str) or not isinstance(module, str) or not module.replace(".", "_").isidentifier():
        raise Invalid(
            f"{CONFIGURATION} does not name the project and its module",
            hint='write [project], and below it name = "flights" and module = "flights"',
            code="bad_project_table",
        )
    unknown = sorted(set(table) - {"name", "module"}) if isinstance(table, dict) else []
    if unknown:
        raise Invalid(
            f"[project] in {CONFIGURATION} has {unknown[0]!r}, which nothing reads",
            hint="it takes name and module; settings stand below [falaj]",
            code="bad_project_table",
        )
    return check_name("project", name), module


def _python_files(root: Path) -> list[Path]:
    def walk(folder: Path) -> Iterable[Path]:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink():
                continue
            if path.is_dir():
                yield from walk(path)
            elif path.suffix == ".py":
                yield path

    return list(walk(root))


def _import(root: Path, module_name: str) -> ModuleType:
    top = module_name.split(".")[0]
    if not (root / f"{top}.py").is_file() and not (root / top).is_dir():
        raise Invalid(
            f"{CONFIGURATION} names the module {module_name}, and there is no {top}.py in {root.name}",
            hint="create it, or name the module that there is",
            code="no_module",
        )
    _forget(root)
    folder = str(root)
    sys.path[:] = [folder, *(p for p in sys.path if p != folder)]
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a project's folder is left as it was found
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except SyntaxError as e:
        told = _at(root, e.filename or "", e.lineno or 0, f"is not Python: {e.msg}", "mend the syntax")
        told.details["shown"] = _caret(e)
        raise told from None
    except Invalid as e:
        file, line = _place(root, e)
        raise _at(root, file, line, e.message, e.hint) from e
    except (Exception, SystemExit) as e:  # importing runs the project's own code, which may raise anything
        file, line = _place(root, e)
        raise _at(root, file, line, f"{type(e).__name__}: {e}"[:500], _mended(e)) from e
    finally:
        sys.dont_write_bytecode = before


def _forget(root: Path) -> None:
    """Drop loaded modules that go by the names of this project's own, so that its files are what is imported."""
    own = {p.stem for p in root.glob("*.py")} | {p.parent.name for p in root.glob("*/__init__.py")}
    hidden = sorted(own & set(sys.stdlib_module_names))  # a folder without __init__ hides nothing: Python looks on
    if hidden:
        raise Invalid(
            f"{hidden[0]}.py hides Python's own module {hidden[0]}",
            hint=f"give {hidden[0]}.py another name",
            code="hides_module",
        )
    own |= {p.parent.name for p in root.glob("*/*.py")} - {*sys.stdlib_module_names, "falaj"}
    for loaded, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if loaded.split(".")[0] in own and "site-packages" not in file:
            del sys.modules[loaded]


def _caret(error: SyntaxError) -> list[str]:
    """The line at fault with a caret below the place, as Python shows it."""
    text = (error.text or "").rstrip("\n")
    line = text.lstrip()
    at = max(0, (error.offset or 0) - 1 - (len(text) - len(line)))
    return [line[:200], " " * at + "^"] if line and at <= min(len(line), 200) else []


def _mended(error: BaseException) -> str:
    """What to do about a failed import."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"install {error.name.partition('.')[0]} where the control plane runs, or do without it; a file of the project's own "
            "must lie in its folder"
        )
    return "mend it; importing the project must not fail"


def _place(root: Path, error: BaseException) -> tuple[str, int]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _inside(root, f.filename)]
    return (frames[-1].filename, frames[-1].lineno or 0) if frames else ("", 0)


def _inside(root: Path, file: str) -> bool:
    return bool(file) and Path(file).is_relative_to(root)


def _at(root: Path, file: str, line: int, message: str, hint: str) -> Invalid:
    shown = Path(file).relative_to(root).as_posix() if _inside(root, file) else Path(file).name
    place = f"{shown}, line {line}: " if shown else ""
    return Invalid(place + message, hint=hint, code="bad_project_code", details={"file": shown, "line": line})


def _by_name(what: str, found: list[Named]) -> dict[str, Named]:
    named: dict[str, Named] = {}
    for value in found:
        if named.setdefault(value.name, value) is not value:
            raise Invalid(
                f"two {what.replace('entity', 'entitie')}s are called {value.name}",
                hint="give each its own name",
                code="duplicate_name",
            )
    return named


def _find(named: dict[str, Named], what: str, name: str, code: str) -> Named:
    if name not in named:
        raise NotFound(f"the project has no {what} {name!r}", hint=f"it has {', '.join(named) or 'none'}", code=code)
    return named[name]
