"""A thread that looks after something, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from falaj.kernel.log import logger

_log = logger(__name__)


class Lookout:
    """Takes its looks, one after another, every `seconds`, from a thread of this name.

    It outlives any fault of a look: that is logged as `fault`, and hides neither the next look nor the others.
    """

    def __init__(self, name: str, seconds: float, fault: str, *looks: Callable[[], object]) -> None:
        self._seconds = seconds
        self._fault = fault
        self._looks = looks
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to look, after the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the look that is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            for look in self._looks:
                try:
                    look()
                except Exception as e:  # whatever it was: nothing else does what this thread is for
                    _log.error(self._fault, error=f"{type(e).__name__}: {e}")
