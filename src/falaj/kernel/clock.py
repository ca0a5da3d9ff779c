"""The one clock. Everything that needs the time is handed a `Clock`.

A home may carry `clock.json`, which moves its time to another day (to replay recorded data) and
may make it run faster. Both planes read the same file, so the whole platform agrees on the hour.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import msgspec


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, in UTC, with its zone."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class Replay(msgspec.Struct, frozen=True):
    """`clock.json`: at machine time `anchor` (Unix seconds) the clock showed `shows`; it runs `rate` times as fast."""

    anchor: float
    shows: datetime
    rate: float = 1.0


class ReplayClock:
    """A clock that follows `clock.json`; the file is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._replay = Replay(anchor=0.0, shows=datetime.fromtimestamp(0, UTC))
        self._checked = 0.0

    def now(self) -> datetime:
        machine = time.time()
        if not 0 <= machine - self._checked < 0.05:
            self._refresh(machine)
        replay = self._replay
        return replay.shows + timedelta(seconds=(machine - replay.anchor) * replay.rate)

    def _refresh(self, machine: float) -> None:
        self._checked = machine
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen != self._seen:
            self._replay = msgspec.json.decode(self._path.read_bytes(), type=Replay)
            self._seen = seen


def clock_at(home: Path) -> Clock:
    """The clock of a home: its replay if it has one, else the machine's."""
    path = home / "clock.json"
    return ReplayClock(path) if path.exists() else SystemClock()


def replay_of(home: Path) -> Replay | None:
    """How a home's clock was moved; None when it shows the machine's time."""
    try:
        return msgspec.json.decode((home / "clock.json").read_bytes(), type=Replay)
    except FileNotFoundError:
        return None


def set_replay(home: Path, shows: datetime, rate: float = 1.0) -> None:
    """Move a home's clock; every process of the home follows within 50 ms."""
    temporary = home / f"clock.json.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(Replay(anchor=time.time(), shows=shows, rate=rate)))
    temporary.replace(home / "clock.json")


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as it stands in records."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """The inverse of `iso`; a time without a zone is refused (ValueError)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.astimezone(UTC)
