"""Keep a home: backups, restoring, the keys and their recovery code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from falaj.bootstrap.keeping.restoring import Restoring, check_backup
from falaj.bootstrap.keeping.restoring import restore as bring_back
from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.audit.note import verifier_of
from falaj.governance.audit.sharded import newest_folder
from falaj.governance.audit.verify import VKEY
from falaj.governance.signing import recovery
from falaj.kernel.clock import SystemClock, iso
from falaj.kernel.digests import sha256
from falaj.kernel.errors import Conflict, Integrity, Invalid, NotFound, Unavailable, from_dict
from falaj.kernel.settings import Settings

keys_app = App(
    name="keys",
    help="The home's keys: which there are, how they survive a lost disk, and how they are replaced and revoked.",
)

_WAIT = 1.0  # seconds that one question for a backup's state may take
_LOG = "audit"
RecoveryFile = Annotated[
    Path | None,
    Parameter(help="A file with the recovery code; else it is asked for on the terminal, or read from standard input."),
]


def backup(
    folder: Annotated[Path, Parameter(help="A folder for backups; what earlier ones there share is not copied twice.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Back the home up while it runs: one moment of everything, signed. Private keys and tokens are not in it."""
    settings = _local(common, "a backup")
    with connect(settings) as client, render.progress(quiet=common.json) as show:
        begun = client.post("/api/v1/backups", {"to": str(folder.resolve())})["id"]
        while (state := client.get(f"/api/v1/backups/{begun}", wait=_WAIT))["state"] == "running":
            show({"type": "progress", "text": state["text"], "done": state["done"], "total": state["total"]})
    if state["state"] == "failed":
        raise from_dict(state["error"])
    taken = state["result"]
    if common.json:
        render.show_json(taken)
        return
    render.line(f"{taken['backup']} is in {taken['folder']}: {taken['files']:,} files, {_size(taken['bytes'])}")
    render.line(f"written        {_size(taken['written'])}, the rest was there from earlier backups")
    render.line(f"audit log      {taken['log_size']:,} entries, root {taken['log_root']}")
    render.line("no private key and no token is in it; keep the keys apart: falaj keys backup FILE")


