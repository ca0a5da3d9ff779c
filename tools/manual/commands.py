"""The page of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cyclopts import App

from falaj.entrypoints.cli.app import app as cli
from tools.manual.tables import table

_VALUES = {
    "--as": "NAME", "--as-of": "TIME", "--by": "PERIOD", "--data": "FILE", "--from": "DAY", "--param": "NAME=VALUE",
    "--until": "DAY",
}  # fmt: skip
"""What an option's value is called, where the option's own name would not say it."""


def command_line() -> str:
    """Each command with its arguments and options."""
    parts = [_command(path, command) for path, command in commands(cli, ())]
    (common,) = {_options(c, common=True) for _, c in commands(cli, ())}
    return f"""# Command line

{cli.help}

```
falaj COMMAND --help
```

Every command takes these options:

{common}
| exit code | means |
|---|---|
| 0 | done |
| 1 | refused or failed; the reason and the next step are on standard error |
| 2 | wrong usage of the command |
| 3 | something cannot be reached, or is busy |
| 4 | bytes are not what they were signed to be |
| 130 | interrupted |

{"".join(parts)}"""


def commands(app: App, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that does something, with the words that call it."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if command.default_command is None:
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: App) -> str:
    required = [a for a in command.assemble_argument_collection() if a.required]
    words = [a.name if not a.name.startswith("-") else f"{a.name} {_kind(a)}" for a in required]
    usage = " ".join(["falaj", *path, *words])
    options = _options(command, common=False)
    return f"## {' '.join(path)}\n\n{command.help}\n\n```\n{usage}\n```\n\n" + (f"{options}\n" if options else "")


def _options(command: App, *, common: bool) -> str:
    arguments = [
        a
        for a in command.assemble_argument_collection()
        if a.names != ("*",) and (_group(a) == "Common") == common and a.parameter.help
    ]
    rows = [(f"`{' '.join(filter(None, (a.name, _kind(a))))}`", a.parameter.help or "", _given(a)) for a in arguments]
    return table(("option" if common else "argument", "what it is", "if not given"), rows) if rows else ""


def _group(argument: Any) -> str:
    return next((str(g.name) for g in argument.parameter.group or ()), "")


def _kind(argument: Any) -> str:
    """What stands behind an option: nothing for a switch, else a word for its value."""
    if not argument.name.startswith("-") or argument.hint is bool:
        return ""
    return "N" if argument.hint is int else _VALUES.get(argument.name, argument.name.strip("-").upper())


def _given(argument: Any) -> str:
    default = argument.field_info.default
    if argument.required:
        return "required"
    return "" if default in (None, "", False) else f"`{default}`"
