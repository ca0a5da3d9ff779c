"""A project and its home: make, start, look, stop; tokens and the console's link."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import webbrowser
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from falaj.entrypoints.cli import render
from falaj.entrypoints.cli.client import (
    OWNER,
    Client,
    await_address,
    connect,
    control_plane_command,
    open_log,
    running_control_plane,
    token_path,
)
from falaj.entrypoints.cli.naming import named
from falaj.entrypoints.cli.plane import plane_address, start_plane, stop_plane
from falaj.entrypoints.cli.session import DEFAULT, Common
from falaj.entrypoints.cli.signed_in import write_secret
from falaj.entrypoints.cli.starter import write_project
from falaj.kernel import locks
from falaj.kernel.environments import PRODUCTION, STAGING
from falaj.kernel.errors import Conflict, Unavailable
from falaj.kernel.settings import LOOPBACK, Settings
from falaj.lifecycle.serving.process import plane_folder
from falaj.lifecycle.serving.service import live_workers

_START_SECONDS = 60.0

token_app = App(name="token", help="Who may act, and with which token.")


def init(
    name: Annotated[str, Parameter(help="The project's name; a folder of that name is made.")],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Make a new project that runs as it is: a sample of real flights, features, a model, gates."""
    folder = write_project(Path.cwd(), name)
    if common.json:
        render.show_json({"project": name, "folder": str(folder)})
        return
    render.line(f"made {name}/")
    render.line(
        f"next: cd {name} && falaj apply && falaj ingest flights && falaj features materialize && falaj train late-flight"
    )


def up(*, common: Common = DEFAULT) -> None:
    """Start the control plane and the data plane of this home; again does nothing.

    The first start shows a one-time link into the console.
    """
    settings = common.settings(anywhere=True)
    started = start(settings)
    if common.json:
        render.show_json(started)
        return
    render.line(f"control plane  {started['control_plane']}")
    render.line(f"data plane     {started['data_plane']}")
    for plane, url in started.get("beyond", {}).items():
        render.line(f"for others     {url} ({plane.replace('_', ' ')})")
    if "console" in started:
        render.line(f"console        {started['console']}")
        render.line("               opens once, within ten minutes, as owner; afterwards: falaj console")
    else:
        render.line("console        falaj console   (prints a one-time link)")


def start(settings: Settings) -> dict[str, Any]:
    """Start what does not run; returns the addresses, and a link into the console at the first start. Of two who start the same home at once, the second waits."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (settings.home / "run").mkdir(exist_ok=True, mode=0o700)
    deadline = time.monotonic() + _START_SECONDS
    while (turn := locks.take(settings.home / "run" / "up.lock")) is None:
        if time.monotonic() > deadline:
            raise Unavailable(
                "another `falaj up` of this home does not come to its end",
                hint="see `falaj status` and control-plane.log in the home's run folder, then try again",
                code="still_starting",
            )
    try:
        return _start(settings)
    finally:
        os.close(turn)


def _start(settings: Settings) -> dict[str, Any]:
    running = running_control_plane(settings.home)
    first = not (settings.home / "run" / "control-plane.json").exists()
    if running is None:
        with open_log(settings.home, "control-plane") as log:
            process = subprocess.Popen(
                control_plane_command(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        try:
            url = await_address(process)
        except KeyboardInterrupt:  # nothing half-started stays
            process.terminate()
            process.wait(30)
            raise
    else:
        url = running.url
    started = {"control_plane": url, "data_plane": plane_address(settings) or start_plane(settings)}
    if first and token_path(settings.home, OWNER).exists():  # a home that was restored has no token yet
        with connect(msgspec.structs.replace(settings, server="", token="", principal=OWNER)) as client:
            started["console"] = console_link(client)
    return started if settings.host in LOOPBACK else {**started, "beyond": _beyond(settings)}


def _beyond(settings: Settings) -> dict[str, str]:
    """Where others than this machine reach what runs."""
    running, workers = running_control_plane(settings.home), live_workers(plane_folder(settings.home, PRODUCTION))
    return {
        "control_plane": running.serves if running else "",
        "data_plane": next((w.address for w in workers if w.address.startswith("https:")), ""),
    }


def status(*, common: Common = DEFAULT) -> None:
    """Show what runs, what serves, and whether it is well."""
    settings = common.settings()
    running = running_control_plane(settings.home)
    with connect(settings) as client:
        answer = client.get("/api/v1/status")
    answer["control_plane"] = running.url if running else None
    if common.json:
        render.show_json(answer)
        return
    plane = answer["plane"]
    if "home" in answer:
        _platform(answer, plane)
    else:  # a token that is bound to a project is told of its own things only
        render.line(f"project        {answer['project'] or 'not applied now'}")
        render.line(f"clock          {answer['now']}")
        render.line(f"data plane     {plane['state']}")
    render.table(
        ("serving", "state", "digest"),
        [(s["alias"], s["state"], render.digest(s["digest"])) for s in answer["serving"]],
        empty="serving        nothing yet",
    )


def _platform(answer: dict[str, Any], plane: dict[str, Any]) -> None:
    for glass in answer["glass"]:
        render.line(f"BREAK-GLASS    {glass['words']} ({glass['id']})")
    render.line(f"home           {answer['home']}")
    render.line(f"project        {answer['project'] or 'none applied'}")
    render.line(f"clock          {answer['now']}")
    render.line(f"control plane  {answer['control_plane'] or 'not running'}")
    address = next((w["address"] for w in plane["workers"]), "")
    render.line(f"data plane     {address or 'not running'}: {plane['state']}, {plane['reason']}")
    staging = answer["environments"][STAGING]
    if staging["address"]:
        render.line(f"staging        {staging['address']}: generation {staging['generation']}")
    render.line(f"audit log      {_log(answer['audit'])}")


def _log(audit: dict[str, Any]) -> str:
    if audit["failure"]:
        return f"{audit['size']:,} entries, {audit['signed']:,} signed; {audit['failure']}"
    refusing = ", ".join(w["name"] for w in audit["witnesses"] if w["state"] == "refused")
    if refusing:
        return f"{audit['size']:,} entries, {audit['signed']:,} signed; REFUSED by its witness {refusing}"
    witnessed = {True: ", witnessed", False: f", no quorum of witnesses ({audit['rule']})"}.get(audit["quorum"], "")
    return f"{audit['size']:,} entries, {audit['signed']:,} under the last signed checkpoint{witnessed}"


def down(*, common: Common = DEFAULT) -> None:
    """Stop both planes; what is in flight is finished first."""
    settings = common.settings(anywhere=True)
    stopped = stop(settings)
    if common.json:
        render.show_json(stopped)
        return
    for name, what in stopped.items():
        render.line(f"{name.replace('_', ' ')}: {what}")


def stop(settings: Settings) -> dict[str, str]:
    """Stop what runs."""
    result = {
        "data_plane": "stopped" if stop_plane(settings) else "was not running",
        "control_plane": "was not running",
    }
    running = running_control_plane(settings.home)
    if running is not None:
        os.kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while running_control_plane(settings.home) is not None:  # until it has given the home's lock back
            if time.monotonic() > deadline:
                raise Unavailable(
                    "the control plane does not stop", hint=f"end process {running.pid} yourself", code="does_not_stop"
                )
            time.sleep(0.05)
        result["control_plane"] = "stopped"
    if stop_plane(settings, STAGING):
        result["staging_data_plane"] = "stopped"
    return result


def console(
    *,
    open_browser: Annotated[bool, Parameter(name="--open", negative="", help="Open it.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Print a one-time link into the console; it works for ten minutes."""
    settings = common.settings()
    if not settings.server and running_control_plane(settings.home) is None:
        raise Conflict("the control plane does not run", hint="start it: `falaj up`", code="control_plane_not_running")
    with connect(settings) as client:
        link = console_link(client)
    if common.json:
        render.show_json({"url": link})
    else:
        render.line(link)
    if open_browser:
        webbrowser.open(link)