def restore(
    folder: Annotated[Path, Parameter(help="The folder that `falaj backup` wrote.")],
    /,
    *,
    keys: Annotated[Path | None, Parameter(help="The keys backup, or the keys folder of a home.")] = None,
    recovery_file: RecoveryFile = None,
    at: Annotated[str, Parameter(help="Which backup; the newest, if not given.")] = "",
    check: Annotated[bool, Parameter(negative=(), help="Verify every byte and restore nothing.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Make a home of a backup and its keys, in a new folder: --home. Every byte is verified before it is one."""
    if keys is None:
        raise Invalid(
            "a backup holds no private keys: restoring needs them",
            hint="name the keys backup with --keys FILE, or the keys folder of the home that was backed up",
            code="keys_needed",
        )
    if not check and common.home is None and not os.environ.get("FALAJ_HOME"):
        raise Invalid("where shall the home be?", hint="name a new folder: --home FOLDER", code="no_home")
    there = recovery.read_folder(keys) if keys.is_dir() else _unsealed(keys, recovery_file)
    with render.progress(quiet=common.json) as show:
        tell = _teller(show)
        if check:
            _told_check(check_backup(folder, there, at, tell), common)
            return
        done = bring_back(Restoring(folder, there, common.settings(anywhere=True).home, at), tell)
    if common.json:
        render.show_json(done)
        return
    render.line(
        f"{done.home} is the home of {done.made_at}, from {done.backup}: {done.files:,} files, {_size(done.bytes)}"
    )
    render.line(f"audit log      comes back to {done.log_size:,} entries, root {done.log_root}; it holds")
    render.line(f"flows          {done.flows} were under way and go on when it is opened")
    for warning in done.warnings:
        render.line(f"mind           {warning}")
    render.line(f"next: falaj up --home {done.home}")


@keys_app.command(name="show")
def keys_show(*, common: Common = DEFAULT) -> None:
    """List the keys by their public ids."""
    with connect(common.settings()) as client:
        ids: dict[str, str] = client.get("/api/v1/keys")
    if common.json:
        render.show_json(ids)
    else:
        render.table(("key", "public id"), ids.items())


@keys_app.command(name="backup")
def keys_backup(
    file: Annotated[Path, Parameter(help="A new file; it opens with the recovery code only.")],
    /,
    *,
    recovery_file: Annotated[
        Path | None, Parameter(help="A new file for the recovery code, instead of the terminal.")
    ] = None,
    common: Common = DEFAULT,
) -> None:
    """Seal all private keys into a file under a recovery code that is shown this once."""
    settings = _local(common, "a backup of the keys")
    if recovery_file is None and not render.err.is_terminal:
        raise Invalid(
            "there is no terminal to show the recovery code on",
            hint="let it be written to a file that you then move to a safe place: --recovery-file FILE",
            code="no_terminal",
        )
    for path in (file, *([recovery_file] if recovery_file else [])):
        if path.exists():
            raise Conflict(f"{path} is there already", hint="name a new file", code="file_exists")
    there = recovery.read_folder(settings.home / "keys")
    code = recovery.new_code()
    sealed = recovery.seal(there, code, iso(SystemClock().now()))
    with connect(settings) as client:
        client.post("/api/v1/keys/backups", {"archive": sha256(sealed)})
    _write(file, sealed)
    if recovery_file is not None:
        _write(recovery_file, code.encode() + b"\n")
    else:
        render.err.print("the recovery code, shown this once: write it down and keep it where the file is not")
        render.err.print(f"\n    [bold]{code}[/]\n")
    answer = {
        "file": str(file),
        "sha256": sha256(sealed),
        "keys": recovery.public_ids(there),
        "elsewhere": recovery.elsewhere(there),
        "recovery_file": str(recovery_file) if recovery_file else None,
    }
    if common.json:
        render.show_json(answer)
        return
    render.line(f"{len(there)} keys are sealed in {file}")
    for name, place in recovery.elsewhere(there).items():
        render.line(f"{name} lies at {place}: the file says where, and nothing brings back a key that is lost there")
    if recovery_file is not None:
        render.line(f"the recovery code is in {recovery_file}: keep the two apart")


@keys_app.command(name="restore")
def keys_restore(
    file: Annotated[Path, Parameter(help="The file that `falaj keys backup` wrote.")],
    /,
    *,
    recovery_file: RecoveryFile = None,
    common: Common = DEFAULT,
) -> None:
    """Bring back the keys that are missing. Nothing is overwritten."""
    settings = _local(common, "bringing keys back")
    there = _unsealed(file, recovery_file)
    _check_home(settings.home, there)
    restored = recovery.install(there, settings.home / "keys")
    names = [Path(name).stem for name in restored]
    with connect(settings) as client:
        if names:
            client.post("/api/v1/keys/restorations", {"names": names})
    if common.json:
        render.show_json({"restored": names, "keys": recovery.public_ids(there)})
    else:
        render.line(f"brought back: {', '.join(names)}" if names else "no key was missing")


def _local(common: Common, what: str) -> Settings:
    """The settings, of a home on this machine. Raises `Invalid` for another machine's."""
    settings = common.settings()
    if settings.server:
        raise Invalid(
            f"{what} is made where the home is, not over the network",
            hint="run it on the machine of the control plane, without --server",
            code="not_local",
        )
    return settings


def _unsealed(file: Path, recovery_file: Path | None) -> dict[str, bytes]:
    try:
        sealed = file.read_bytes()
    except OSError as e:
        raise NotFound(
            f"cannot read {file}: {(e.strerror or str(e)).lower()}",
            hint="name the file that `falaj keys backup` wrote",
            code="no_keys",
        ) from e
    recovery.parse(sealed)  # before a person is asked to type
    return recovery.unseal(sealed, _code(recovery_file))


def _code(recovery_file: Path | None) -> str:
    """The recovery code; what is typed is not shown."""
    if recovery_file is not None:
        try:
            return recovery_file.read_text("utf-8", "replace")
        except OSError as e:
            raise NotFound(
                f"cannot read {recovery_file}: {(e.strerror or str(e)).lower()}",
                hint="name the file with the recovery code",
                code="no_recovery_code",
            ) from e
    if sys.stdin.isatty():
        return render.err.input("recovery code: ", password=True)
    return sys.stdin.readline()


def _check_home(home: Path, keys: dict[str, bytes]) -> None:
    """Refuse keys that are not this home's: its published log names the key that signs it."""
    key, vkey = recovery.log_key(keys), newest_folder(home / _LOG) / VKEY
    if key is None or not vkey.exists():
        return
    lying = vkey.read_text("utf-8", "replace").strip()
    if verifier_of(lying.partition("+")[0], key).vkey != lying:
        raise Integrity(
            "these keys are of another home: the audit log of this one is signed by another key",
            hint="use the keys backup of this home; nothing was written",
            code="keys_of_another_home",
        )


def _write(path: Path, data: bytes) -> None:
    """A new file that only its owner can read, flushed."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        raise Unavailable(
            f"cannot write {path}: {(e.strerror or str(e)).lower()}",
            hint="name a file in a folder that you may write to",
            code="not_writable",
        ) from e


def _teller(show: Callable[[dict[str, Any]], None]) -> Callable[[str, int, int], None]:
    def tell(text: str, done: int, total: int) -> None:
        show({"type": "progress", "text": text, "done": done, "total": total})

    return tell


def _told_check(found: Any, common: Common) -> None:
    told = {"backup": found.id, "made_at": found.made_at, "files": len(found.files), "bytes": found.size, "ok": True}
    if common.json:
        render.show_json(told)
    else:
        render.line(f"{found.id} of {found.made_at} holds: {len(found.files):,} files, {_size(found.size)}")


def _size(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
