"""Every error by its code, read from the places that raise it; nothing is imported, nothing is run.

A place is a call of `FalajError` or of a class below it. Where a small function makes the error from what it is handed
(`_bad(file, what, hint, code)`), its callers are the places, and their words are put into its sentence.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from falaj.entrypoints.cli.commands.errors import catalogue, first_sentence
from falaj.kernel import errors as kernel
from tools.manual.tables import ROOT, table

SOURCE = ROOT / "src"
UNEXPLAINED = "unexplained"
"""What an answer is called that is no error of ours (`from_dict`); no place raises it."""
_MOST = 4  # callers of callers: deeper than any sentence is handed on
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
Bound = dict[str, ast.expr]
SHOWN = {
    "not_found": "not found",
    "conflict": "conflict",
    "invalid": "invalid",
    "denied": "refused",
    "unavailable": "unavailable",
    "integrity": "integrity",
    "error": "error",
}
"""How the command line calls each kind."""
_WHERE = (
    ("lifecycle/serving/plane", "data plane"),
    ("entrypoints/data_plane", "data plane"),
    ("entrypoints/console", "console"),
    ("entrypoints/cli/demo", "demo"),
    ("entrypoints/cli", "command line"),
    ("entrypoints/step", "step process"),
    ("entrypoints", "control plane"),
    ("bootstrap/step", "step process"),
    ("bootstrap", "control plane"),
)


class Kind(msgspec.Struct, frozen=True, order=True):
    """A class of errors, as far as it matters to who meets one."""

    name: str
    kind: str
    status: int
    exit_code: int


class Place(msgspec.Struct, frozen=True, order=True):
    """One place that raises: what it says, and what it advises."""

    code: str
    where: str
    kind: Kind
    message: str
    hint: str


class Module(msgspec.Struct, frozen=True):
    """A parsed file: its functions, its plain constants, and what it takes from other modules of ours."""

    path: str
    tree: ast.Module
    functions: dict[str, Function]
    constants: dict[str, ast.expr]
    taken: dict[str, tuple[str, str]]


class Site(msgspec.Struct, frozen=True):
    """A call that makes an error, and the functions that it stands in, the innermost first."""

    module: Module
    call: ast.Call
    kind: Kind
    inside: tuple[Function, ...]


@functools.cache
def places() -> tuple[Place, ...]:
    """Every place that raises an error with a code that can be read there, sorted by code."""
    found: set[Place] = set()
    for site in sites():
        for bound in _bindings(site):
            for code in _codes(_keyword(site.call, "code"), site, bound):
                where = _where(site.module.path)
                kind = _at_the_plane(site.kind) if where == "data plane" else site.kind
                message = site.call.args[0] if site.call.args else ast.Constant("")
                hint = _keyword(site.call, "hint") or ast.Constant("")
                said = (_text(message, site.module, bound), _text(hint, site.module, bound))
                found.add(Place(code, where, kind, *said))
    return tuple(sorted(found | set(_written())))


def _written() -> Iterator[Place]:
    """Errors that are written as JSON where they are answered, without being raised: `return 400, …, {"code": …}`."""
    for module in modules().values():
        for answer in ast.walk(module.tree):
            if not (isinstance(answer, ast.Tuple) and answer.elts and isinstance(answer.elts[0], ast.Constant)):
                continue
            status = answer.elts[0].value
            if not isinstance(status, int):
                continue
            for node in ast.walk(answer):
                said = _json(node)
                if {"error", "code", "hint"} <= said.keys():
                    kind = "error" if status == 500 else "unavailable"
                    where, told = _where(module.path), Kind("", kind, status, 1 if status == 500 else 3)
                    yield Place(str(said["code"]), where, told, str(said["error"]), str(said["hint"]))


def _json(node: ast.AST) -> dict[str, object]:
    """The constants of a dictionary, or of JSON that is written as bytes."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {str(k.value): v.value for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)}
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes) and b'"code":"' in node.value:
        return msgspec.json.decode(node.value, type=dict[str, object])
    return {}