def console_link(client: Client) -> str:
    """A one-time link into the console."""
    return f"{client.url}/login?code={client.post('/api/v1/sessions')['code']}"


@Parameter(name="*")
@dataclass(frozen=True)
class Terms:
    """What the token is good for."""

    days: Annotated[int, Parameter(help="How long the token lasts.")] = 90
    scope: Annotated[
        list[str] | None, Parameter(negative="", help="An action or group it is good for; may be repeated.")
    ] = None
    project: Annotated[str, Parameter(help="The project that it is bound to; it reaches nothing else.")] = ""
    reason: Annotated[str, Parameter(help="Why; it stands in the change record.")] = ""


_TERMS = Terms()


@token_app.command(name="create")
def token_create(
    name: Annotated[str, Parameter(help="The principal.")],
    /,
    *,
    role: Annotated[list[str], Parameter(negative="", help="A role; may be repeated.")],
    service: Annotated[bool, Parameter(negative="", help="It is a service, not a person.")] = False,
    terms: Terms = _TERMS,
    keep: Annotated[bool, Parameter(negative="", help="Keep the token in this home, for --as NAME.")] = False,
    common: Common = DEFAULT,
) -> None:
    """Create a principal, or give it other roles, with a token that is shown this once."""
    settings = common.settings()
    body = {"name": name, "kind": "service" if service else "person", "roles": role, **asdict(terms)}
    with connect(settings) as client:
        answer = client.post("/api/v1/tokens", body)
    if keep:
        write_token(token_path(settings.home, name), answer.pop("token"))
    if common.json:
        render.show_json(answer)
        return
    only = f", only {', '.join(answer['scope'])}" if answer["scope"] else ""
    bound = f", within {answer['project']}" if answer["project"] else ""
    render.line(f"{name}: {', '.join(answer['roles'])}{only}{bound}, until {answer['expires_at']}")
    render.line("kept in this home" if keep else f"token (shown this once): {answer['token']}")


@token_app.command(name="list")
def token_list(*, common: Common = DEFAULT) -> None:
    """List live tokens; their secrets are nowhere."""
    with connect(common.settings()) as client:
        rows: list[dict[str, Any]] = client.get("/api/v1/tokens")
    if common.json:
        render.show_json(rows)
        return
    render.table(
        ("token", "principal", "roles", "expires", "scope", "project"),
        [
            (
                r["id"],
                r["principal"],
                " ".join(r["roles"]),
                r["expires_at"],
                " ".join(r["scope"] or ("all",)),
                r["project"] or "–",
            )
            for r in rows
        ],
    )


@token_app.command(name="revoke")
def token_revoke(
    token: Annotated[str, Parameter(help="A token's id.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="Why; it stands in the change record.")] = "",
    common: Common = DEFAULT,
) -> None:
    """Revoke a token; it is refused from now on, on both planes."""
    with connect(common.settings()) as client:
        answer = client.delete(f"/api/v1/tokens/{named(token)}", reason=reason)
    if common.json:
        render.show_json(answer)
    else:
        render.line(f"{token} is revoked")


def write_token(path: Path, token: str) -> None:
    """Keep a token where only the home's owner can read it, whatever was there before."""
    write_secret(path, token.encode() + b"\n")
