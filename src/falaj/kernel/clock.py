"""The one clock. Everything that needs the time is handed a `Clock`.

A home may carry `clock.json`, which moves its time to another day (to replay recorded data) and
may make it run faster. Both planes read the same file, so the whole platform agrees on the hour.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from falaj.kernel.errors import Integrity, Invalid


class Clock(Protocol):
    """Where the time comes from: nothing else asks the machine for it."""

    def now(self) -> datetime:
        """The present moment, in UTC, with its zone."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """The machine's time."""
        return datetime.now(UTC)


class Replay(msgspec.Struct, frozen=True):
    """`clock.json`: at machine time `anchor` (Unix seconds) the clock showed `shows`; it runs `rate` times as fast."""

    anchor: float
    shows: Annotated[datetime, msgspec.Meta(tz=True)]
    rate: float = 1.0


class HomeClock:
    """The clock of a home: it follows `clock.json`, which may come, change and go, and shows the machine's
    time while there is none. The file is looked at every 50 ms at most, so asking costs next to nothing.

    `now` raises `Integrity` for a file that cannot be read: a home must not fall into another time unnoticed.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "clock.json"
        self._seen: tuple[int, int] | None = None
        self._replay: Replay | None = None
        self._checked = 0.0
        self._looking = threading.Lock()

    def now(self) -> datetime:
        """The home's time: the machine's own, or the one that a replay set."""
        machine = time.time()
        if not 0 <= machine - self._checked < 0.05:
            with self._looking:
                self._refresh()
                self._checked = machine
        replay = self._replay
        if replay is None:
            return datetime.now(UTC)
        try:
            return (replay.shows + timedelta(seconds=(machine - replay.anchor) * replay.rate)).astimezone(UTC)
        except OverflowError as e:
            raise _unreadable(e) from e

    def set(self, shows: datetime, rate: float = 1.0) -> None:
        """Move the home's clock; this one follows at once, those of other processes within 50 ms."""
        # Locked: a look that another thread is taking may have seen the old file, and must not count after this.
        with self._looking:
            set_replay(self._path.parent, shows, rate)
            self._checked = 0.0

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                self._replay = _decoded(self._path.read_bytes())
                self._seen = seen
        except FileNotFoundError:
            self._replay = self._seen = None
        except OSError as e:
            raise _unreadable(e) from e


def replay_of(home: Path) -> Replay | None:
    """How a home's clock was moved; None when it shows the machine's time. Raises `Integrity` as `HomeClock.now` does."""
    try:
        return _decoded((home / "clock.json").read_bytes())
    except FileNotFoundError:
        return None
    except OSError as e:
        raise _unreadable(e) from e


def set_replay(home: Path, shows: datetime, rate: float = 1.0) -> None:
    """Move a home's clock; every process of the home follows within 50 ms."""
    temporary = home / f"clock.json.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(Replay(anchor=time.time(), shows=shows, rate=rate)))
    temporary.replace(home / "clock.json")


def _decoded(data: bytes) -> Replay:
    try:
        return msgspec.json.decode(data, type=Replay)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise _unreadable(e) from e


def _unreadable(why: Exception) -> Integrity:
    return Integrity(
        f"the home's clock cannot be read: {why}",
        hint="set the clock again, or remove clock.json from the home to show the machine's time",
        code="clock_unreadable",
    )


def iso(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as it stands in records."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """The inverse of `iso`; a time without a zone, or that no calendar has in UTC, is refused (ValueError)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as e:  # the first hours of year 1 and the last of year 9999, with an offset
        raise ValueError(f"{text!r} is out of the calendar") from e


def written_moment(text: str) -> str:
    """What a person wrote, as `iso` writes it. Raises `Invalid` (bad_moment)."""
    try:
        return iso(parse_iso(text))
    except ValueError as e:
        raise Invalid(
            f"{text[:60]!r} is not a moment: {e}", hint="write it like 2013-04-01T00:00:00Z", code="bad_moment"
        ) from e