def _at_the_plane(kind: Kind) -> Kind:
    """The data plane answers a request that is not acceptable with 400, as the inference protocol has it."""
    return Kind(kind.name, kind.kind, 400, kind.exit_code) if kind.name == "Invalid" else kind


def codeless() -> list[str]:
    """`path:line` of each error whose code neither is a literal nor is handed on."""
    found = []
    for site in sites():
        code = _keyword(site.call, "code")
        if code is None or not _legible(code, site):
            found.append(f"{site.module.path}:{site.call.lineno}")
    return found


# ── Pages ────────────────────────────────────────────────────────────────────────────────────────


def pages() -> dict[str, str]:
    """A page for each code, and the index, by path below docs/reference."""
    told = catalogue()
    by_code: dict[str, list[Place]] = {}
    for place in places():
        by_code.setdefault(place.code, []).append(place)
    made = {f"errors/{code}.md": _page(code, told.get(code, ""), by_code[code]) for code in sorted(by_code)}
    return {"errors/README.md": _index(by_code, told)} | made


def _page(code: str, told: str, found: list[Place]) -> str:
    kinds = sorted({(p.kind.kind, p.kind.status, p.kind.exit_code, p.where) for p in found})
    rows: dict[tuple[str, int, int], list[str]] = {}
    for kind, status, exit_code, where in kinds:
        rows.setdefault((kind, status, exit_code), []).append(where)
    facts = [(k, str(status), str(exit_code), ", ".join(where)) for (k, status, exit_code), where in rows.items()]
    said = dict.fromkeys(f"{SHOWN[p.kind.kind]} {p.message}\nnext: {p.hint}" for p in found)
    paragraph = "\n".join(textwrap.wrap(told, 118, break_long_words=False, break_on_hyphens=False))
    blocks = "\n\n".join(f"```text\n{text}\n```" for text in said)
    return f"""# {code}

{paragraph}

{table(("kind", "HTTP", "exit code", "raised by"), facts)}
## As it is said

{blocks}

[All codes](README.md) · [read a refusal](../../how-to/read-a-refusal.md)"""


def _index(by_code: dict[str, list[Place]], told: dict[str, str]) -> str:
    by_where: dict[str, list[str]] = {}
    for code in sorted(by_code):
        for where in sorted({p.where for p in by_code[code]}):
            by_where.setdefault(where, []).append(code)
    parts = []
    for where in sorted(by_where):
        rows = [
            (f"[`{code}`]({code}.md)", ", ".join(sorted({p.kind.kind for p in by_code[code] if p.where == where})),
             first_sentence(told.get(code, "")))
            for code in by_where[where]
        ]  # fmt: skip
        parts.append(f"## {where[0].upper()}{where[1:]}\n\n{table(('code', 'kind', 'what has happened'), rows)}")
    return f"""# Errors

Each error has a code that stays the same over releases: in `--json`, over HTTP, in the audit log. Decide by it, not by
the text. `falaj errors CODE` prints a page of this folder, without any connection.

There are {len(by_code)} codes, listed by the part that raises them.
[Read a refusal](../../how-to/read-a-refusal.md) explains kinds and exit codes.

{chr(10).join(parts)}"""


# ── Reading the code ─────────────────────────────────────────────────────────────────────────────


