"""Hand a version's evidence out: a folder that others check without Falaj."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tarfile
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.look import evidence_app, find_numbered
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.kernel.errors import Conflict, Integrity, Unavailable
from falaj.kernel.files import flush
from falaj.lifecycle.loop.dossier.model import MANIFEST, SIGNATURE

__all__ = ["evidence_app"]


@evidence_app.command(name="export")
def evidence_export(
    version: Annotated[str, Parameter(help="MODEL@N.")],
    folder: Annotated[Path, Parameter(help="A new folder.")],
    /,
    *,
    region: Annotated[
        str | None, Parameter(help="Where the folder goes; left out, it stays where the home is.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Write everything that speaks for a version into a folder: model, signatures, attestations, keys, ML-BOM, model card.

    Everything is verified first; a version of which something does not hold is refused. The reading is audited.
    """
    if folder.exists():
        raise Conflict(f"{folder} is there already", hint="name a new folder", code="file_exists")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        making = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        making.mkdir()
    except OSError as e:
        raise _not_written(folder, e) from e
    try:
        with connect(common.settings()) as client:
            found = find_numbered(client, version)
            packed = making / "dossier.tar"
            path = f"/api/v1/models/{found['model']}/versions/{found['number']}/dossier"
            client.download(path if region is None else f"{path}?{urlencode({'region': region})}", packed)
        files = _unpack(packed, making / "dossier")
        flush(making / "dossier")
        (making / "dossier").rename(folder)
    except OSError as e:
        raise _not_written(folder, e) from e
    finally:
        shutil.rmtree(making, ignore_errors=True)
    answer = {"version": found["alias"], "digest": found["digest"], "folder": str(folder), "files": files}
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{found['alias']} with its evidence is in {folder}: {files} files")
    render.line(f"digest  {found['digest']}")
    render.line(f"check   {folder / 'MODEL_CARD.md'} ends with the commands; they need nothing of Falaj")


def _unpack(packed: Path, folder: Path) -> int:
    """Unpack and compare every file with the manifest; returns how many files there are. Raises `Integrity`."""
    try:
        with tarfile.open(packed) as archive:
            odd = next((m.name for m in archive if not _belongs(m)), None)
            if odd is not None:
                raise _broken_off(f"it holds {odd[:80]!r}, which is no file of it")
            archive.extractall(folder, filter="data")
        listed = {}
        for line in (folder / MANIFEST).read_text("utf-8").splitlines():
            digest, _, path = line.partition("  ")
            listed[path] = digest
    except (tarfile.TarError, FileNotFoundError, UnicodeDecodeError) as e:
        raise _broken_off(str(e)) from e
    present = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    if present.keys() != listed.keys() | {MANIFEST, SIGNATURE}:
        raise _broken_off("files are missing")
    for path, digest in listed.items():
        with present[path].open("rb") as f:
            if hashlib.file_digest(f, "sha256").hexdigest() != digest:
                raise _broken_off(f"{path} holds other bytes")
            os.fsync(f.fileno())
    return len(present)


def _belongs(member: tarfile.TarInfo) -> bool:
    """Whether it is a file below the folder: evidence has neither links nor devices."""
    return member.isreg() and ".." not in member.name.split("/")


def _broken_off(why: str) -> Integrity:
    return Integrity(
        f"what came is not whole: {why}",
        hint="export again; if it comes back, run `falaj doctor`",
        code="dossier_incomplete",
    )


def _not_written(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"cannot write {folder}: {(error.strerror or str(error)).lower()}",
        hint="name a folder that you may write to",
        code="not_writable",
    )
