"""The supervisor of a data plane's workers: it serves nothing, it replaces those that die.

A worker that had begun to serve is replaced at once, however often it dies: one that is killed again and again costs
what it holds, never the others. A worker that dies before it serves is tried again after a pause that grows, while the
others go on; but a data plane none of whose workers ever served ends after the second try: then what it was given is
wrong, and whoever started it should hear so.

A signal to stop is lost on a worker that starts: the handlers that it inherited are the supervisor's, and those of its
loop do nothing before the loop runs; it would serve on until the supervisor loses patience. So a worker blocks these
signals in all its threads from its first moment, and one thread waits for them (`StopSignals`): before there is a loop,
the process ends at once, for it has answered nobody; after that the loop gets the signal when it runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from granian import Granian

_STOP = (signal.SIGTERM, signal.SIGINT)
_M_MMAP_THRESHOLD, _LARGE_BUFFER = -3, 1 << 18  # malloc.h; bytes
_LEAST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries of a worker that does not come to serve


class _Said(msgspec.Struct):
    """The part of a worker's status file that the supervisor reads."""

    pid: int


class StopSignals:
    """Takes the signals to stop of a worker's process; made before any other thread is."""

    def __init__(self) -> None:
        hold_signals()
        self._loop: Any = None
        threading.Thread(target=self._wait, name="signals", daemon=True).start()

    def hand_to(self, loop: Any) -> None:
        """From now on the loop handles them, as soon as it runs."""
        self._loop = loop

    def _wait(self) -> None:
        number = signal.sigwait(_STOP)
        if self._loop is None:
            os._exit(0)
        self._loop.call_soon_threadsafe(_again, number)


class Served:
    """A worker's application with its signals, as the server calls it."""

    def __init__(self, application: Any, signals: StopSignals) -> None:
        self.__rsgi__ = application.__rsgi__  # nothing stands between a request and the application
        self.__rsgi_del__ = application.__rsgi_del__
        self._application = application
        self._signals = signals

    def __rsgi_init__(self, loop: Any) -> None:
        self._signals.hand_to(loop)
        self._application.__rsgi_init__(loop)


def _again(number: int) -> None:
    """In the thread of a loop that runs: the signal once more, for the loop's own handler."""
    take_signals()
    os.kill(os.getpid(), number)


def hold_signals() -> None:
    """Let signals to stop wait. What this thread starts, processes and threads, inherits that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)


def take_signals() -> None:
    """Take signals to stop, also the one that waits."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)


def give_back() -> None:
    """Let each large buffer go back to the system when it is freed. Left to itself glibc raises its threshold to the
    largest buffer that it has seen, so that the memory of the largest request stays. Other allocators need no advice."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER)


class Supervisor(Granian):  # type: ignore[misc,valid-type]  # its base is chosen when granian is imported
    """Granian with another opinion about workers that die: its own loop ends the server when one dies twice in 5.5 s,
    and can miss a worker that dies while it replaces another."""

    def __init__(self, folder: Path, **options: Any) -> None:
        """`folder` is the data plane's; its workers write `status/<n>.json` there once they serve."""
        super().__init__(**options)
        self._statuses = folder / "status"
        self._ever_served = False
        self._tries: dict[int, int] = {}  # by worker: deaths in a row before it served
        self._due: dict[int, float] = {}  # by worker: when to start it again (monotonic)

    def serve(self, target_loader: Callable[..., Any]) -> None:
        """Run until SIGTERM or SIGINT. Exits with 1 when no worker ever served."""
        os.register_at_fork(before=hold_signals, after_in_parent=take_signals)
        super().serve(target_loader=target_loader, wrap_loader=False)

    def _serve_loop(self, spawn_target: Callable[..., None], target_loader: Callable[..., Any]) -> None:
        while True:
            self.main_loop_interrupt.wait(self._pause())
            self.main_loop_interrupt.clear()  # before looking: what happens from here on wakes it again
            if self.interrupt_signal:
                return
            while self.interrupt_children:
                if self._lost(self.interrupt_children.pop(0)):
                    self.interrupt_children.append(-1)  # granian exits with 1 when somebody is left here
                    return
            now = time.monotonic()
            for index in [i for i, due in self._due.items() if due <= now]:
                del self._due[index]
                self._respawn_workers([index], spawn_target, target_loader)

    def _stop_workers(self) -> None:
        super()._stop_workers()
        if self.interrupt_signal:  # a worker that ended by the same signal a little earlier is no failure
            self.interrupt_children.clear()

    def _lost(self, index: int) -> bool:
        """Plan the replacement of a worker that died; True when the data plane shall end instead."""
        served = self._served(self.wrks[index].inner.pid)
        self._ever_served |= served or any(self._served(w.inner.pid) for w in self.wrks)
        tries = 0 if served else self._tries.get(index, 0) + 1
        self._tries[index] = tries
        if tries > 1 and not self._ever_served:
            return True
        pause = min(_LEAST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE) if tries else 0.0
        self._due[index] = time.monotonic() + pause
        return False

    def _served(self, pid: int) -> bool:
        """Whether a worker came as far as to serve."""
        for path in self._statuses.glob("[0-9]*.json"):
            try:
                if msgspec.json.decode(path.read_bytes(), type=_Said).pid == pid:
                    return True
            except (OSError, msgspec.DecodeError, UnicodeDecodeError):
                continue
        return False

    def _pause(self) -> float | None:
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None
