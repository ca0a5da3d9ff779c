"""A killed control plane carries on: each flow ends as if nothing had happened, each effect once.

    python proofs/crash.py [--sample N] [--seed S] [--only STORY …] [--workers N] [--every] [--point STORY/POINT …]

Six stories are told to a real control plane, over HTTP: the first start of a home, a load (ingest, materialise), a build
(train, package, measure, register, rehearse), a release, a rollout, and a retraining that drift starts. Undisturbed
first; what is passed on the way are the kill points: before and after every step of every flow, before and after every
SQL commit (metadata and audit log, flows, metrics), every file that gets its name, and every word of a step process.
Points with nothing written between them are tried as one, and what all stories do alike is tried in some of them
(`chosen`); `--every` tries each. Once for each: the same story on a copy of the same home, SIGKILL at the point,
`falaj up`, and whoever got no answer asks again. The home must end like the undisturbed one: `_crash_summary` has what is
compared, and what may differ.

A step process that is killed itself is another thing: its flow ends with `step_died`, and may be started again. Each
kind of them is killed once.

Negative control: with the door's memory of operations taken away, a few of the same points must end differently.

Exits 1 when one point ends differently, when a process is left over, or when the control stays green.
"""

from __future__ import annotations

import argparse
import compileall
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _crash_home as homes
from _crash_home import Home, Story
from _crash_summary import differences, summary

ROOT = Path(__file__).resolve().parents[1]
STORIES: dict[str, tuple[tuple[Story, ...], Story]] = {
    "start": ((), homes.first_start),
    "load": ((homes.apply,), homes.load),
    "build": ((homes.apply, homes.load), homes.build),
    "release": ((homes.apply, homes.load, homes.build), homes.release),
    "rollout": ((homes.apply, homes.load, homes.build, homes.release, homes.second), homes.rollout),
    "retrain": ((homes.apply, homes.load, homes.build, homes.release, homes.drifted), homes.retrain),
}
"""What is told before the kill, undisturbed, and what is told around it."""
SERVING = ("release", "rollout")
"""In these the data plane is asked, as often as it takes: monitoring's figures are compared in the others."""
WRITING = ("start", "release")
"""In these the audit log's publisher is killed too, and every file while it has no name yet; the others do the same."""
_PUBLISHED = ("file:head:", "file:tile:", "file:checkpoint:")
_BATCHES = 10
"""Commits of metrics.db in a story in which requests come: monitoring does the same after each batch of them."""
FORGETFUL = {
    "release": ("step:rel:admit:after", "step:rel:plan:after", "step:rel:publish:after", "step:rel:serving:after"),
    "load": ("step:ing:commit:after",),
    "build": ("step:bld:start:after",),
}
"""Where a step has done its work and the engine does not know it: done again, it must show without the door's memory."""


CHILDREN = {"load": ("ingest", "materialize"), "build": ("train", "package", "evidence", "rehearse")}
"""The kinds of step processes, in the stories that need them."""


@dataclass
class Told:
    """One telling: how the home ended, or what went wrong."""

    summary: dict[str, Any] = field(default_factory=dict)
    points: list[str] = field(default_factory=list)
    killed: int = 0
    left: list[str] = field(default_factory=list)
    trouble: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """What became of one kill point; `reached`: the process was killed there."""

    story: str
    at: str
    reached: bool
    wrong: list[str]
    seconds: float


