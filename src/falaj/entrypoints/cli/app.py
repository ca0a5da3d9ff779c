"""`falaj`: the commands, and what their ends mean.

    0 done · 1 refused or failed · 2 wrong usage · 3 unavailable · 4 integrity broken · 130 interrupted
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.commands import build, govern, home, look, serve
from falaj.entrypoints.cli.demo import command as demo
from falaj.kernel.errors import FalajError

app = App(
    name="falaj",
    help="Carries a model from raw data to production, and lets nothing through that it cannot prove.",
    version_flags=["--version"],
    version="0.1.0",
)
for module in (home, build, govern, serve, look, demo):
    module.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with the exit code."""
    try:
        app(list(arguments) if arguments is not None else None, exit_on_error=False, print_error=True)
    except CycloptsError:
        sys.exit(2)
    except FalajError as e:
        _tell(e, as_json="--json" in (arguments if arguments is not None else sys.argv))
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was committed stays, what was not is undone\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _tell(error: FalajError, as_json: bool) -> None:
    if as_json:
        render.show_json(error.as_dict())
        return
    word = "refused" if error.kind == "denied" else error.kind.replace("_", " ")
    render.err.print(f"[bold red]{word}[/] {render.escape(error.message)}")
    render.err.print(f"[dim]next:[/] {render.escape(error.hint)}")


if __name__ == "__main__":
    main()
