"""A witness of somebody's audit log: a process of its own, with its own key and memory, best on somebody else's machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints import witness as process
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.audit.witness import Witness, create
from falaj.kernel.clock import SystemClock, iso
from falaj.kernel.errors import Invalid

witness_app = App(
    name="witness",
    help="Watch over somebody's audit log: cosign what extends what was seen before, refuse the rest.",
)
Folder = Annotated[Path, Parameter(help="The witness's own folder: its key and what it has seen.")]


@witness_app.command(name="init")
def witness_init(
    folder: Folder,
    /,
    *,
    name: Annotated[str, Parameter(help="Its name in each line, like witness.example/w1.")],
    common: Common = DEFAULT,
) -> None:
    """Make a witness in a new folder, and show the key that others know it by."""
    vkey = create(folder, name)
    if common.json:
        render.show_json({"name": name, "vkey": vkey})
    else:
        render.line(vkey)


@witness_app.command(name="trust")
def witness_trust(
    folder: Folder,
    vkey: Annotated[str, Parameter(help="The log's key, as its operator published it.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Answer for a log from now on; a witness that runs needs no restart."""
    origin = Witness(folder, SystemClock()).trust(vkey)
    if common.json:
        render.show_json({"origin": origin})
    else:
        render.line(f"watches over {origin}")


@witness_app.command(name="follow")
def witness_follow(
    folder: Folder,
    statement: Annotated[Path, Parameter(help="The statement: rotation/N of the log's files.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Believe a log's next key, which its old one vouches for; a witness that runs needs no restart."""
    try:
        data = statement.read_bytes()
    except OSError as e:
        raise Invalid(
            f"{statement} cannot be read: {e.strerror or e}", hint="name a file that is there", code="no_such_file"
        ) from e
    vkey = Witness(folder, SystemClock()).follow(data)
    if common.json:
        render.show_json({"vkey": vkey})
    else:
        render.line(f"believes {vkey} from now on")


@witness_app.command(name="show")
def witness_show(folder: Folder, /, *, common: Common = DEFAULT) -> None:
    """Show what the witness has seen of each log, and which of their checkpoints it refused."""
    witness = Witness(folder, SystemClock())
    logs = witness.logs()
    if common.json:
        render.show_json({"name": witness.name, "vkey": witness.vkey, "logs": msgspec.to_builtins(logs)})
        return
    rows = [
        (
            seen.origin,
            seen.size,
            seen.root,
            iso(datetime.fromtimestamp(seen.at, UTC)) if seen.at else "never",
            ", ".join(f"{n} {sort}" for sort, n in seen.refused.items()) or "none",
        )
        for seen in logs
    ]
    render.table(("log", "entries", "root", "cosigned", "refused"), rows)


@witness_app.command(name="serve")
def witness_serve(
    folder: Folder,
    /,
    *,
    host: Annotated[str, Parameter(help="Where to listen; beyond loopback only with --certificate.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 takes a free one.")] = 0,
    certificate: Annotated[Path | None, Parameter(help="A TLS certificate chain, as PEM.")] = None,
    key: Annotated[Path | None, Parameter(help="Its private key, as PEM.")] = None,
    common: Common = DEFAULT,
) -> None:
    """Answer logs until it is stopped. The first line says where it listens."""
    process.serve(process.Listening(folder, host, port, certificate, key), as_json=common.json)
