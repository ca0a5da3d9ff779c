"""The budgets of the house, as `path:line: what (budget)`; exit 1 when one is broken.

    python tools/budgets.py [--report] [--root FOLDER]

`--report` also prints the ten widest modules: those that import the most others of ours.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CODE = ("src", "tools", "bench", "proofs", "examples", "tests")
FILE, FUNCTION = (600, 1000), (60, 100)  # lines: soft, hard
PARAMETERS = 7
FAN_OUT = (20, 30)  # modules of ours that one module imports: soft, hard
COMPOSITION = "src/falaj/bootstrap/"  # knows everybody, so that nobody else has to
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BROAD = ("Exception", "BaseException")

UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X]|NotImplemented[E]rror)\b")
MACHINE_PATH = re.compile(r"(?<![\w./~-])(/home/[a-z]\w*/|/User[s]/\w+/|/roo[t]/|/wor[k]/|[A-Z]:\\User[s]\\)")
HOSTS = re.compile(
    r"\b(pypi[.]org|pythonhosted[.]org|npmjs[.](org|com)|crates[.]io|(ghcr|quay|docker|gcr)[.]io|anaconda[.]org"
    r"|proxy[.]golang[.]org|repo1?[.]maven|hub[.]docker)\b"
)
VENDORED = re.compile(r"/static/(vendor|LICENSES)/|[.]min[.](js|css)$")

Found = tuple[str, int, str]


class House:
    """The tree that is checked, and what it is allowed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        allowed = tomllib.loads((root / "tools" / "budgets.toml").read_text("utf-8"))
        self.over: dict[str, str] = allowed.get("over", {})
        self.tiers: list[str] = allowed["tiers"]
        self.stage_files: dict[str, dict[str, str]] = allowed["stage_files"]
        self.used: set[str] = set()
        self.fan_out: dict[str, int] = {}

    def check(self) -> list[Found]:
        found: list[Found] = [(str(path.relative_to(self.root)), 1, what) for path, what in self.layout()]
        for path in self.files():
            name = path.relative_to(self.root).as_posix()
            try:
                text = path.read_text("utf-8")
            except (UnicodeDecodeError, FileNotFoundError):
                continue
            found += self.words(name, text)
            if path.suffix == ".py" and name.startswith(CODE):
                found += self.python(name, text)
        found += [("tools/budgets.toml", 1, f"{key} keeps its budget") for key in self.over.keys() - self.used]
        return sorted(set(found))

    def files(self) -> list[Path]:
        """What git tracks or would track; without git, every file outside hidden folders."""
        if (self.root / ".git").exists():
            git = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
            return sorted({self.root / name for name in names if name})
        paths = (p for p in self.root.rglob("*") if p.is_file())
        return sorted(p for p in paths if not any(part.startswith(".") for part in p.relative_to(self.root).parts))

    def layout(self) -> Iterator[tuple[Path, str]]:
        """Only known folders in the package, only packages in them, only known files in a stage."""
        package = self.root / "src" / "falaj"
        for path in members(package):
            if path.name not in self.tiers:
                yield path, "unknown in src/falaj; the tiers are listed in ARCHITECTURE.md"
        for folder in {p.parent for p in package.rglob("*.py")}:
            if not (folder / "__init__.py").exists():
                yield folder, "has modules but no __init__, so import-linter does not see it"
        order = ast.parse((package / "lifecycle" / "__init__.py").read_text("utf-8"))
        stages = {*literal(order, "STAGES"), "loop"}
        for stage in members(package / "lifecycle"):
            if stage.name not in {*stages, "__init__.py"}:
                yield stage, "no stage of lifecycle.STAGES"
            names = self.stage_files["every"].keys() | self.stage_files.get(stage.name, {}).keys()
            for path in members(stage):
                if path.stem not in names:
                    yield path, "no file name of a stage; see tools/budgets.toml for exceptions"

    def words(self, name: str, text: str) -> Iterator[Found]:
        """Nothing unfinished in code, nobody's own paths, no package registry."""
        rules = [(MACHINE_PATH, "a path of one machine"), (HOSTS, "a registry's host name")]
        if name.endswith((".py", ".js", ".css", ".html")) and not VENDORED.search(name):
            rules.append((UNFINISHED, "unfinished"))
        for number, line in enumerate(text.splitlines(), 1):
            for pattern, what in rules:
                if match := pattern.search(line):
                    yield name, number, f"{what}: {match[0]} (0)"

    def python(self, name: str, text: str) -> Iterator[Found]:
        lines = text.splitlines()
        yield from self.size(name, 1, f"{len(lines)} lines", len(lines), FILE)
        tree = ast.parse(text)
        if name.startswith("src/"):
            yield from self.package(name, tree)
        for outer, node in walk(tree):
            if isinstance(node, FUNCTIONS):
                yield from self.function(name, outer, node)
                for line, module in () if name.startswith("tests/") else own_imports(node):
                    yield name, line, f"own import of {module} in a function (0)"
            last = node.body[0].lineno if isinstance(node, ast.ExceptHandler) else getattr(node, "lineno", 0) + 1
            if broad(node) and not any("#" in line for line in lines[node.lineno - 1 : last]):
                yield name, node.lineno, "catches everything without a comment that says why"

    def package(self, name: str, tree: ast.Module) -> Iterator[Found]:
        """An __init__ is a map: a docstring, and no import that a light module would pay for."""
        own = own_imports(tree)
        width = self.fan_out[name] = len({module for _, module in own})
        if not name.startswith(COMPOSITION):
            yield from self.size(f"{name}::imports", 1, f"imports {width} modules of ours", width, FAN_OUT)
        if name.endswith("/__init__.py") and not ast.get_docstring(tree):
            yield name, 1, "a package without a docstring"
        if name.endswith("/__init__.py"):
            loaded = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
            for line, module in own_imports(ast.Module(loaded, [])):
                yield name, line, f"a package's __init__ imports {module} (0)"

    def function(self, name: str, outer: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Found]:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        yield from self.size(f"{name}::{outer}", node.lineno, f"{outer} has {lines} lines", lines, FUNCTION)
        given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len(given) - (given[:1] in (["self"], ["cls"]))
        if count > PARAMETERS:
            yield name, node.lineno, f"{outer} has {count} parameters ({PARAMETERS})"

    def size(self, key: str, line: int, what: str, size: int, budget: tuple[int, int]) -> Iterator[Found]:
        soft, hard = budget
        if size <= soft:
            return
        self.used.add(key)
        if size > hard or key not in self.over:
            yield key.partition("::")[0], line, f"{what} ({hard if size > hard else soft})"