class Proof:
    """Homes as they are before each story, and the tellings."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._prepared: dict[tuple[Story, ...], Path] = {}
        self.undisturbed: dict[tuple[str, bool], Told] = {}

    def prepare(self, names: list[str]) -> None:
        """Make the homes that the stories begin with."""
        for name in names:
            self._home_after(STORIES[name][0])

    def _home_after(self, stories: tuple[Story, ...]) -> Path:
        if stories not in self._prepared:
            earlier = self._home_after(stories[:-1]) if stories else None
            folder = self._root / f"prepared-{len(self._prepared)}"
            if earlier is None:
                homes.lay_out(folder)
            else:
                shutil.copytree(earlier, folder)
                home = Home(folder)
                try:
                    home.up()
                    stories[-1](home)
                    home.down()
                finally:
                    home.end()
                shutil.rmtree(home.settings.home / "run")  # it names ports, and the copies are up at the same time
                if stories[-1] is homes.drifted:
                    homes.over(home)
            self._prepared[stories] = folder
        return self._prepared[stories]

    def tell(self, name: str, at: str = "", *, remembers: bool = True) -> Told:
        """Tell a story on a copy of its home, killing the control plane at a point."""
        began = time.perf_counter()
        before, story = STORIES[name]
        with tempfile.TemporaryDirectory(prefix="telling-", dir=self._root, ignore_cleanup_errors=True) as scratch:
            folder, told = Path(scratch) / "home", Told()
            shutil.copytree(self._home_after(before), folder)
            home, log = Home(folder), Path(scratch) / "points"
            try:
                home.begin(at, log=log, remembers=remembers)
                home.serve()
                story(home)
                home.down()
                told.left = home.end()
                told.summary = summary(home.settings.home)
                if name in SERVING:
                    del told.summary["scores"]
            except Exception as e:  # whatever goes wrong after a kill is what the proof is there to find
                told.trouble = f"{type(e).__name__}: {e}"
            finally:
                home.end()
            told.points = log.read_text().split("\n")[:-1] if log.exists() else []
            told.killed = home.killed
        told.seconds = time.perf_counter() - began
        return told

    def undisturb(self, name: str, *, remembers: bool = True) -> Told:
        """Tell a story undisturbed, to compare with. Raises `SystemExit` when it does not end well by itself."""
        if (name, remembers) not in self.undisturbed:
            told = self.tell(name, remembers=remembers)
            if told.trouble or told.left:
                raise SystemExit(f"crash: the undisturbed {name} does not end well: {told.trouble} {told.left}")
            self.undisturbed[name, remembers] = told
        return self.undisturbed[name, remembers]

    def child_dies(self, name: str, kind: str) -> str:
        """Kill a step process in a story, then ask for the same again; what is wrong with that."""
        before, story = STORIES[name]
        with tempfile.TemporaryDirectory(prefix="child-", dir=self._root, ignore_cleanup_errors=True) as scratch:
            folder = Path(scratch) / "home"
            shutil.copytree(self._home_after(before), folder)
            home = Home(folder)
            try:
                home.begin("", child=kind)
                home.serve()
                try:
                    story(home)
                except homes.Lost as e:
                    if "step_died" not in str(e):
                        raise
                else:
                    return "nothing was told"
                home.turn = " again"
                story(home)
                home.down()
                left = home.end()
                told = summary(home.settings.home)
                return "; ".join([*left, *told["blobs"]]) or ("" if all(told["log"]) else "the log does not verify")
            except Exception as e:  # as in `tell`
                return f"{type(e).__name__}: {e}"
            finally:
                home.end()

    def wrong(self, name: str, told: Told, *, remembers: bool = True) -> list[str]:
        """In what a telling differs from the undisturbed one."""
        like = self.undisturb(name, remembers=remembers)
        found = [told.trouble] if told.trouble else differences(like.summary, told.summary)
        return found + [f"left over: {process}" for process in told.left]


def moments(points: list[str]) -> list[str]:
    """The points, without those that are the same moment as the one before.

    Right after a commit, a step's record or a file's name, and right before the next commit or step, the same bytes
    are on the disk. A file that is about to get its name has been written under another.
    """
    once = list(dict.fromkeys(points))
    pairs = zip(["", *once], once, strict=False)
    return [p for before, p in pairs if not (_begins(p) and (before.startswith("says:") or before.endswith(":after")))]


def _begins(point: str) -> bool:
    return point.endswith(":before") and not point.startswith("file:")


def chosen(name: str, points: list[str]) -> list[str]:
    """The moments of a story that are tried: what every story does alike is tried in some of them."""
    found = moments(points)
    if name not in WRITING:
        found = [
            p for p in found if not (p.startswith(_PUBLISHED) or (p.startswith("file:") and p.endswith(":before")))
        ]
    if name in SERVING:
        found = [p for p in found if not (p.startswith("metrics:") and int(p.split(":")[1]) > _BATCHES)]
    return found


def main() -> int:
    """The command line."""
    options = _options()
    root = Path(tempfile.mkdtemp(prefix="falaj-crash-"))
    proof = Proof(root)
    try:
        return _prove(proof, options)
    finally:
        Home(root).end()
        shutil.rmtree(root, ignore_errors=True)


def _prove(proof: Proof, options: argparse.Namespace) -> int:
    began = time.perf_counter()
    compileall.compile_dir(ROOT / "src", quiet=2)  # step processes read compiled code and write none
    proof.prepare(options.only)
    wanted: list[tuple[str, str]] = []
    for name in options.only:
        told = proof.undisturb(name)
        found = list(dict.fromkeys(told.points)) if options.every else chosen(name, told.points)
        _say(f"{name}: {len(told.points)} points, {len(found)} to be tried, {told.seconds:.1f} s undisturbed")
        wanted += [(name, at) for at in found]
    if options.point:
        wanted = [(p.partition("/")[0], p.partition("/")[2]) for p in options.point]
    elif options.sample:
        wanted = random.Random(options.seed).sample(wanted, min(options.sample, len(wanted)))
    results = _tell_all(proof, wanted, options.workers)
    control, children = _control(proof, options), _children(proof, options)
    return _verdict(results, control, children, time.perf_counter() - began)


def _tell_all(proof: Proof, chosen: list[tuple[str, str]], workers: int) -> list[Result]:
    """Each point once. One that was not come by (threads meet in another order each time) is tried a second time."""

    def one(which: tuple[str, str]) -> Result:
        name, at = which
        told = proof.tell(name, at)
        if not told.killed and not told.trouble:
            told = proof.tell(name, at)
        return Result(name, at, told.killed > 0, proof.wrong(name, told), told.seconds)

    results: list[Result] = []
    with _pool(workers) as pool:
        for result in pool.map(one, chosen):
            results.append(result)
            if result.wrong:
                _say(f"{result.story}/{result.at}: " + "\n    ".join(result.wrong[:12]))
            elif len(results) % 10 == 0:
                differ = sum(bool(r.wrong) for r in results)
                _say(f"{len(results)} of {len(chosen)}, {differ} differ, the last took {result.seconds:.1f} s")
    return results


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing new once somebody has interrupted."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _control(proof: Proof, options: argparse.Namespace) -> list[bool]:
    """Whether each point of the control ends differently once the door forgets what it did."""
    if options.point:
        return []
    points = [(name, at) for name, some in FORGETFUL.items() if name in options.only for at in some]
    points = points[: 1 if options.sample else None]
    for name in dict(points):
        proof.undisturb(name, remembers=False)

    def differs(which: tuple[str, str]) -> bool:
        told = proof.tell(*which, remembers=False)
        return told.killed > 0 and bool(proof.wrong(which[0], told, remembers=False))

    with _pool(options.workers) as pool:
        return list(pool.map(differs, points))


def _children(proof: Proof, options: argparse.Namespace) -> list[bool]:
    """Whether the death of each kind of step process is told as such, and what was asked for can be asked for again."""
    kinds = [(name, kind) for name, some in CHILDREN.items() if name in options.only for kind in some]
    if options.point or options.sample:
        return []
    with _pool(options.workers) as pool:
        found = list(pool.map(lambda which: proof.child_dies(*which), kinds))
    for (name, kind), wrong in zip(kinds, found, strict=True):
        if wrong:
            _say(f"{name}, its {kind} process killed: {wrong}")
    return [not wrong for wrong in found]


def _verdict(results: list[Result], control: list[bool], children: list[bool], seconds: float) -> int:
    reached = [r for r in results if r.reached]
    bad = [r for r in results if r.wrong]
    good = sum(not r.wrong for r in reached)
    counts = ", ".join(
        f"{n} {sum(r.story == n for r in reached)}" for n in STORIES if any(r.story == n for r in reached)
    )
    passed = len(results) - len(reached)
    print(
        f"crash: {good} of {len(reached)} kill points end like the undisturbed run ({counts})"
        + (f"; idempotency off: {sum(control)} of {len(control)} differ" if control else "")
        + (f"; killed step processes: {sum(children)} of {len(children)} told and done again" if children else "")
        + (f"; {passed} not come by again" if passed else "")
        + f"; {seconds:.0f} s"
    )
    return 0 if reached and not bad and all(control) and all(children) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many points, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=STORIES, default=list(STORIES))
    parser.add_argument("--point", nargs="+", help="these points alone: STORY/POINT")
    parser.add_argument("--every", action="store_true", help="every point, also those that say the same again")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
