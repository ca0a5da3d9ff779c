"""Ask a model that serves."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import token_of
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.plane import plane
from falaj.entrypoints.cli.secure import connection
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import Invalid, Unavailable, from_dict
from falaj.kernel.settings import Settings

_DATATYPE = {"category": "BYTES", "integer": "INT64", "boolean": "BOOL", "float": "FP64"}


def predict(
    model: Annotated[str, Parameter(help="A model.")],
    /,
    *,
    data: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,
            help="A JSON file, or - for standard input: one row as an object, or a list of rows.",
        ),
    ],
    environment: Annotated[
        str | None, Parameter(help="staging or production; as FALAJ_ENVIRONMENT, if not given.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Predict, with the features looked up by their keys. Starts a data plane for the moment if none runs."""
    settings = common.settings()
    rows = read_rows(data)
    with (
        plane(settings, standing(environment or settings.environment)) as address,
        contextlib.closing(PlaneClient(address, token_of(settings))) as client,
    ):
        answer = client.infer(model, rows)
        columns = client.columns(model, answer)
    if common.json:
        render.show_json(answer)
        return
    parameters = answer["parameters"]
    render.line(
        f"{model}@{answer['model_version']} {render.digest(parameters['version_digest'])}  {parameters['prediction_id']}"
    )
    render.table(("row", *columns), list(zip(range(len(rows)), *columns.values(), strict=True)))


def standing(environment: str) -> str:
    """The name of an environment that has a data plane of its own. Raises `Invalid` for any other."""
    if environment not in (STAGING, PRODUCTION):
        raise Invalid(
            f"{environment[:40]!r} has no data plane that could be asked",
            hint="staging and production have one; dev's are private, each measures one candidate",
            code="environment_without_plane",
        )
    return environment


class PlaneClient:
    """Speaks the Open Inference Protocol to a data plane."""

    def __init__(self, address: str, token: str, settings: Settings | None = None) -> None:
        held, bearer = settings or Settings(), {"Authorization": f"Bearer {token}"}
        self._http = connection(address, held, f"data-plane/{held.environment}", timeout=30.0, headers=bearer)
        self._known: dict[str, dict[str, Any]] = {}

    def infer(self, model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Ask for predictions of some rows, each an object with the request features and the join keys."""
        inputs = []
        for wanted in self._metadata(model)["inputs"]:
            values = [row.get(wanted["name"]) for row in rows]
            inputs.append(
                {"name": wanted["name"], "datatype": wanted["datatype"], "shape": [len(rows)], "data": values}
            )
        answer: dict[str, Any] = self._ask("POST", f"/v2/models/{named(model)}/infer", {"inputs": inputs})
        return answer

    def columns(self, model: str, answer: dict[str, Any]) -> dict[str, list[Any]]:
        """An answer as columns, a value a row: classes by their names, and a column for each class's probability."""
        classes = {o["name"]: o["parameters"]["classes"] for o in self._metadata(model)["outputs"]}
        found: dict[str, list[Any]] = {}
        for output in answer["outputs"]:
            name, data, (_, *width) = output["name"], output["data"], output["shape"]
            if width:
                found |= {c: data[i :: width[0]] for i, c in enumerate(classes[name])}
            else:
                found[name] = [classes[name][v] for v in data] if name == "class" else data
        return found

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def _metadata(self, model: str) -> dict[str, Any]:
        if model not in self._known:
            self._known[model] = self._ask("GET", f"/v2/models/{named(model)}")
        return self._known[model]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        try:
            answer = self._http.request(method, path, content=msgspec.json.encode(body) if body is not None else None)
        except httpx.TransportError as e:
            raise Unavailable(
                f"the data plane does not answer: {e}", hint="see `falaj status`", code="plane_does_not_answer"
            ) from e
        try:
            document = msgspec.json.decode(answer.content, type=dict[str, Any]) if answer.content else {}
        except (msgspec.DecodeError, UnicodeDecodeError) as e:  # it is not a data plane that listens there
            raise Unavailable(
                f"what answers at {self._http.base_url} is no data plane",
                hint="see `falaj status`",
                code="plane_does_not_answer",
            ) from e
        if answer.status_code >= 400:
            kind = {401: "denied", 403: "denied", 404: "not_found", 503: "unavailable"}.get(
                answer.status_code, "invalid"
            )
            raise from_dict({"kind": kind, **document})
        return document


def read_rows(data: str) -> list[dict[str, Any]]:
    """Rows from a JSON file, or for `-` from standard input. Raises `Invalid` for what cannot be read or holds no rows."""
    try:
        text = sys.stdin.buffer.read() if data == "-" else Path(data).read_bytes()
        rows = msgspec.json.decode(text)
    except OSError as e:
        raise Invalid(
            f"cannot read {data}: {e.strerror}",
            hint="name a JSON file, or - for standard input",
            code="data_file_unreadable",
        ) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise Invalid(
            f"{data} is not JSON: {e}", hint="write one object, or a list of them", code="data_file_not_json"
        ) from e
    rows = [rows] if isinstance(rows, dict) else rows
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise Invalid(f"{data} holds no rows", hint="write one object, or a list of them", code="no_rows")
    return rows
