"""Sign in with the home's identity provider, on another device; and out again."""

from __future__ import annotations

import sys
import time
import webbrowser
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import Client, connect, token_path
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.entrypoints.cli.signed_in import SignedIn, forget, remember, signed_in
from falaj.kernel.errors import Denied, Unauthenticated


def login(
    *,
    open_browser: Annotated[bool, Parameter(name="--open", negative="", help="Open the provider's page here.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Sign in with the identity provider: confirm a code in any browser. Commands act as you until it ends.

    The code and the address are shown on standard error. Ctrl-C leaves nothing behind; the code ends by itself.
    """
    settings = common.settings()
    earlier = signed_in(settings)
    with connect(settings, token="") as client:
        shown = client.post("/api/v1/sign-in/device")
        address = shown["complete"] or shown["address"]
        sys.stderr.write(f"open {address}\nand confirm the code {shown['user_code']}\n")
        sys.stderr.flush()
        if open_browser:
            webbrowser.open(address)
        with render.progress(quiet=common.json) as show:
            show({"type": "progress", "text": "waiting for the confirmation"})
            done = _confirmed(client, shown)
    token = done.pop("token")
    note = SignedIn(done["principal"], done["id"], settings.server, done["expires_at"])
    if earlier is not None and earlier.principal != note.principal:
        forget(settings.home, earlier)
    remember(settings.home, note, token)
    if common.json:
        render.show_json({k: done[k] for k in ("principal", "display", "roles", "id", "expires_at")})
        return
    render.line(f"signed in as {done['display']} ({done['principal']}): {', '.join(done['roles'])}")
    render.line(f"until {done['expires_at']}; end it: falaj logout")


def logout(*, common: Common = DEFAULT) -> None:
    """Sign out: the token of `falaj login` is revoked, on both planes, and forgotten here."""
    settings = common.settings()
    note = signed_in(settings)
    if note is None:
        raise Denied(
            "nobody is signed in here",
            hint="sign in: `falaj login`; other tokens are revoked by their id: `falaj token revoke ID`",
            code="not_signed_in",
        )
    path, ended = token_path(settings.home, note.principal), True
    token = path.read_text("ascii").strip() if path.exists() else ""
    try:
        with connect(settings, token=token) as client:
            client.delete("/api/v1/sign-in")
    except (Denied, Unauthenticated) as e:  # over the wire both are `denied`
        if e.code not in ("unknown_token", "expired_token", "malformed_token", "no_token"):
            raise
        ended = False
    forget(settings.home, note)
    if common.json:
        render.show_json({**msgspec.to_builtins(note), "revoked": ended})
    else:
        render.line(f"{note.principal} is signed out" if ended else f"{note.principal} was signed out already")


def _confirmed(client: Client, shown: dict[str, Any]) -> dict[str, Any]:
    """Ask as often as the provider allows until somebody confirmed; raises what ends it otherwise."""
    while True:
        time.sleep(shown["interval"])
        told: dict[str, Any] = client.post("/api/v1/sign-in/device/token", {"handle": shown["handle"]})
        if told["state"] == "done":
            return told
