"""Certificates for what listens or calls beyond loopback, from a small authority of one's own. Needs no home."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.governance.identity.authority import Authority, Issued, create
from falaj.kernel.clock import SystemClock, iso
from falaj.kernel.errors import FalajError

certs_app = App(name="certs", help="Certificates of both planes and of whoever calls them beyond loopback.")
_LONGEST_PAUSE = 3600.0  # seconds: a machine that slept, or new files, are noticed by then
Folder = Annotated[Path, Parameter(help="The authority's own folder; keep its ca.key where nobody else reads.")]


@certs_app.command(name="init")
def certs_init(
    folder: Folder,
    /,
    *,
    trust_domain: Annotated[str, Parameter(help="The name that all identities begin with.")] = "falaj.local",
    common: Common = DEFAULT,
) -> None:
    """Make an authority in a new folder. It lasts a year; a company's own or SPIRE will do as well."""
    fingerprint = create(folder, trust_domain, SystemClock())
    if common.json:
        render.show_json({"trust_domain": trust_domain, "fingerprint": fingerprint})
    else:
        render.line(f"authority for spiffe://{trust_domain}, sha256 {fingerprint}")


@certs_app.command(name="issue")
def certs_issue(
    folder: Folder,
    identity: Annotated[
        str,
        Parameter(
            help="control-plane, data-plane/ENVIRONMENT, operator/PRINCIPAL, or caller/ENVIRONMENT/NAME for a program."
        ),
    ],
    /,
    *,
    to: Annotated[Path, Parameter(help="The folder that FALAJ_TLS names; what runs takes new files up by itself.")],
    name: Annotated[
        list[str] | None, Parameter(negative="", help="A DNS name or address, for browsers; may be repeated.")
    ] = None,
    hours: Annotated[int, Parameter(help="How long it lasts.")] = 24,
    common: Common = DEFAULT,
) -> None:
    """Issue a fresh key and certificate, over those that the folder has."""
    issued = Authority(folder, SystemClock()).issue(identity, tuple(name or ()), hours, to)
    if common.json:
        render.show_json(msgspec.to_builtins(issued))
    else:
        render.line(f"{issued.id} until {issued.until}, in {to}")


@certs_app.command(name="keep")
def certs_keep(
    folder: Folder,
    folders: Annotated[list[Path], Parameter(help="The folders that `--to` named, one or several.")],
    /,
    *,
    once: Annotated[bool, Parameter(negative="", help="Renew what is due and end, for a timer.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Renew what these folders have before it ends: when a third of its time is left, for as long again. Runs until Ctrl-C."""
    clock, first = SystemClock(), True
    while True:
        renewed, due = _renewed(folder, folders, clock, first=first or once)
        for issued in renewed:
            _tell(issued, common)
        if due is None:
            _warn("all end with the authority itself: make another")
        elif first and not common.json:
            render.line(f"the next is renewed on {iso(due)}")
        if once or due is None:
            break
        first = False
        time.sleep(min(max((due - clock.now()).total_seconds(), 0.1), _LONGEST_PAUSE))


def _renewed(
    folder: Path, folders: list[Path], clock: SystemClock, *, first: bool
) -> tuple[list[Issued], datetime | None]:
    """One look. What fails later, such as a disk that is full, is told and tried again: nothing else renews these files."""
    try:
        return Authority(folder, clock).renew(folders)
    except (FalajError, OSError) as e:
        if first:
            raise
        _warn(f"not renewed, tried again in a minute: {e}")
        return [], clock.now() + timedelta(minutes=1)


def _warn(text: str) -> None:
    print(render.plain(text), file=sys.stderr, flush=True)


def _tell(issued: Issued, common: Common) -> None:
    if common.json:
        render.show_json(msgspec.to_builtins(issued))
    else:
        render.line(f"{issued.id} until {issued.until}")


@certs_app.command(name="list")
def certs_list(folder: Folder, /, *, common: Common = DEFAULT) -> None:
    """List what the authority has issued, the newest last."""
    found = Authority(folder, SystemClock()).issued()
    if common.json:
        render.show_json(msgspec.to_builtins(found))
        return
    rows = [(i.id, " ".join(i.names) or "none", i.at, i.until, i.serial[:12]) for i in found]
    render.table(("identity", "names", "issued", "until", "serial"), rows, empty="nothing was issued")
