"""One code path: every command speaks HTTP to a control plane.

If the home's control plane runs, it is asked. If not, one is started for this command alone: it
takes the home's lock, answers on a loopback port, and ends when this process ends.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from falaj.entrypoints.cli.interrupt import Interrupted
from falaj.entrypoints.cli.secure import connection
from falaj.entrypoints.cli.signed_in import signed_in
from falaj.kernel import locks
from falaj.kernel.disk import refusal
from falaj.kernel.errors import Invalid, Unauthenticated, Unavailable, from_dict
from falaj.kernel.settings import Settings

OWNER = "owner"  # whoever owns the home's folder: a new home's first principal
_WAIT = 20.0  # seconds that one request for a flow's events may take


class Address(msgspec.Struct, frozen=True):
    """`run/control-plane.json`: where the home's control plane listens, or listened last."""

    url: str
    pid: int
    serves: str = ""  # where it is reached from elsewhere


class Client:
    """Asks a control plane, which may be there for this command's moment only. Raises the `FalajError` that it answers."""

    def __init__(self, url: str, token: str, settings: Settings | None = None, *, moment: bool = False) -> None:
        """`settings` say with which certificate. Raises as `secure.connection`: no token goes anywhere in the clear."""
        self.url = url
        self.moment = moment
        held, bearer = settings or Settings(), {"Authorization": f"Bearer {token}"} if token else {}
        self._http = connection(url, held, "control-plane", headers=bearer, timeout=httpx.Timeout(120.0))

    def get(self, path: str, **params: Any) -> Any:
        """GET; returns the decoded answer. Raises what the server refused with, `Unavailable` when it is not there."""
        return self._ask("GET", path, params=params)

    def post(self, path: str, body: Any = None) -> Any:
        """POST with a JSON body; otherwise as `get`."""
        return self._ask("POST", path, json=body if body is not None else {})

    def upload(self, path: str, data: bytes) -> Any:
        """POST bytes as they are; otherwise as `get`."""
        return self._ask("POST", path, content=data, headers={"Content-Type": "application/octet-stream"})

    def delete(self, path: str, **params: Any) -> Any:
        """DELETE; otherwise as `get`."""
        return self._ask("DELETE", path, params=params)

    def hand_over(self, table: Path) -> dict[str, Any]:
        """Send a file; returns the parcel that it became: its `name` is what a flow is told. Raises as `get`."""
        with table.open("rb") as f:
            parcel: dict[str, Any] = self._ask("POST", "/api/v1/tables", content=iter(lambda: f.read(1 << 20), b""))
        return parcel

    def fetch(self, name: str, to: Path) -> None:
        """Write a parcel's bytes to a file, which may be left in part. Raises as `get`."""
        self.download(f"/api/v1/tables/{name}", to)

    def text(self, path: str) -> bytes:
        """GET an answer that is no JSON; otherwise as `get`."""
        return self._answer("GET", path).content

    def download(self, path: str, to: Path) -> None:
        """GET into a file, piece by piece; otherwise as `get`."""
        try:
            with self._http.stream("GET", path) as answer, to.open("wb") as f:
                if not answer.is_success:
                    raise _error(answer.status_code, answer.read())
                for chunk in answer.iter_bytes():
                    f.write(chunk)
        except httpx.TransportError as e:
            raise Unavailable(
                f"the control plane at {self.url} broke off: {e}",
                hint="see `falaj status`, then do it again",
                code="server_unreachable",
            ) from e

    def follow(self, flow: str, on_event: Callable[[dict[str, Any]], None]) -> Any:
        """Wait for a flow; returns its result, raises its error, and `Interrupted` for Ctrl-C: the flow is not stopped."""
        try:
            return self._follow(flow, on_event)
        except KeyboardInterrupt:
            raise Interrupted(flow, moment=self.moment) from None

    def _follow(self, flow: str, on_event: Callable[[dict[str, Any]], None]) -> Any:
        after = 0
        while True:
            state = self.get(f"/api/v1/flows/{flow}", after=after, wait=_WAIT)
            for event in state["events"]:
                after = max(after, int(event["number"]))
                on_event(event)
            if state["state"] == "done":
                return state["result"]
            if state["state"] == "failed":
                raise from_dict(state["error"] or {})

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self._answer(method, path, **options)
        return msgspec.json.decode(answer.content) if answer.content else None

    def _answer(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as e:
            raise Unavailable(
                f"the control plane at {self.url} does not answer: {e}",
                hint="see `falaj status`, or start it: `falaj up`",
                code="server_unreachable",
            ) from e
        if not answer.is_success:
            raise _error(answer.status_code, answer.content)
        return answer


@contextlib.contextmanager
def connect(settings: Settings, token: str | None = None) -> Iterator[Client]:
    """A client of the running control plane, or of one that lives as long as this context.

    It acts with `token`, an empty one to sign in; with that of the settings where none is given.
    """
    running = None if settings.server else running_control_plane(settings.home)
    url = settings.server or (running.url if running is not None else "")
    with contextlib.ExitStack() as stack:
        moment = not url
        if moment:
            url = stack.enter_context(_private_control_plane(settings))
        bearer = token_of(settings) if token is None else token
        yield stack.enter_context(contextlib.closing(Client(url, bearer, settings, moment=moment)))


def running_control_plane(home: Path) -> Address | None:
    """Where the home's control plane listens, if it lives: then it has the home's lock.

    A process id alone says nothing: it may be a dead process's, or another one's by now.
    """
    try:
        address = msgspec.json.decode((home / "run" / "control-plane.json").read_bytes(), type=Address)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    lock = home / "lock"
    if not locks.held(lock) or locks.holder(lock) != address.pid:
        return None
    return address if _lives(address.pid) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def _private_control_plane(settings: Settings) -> Iterator[str]:
    with open_log(settings.home, "control-plane") as log:
        process = subprocess.Popen(
            control_plane_command(settings, "--private"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for this process, which then lets the other finish what it commits
        )
    try:
        yield await_address(process)
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


def control_plane_command(settings: Settings, *flags: str) -> list[str]:
    """How a control plane of these settings is started."""
    return [
        sys.executable, "-m", "falaj.entrypoints.control_plane",
        "--home", str(settings.home), "--project", str(settings.project), *flags,
    ]  # fmt: skip


def await_address(process: subprocess.Popen[bytes]) -> str:
    """The address that a starting control plane prints as its first line; raises the error that it prints instead."""
    line = process.stdout.readline() if process.stdout else b""
    try:
        said: dict[str, Any] = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = {}
    if "url" in said:
        return str(said["url"])
    process.wait(30)
    raise (
        from_dict(said)
        if said
        else Unavailable(
            "the control plane did not start",
            hint="see control-plane.log in the home's run folder",
            code="control_plane_did_not_start",
        )
    )


def open_log(home: Path, name: str) -> Any:
    """A log file in the home's run folder, opened for appending; the caller's child keeps it."""
    folder = home / "run"
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        return (folder / f"{name}.log").open("ab")
    except OSError as e:
        raise refusal(e, home) or Invalid(
            f"{home} cannot be a home: {(e.strerror or str(e)).lower()}",
            hint="name another folder: --home FOLDER (FALAJ_HOME)",
            code="bad_home_path",
        ) from e


def token_path(home: Path, principal: str) -> Path:
    """Where the home keeps a principal's token for its own command line."""
    return home / "tokens" / principal


def token_of(settings: Settings) -> str:
    """The token to act with: given, or kept in the home for the principal. Raises `Unauthenticated`."""
    if settings.token:
        if not (settings.token.isascii() and settings.token.isprintable()):
            raise Unauthenticated(
                "FALAJ_TOKEN is no token: it has characters that none has",
                hint="copy it again as `falaj token create` showed it",
                code="malformed_token",
            )
        return settings.token
    note = None if settings.principal else signed_in(settings)
    principal = settings.principal or (note.principal if note else OWNER)
    if "/" in principal or not principal.strip(". "):
        raise Invalid(
            f"{principal[:80]!r} cannot name a principal",
            hint="name one whose token lies in this home: --as NAME (FALAJ_PRINCIPAL)",
            code="bad_principal_name",
        )
    path = token_path(settings.home, principal)
    try:
        return path.read_text("ascii").strip()
    except OSError as e:
        kept = ", ".join(sorted(p.name for p in path.parent.glob("[!.]*") if p.is_file())) or "none"
        raise Unauthenticated(
            f"there is no token for {principal[:80]} in this home",
            hint=f"there is {kept}; set FALAJ_TOKEN, or let an administrator run `falaj token create NAME --role ROLE --keep`",
            code="no_token",
        ) from e


def _error(status: int, content: bytes) -> Exception:
    try:
        body = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {"error": f"the server answered {status}"}
    return from_dict(body)
