"""Files are swapped between admission and load, under a data plane that is made to load: nothing foreign ever answers.

    python proofs/swaps.py [--swaps 1000] [--models 20] [--seed 0] [--no-control]

A real data plane serves some models, each with two admitted versions by turns, so that every bundle makes it load all of them. While
it does, at random moments from just before the bundle comes until after it is in service, what belongs to each model is swapped: its
graph, its contract, its profile in the blob store (sealed under the very key that the data plane was given), or its signature, admission
or manifest in the bundle, which the right key signs all the same; and the bundle itself. Files are swapped by rename, by writing in
place, by a symbolic link, by a hard link, once or to and fro. In one round of ten the data plane is down while it is done, and starts.

What is put there is foreign: another signed version of the model that nobody admitted, with other answers. Callers ask all the time;
an answer that neither of the model's own versions gives was given by foreign bytes. After each round the files are as they
were, and what was refused must load.

Negative controls: a data plane that does not compare the bytes with the admission, and one that compares them and then opens the file
again, must be caught.

Exits 1 when a foreign answer comes, when a valid version does not load afterwards, or when a control goes unnoticed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import httpx  # noqa: E402  # the paths come first
import msgspec  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402

from falaj.governance.signing.signer import EnvelopeSigner  # noqa: E402
from falaj.kernel.digests import canonical_json  # noqa: E402
from falaj.lifecycle.registry.model import PackageOutcome  # noqa: E402
from falaj.lifecycle.serving.model import BUNDLE_TYPE, Release  # noqa: E402
from falaj.lifecycle.training.model import ModelContract, Output  # noqa: E402
from falaj.storage.blobs.format import seal  # noqa: E402
from falaj.storage.blobs.local import blob_path  # noqa: E402
from tests.lifecycle.serving.plane.fleet import Home, Plane, eventually, flight, flight_contract, flight_graph  # noqa: E402

FILES = ("model.onnx", "signature.json", "profile.json")
DOCUMENTS = ("signature", "admission", "manifest")
WAYS = ("rename", "in place", "symlink", "hard link")
CONTENTS = ("foreign", "foreign", "its own", "torn")
"""The foreign file sealed under this file's key, the foreign file as it lies in the store, half of it."""
BEFORE, AFTER = -0.1, 0.2  # seconds around the moment in which a bundle is handed over
DOWN_EVERY = 10
TO_AND_FRO, SWINGING = 0.4, 2.0  # how many are swapped to and fro, and for how many seconds at the most
CLOSE = 1e-4
BROKEN = """
import time
from falaj.governance.signing.sealing import unseal
from falaj.lifecycle.serving.model import BLOB_KEY
from falaj.lifecycle.serving.plane import loading
checked = loading.Loader._read
def again(self, sealed, entry):
    encrypted = loading.blob_path(self._blobs, sealed.blob).read_bytes()
    return loading.open_sealed(encrypted, unseal(self._key, sealed.key, BLOB_KEY + sealed.blob))
def reopened(self, sealed, entry):
    checked(self, sealed, entry)
    time.sleep(0.01)
    return again(self, sealed, entry)
loading.Loader._read = {instead}
from falaj.entrypoints.data_plane import main
main()
"""
CONTROLS = {"unchecked": "again", "reopened": "reopened"}


Answer = tuple[str, float]
"""The number of the version that answers, and the probability."""


@dataclass(frozen=True)
class Kind:
    """A model with two versions of its own, and a foreign one; each as it was packaged."""

    name: str
    own: tuple[PackageOutcome, PackageOutcome]
    foreign: PackageOutcome


@dataclass
class Seen:
    """What came of it all."""

    swaps: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    loaded: int = 0
    foreign: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    answers: int = 0


def contract_of(name: str, column: int = 1) -> ModelContract:
    """A contract; a foreign one reads the answer from the other column."""
    outputs = (Output("probability", "FP32", "probabilities", column), Output("label", "INT64", "label"))
    return msgspec.structs.replace(flight_contract(name), outputs=outputs)


