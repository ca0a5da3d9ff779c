"""Replace and revoke signing keys."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import connect
from falaj.entrypoints.cli.commands.keeping import keys_app
from falaj.entrypoints.cli.session import DEFAULT, Common

__all__ = ["keys_app"]

_NEVER = "0001"
_KEEP = "next: falaj keys backup FILE: an earlier one holds the old key, which opens backups from before"
_KEEP_KEK = "next: falaj keys backup FILE: an earlier one opens backups from before, and this home no more"


@keys_app.command(name="history")
def keys_history(*, common: Common = DEFAULT) -> None:
    """List the keys: those that sign and those that did, with until when what they signed counts; and the one that encrypts."""
    with connect(common.settings()) as client:
        rows = client.get("/api/v1/keys/signing")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("key", "public id", "counts until", "why"),
        [
            (r["name"], r["fingerprint"], _until(r["until"]), f"{r['why']}: {r['reason']}" if r["why"] else "")
            for r in rows
        ],
    )
    for row in rows:
        if row["at"]:
            render.line(f"{row['name']} lies at {row['at']}")
        if row["asked"]:
            render.line(f"the settings want another key for {row['name']}, at {row['asked']}")
            does = "wraps" if row["name"] == "kek" else "signs"
            render.line(f"next: falaj keys rotate {row['name']} --reason '…': until then the one above {does}")


@keys_app.command(name="rotate")
def keys_rotate(
    name: Annotated[str, Parameter(help="attestation, dev, staging, production, model, log or kek.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")],
    common: Common = DEFAULT,
) -> None:
    """Let a new key take a key's place. What a signing key signed goes on to count; its private half is destroyed.

    `kek` wraps the keys of all stores: they are wrapped anew, and no data is written again.
    """
    with connect(common.settings()) as client:
        done = client.post("/api/v1/keys/rotations", {"name": name, "reason": reason})
    if common.json:
        render.show_json(done)
        return
    if name == "kek":
        render.line(f"{done['new']} wraps the keys of the stores: {done['wrapped']} anew, and a new one for each store")
        if done["at"]:
            render.line(f"it lies at {done['at']}: keep a copy of it there, for no keys backup has one")
        render.line("nothing else was written again, and nothing stopped")
        render.line(_KEEP_KEK)
        return
    render.line(f"{name} signs with {done['new']} from now on")
    render.line(f"what {done['old']} signed before {done['until']} counts on")
    if name == "log":
        render.line(
            f"its vkey is {done['vkey']}; {done['statement']} in the log's files leads to it from the earlier one"
        )
        render.line("next: hand both to whoever checks the log; a witness's operator runs `falaj witness follow`")
    render.line(_KEEP)


@keys_app.command(name="revoke")
def keys_revoke(
    key: Annotated[str, Parameter(help="A key's public id, or the name of one that signs now.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why.")],
    since: Annotated[
        str, Parameter(help="When it may have leaked; what it signed before counts on. Without: nothing of it counts.")
    ] = "",
    common: Common = DEFAULT,
) -> None:
    """Let a signing key's signatures count no more. What rests on them takes no traffic any more, and is listed."""
    with connect(common.settings()) as client, render.progress(quiet=common.json):
        done = client.post("/api/v1/keys/revocations", {"key": key, "since": since, "reason": reason})
    if common.json:
        render.show_json(done)
        return
    render.line(f"{done['name']} {done['old']} is revoked: its signatures count {_until(done['until'])}")
    if done["new"]:
        render.line(f"{done['name']} signs with {done['new']} from now on")
    for found in done["affected"]:
        out = (
            f"took traffic in {' and '.join(found['taken_out'])} until now" if found["taken_out"] else "took no traffic"
        )
        render.line(f"{found['version']}  {', '.join(found['lost'])} no longer counts; it {out}")
        render.line(f"  next: {found['hint']}")
    if not done["affected"]:
        render.line("no version rests on what it signed")
    for late in done["behind"]:
        render.line(
            f"worker {late['worker']} of the data plane of {late['environment']} has not followed: {late['why']}"
        )
        render.line("  next: stop it until it does, for it may answer with what no longer counts: `falaj down`")
    if done["new"]:
        render.line(_KEEP)


def _until(moment: str) -> str:
    if not moment:
        return ""
    return "never" if moment.startswith(_NEVER) else f"before {moment}"
