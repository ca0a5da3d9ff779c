"""What the pages of the reference share."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- made from the code by `python tools/reference.py`; a test compares them -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; an empty cell keeps a space, so that every forge draws it."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') or ' ' for c in line)} |\n" for line in lines)


def docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: text.value.value.strip()
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def comments(kind: type) -> dict[str, str]:
    """The comment behind each field of a class, as far as there is one."""
    found = re.findall(
        r"^    (\w+): [^\n#]*(?:#[ ]*([^\n]*))?$", textwrap.dedent(inspect.getsource(kind)), re.MULTILINE
    )
    return {name: comment.strip() for name, comment in found}


def block(text: str, language: str = "text") -> str:
    """A fenced block."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def signature(name: str, of: Callable[..., object]) -> str:
    """How something is called, one parameter a line where it is long."""
    found = inspect.signature(of)
    parameters = [p for p in found.parameters.values() if p.name not in ("self", "cls")]
    parts: list[str] = []
    keyword = False
    for p in parameters:
        if p.kind is p.KEYWORD_ONLY and not keyword:
            keyword = True
            parts.append("*")
        text = str(p).replace("<factory>", "...")
        parts.append(text.replace(repr(p.annotation), p.annotation) if isinstance(p.annotation, str) else text)
    answer = "" if found.return_annotation in (found.empty, None, "None") else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(parts)}){answer}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){answer}"


def told(of: object) -> str:
    """The docstring of something, as one text."""
    return inspect.getdoc(of) or ""
