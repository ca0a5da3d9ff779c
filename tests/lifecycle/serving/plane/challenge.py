"""A stable version, challengers of every kind, callers that keep asking."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import numpy as np
from onnx import TensorProto, helper

from falaj.lifecycle.rollout.model import Guard, Route, TrafficPlan
from falaj.lifecycle.serving.model import Bundle
from falaj.lifecycle.serving.plane.journal import Prediction, iter_records
from falaj.lifecycle.training.model import Input
from tests.lifecycle.serving.plane.fleet import Home, Plane, flight, flight_contract, flight_graph, graph_of

MODEL = "flight-delay"
INFER = f"/v2/models/{MODEL}/infer"
GUARD = Guard(
    max_error_share=0.05,
    max_non_finite_share=0.05,
    max_latency_ms=5000,
    max_slow_share=0.2,
    max_score_shift=0.25,
    min_count=30,
    window=300,
)


def slow_graph(size: int = 384, times: int = 60) -> bytes:
    """What the stable version answers, after multiplying matrices `times` times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("MatMul", ["carried", "matrix"], ["next"]),
        ],
        "multiply",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [size, size]),
        ],
    )
    nodes = [
        helper.make_node("IsNaN", ["features"], ["null"]),
        helper.make_node("Where", ["null", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["plain"]),
        helper.make_node("ReduceSum", ["plain"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["matrix", "nothing"], ["start"]),
        helper.make_node("Loop", ["times", "true", "start"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["worked"]),
        helper.make_node("Add", ["plain", "worked"], ["sums"]),
        helper.make_node("Add", ["sums", "b"], ["score"]),
        helper.make_node("Sigmoid", ["score"], ["late"]),
        helper.make_node("Sub", ["one", "late"], ["early"]),
        helper.make_node("Concat", ["early", "late"], ["probabilities"], axis=1),
        helper.make_node("Greater", ["late", "half"], ["is_late"]),
        helper.make_node("Cast", ["is_late"], ["label_column"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["label_column", "axis"], ["label"]),
    ]
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 2]),
    ]
    constants = {
        "w": np.array([[0.001], [0.01], [0.1], [0.05], [0.2]], np.float32), "zero": np.zeros(1, np.float32), "b": np.array([-1.5], np.float32),
        "one": np.ones(1, np.float32), "half": np.array([0.5], np.float32), "axis": np.array([1], np.int64),
        "times": np.array(times, np.int64), "true": np.array(True), "matrix": np.eye(size, dtype=np.float32),
    }  # fmt: skip
    return graph_of(nodes, outputs, constants, 5)


class Challenge:
    """A home with a stable version and a challenger; publishes plans for them."""

    def __init__(self, home: Home, challenger: str) -> None:
        self.home = home
        self.headers = {"authorization": f"Bearer {home.token('shop', ('service',))}"}
        self.viewer = {"authorization": f"Bearer {home.token('vera', ('viewer',))}"}
        home.materialise({"JFK": (datetime.now(UTC), (10.0, 1.0))})
        self.stable = home.release(home.package(flight_contract(), flight_graph(-1.5)), f"{MODEL}@1")
        self.challenger = home.release(package(home, challenger), f"{MODEL}@2")

    def bundle(self, generation: int, weight: int, guard: Guard | None = GUARD, role: str = "canary") -> Bundle:
        stable = Route(self.stable.digest, 100 if role == "shadow" else 100 - weight)
        plan = TrafficPlan(MODEL, (stable, Route(self.challenger.digest, weight, role)), guard)
        return self.home.bundle(generation, [self.stable, self.challenger], [plan])

    def publish(self, generation: int, weight: int, guard: Guard | None = GUARD, role: str = "canary") -> None:
        self.home.publish(self.bundle(generation, weight, guard, role))

    def records(self) -> list[Prediction]:
        """Everything that was written down, by time."""
        found = [r for s in (self.home.plane / "journal").glob("*.seg") for r in iter_records(s)]
        return sorted(found, key=lambda r: r.at)


def package(home: Home, kind: str) -> Any:
    contract = flight_contract()
    if kind == "slow":
        return home.package(contract, slow_graph())
    if kind == "picky":  # it wants an input that no caller sends
        inputs = (*contract.inputs[:4], Input("altitude", "float"))
        return home.package(msgspec.structs.replace(contract, inputs=inputs), flight_graph(0.5))
    bias = {"equal": -1.5 + 1e-6, "nan": float("nan"), "shifted": 0.5}[kind]
    return home.package(contract, flight_graph(bias))


def request(seed: int, key: str | None = None) -> dict[str, Any]:
    """One of many flights."""
    chance = random.Random(seed)
    body = flight(
        distance=chance.uniform(50, 3000), hour=chance.randrange(24), carrier=chance.choice(["AA", "B6", "UA"])
    )
    return {**body, "parameters": {"routing_key": key}} if key is not None else body


class Callers:
    """Threads that ask one request after the other, until they are told to stop or have asked enough."""

    def __init__(self, plane: Plane, headers: dict[str, str], count: int = 4, keys: bool = False) -> None:
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.seconds: list[float] = []
        self._base = str(plane.http.base_url)
        self._headers = headers
        self._keys = keys
        self.count = count
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def until(self, true: Callable[[], bool], eventually: Callable[..., None], otherwise: str) -> None:
        """Keep asking until something holds; stop in any case."""
        try:
            eventually(true, otherwise)
        finally:
            self.stop()

    def versions(self) -> list[str]:
        return [a["model_version"] for a in self.answers]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self._base, headers=self._headers, timeout=30) as client:
            seed = number * 1_000_000
            while not self._stop.is_set():
                seed += 1
                try:
                    response = client.post(INFER, json=request(seed, f"caller {seed % 200}" if self._keys else None))
                except httpx.HTTPError as e:
                    self.failures.append(repr(e))
                    continue
                if response.status_code != 200:
                    self.failures.append(response.text)
                    continue
                self.answers.append(response.json())
                self.seconds.append(response.elapsed.total_seconds())