@functools.cache
def modules() -> dict[str, Module]:
    """Every module of ours by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = _module(path)
    return found


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text("utf-8"))
    constants: dict[str, ast.expr] = {}
    taken: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            constants[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.module:
            taken |= {a.asname or a.name: (node.module, a.name) for a in node.names}
    functions = {f.name: f for f in ast.walk(tree) if isinstance(f, _FUNCTIONS)}
    return Module(str(path.relative_to(SOURCE / "falaj")), tree, functions, constants, taken)


@functools.cache
def kinds() -> dict[str, Kind]:
    """Every class of errors by name: the kernel's, and those that a stage derives from them."""
    found = {
        c.__name__: Kind(c.__name__, c.kind, c.status, c.exit_code)
        for c in vars(kernel).values()
        if isinstance(c, type) and issubclass(c, kernel.FalajError)
    }
    for module in modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and module.path != "kernel/errors.py":
                for base in (found[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in found):
                    found[node.name] = Kind(node.name, base.kind, _status(node, base.status), base.exit_code)
    return found


def _status(node: ast.ClassDef, default: int) -> int:
    for part in node.body:
        if isinstance(part, ast.Assign) and getattr(part.targets[0], "id", "") == "status":
            return int(ast.literal_eval(part.value))
    return default


@functools.cache
def sites() -> tuple[Site, ...]:
    """Every call that makes an error."""
    found: list[Site] = []
    for module in modules().values():
        if module.path != "kernel/errors.py":
            found += _sites(module, module.tree, ())
    return tuple(found)


def _sites(module: Module, node: ast.AST, inside: tuple[Function, ...]) -> Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id in kinds():
            yield Site(module, child, kinds()[child.func.id], inside)
        yield from _sites(module, child, (child, *inside) if isinstance(child, _FUNCTIONS) else inside)


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def _parameters(function: Function) -> list[str]:
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _bindings(site: Site) -> list[Bound]:
    """What the parameters of the function around a site are at each of its callers; `[{}]` where that does not matter."""
    if not site.inside:
        return [{}]
    function = site.inside[0]
    used = {n.id for n in ast.walk(site.call) if isinstance(n, ast.Name)} & set(_parameters(function))
    return _callers(site.module, function, _MOST) if used else [{}]


def _callers(module: Module, function: Function, depth: int) -> list[Bound]:
    """Each way in which a helper is called with words of its own: parameter → the words."""
    found: list[Bound] = []
    defaults = _defaults(function)
    for other, call, around in _calls_of(module, function.name):
        given = defaults | _given(function, call)
        words = {n.id for value in given.values() for n in ast.walk(value) if isinstance(n, ast.Name)}
        handed_on = around is not None and depth > 0 and words & set(_parameters(around))
        outer = _callers(other, around, depth - 1) if around is not None and handed_on else [{}]
        for bound in outer:
            worded = {k: _resolved(v, other, bound) for k, v in given.items()}
            found.append({k: v for k, v in worded.items() if v is not None})
    return [b for b in found if b] or [{}]


def _defaults(function: Function) -> Bound:
    names, values = [a.arg for a in (*function.args.posonlyargs, *function.args.args)], function.args.defaults
    plain = dict(zip(names[len(names) - len(values) :], values, strict=True))
    named = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return plain | {a.arg: v for a, v in named if v is not None}


def _given(function: Function, call: ast.Call) -> Bound:
    names = [n for n in _parameters(function) if n not in ("self", "cls")]
    placed = dict(zip(names, call.args, strict=False))
    return placed | {k.arg: k.value for k in call.keywords if k.arg}


@functools.cache
def _all_calls() -> dict[str, list[tuple[Module, ast.Call, Function | None]]]:
    found: dict[str, list[tuple[Module, ast.Call, Function | None]]] = {}

    def walk(module: Module, node: ast.AST, around: Function | None) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                name = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
                found.setdefault(name, []).append((module, child, around))
            walk(module, child, child if isinstance(child, _FUNCTIONS) else around)

    for module in modules().values():
        walk(module, module.tree, None)
    return found


def _calls_of(module: Module, name: str) -> list[tuple[Module, ast.Call, Function | None]]:
    """Calls of a function of this module: in it, or where it is taken from it. Methods count only in their own file."""
    dotted = next(n for n, m in modules().items() if m is module)
    return [
        (other, call, around)
        for other, call, around in _all_calls().get(name, ())
        if other is module or other.taken.get(name) == (dotted, name)
    ]


def _resolved(value: ast.expr, module: Module, bound: Bound) -> ast.expr | None:
    """The words that an argument is, with what its own function was handed put in; None when it is no words."""
    if isinstance(value, ast.Name):
        return bound.get(value.id) or _constant(value.id, module)
    if isinstance(value, ast.IfExp):
        return _decided(value, bound)
    if isinstance(value, ast.Constant):
        return value if isinstance(value.value, str) else None
    if isinstance(value, (ast.JoinedStr, ast.BinOp)):
        return ast.Constant(_text(value, module, bound))
    return None


def _decided(value: ast.IfExp, bound: Bound) -> ast.expr:
    """The branch of `a if what == "x" else b` that is taken where `what` is known; else all of it."""
    match value.test:
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()], comparators=[ast.Constant(value=wanted)]):
            found = bound.get(name)
            if isinstance(found, ast.Constant):
                return value.body if found.value == wanted else value.orelse
    return value