def members(folder: Path) -> list[Path]:
    """What lies in a folder, without what Python leaves there."""
    return sorted(p for p in folder.iterdir() if p.name != "__pycache__") if folder.is_dir() else []


def literal(tree: ast.Module, name: str) -> Any:
    """The literal that is assigned to a name at the top of a module."""
    assigned = (n for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == name)
    return next(ast.literal_eval(n.value) for n in assigned if n.value)


def walk(node: ast.AST, outer: str = "") -> Iterator[tuple[str, Any]]:
    """Every node with the dotted name of the class or function that it is or stands in."""
    for child in ast.iter_child_nodes(node):
        name = f"{outer}.{child.name}".lstrip(".") if isinstance(child, (*FUNCTIONS, ast.ClassDef)) else outer
        yield name, child
        yield from walk(child, name)


def own_imports(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module) of every import of falaj below a node."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    pairs = [(n, [n.module or ""] if isinstance(n, ast.ImportFrom) else [a.name for a in n.names]) for n in nodes]
    return [(n.lineno, name) for n, names in pairs for name in names if name.split(".")[0] == "falaj"]


def broad(node: ast.AST) -> bool:
    """`except:`, `except Exception:`, also in a tuple, and `suppress(Exception)`."""
    if isinstance(node, ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
        kinds = node.args
    else:
        return False
    return any(kind is None or ast.unparse(kind) in BROAD for kind in kinds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args()
    house = House(arguments.root.resolve())
    found = house.check()
    for path, line, what in found:
        print(f"{path}:{line}: {what}")
    if arguments.report:
        for module, count in sorted(house.fan_out.items(), key=lambda item: (-item[1], item[0]))[:10]:
            print(f"{count:4} own imports  {module}")
    print(f"budgets: {len(found)} broken" if found else "budgets: all kept", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
