"""A thread that looks again and again outlives what goes wrong in a look."""

from __future__ import annotations

import threading

from falaj.kernel.lookout import Lookout


def test_a_look_that_fails_hides_neither_the_next_nor_the_others() -> None:
    taken: list[int] = []
    again = threading.Event()

    def broken() -> None:
        raise RuntimeError("a fault")

    def sound() -> None:
        taken.append(len(taken))
        if len(taken) == 3:
            again.set()

    lookout = Lookout("test", 0.001, "test_failed", broken, sound)
    lookout.start()
    assert again.wait(10)
    lookout.stop()
    assert not any(t.name == "test" for t in threading.enumerate())


def test_one_that_never_began_can_be_stopped() -> None:
    Lookout("test", 0.001, "test_failed").stop()
