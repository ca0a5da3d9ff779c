"""From a project's definition to a registered version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.commands.look import rehearsed
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import Invalid

data_app = App(name="data", help="Versions of datasets.")
features_app = App(name="features", help="Fill and read the online store.")
_SKIPPED = {"__pycache__", "node_modules", "venv", "env", "build", "dist", "site-packages"}


def plan(*, common: Common = DEFAULT) -> None:
    """Show what applying the project would change."""
    settings = common.settings(anywhere=True)
    files = project_files(settings.project)
    with connect(settings) as client:
        answer = client.post("/api/v1/definition/plan", {"files": files})
    if common.json:
        render.show_json(answer)
    else:
        _show_changes(answer["changes"])


def apply(
    *,
    reason: Annotated[str, Parameter(help="Why; it stands in the change record.")] = "",
    number: Annotated[
        int | None, Parameter(help="An earlier definition that is to hold again, with the code that it had.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Make the project's definition the one that holds."""
    settings = common.settings(anywhere=number is None)
    files = project_files(settings.project) if number is None else {}
    with connect(settings) as client:
        if number is None:
            answer = client.post("/api/v1/definition", {"files": files, "reason": reason})
        else:
            answer = client.post(f"/api/v1/definition/{number}", {"reason": reason})
    if common.json:
        render.show_json(answer)
        return
    _show_changes(answer["changes"])
    render.line(f"definition {answer['number']} holds ({render.digest(answer['digest'])})")


def ingest(
    source: Annotated[str, Parameter(help="A source of the applied project.")], /, *, common: Common = DEFAULT
) -> None:
    """Load the new files of a source; bad rows go to quarantine with their reasons."""
    with connect(common.settings()) as client:
        answer = run_flow(client, f"/api/v1/datasets/{named(source)}/loads", {}, common)
    if common.json:
        render.show_json(answer)
        return
    if not answer["files"]:
        render.line(f"{source}: nothing new ({answer['skipped']} files known)")
        return
    render.line(
        f"{source} version {answer['version']}: {answer['added']:,} rows stored, {answer['quarantined']:,} quarantined, "
        f"{answer['rows']:,} in all ({render.digest(answer['digest'])})"
    )
    first = {bad["reason"]: f" (first: {bad['file']} row {bad['row']:,})" for bad in reversed(answer["examples"])}
    for reason, count in answer["reasons"].items():
        render.line(f"  {count:>7,}  {reason}{first.get(reason, '')}")


@data_app.command(name="log")
def data_log(name: Annotated[str, Parameter(help="A dataset.")], /, *, common: Common = DEFAULT) -> None:
    """List a dataset's versions, newest first."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/datasets/{named(name)}/log")
    if common.json:
        render.show_json(rows)
        return
    columns = ("version", "digest", "rows", "added", "quarantined", "files", "created")
    render.table(
        columns,
        [
            (
                r["version"],
                render.digest(r["digest"]),
                r["rows"],
                r["added"],
                r["quarantined"],
                len(r["files"]),
                r["created_at"],
            )
            for r in rows
        ],
    )


@features_app.command(name="materialize")
def features_materialize(
    *,
    as_of: Annotated[str, Parameter(help="The moment to fill for; now, if not given.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Fill the online store with every view's values as they were known at a moment."""
    with connect(common.settings()) as client:
        answer = run_flow(client, "/api/v1/features/materializations", {"as_of": as_of}, common)
    if common.json:
        render.show_json(answer)
        return
    for view in answer["views"]:
        render.line(f"{view['view']}: {view['keys']:,} keys as of {answer['as_of']} ({render.digest(view['digest'])})")


@features_app.command(name="get")
def features_get(
    view: Annotated[str, Parameter(help="A feature view.")],
    key: Annotated[str, Parameter(help="The entity's key.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Read one value from the online store."""
    with connect(common.settings()) as client:
        answer = client.get(f"/api/v1/features/{named(view)}/values/{named(key, slashes=True)}")
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{view} {key}: {answer['status']}, {answer['age_seconds']:,.0f} s old")
    render.table(("feature", "value"), answer["values"].items())


@features_app.command(name="log")
def features_log(view: Annotated[str, Parameter(help="A feature view.")], /, *, common: Common = DEFAULT) -> None:
    """List a view's materialisations, newest first."""
    with connect(common.settings()) as client:
        rows = client.get(f"/api/v1/features/{named(view)}/log")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("as of", "keys", "digest", "created"),
        [(r["as_of"], r["keys"], render.digest(r["digest"]), r["created_at"]) for r in rows],
    )


def train(
    model: Annotated[str, Parameter(help="A model of the applied project.")],
    /,
    *,
    param: Annotated[list[str] | None, Parameter(negative="", help="A parameter, NAME=VALUE; may be repeated.")] = None,
    as_of: Annotated[str, Parameter(help="Use only what was known then; now, if not given.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Train, convert, measure, sign; ends in a registered version, or in a refusal with its reason."""
    body = {"params": parameters(param or []), "as_of": as_of}
    with connect(common.settings()) as client:
        answer = run_flow(client, f"/api/v1/models/{named(model)}/builds", body, common)
    if common.json:
        render.show_json(answer)
        return
    known = " (these very bytes were registered before)" if answer["already"] else ""
    render.line(f"{answer['version']} {render.digest(answer['digest'])} is {answer['state']}{known}")
    if answer.get("rehearsal"):
        render.line(f"in {', '.join(answer['environments'])}: {rehearsed(answer['rehearsal'])}")
    where = " --environment staging" if answer.get("waits_for") else ""
    render.line(f"next: someone else approves it: falaj approve {answer['version']}{where} --reason '…' --as NAME")


def run_flow(client: Client, path: str, body: dict[str, Any], common: Common) -> Any:
    """Start a flow and wait for it, showing how far it is."""
    flow = client.post(path, body)["flow"]
    with render.progress(quiet=common.json) as show:
        return client.follow(flow, show)


def parameters(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs; a value that is JSON is taken as such, anything else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise Invalid(f"{pair!r} is not NAME=VALUE", hint="write --param num_leaves=31", code="bad_parameter")
        try:
            found[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            found[name] = text
    return found


def project_files(folder: Path) -> dict[str, str]:
    """A project's code as it is sent: falaj.toml and its Python files."""
    if not (folder / "falaj.toml").is_file():
        raise Invalid(
            f"{folder.name or folder} is no project: it has no falaj.toml",
            hint="go to the project's folder, or make one: `falaj init NAME`",
            code="no_project",
        )
    paths = [folder / "falaj.toml", *sorted(_python_files(folder))]
    try:
        return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in paths}
    except UnicodeDecodeError as e:
        bad = next(p for p in paths if e.object == p.read_bytes())
        raise Invalid(
            f"{bad.relative_to(folder)} is not UTF-8: byte {e.start} cannot be read",
            hint=f"save it as UTF-8, for example: iconv -f latin1 -t utf-8 {bad.name}",
            code="bad_project",
        ) from e


def _python_files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _SKIPPED or path.is_symlink():
            continue
        if path.is_dir():
            found += _python_files(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def _show_changes(changes: list[dict[str, Any]]) -> None:
    if not changes:
        render.line("nothing would change")
    for change in changes:
        sign = {"added": "+", "removed": "-", "changed": "~"}[change["change"]]
        fields = f": {', '.join(change['fields'])}" if change["fields"] else ""
        render.line(f"{sign} {change['kind']} {change['name']}{fields}")
