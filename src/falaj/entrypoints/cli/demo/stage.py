"""What the acts share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec

from falaj.entrypoints.cli.client import Client, token_path
from falaj.entrypoints.cli.commands.home import write_token
from falaj.entrypoints.cli.demo.flights import Asked, Timetable
from falaj.entrypoints.cli.demo.screen import Event, Screen
from falaj.entrypoints.cli.demo.variation import Variation
from falaj.kernel.clock import parse_iso
from falaj.kernel.errors import FalajError
from falaj.kernel.settings import Settings

MODEL, MINUTES = "flight-delay", "flight-delay-minutes"
PRINCIPALS = {
    "engineer": ("person", ("ml-engineer",)),
    "risk-officer": ("person", ("risk-officer",)),
    "timetable": ("service", ("service",)),
}


class Started(msgspec.Struct, frozen=True):
    """Where both planes of a home listen, whether the home is new, and how this telling differs from the usual one."""

    control_plane: str
    data_plane: str
    new: bool
    variation: Variation


class Stage:
    """Clients for each principal, the screen, the project's folder, the timetable, and what was learnt on the way.

    `new`: the home is. `waiting` are labels whose time has not come, `months` pairs of score and outcome by month,
    `refusals` what was not let through: what, at which step, why.
    """

    def __init__(self, settings: Settings, screen: Screen, started: Started) -> None:
        self.settings = settings
        self.screen = screen
        self.plane = started.data_plane
        self.control = started.control_plane
        self.new = started.new
        self.variation = started.variation
        self.folder = settings.project
        self.timetable = Timetable(self.folder, self.variation)
        self.waiting: list[Any] = []
        self.months: dict[str, list[tuple[float, bool]]] = {}
        self.counted: Counter[str] = Counter()
        self._clients: dict[str, Client] = {}
        self.act = ""
        self._acts = 0
        self.facts: dict[str, Any] = {}
        self.refusals: list[tuple[str, str, str]] = []

    def client(self, principal: str = "owner") -> Client:
        """A client that acts as a principal of this home."""
        if principal not in self._clients:
            self._clients[principal] = Client(self.control, self.token(principal))
        return self._clients[principal]

    def reconnect(self, control: str) -> None:
        """The control plane was started again, perhaps elsewhere."""
        self.control = control
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def token(self, principal: str) -> str:
        """A principal's token; the owner grants it when the home keeps none yet."""
        path = token_path(self.settings.home, principal)
        if not path.exists():
            kind, roles = PRINCIPALS[principal]
            body = {"name": principal, "kind": kind, "roles": roles, "days": 366}
            write_token(path, self.client().post("/api/v1/tokens", body)["token"])
        return path.read_text("ascii").strip()

    def now(self) -> datetime:
        """The home's time."""
        return parse_iso(self.client().get("/api/v1/status")["now"])

    def set_clock(self, moment: datetime) -> None:
        """Move the home's clock on."""
        self.client().post("/api/v1/clock", {"shows": moment.isoformat()})

    def count(self, what: str, number: int) -> None:
        """Add to a sum that the proof tells at the end."""
        self.counted[what] += number

    def last_flights(self) -> list[Asked]:
        """The flights of the day that the home's clock shows."""
        return self.timetable.of_day(self.now().date())

    def begin(self, act: str, title: str, about: str) -> None:
        """Begin an act."""
        self.act = act
        self._acts += 1
        self.screen.show(Event(act, "begin", f"{self._acts}  {title}", detail={"about": about}))

    def done(self, subject: str, digest: str = "", seconds: float = 0.0, **detail: Any) -> None:
        """Something was done; `seconds` is how long it took."""
        self.screen.show(Event(self.act, "done", subject, digest, round(seconds, 3), detail))

    def note(self, subject: str, **detail: Any) -> None:
        """Something worth a line."""
        self.screen.show(Event(self.act, "note", subject, detail=detail))

    def refused(self, what: str, error: FalajError, seconds: float = 0.0) -> None:
        """One line for a refusal: what, why, and the next step."""
        detail = {"code": error.code, "reason": error.message, "hint": error.hint}
        lines = [error.message, f"next: {error.hint}"]
        self.screen.show(Event(self.act, "refused", what, "", round(seconds, 3), {**detail, "lines": lines}))

    def keep_refusal(self, what: str, where: str, why: str) -> None:
        """Remember a refusal for the table at the end."""
        self.refusals.append((what, where, why))

    def flows(self, starts: list[tuple[str, dict[str, Any]]], principal: str = "engineer") -> list[Followed]:
        """Start flows together and wait for each, in order."""
        client, began = self.client(principal), time.perf_counter()
        ids = [client.post(path, body)["flow"] for path, body in starts]
        results = []
        for flow in ids:
            events: list[dict[str, Any]] = []
            result = self.follow(flow, events.append, principal)
            results.append(Followed(result, tuple(events), time.perf_counter() - began))
        return results

    def follow(self, flow: str, keep: Callable[[dict[str, Any]], None], principal: str = "engineer") -> Any:
        """Wait for a flow's end, showing its progress; returns its result. Raises what it raised."""
        with self.screen.progress() as show:

            def on_event(event: dict[str, Any]) -> None:
                keep(event)
                show(event)

            return self.client(principal).follow(flow, on_event)

    def flow(self, path: str, body: dict[str, Any], principal: str = "engineer") -> Followed:
        """Start one flow and wait for it."""
        return self.flows([(path, body)], principal)[0]


class Followed(msgspec.Struct, frozen=True):
    """What a flow came to, with its events and how long it took in seconds."""

    result: Any
    events: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def steps(self) -> dict[str, dict[str, float]]:
        """Step process → seconds and peak memory in MB."""
        return {
            e["step"]: {"seconds": round(e["seconds"], 2), "peak_mb": round(e["peak_mb"], 1)}
            for e in self.events
            if e.get("type") == "step"
        }


@contextmanager
def timed() -> Iterator[Callable[[], float]]:
    """Seconds since the start of the context."""
    started = time.perf_counter()
    yield lambda: time.perf_counter() - started
