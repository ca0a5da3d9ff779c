"""Models that somebody else serves: declare them, send what they answered."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from falaj.authoring.externalfile import read_external
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.build import run_flow
from falaj.entrypoints.cli.commands.score import FORMATS, readable, table_format
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import FalajError, Invalid

external_app = App(name="external", help="Models that somebody else serves: watched, not governed.")
predictions_app = App(name="predictions", help="What somebody else's endpoint answered.")
_AT_ONCE = 5_000


@external_app.command(name="watch")
def external_watch(
    declaration: Annotated[Path, Parameter(help="A TOML file: name, task, score, inputs, monitor.")],
    /,
    *,
    reference: Annotated[
        Path, Parameter(help="What is normal: a table of inputs and scores, .csv, .parquet or .jsonl; it is frozen.")
    ],
    common: Common = DEFAULT,
) -> None:
    """Declare a model that somebody else serves, and freeze the reference that its answers are compared with.

    It is watched from then on: drift, errors, latency, quality, silence. It is not governed: nothing is admitted, rolled
    out or stopped.
    """
    model = read_external(declaration)
    kind = table_format(readable(reference), tuple(dict.fromkeys(FORMATS.values())))
    with connect(common.settings(anywhere=True)) as client:
        table = client.hand_over(reference)["name"]
        try:
            body = {"model": msgspec.to_builtins(model), "table": table, "format": kind}
            found = run_flow(client, "/api/v1/external", body, common)
        finally:
            with contextlib.suppress(FalajError):  # it goes by itself after a day
                client.delete(f"/api/v1/tables/{table}")
    if common.json:
        render.show_json(found)
        return
    days = found["monitor"]["window_seconds"] / 86400
    render.line(
        f"{found['name']} is watched, not governed: {len(found['inputs'])} inputs and {found['score']}, "
        f"in windows of {days:g} days, beside {found['reference']['rows']:,} rows of reference ({render.digest(found['digest'])})"
    )
    render.line(f"next: falaj predictions push {found['name']} --data FILE")


@external_app.command(name="list")
def external_list(*, common: Common = DEFAULT) -> None:
    """List the models that somebody else serves: what they claim to be, and when they were heard last."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/external")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("model", "task", "reference", "heard", "claimed versions", "served by"),
        [
            (
                r["name"],
                r["task"],
                render.digest(r["digest"]),
                ("silent since " if r["silent"] else "") + (r["heard_at"] or "never"),
                ", ".join(c or "–" for c in r["claims"]) or "–",
                r["served_by"],
            )
            for r in rows
        ],
        "nobody else's model is watched",
    )


@predictions_app.command(name="push")
def predictions_push(
    model: Annotated[str, Parameter(help="A model that somebody else serves.")],
    /,
    *,
    data: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="JSON lines with `id`, `at`, `inputs`, `outputs`, and if known `latency_ms`, `error`, `version`; - for standard input.",
        ),
    ],
    common: Common = DEFAULT,
) -> None:
    """Send what an endpoint answered. Send it again after a failure: what came before is known by its id."""
    total: dict[str, Any] = {"accepted": 0, "duplicates": 0, "refused": []}
    with connect(common.settings()) as client:
        rows = _lines(data)
        while block := list(islice(rows, _AT_ONCE)):
            answer = client.post(f"/api/v1/external/{named(model)}/predictions", {"predictions": block})
            total = {key: total[key] + answer[key] for key in total}
    if common.json:
        render.show_json(total)
    else:
        render.line(f"{total['accepted']:,} answers taken, {total['duplicates']:,} known already")
        for refused in total["refused"][:20]:
            render.line(f"  {refused['id']}: {refused['reason']} ({refused['code']})")
    if total["refused"]:
        if not common.json:
            render.line(f"{len(total['refused']):,} answers were not taken")
        sys.exit(1)


def _lines(data: str) -> Iterator[dict[str, Any]]:
    """The records, one JSON object a line. Raises `Invalid`, naming the line."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    with sys.stdin.buffer if data == "-" else readable(Path(data)).open("rb") as f:
        for number, line in enumerate(f, 1):
            if line.strip():
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as e:
                    raise Invalid(
                        f"line {number} of {data} is not a JSON object: {e}",
                        hint="write one object a line; what stood before it was taken",
                        code="bad_json",
                    ) from e
