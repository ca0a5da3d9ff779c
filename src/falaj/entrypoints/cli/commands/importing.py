"""Bring in models that exist already, and waive what nobody can know of them."""

from __future__ import annotations

import importlib
import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect
from falaj.entrypoints.cli.commands.govern import tell_promotion
from falaj.entrypoints.cli.commands.look import find_version
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.digests import FileEntry, manifest
from falaj.kernel.errors import Invalid, NotFound, Unavailable
from falaj.lifecycle.training.foreign import FILE_BYTES, MLFLOW, ONNX, check_source

import_app = App(
    name="import", help="Bring in a model that exists already; what is not known of it is shown as missing."
)
waiver_app = App(name="waiver", help="What an imported version is missing, waived by two people for a time.")
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
_TAGS = {"mlflow.source.git.commit": "git_commit", "mlflow.user": "user", "mlflow.source.name": "source_name"}

Version = Annotated[str, Parameter(help="MODEL@N.")]
Why = Annotated[str, Parameter(help="Why.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Said:
    """What is said of the model, where it does not say so itself."""

    contract: Annotated[
        Path | None, Parameter(help="A TOML file: task, classes, positive, label, purpose, [[inputs]].")
    ] = None
    task: Annotated[str, Parameter(help="binary, multiclass or regression.")] = ""
    classes: Annotated[str, Parameter(help="Its classes in the order of its probabilities, with commas.")] = ""
    positive: Annotated[str, Parameter(help="The class that a binary model's probability is of.")] = ""

    def table(self) -> dict[str, Any]:
        """The contract file with these options on top. Raises `Invalid`, `NotFound`."""
        found: dict[str, Any] = {}
        if self.contract is not None:
            try:
                found = tomllib.loads(self.contract.read_text("utf-8"))
            except FileNotFoundError as e:
                raise NotFound(
                    f"there is no file {self.contract}", hint="name the contract file", code="no_such_file"
                ) from e
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
                raise Invalid(
                    f"{self.contract.name} cannot be read: {e}",
                    hint="mend the file; it is TOML",
                    code="bad_contract_file",
                ) from e
        given = {"task": self.task, "positive": self.positive}
        found.update({k: v for k, v in given.items() if v})
        if self.classes:
            found["classes"] = [c.strip() for c in self.classes.split(",")]
        return found


NOTHING = Said()


@import_app.command(name="onnx")
def import_onnx(
    file: Annotated[Path, Parameter(help="An ONNX model.")],
    /,
    *,
    model: Annotated[str, Parameter(help="The name that it gets; one of the project's models gets its gates.")],
    said: Said = NOTHING,
    common: Common = DEFAULT,
) -> None:
    """Bring in an ONNX model: standard operators only, all its data inside."""
    if not file.is_file():
        raise NotFound(f"there is no file {file}", hint="name the .onnx file", code="no_such_file")
    _bring_in(ONNX, f"file:{file.name}", file, model, said.table(), {}, common)


@import_app.command(name="mlflow")
def import_mlflow(
    uri: Annotated[
        str, Parameter(help="A model folder, file:…, runs:/ID/PATH, or models:/NAME/N and models:/NAME@ALIAS.")
    ],
    /,
    *,
    model: Annotated[str, Parameter(help="The name that it gets; one of the project's models gets its gates.")],
    tracking: Annotated[
        str, Parameter(help="The tracking server or store that runs:/ and models:/ are asked of (MLFLOW_TRACKING_URI).")
    ] = "",
    said: Said = NOTHING,
    common: Common = DEFAULT,
) -> None:
    """Bring in a model that MLflow saved: flavour onnx, lightgbm or sklearn. A pickle is read in a sandbox only."""
    table = said.table()
    with _fetched(uri, tracking) as (folder, claims):
        _bring_in(MLFLOW, uri, folder, model, table, claims, common)


@waiver_app.command(name="propose")
def waiver_propose(
    version: Version,
    /,
    *,
    missing: Annotated[list[str], Parameter(negative=(), help="A gate that is missing; once for each.")],
    reason: Why,
    until: Annotated[str, Parameter(help="The day on which it ends, such as 2027-01-31.")],
    common: Common = DEFAULT,
) -> None:
    """Propose to waive what a version is missing. This is the first signature; neither may be the importer's."""
    body = {"missing": missing, "reason": reason, "until": until}
    with connect(common.settings()) as client:
        answer = client.post(f"{_path(client, version)}/waivers", body)
    if common.json:
        render.show_json(answer)
        return
    render.line(f"proposed: {', '.join(answer['waived'])} of {version} waived until {answer['until'][:10]}")
    render.line(f"next: somebody else signs: falaj waiver sign {version} --reason '…' --as NAME")


@waiver_app.command(name="sign")
def waiver_sign(version: Version, /, *, reason: Why, common: Common = DEFAULT) -> None:
    """Sign the waiver that is proposed. The signature that completes it carries the version on to staging."""
    with connect(common.settings()) as client:
        answer = client.post(f"{_path(client, version)}/waivers/signatures", {"reason": reason})
        if answer["flow"]:
            with render.progress(quiet=common.json) as show:
                answer["promotion"] = client.follow(answer["flow"], show)
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{answer['state']}: {answer['words']}")
    if "promotion" in answer:
        tell_promotion(answer["promotion"])


@waiver_app.command(name="revoke")
def waiver_revoke(version: Version, /, *, reason: Why, common: Common = DEFAULT) -> None:
    """Take a waiver back: the version takes no traffic any more."""
    with connect(common.settings()) as client:
        answer = client.post(f"{_path(client, version)}/waivers/revocations", {"reason": reason})
    if common.json:
        render.show_json(answer)
        return
    out = answer["taken_out"]
    render.line(f"revoked; {version} takes no traffic any more in {' and '.join(out)}" if out else "revoked")


@waiver_app.command(name="list")
def waiver_list(version: Version, /, *, common: Common = DEFAULT) -> None:
    """List a version's waivers: what is waived, until when, who signed, and whether it is in force."""
    with connect(common.settings()) as client:
        rows = client.get(f"{_path(client, version)}/waivers")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("waiver", "state", "until", "signed by", "statement", "waived"),
        [
            (
                r["id"],
                r["state"],
                r["until"],
                ", ".join(s["principal"] for s in r["signatures"]),
                render.digest(r["statement"]) if r["statement"] else "–",
                ", ".join(r["waived"]),
            )
            for r in rows
        ],
        empty="nothing is waived",
    )


def _path(client: Client, version: str) -> str:
    found = find_version(client, version)
    return f"/api/v1/models/{found['model']}/versions/{found['number']}"


def _bring_in(
    kind: str, uri: str, source: Path, model: str, contract: dict[str, Any], claims: dict[str, str], common: Common
) -> None:
    address, files = named(model), _files(kind, source)
    with connect(common.settings()) as client:
        sent = [
            {
                "path": name,
                "size": path.stat().st_size,
                "sha256": client.upload("/api/v1/imports/files", path.read_bytes())["digest"],
            }
            for name, path in files.items()
        ]
        body = {"kind": kind, "uri": uri[:1000], "files": sent, "contract": contract, "claims": claims}
        flow = client.post(f"/api/v1/models/{address}/imports", body)["flow"]
        with render.progress(quiet=common.json) as show:
            answer = client.follow(flow, show)
    if common.json:
        render.show_json(answer)
        return
    already = " already" if answer["already"] else ""
    render.line(f"{answer['version']} is {answer['state']}{already} ({render.digest(answer['digest'])})")
    render.line(
        f"{answer['format']} of {answer['library']}, {answer['conversion']}; source {render.digest(answer['source'])}"
    )
    for gate, why in answer["missing"].items():
        render.line(f"missing: {gate} ({why})")
    if answer["missing"] and not answer["already"]:
        options = " ".join(f"--missing '{gate}'" for gate in answer["missing"])
        render.line(f"next: falaj waiver propose {answer['version']} {options} --reason '…' --until DATE --as NAME")


def _files(kind: str, source: Path) -> dict[str, Path]:
    """The files of a source by their path in it. Raises `Invalid` for links, special files, and too many or too large ones."""
    one = source.is_file()
    entries = (FileEntry(source.name, source.stat().st_size, ""),) if one else manifest(source)
    check_source(kind, entries)
    large = [e.path for e in entries if e.size > FILE_BYTES]
    if large:
        raise Invalid(
            f"{large[0]} is larger than {FILE_BYTES >> 20} MB",
            hint="models of this size are not imported: export a smaller one",
            code="source_too_large",
        )
    return {source.name: source} if one else {e.path: source / e.path for e in entries}


@contextmanager
def _fetched(uri: str, tracking: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """The model's folder on this machine, and what a tracking server says of it. Nothing is loaded, only copied."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path) if parts.scheme else uri)
        if not folder.is_dir():
            raise NotFound(
                f"there is no folder {folder}", hint="name the folder that holds MLmodel", code="no_such_file"
            )
        yield folder, {}
        return
    if parts.scheme not in ("runs", "models"):
        raise Invalid(
            f"{parts.scheme}: is not understood",
            hint="name a folder, runs:/ID/PATH or models:/NAME/N",
            code="bad_mlflow_uri",
        )
    with tempfile.TemporaryDirectory(prefix="falaj-import-") as place:
        yield _download(uri, tracking, Path(place))


def _download(uri: str, tracking: str, place: Path) -> tuple[Path, dict[str, str]]:
    os.environ.update(_QUIET)  # before the library is imported: it reports home otherwise
    try:
        mlflow = importlib.import_module("mlflow")
        artifacts = importlib.import_module("mlflow.artifacts")
    except ImportError as e:
        raise Invalid(
            f"{uri.partition(':')[0]}:/ needs MLflow's client, which is not installed",
            hint="`pip install 'falaj[mlflow]'`; or copy the model's folder here and name that",
            code="library_missing",
        ) from e
    try:
        if tracking:
            mlflow.set_tracking_uri(tracking)
        claims = _claims(mlflow, uri)
        return Path(artifacts.download_artifacts(artifact_uri=uri, dst_path=str(place))), claims
    except Exception as e:  # the client raises its own errors and those of the libraries below it
        raise Unavailable(
            f"MLflow does not hand over {uri}: {str(e).strip().splitlines()[0][:300] if str(e).strip() else type(e).__name__}",
            hint="check the name, and the tracking server: --tracking or MLFLOW_TRACKING_URI",
            code="mlflow_unreachable",
        ) from e


def _claims(mlflow: Any, uri: str) -> dict[str, str]:
    """What the tracking store says of the model: told, not believed."""
    client = mlflow.MlflowClient()
    scheme, _, rest = uri.partition(":/")
    first, _, second = rest.strip("/").partition("/")
    found: dict[str, str] = {}
    run_id = first if scheme == "runs" else ""
    if scheme == "models" and ("@" in first or second):
        name, at, alias = first.partition("@")
        version = client.get_model_version_by_alias(name, alias) if at else client.get_model_version(name, second)
        found = {"registered_model": str(version.name), "registered_version": str(version.version)}
        run_id = str(version.run_id or "")
    if run_id:
        run = client.get_run(run_id)
        tags = {name: run.data.tags[tag] for tag, name in _TAGS.items() if tag in run.data.tags}
        inputs = getattr(run.inputs, "dataset_inputs", None) or ()
        datasets = ", ".join(f"{i.dataset.name} {i.dataset.digest}" for i in inputs)
        found |= {"run_id": run_id, **tags, **({"datasets": datasets} if datasets else {})}
    return {k: str(v)[:300] for k, v in found.items()}
