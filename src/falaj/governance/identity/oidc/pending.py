"""Sign-ins under way, in memory: each is good once, until its time, for the browser or the command that began it."""

from __future__ import annotations

import hmac
import secrets
import threading
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

import msgspec

from falaj.governance.identity.oidc.provider import Authorization, DeviceCode
from falaj.kernel.clock import Clock
from falaj.kernel.errors import Denied, Unavailable

BROWSERS_LAST = timedelta(minutes=10)
MOST_BROWSERS, MOST_DEVICES = 1000, 50
_SLOWER = 5  # seconds more when the provider says slow_down (RFC 8628, 3.5)


class _Ending(Protocol):
    @property
    def until(self) -> datetime: ...


class Begun(msgspec.Struct, frozen=True):
    """A browser that was sent to the provider; `browser` is what only it was given."""

    authorization: Authorization
    browser: str
    until: datetime


class Waiting(msgspec.Struct, frozen=True):
    """A device that its person has not confirmed; the provider is not asked again before `after`."""

    device: DeviceCode
    until: datetime
    after: datetime
    interval: int


Item = TypeVar("Item", bound=_Ending)


class Pending:
    """What was begun and has not ended."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._browsers: dict[str, Begun] = {}
        self._devices: dict[str, Waiting] = {}
        self._lock = threading.Lock()

    def browser(self, redirect: str) -> Begun:
        """Begin in a browser. When very many are under way the oldest gives way: nobody is kept out for long."""
        asked = Authorization(redirect, secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        now = self._clock.now()
        begun = Begun(asked, secrets.token_urlsafe(32), now + BROWSERS_LAST)
        with self._lock:
            self._browsers = _lasting(self._browsers, now)
            while len(self._browsers) >= MOST_BROWSERS:
                del self._browsers[next(iter(self._browsers))]
            self._browsers[asked.state] = begun
        return begun

    def returned(self, state: str, browser: str) -> Authorization:
        """Use a sign-in up. Raises `Denied` unless this browser began it, not long ago, and has not ended it yet."""
        with self._lock:
            begun = self._browsers.pop(state, None)
        good = begun is not None and self._clock.now() < begun.until
        if begun is None or not good or not hmac.compare_digest(begun.browser.encode(), browser.encode()):
            raise Denied(
                "this sign-in was not begun in this browser, or it was used already, or it is older than ten minutes",
                hint="begin again: open the console and press the button there",
                code="sign_in_unknown",
            )
        return begun.authorization

    def device(self, device: DeviceCode) -> str:
        """Begin on a device; returns the handle that only the command which began it has. Raises `Unavailable`."""
        handle, now = secrets.token_urlsafe(32), self._clock.now()
        with self._lock:
            self._devices = _lasting(self._devices, now)
            if len(self._devices) >= MOST_DEVICES:
                raise Unavailable(
                    "too many sign-ins wait for a second device",
                    hint="try again in some minutes, or use a token",
                    code="too_many_sign_ins",
                )
            until = now + timedelta(seconds=device.seconds)
            first = now + timedelta(seconds=device.interval)
            self._devices[handle] = Waiting(device, until, first, device.interval)
        return handle

    def due(self, handle: str) -> DeviceCode | None:
        """The device of a handle if the provider may be asked now, else None. Raises `Denied` when there is none."""
        now = self._clock.now()
        with self._lock:
            waiting = self._devices.get(handle)
            if waiting is None or now >= waiting.until:
                self._devices.pop(handle, None)
                raise _over()
            if now < waiting.after:
                return None
            self._devices[handle] = msgspec.structs.replace(waiting, after=now + timedelta(seconds=waiting.interval))
        return waiting.device

    def slower(self, handle: str) -> None:
        """The provider wants to be asked less often."""
        with self._lock:
            if waiting := self._devices.get(handle):
                interval = waiting.interval + _SLOWER
                after = self._clock.now() + timedelta(seconds=interval)
                self._devices[handle] = msgspec.structs.replace(waiting, after=after, interval=interval)

    def ended(self, handle: str) -> None:
        """Use a device up. Raises `Denied` when it was: of two who look at once, one gets what it was confirmed for."""
        with self._lock:
            if self._devices.pop(handle, None) is None:
                raise _over()


def _over() -> Denied:
    return Denied(
        "this sign-in has ended, or it was never begun here",
        hint="begin again: `falaj login`",
        code="device_sign_in_over",
    )


def _lasting(held: dict[str, Item], now: datetime) -> dict[str, Item]:
    """Without those that have ended."""
    return {key: one for key, one in held.items() if now < one.until}
