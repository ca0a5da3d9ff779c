"""What `traversal.py` unpacks and reads: things from elsewhere whose names and links lead out. Part of the process that is watched."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import onnx
from fastapi import FastAPI
from onnx import TensorProto
from starlette.responses import Response

from falaj.entrypoints.cli.commands import evidence
from falaj.governance.audit import export
from falaj.governance.audit.tiles import parse_path
from falaj.kernel.clock import SystemClock
from falaj.kernel.digests import FileEntry, manifest, sha256
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.training.foreign import MLFLOW, check_source
from falaj.lifecycle.training.steps.foreign.originals import Place, open_original
from falaj.lifecycle.training.steps.graphs import read_graph
from falaj.storage.archive import manifest as backups
from falaj.storage.archive.reading import check, lay_out
from falaj.storage.blobs.local import blob_path
from falaj.storage.parcels import Parcels
from proofs._traversal import CANARY, plain, tars
from tests.lifecycle.house import House
from tests.lifecycle.serving.plane.fleet import flight_graph

Try = tuple[str, str, Callable[[], object]]
"""Kind, what is tried, and how; `FalajError` is a refusal."""


def prepare(root: Path) -> dict[str, Any]:
    """What must lie there before the watching begins: folders with links in them."""
    work, target = root / "work", root / "outside" / f"{CANARY}.txt"
    found: dict[str, Any] = {"work": work, "target": str(target), "tars": list(tars(str(target)))}
    linked = work / "linked"
    (linked / "up").mkdir(parents=True)
    for number, (name, to) in enumerate((("model.onnx", target), ("model.pkl", target), ("inner", target.parent))):
        folder = work / f"link-{number}"
        folder.mkdir()
        (folder / name).symlink_to(to)
        found.setdefault("links", []).append((folder, name))
    return found


def break_open(app: FastAPI, folder: Path) -> None:
    """What must be found: a route that joins its client's name with a folder."""

    def joined(name: str) -> Response:
        try:
            return Response((folder / name).read_bytes())
        except (OSError, ValueError):
            return Response(status_code=404)

    app.add_api_route("/api/v1/joined/{name:path}", joined)


def unpack(prepared: dict[str, Any], home: House, every: int, *, broken: bool) -> dict[str, Any]:
    """Try everything; {tried, kinds, taken, wrong}. Whatever is no refusal but an error of Python is wrong."""
    tried, taken, wrong = Counter[str](), Counter[str](), []
    tries = list(_tries(prepared, home))
    if broken:
        tries += [("trusting", what, lambda p=p: _trusting(p, prepared)) for what, p in prepared["tars"]]
    for kind, what, attempt in tries[::every] if every > 1 else tries:
        tried[kind] += 1
        try:
            attempt()
            taken[kind] += 1
        except FalajError:
            continue
        except Exception as e:  # whatever else comes up is what the proof looks for
            wrong.append(f"{kind} {what[-120:]}: {type(e).__name__}: {e}"[:300])
    return {"tried": tried.total(), "kinds": len(tried), "taken": dict(taken), "wrong": wrong}


def _tries(prepared: dict[str, Any], home: House) -> Iterator[Try]:
    work, target, numbers = prepared["work"], prepared["target"], count()
    for what, packed in prepared["tars"]:
        yield "log", what, lambda p=packed: _packed(p, work, export.unpack)
        yield "dossier", what, lambda p=packed: _packed(p, work, evidence._unpack)
    parcels = Parcels(home.plane.layout.home / "tables", SystemClock())
    for text in plain(target):
        yield "backup's path", text, lambda t=text: _backup(work, next(numbers), t, sha256(b""))
        yield "backup's digest", text, lambda t=text: _backup(work, next(numbers), "falaj.db", t)
        yield "backup's digest", text, lambda t=text: _backup(work, next(numbers), "falaj.db", "sha256:" + t)
        yield "MLmodel", text, lambda t=text: _mlflow(work, next(numbers), t)
        yield "source", text, lambda t=text: check_source(MLFLOW, (FileEntry(t, 1, sha256(b"")),))
        yield "ONNX", text, lambda t=text: read_graph(_onnx(t))
        yield "parcel", text, lambda t=text: parcels.path("owner", t)
        yield "parcel", text, lambda t=text: parcels.keep("owner", t, work / "none")
        yield "blob", text, lambda t=text: blob_path(home.plane.layout.blobs, t)
        yield "tile", text, lambda t=text: _tile(t)
        yield "project", text, lambda t=text: home.plane.definitions.unpack({"falaj.toml": "", t: ""})
    for folder, name in prepared["links"]:
        yield "linked folder", name, lambda f=folder: manifest(f)
        yield "linked MLmodel", name, lambda f=folder, n=name: _said(f, n)
        yield "linked MLmodel", name, lambda f=folder, n=name: _said(f, f"{n}/{CANARY}.txt")


def _packed(packed: bytes, work: Path, unpack: Callable[[Path, Path], object]) -> None:
    file, folder = work / "packed", work / "deep" / "unpacked"
    file.write_bytes(packed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    unpack(file, folder)


def _trusting(packed: bytes, prepared: dict[str, Any]) -> None:
    (prepared["work"] / "packed").write_bytes(packed)
    with tarfile.open(prepared["work"] / "packed") as tar:
        try:
            tar.extractall(prepared["work"] / "trusting", filter="fully_trusted")  # noqa: S202  # what must be found
        except OSError:
            return


def _backup(work: Path, number: int, path: str, digest: str) -> None:
    standing = backups.Standing("", "", 0, "")
    entry = FileEntry(path, 16, digest)
    told = backups.Manifest(1, f"bak_{number:026}", "", "", "", "", standing, {}, (entry,))
    read = backups.decoded(msgspec.json.encode(told), "m")
    folder = work / "backup" / f"{number}"
    folder.mkdir(parents=True)
    check(folder, read, lambda *_: None)
    lay_out(folder, read, folder / "out", lambda *_: None)


def _mlflow(work: Path, number: int, text: str) -> None:
    folder = work / "mlflow" / f"{number}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"")
    _said(folder, text)


def _said(folder: Path, text: str) -> None:
    for flavour, member in (("onnx", "data"), ("lightgbm", "data"), ("sklearn", "pickled_model")):
        (folder / "MLmodel").write_bytes(msgspec.json.encode({"flavors": {flavour: {member: text}}}))  # JSON is YAML
        try:
            open_original(Place(folder, False, ""), MLFLOW)
        except FalajError:
            continue
        raise AssertionError(f"{flavour} took {text!r}")
    raise _refused(text)


def _onnx(location: str) -> bytes:
    model = onnx.ModelProto.FromString(flight_graph())
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=location)
    return bytes(model.SerializeToString())


def _tile(text: str) -> None:
    assert parse_path(text) is None, text
    raise _refused(text)


def _refused(text: str) -> Invalid:
    return Invalid(f"{text[:80]!r} was refused", hint="", code="refused")