class Ground:
    """A home, its data plane, and whatever is swapped under it."""

    def __init__(self, root: Path, models: int, chance: random.Random, program: tuple[str, ...] = ()) -> None:
        self.home = Home(root)
        self.chance = chance
        self._program = program
        self.token = self.home.token("caller", ("service",))
        self.home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
        self.kinds = [self._made(f"model-{n:02d}", n) for n in range(models)]
        self.generation = 0
        self.plane = self.start()
        self.answers: dict[str, dict[str, float]] = {kind.name: {} for kind in self.kinds}
        self._elsewhere = root / "elsewhere"
        self._elsewhere.mkdir()
        self._number = 0
        self._touched: dict[Path, bytes] = {}

    def _made(self, name: str, n: int) -> Kind:
        own = tuple(self.home.package(contract_of(name), flight_graph(0.02 * n + turn - 2.0)) for turn in (0, 1))
        foreign = self.home.package(contract_of(name, 0), flight_graph(0.02 * n + 1.5))
        return Kind(name, (own[0], own[1]), foreign)

    def start(self) -> Plane:
        return Plane(self.home, program=self._program) if self._program else Plane(self.home)

    def release(self, kind: Kind, turn: int, document: str = "") -> Release:
        """A version's release; one of its documents may be the foreign version's."""
        alias = f"{kind.name}@{turn + 1}"
        own = self.home.release(kind.own[turn], alias)
        staging = EnvelopeSigner(self.home.ring.of("staging"))
        foreign = self.home.release(kind.foreign, f"{kind.name}@3", staging)  # admitted to staging, not here
        if document == "signature":
            return msgspec.structs.replace(own, signature=foreign.signature)
        if document == "admission":
            return msgspec.structs.replace(own, admission=foreign.admission)
        if document == "manifest":
            return msgspec.structs.replace(own, files=foreign.files)
        return own

    def hand_over(self, turn: int, documents: dict[str, str]) -> bytes:
        """The next bundle, as bytes that are not yet where the data plane looks."""
        self.generation += 1
        releases = [self.release(kind, turn, documents.get(kind.name, "")) for kind in self.kinds]
        signed = self.home.signer.sign(BUNDLE_TYPE, canonical_json(self.home.bundle(self.generation, releases)))
        return msgspec.json.encode(signed)

    def foreign_bundle(self, bundle: bytes) -> bytes:
        """A bundle that puts the foreign versions in service: under the true signature, or under a stranger's."""
        releases = [self.home.release(kind.foreign, f"{kind.name}@3") for kind in self.kinds]
        payload = canonical_json(self.home.bundle(self.generation, releases))
        if self.chance.random() < 0.5:
            return msgspec.json.encode(EnvelopeSigner(Ed25519PrivateKey.generate()).sign(BUNDLE_TYPE, payload))
        true, alien = msgspec.json.decode(bundle), self.home.signer.sign(BUNDLE_TYPE, payload)
        return msgspec.json.encode({**alien, "signatures": true["signatures"]})

    def swap_of(self, kind: Kind, turn: int, name: str) -> tuple[Path, bytes]:
        """Where a file of a version lies, and something foreign to put there."""
        here, there = (next(f for f in p.files if f.path == name) for p in (kind.own[turn], kind.foreign))
        content = self.chance.choice(CONTENTS)
        sealed = blob_path(self.home.blobs.root, there.sha256).read_bytes()
        if content == "foreign":
            plain = self.home.blobs.get(there.sha256)
            sealed = seal(plain, self.home.blobs.data_key(here.sha256), self.home.ring.kek)
        return blob_path(self.home.blobs.root, here.sha256), sealed[: len(sealed) // 2] if content == "torn" else sealed

    def put(self, path: Path, data: bytes, way: str) -> None:
        """Have a file hold other bytes. What it held first is kept."""
        if path not in self._touched:
            self._touched[path] = path.read_bytes()
        self._number += 1
        lying = self._elsewhere / str(self._number)
        if way == "in place":
            with path.open("r+b") as f:
                f.write(data[: len(data) // 2])
                f.flush()
                f.truncate(len(data))
                f.write(data[len(data) // 2 :])
            return
        lying.write_bytes(data)
        if way == "rename":
            lying.replace(path)
            return
        beside = path.with_name(f".{self._number}")
        (beside.symlink_to if way == "symlink" else beside.hardlink_to)(lying)
        beside.replace(path)

    def restore(self) -> None:
        """Every file as it was."""
        for path, data in self._touched.items():
            self.put(path, data, "rename")
        self._touched.clear()

    def forget(self, path: Path) -> None:
        """What lies there now is what shall lie there."""
        self._touched.pop(path, None)

    def taken(self) -> list[dict[str, Any]]:
        """Wait until the newest generation was taken; the reports of its releases."""
        eventually(lambda: self.plane.status()["generation"] == self.generation, "it does not follow", 30)
        reports: list[dict[str, Any]] = self.plane.status()["releases"]
        return reports

    def ask(self, name: str, http: httpx.Client) -> Answer | None:
        """Which version of a model says that it answers, and what; None when none does."""
        answer = http.post(f"/v2/models/{name}/infer", json=flight(), headers={"Authorization": f"Bearer {self.token}"})
        if answer.status_code != 200:
            return None
        said = answer.json()
        return said["model_version"], float(next(o for o in said["outputs"] if o["name"] == "probability")["data"][0])

    def learn(self) -> None:
        """What the own versions answer, with nothing swapped."""
        for turn in (0, 1):
            self.home.publish_raw(self.hand_over(turn, {}))
            bad = [r for r in self.taken() if r["state"] != "loaded"]
            for kind in self.kinds:
                answer = self.ask(kind.name, self.plane.http)
                if answer is None or bad:
                    raise SystemExit(f"swaps: {kind.name} does not answer undisturbed: {bad}")
                self.answers[kind.name][answer[0]] = answer[1]

    def own(self, name: str, answer: Answer) -> bool:
        """Whether an answer is the one that this version of the model gives."""
        version, value = answer
        return abs(value - self.answers[name].get(version, -1.0)) < CLOSE

    def judge(self, name: str, answer: Answer | None, seen: Seen) -> None:
        """Count an answer, and whether it is foreign."""
        if answer is None:
            return
        seen.answers += 1
        if not self.own(name, answer):
            seen.foreign.append(f"{name} answers {answer}, its own are {self.answers[name]}")


class Caller(threading.Thread):
    """Asks one model after the other, as long as nobody says stop."""

    def __init__(self, ground: Ground, seen: Seen) -> None:
        super().__init__(daemon=True)
        self._ground = ground
        self._seen = seen
        self.stop = threading.Event()

    def run(self) -> None:
        number = 0
        with httpx.Client(base_url=self._ground.plane.http.base_url, timeout=20) as http:
            while not self.stop.wait(0.01):
                number += 1
                name = self._ground.kinds[number % len(self._ground.kinds)].name
                try:
                    self._ground.judge(name, self._ground.ask(name, http), self._seen)
                except httpx.TransportError:
                    continue  # it is down


def play(ground: Ground, number: int, seen: Seen) -> None:
    """One round: a bundle that makes everything load, and a swap for each model."""
    chance, turn = ground.chance, number % 2
    down = number % DOWN_EVERY == DOWN_EVERY - 1
    documents: dict[str, str] = {}
    moments: list[tuple[float, Callable[[], None]]] = []
    swings: list[tuple[Path, bytes, bytes, str]] = []
    for kind in ground.kinds:
        target = chance.choice((*FILES, *FILES, *DOCUMENTS))
        if target in DOCUMENTS:
            documents[kind.name] = target
            seen.swaps[target] += 1
            continue
        way = chance.choice(WAYS)
        seen.swaps[way] += 1
        path, data = ground.swap_of(kind, turn, target)
        true, at = path.read_bytes(), chance.uniform(BEFORE, AFTER)
        moments.append((at, lambda p=path, c=data, w=way: ground.put(p, c, w)))  # type: ignore[misc]
        if not down and chance.random() < TO_AND_FRO:
            swings.append((path, true, data, way))
    bundle = ground.hand_over(turn, documents)
    path = ground.home.plane / "bundle.json"
    moments.append((0.0, lambda: ground.home.publish_raw(bundle)))
    if not down and chance.random() < 0.3:
        way = chance.choice(WAYS)
        seen.swaps["bundle"] += 1
        moments.append((chance.uniform(0, AFTER), lambda: ground.put(path, ground.foreign_bundle(bundle), way)))
    if down:
        ground.plane.stop()
    carry_out(moments)
    if down:
        ground.plane = ground.start()
    swing(ground, swings)
    ground.home.publish_raw(bundle)  # had the bundle been swapped: here it is again
    ground.forget(path)
    reports = ground.taken()
    seen.refused += sum(r["state"] != "loaded" for r in reports)
    seen.loaded += sum(r["state"] == "loaded" and r["code"] != "kept" for r in reports)
    for kind in ground.kinds:
        ground.judge(kind.name, ground.ask(kind.name, ground.plane.http), seen)
    ground.restore()
    ground.home.publish_raw(ground.hand_over(turn, {}))
    for report in ground.taken():
        if report["state"] != "loaded" or report["code"]:
            seen.stuck.append(f"{report['alias']} does not load afterwards: {report['reason']}")
    for kind in ground.kinds:
        answer = ground.ask(kind.name, ground.plane.http)
        if answer is None or answer[0] != str(turn + 1) or not ground.own(kind.name, answer):
            seen.stuck.append(f"{kind.name} answers {answer} afterwards")


def carry_out(moments: list[tuple[float, Callable[[], None]]]) -> None:
    """Everything at its moment; whoever is late follows at once."""
    began = time.monotonic() - BEFORE
    for at, act in sorted(moments, key=lambda m: m[0]):
        time.sleep(max(0.0, began + at - time.monotonic()))
        act()


def swing(ground: Ground, swings: list[tuple[Path, bytes, bytes, str]]) -> None:
    """Swap to and fro until the data plane has taken the bundle, or does not because that was swapped too."""
    deadline, number = time.monotonic() + SWINGING, 0
    while swings and time.monotonic() < deadline and ground.plane.status()["generation"] < ground.generation:
        number += 1
        for path, true, data, way in swings:
            ground.put(path, (true, data)[number % 2], way)
        time.sleep(0.001)


def prove(root: Path, swaps: int, models: int, seed: int, control: str = "") -> Seen:
    """So many swaps; of a control, until something foreign answers."""
    program = ("-c", BROKEN.format(instead=CONTROLS[control])) if control else ()
    root.mkdir()
    ground, seen = Ground(root, models, random.Random(seed), program), Seen()
    try:
        ground.learn()
        number = 0
        while sum(seen.swaps.values()) < swaps and not (control and seen.foreign):
            caller = Caller(ground, seen)
            caller.start()
            play(ground, number, seen)
            caller.stop.set()
            caller.join()
            number += 1
    finally:
        ground.plane.stop()
        shutil.rmtree(root, ignore_errors=True)
    return seen


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-control", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="falaj-proof-") as folder:
        seen = prove(Path(folder) / "proof", options.swaps, options.models, options.seed)
        caught = {
            name: len(
                prove(Path(folder) / name, max(options.swaps // 2, 400), options.models, options.seed, name).foreign
            )
            for name in ([] if options.no_control else CONTROLS)
        }
    for line in (*seen.foreign[:10], *seen.stuck[:10]):
        print(line, file=sys.stderr)
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(seen.swaps.items()))
    print(
        f"swaps: {len(seen.foreign)} foreign answers of {seen.answers:,} after {sum(seen.swaps.values()):,} swaps between"
        f" admission and load ({kinds}): {seen.refused} loads refused, {seen.loaded} of the own bytes, {len(seen.stuck)} did not load"
        f" once they were back"
        + "".join(f"; {name}: {'caught' if found else 'not caught'}" for name, found in caught.items())
        + f" ({time.monotonic() - began:.0f} s)"
    )
    good = seen.refused and not seen.foreign and not seen.stuck and all(caught.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
