"""What an error means: the catalogue that comes with the product, readable without a home or a connection."""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib.resources import files
from typing import Annotated

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import NotFound


def errors(
    code: Annotated[str | None, Parameter(help="The code of an error, as it stands in its output.")] = None,
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Explain an error by its code: what has happened, why Falaj refuses, what to do. Without a code: list them all."""
    known = catalogue()
    if code is None:
        if common.json:
            render.show_json(known)
        else:
            render.table(("code", "what has happened"), [(c, first_sentence(about)) for c, about in known.items()])
        return
    if code not in known:
        near = difflib.get_close_matches(code, known, 3)
        raise NotFound(
            f"there is no error {code[:60]!r}",
            hint=f"perhaps {' or '.join(near)}" if near else "`falaj errors` lists them all",
            code="no_such_error",
        )
    if common.json:
        render.show_json({"code": code, "about": known[code]})
        return
    render.paragraph(known[code])


def catalogue() -> dict[str, str]:
    """What is told of each code, in the order of the codes."""
    text = files("falaj.entrypoints").joinpath("errors.toml").read_text("utf-8")
    return {code: " ".join(about.split()) for code, about in tomllib.loads(text).items()}


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    found = re.match(r".*?[.!?](?=\s|$)", text)
    return found[0] if found else text