def _constant(name: str, module: Module) -> ast.expr | None:
    """A plain constant of this module, or of the one that it is taken from."""
    if name in module.constants:
        value = module.constants[name]
        return value if isinstance(value, (ast.Constant, ast.JoinedStr)) else None
    if name in module.taken:
        origin, there = module.taken[name]
        if origin in modules():
            return _constant(there, modules()[origin])
    return None


def _codes(value: ast.expr | None, site: Site, bound: Bound) -> Iterator[str]:
    """The codes that a `code=` can be, as far as they stand in the source."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _codes(value.body, site, bound)
        yield from _codes(value.orelse, site, bound)
    elif isinstance(value, ast.Name):
        if value.id in bound:
            yield from _codes(bound[value.id], site, {})
        else:
            yield from _codes(_constant(value.id, site.module) or _local(value.id, site), site, bound)
            yield from _unpacked(value.id, site)


def _unpacked(name: str, site: Site) -> Iterator[str]:
    """The codes of a name that stands in `problem, code = …`: those that a function returns, or that a verdict carries."""
    for node in ast.walk(site.inside[0]) if site.inside else ():
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
            continue
        names = [getattr(part, "id", "") for part in node.targets[0].elts]
        if name not in names:
            continue
        if isinstance(node.value, ast.Tuple) and getattr(node.value.elts[names.index(name)], "attr", "") == "code":
            yield from _carried(Path(site.module.path).parent)
        elif isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            yield from _returned(node.value.func.id, names.index(name), site.module)


def _returned(name: str, place: int, module: Module) -> Iterator[str]:
    """The literals that a function returns at a place of its tuples."""
    origin, there = module.taken.get(name, ("", name))
    function = modules().get(origin, module).functions.get(there)
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            code = node.value.elts[place]
            if isinstance(code, ast.Constant) and code.value:
                yield str(code.value)


def _carried(folder: Path) -> Iterator[str]:
    """The codes that verdicts of a stage carry: `Standing(problem=…, code="…")`, and the default of that field."""
    for module in modules().values():
        if Path(module.path).parent != folder:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and _keyword(node, "problem") is not None:
                code = _keyword(node, "code")
                if isinstance(code, ast.Constant):
                    yield str(code.value)
            elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "code":
                yield from (
                    v.value
                    for v in [node.value]
                    if isinstance(v, ast.Constant) and isinstance(v.value, str) and v.value
                )


def _local(name: str, site: Site) -> ast.expr | None:
    """What a function assigns to a name of its own, if it does so once and plainly."""
    if not site.inside:
        return None
    found = [
        n.value
        for n in ast.walk(site.inside[0])
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and n.targets[0].id == name
    ]
    return found[0] if len(found) == 1 and isinstance(found[0], (ast.Constant, ast.IfExp)) else None


def _legible(code: ast.expr, site: Site) -> bool:
    """A literal, a choice of literals, a parameter that callers give literals for, or the code of another error."""
    if isinstance(code, ast.Constant):
        return isinstance(code.value, str) and bool(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", code.value))
    if isinstance(code, ast.IfExp):
        return _legible(code.body, site) and _legible(code.orelse, site)
    if isinstance(code, ast.Attribute):
        return code.attr == "code"
    if isinstance(code, ast.Subscript):
        return isinstance(code.slice, ast.Constant) and code.slice.value == "code"
    if isinstance(code, ast.Name):
        if any(code.id in _parameters(f) for f in site.inside[:1]):
            return all(list(_codes(code, site, bound)) for bound in _bindings(site))
        return bool(list(_codes(code, site, {})))
    return False


# ── Sentences ────────────────────────────────────────────────────────────────────────────────────


def _text(value: ast.expr, module: Module, bound: Bound) -> str:
    """A message as it is raised; what is put in at run time stands as `{name}`."""
    if isinstance(value, ast.Constant):
        return str(value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(_text(part, module, bound) for part in value.values)
    if isinstance(value, ast.FormattedValue):
        return _text(value.value, module, bound)
    if isinstance(value, ast.IfExp):
        either = [t for t in (_text(v, module, bound) for v in (value.body, value.orelse)) if t.strip()]
        return either[0] if len(either) == 1 else f"{{{' / '.join(re.sub('[{}]', '', e) for e in either)}}}"
    if isinstance(value, ast.BinOp) and isinstance(value.op, (ast.Add, ast.Mod)):
        return _joined(value, module, bound)
    if isinstance(value, ast.Subscript) and isinstance(value.value, ast.JoinedStr):
        return _text(value.value, module, bound)  # a sentence that is cut when it is too long
    if isinstance(value, ast.Name):
        found = bound.get(value.id) or _constant(value.id, module)
        return _text(found, module, {}) if found is not None else f"{{{value.id}}}"
    if isinstance(value, ast.Call) and getattr(value.func, "attr", "") == "words":
        return _console_words(value)
    return f"{{{_name(value)}}}"


def _joined(value: ast.BinOp, module: Module, bound: Bound) -> str:
    left, right = _text(value.left, module, bound), _text(value.right, module, bound)
    return left + right if isinstance(value.op, ast.Add) else re.sub(r"%[sdrg]", lambda _: right, left)


def _name(value: ast.expr) -> str:
    """A word for something computed: the last name in it that says what it is."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return {"__name__": "type"}.get(value.attr, value.attr)
    if isinstance(value, (ast.Subscript, ast.Await)):
        inner = (
            value.slice if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant) else value.value
        )
        if isinstance(inner, ast.Constant):
            return str(inner.value) if isinstance(inner.value, str) else _name(value.value)
        return _name(inner)
    if isinstance(value, ast.Call):
        joined = isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Constant)
        if value.args and (joined or isinstance(value.func, ast.Name)):
            return _name(value.args[0])
        if value.args and isinstance(value.args[0], ast.Constant) and isinstance(value.args[0].value, str):
            return value.args[0].value  # body.get("msg")
        if isinstance(value.func, ast.Attribute) and not value.args:
            return _name(value.func.value)  # text.strip()
        return _name(value.func)
    if isinstance(value, (ast.GeneratorExp, ast.ListComp)):
        return _name(value.generators[0].iter)
    if isinstance(value, ast.BoolOp):
        return _name(value.values[0])
    if isinstance(value, ast.BinOp):
        return _name(value.left)
    return "…"


def _console_words(value: ast.Call) -> str:
    (key,) = [a.value for a in value.args if isinstance(a, ast.Constant)]
    for node in ast.walk(modules()["falaj.entrypoints.console.words"].tree):
        if isinstance(node, ast.Dict):
            for name, text in zip(node.keys, node.values, strict=True):
                if isinstance(name, ast.Constant) and name.value == key and isinstance(text, ast.Constant):
                    return str(text.value)
    return f"{{{key!s}}}"


def _where(path: str) -> str:
    """The part of the product that a file belongs to."""
    for prefix, part in _WHERE:
        if path.startswith(prefix):
            return part
    parts = path.split("/")
    return parts[1] if parts[0] in ("lifecycle", "governance") and len(parts) > 2 else parts[0]
