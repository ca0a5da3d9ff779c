"""Single-row inference over HTTP: the governed data plane beside a bare server and a hand-written FastAPI.

    python bench/serving.py [--rounds 7] [--seconds 1.0] [--floor 0.25]

Every round asks each server in a shuffled order, 16 connections, one client process; the figures are
medians of the rounds, the ratios medians of the per-round ratios. Servers run on one core, the client on
another where there are two.

ceiling  granian RSGI, a constant answer of the same size: no decoding, no model
plane    the data plane: token, Cedar policy, strict decoding, features from LMDB with their time to live,
         ONNX Runtime, the journal record, counts
fastapi  FastAPI, json and NumPy by hand, the same ONNX model and runtime threads; no identity, no policy, no
         look-up (it is sent all features), no record. Under granian and under uvicorn.

The model is LightGBM, 200 trees of 31 leaves, 20 features (5 of them looked up), converted to ONNX. Exits 1
when plane/ceiling is below the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import lightgbm  # noqa: E402  # the paths come first
import numpy as np  # noqa: E402
import onnxmltools  # noqa: E402
from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: E402

from falaj.kernel.digests import sha256  # noqa: E402
from falaj.lifecycle.training.model import Input, JoinKey, ModelContract, Output, ViewUse  # noqa: E402
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta  # noqa: E402
from tests.lifecycle.serving.plane.fleet import Home, Plane  # noqa: E402

CONNECTIONS = 16
REQUEST_FEATURES = [f"f{i}" for i in range(15)]
VIEW_FEATURES = [f"v{i}" for i in range(5)]
VIEW = ViewUse("customer", sha256(b"customer"), "customer_id", 86400 * 365, tuple(VIEW_FEATURES))

FASTAPI = """
import json, numpy as np, onnxruntime
from fastapi import FastAPI, Request
from fastapi.responses import Response
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
app = FastAPI()
@app.post("/predict")
async def predict(request: Request):
    body = json.loads(await request.body())
    row = np.array([body["row"]], dtype=np.float32)
    answer = session.run(["probabilities"], {"features": row})[0]
    return Response(json.dumps({"probability": float(answer[0, 1])}), media_type="application/json")
"""

CEILING = """
BODY = b"x" * SIZE
HEADERS = [("content-type", "application/json")]
async def app(scope, proto):
    await proto()
    proto.response_bytes(200, HEADERS, BODY)
"""


def graph() -> bytes:
    """The model, trained on noise and a rule."""
    random_ = np.random.default_rng(7)
    x = random_.normal(size=(20_000, 20)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 15] + random_.normal(size=len(x)) > 0).astype(int)
    booster = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, verbose=-1).fit(x, y)
    model = onnxmltools.convert_lightgbm(
        booster, initial_types=[("features", FloatTensorType([None, 20]))], target_opset=15, zipmap=False
    )
    return bytes(model.SerializeToString())


def contract() -> ModelContract:
    return ModelContract(
        model="bench", task="binary",
        inputs=(*(Input(n, "float") for n in REQUEST_FEATURES),
                *(Input(n, "float", source="view", view="customer") for n in VIEW_FEATURES)),
        keys=(JoinKey("customer", "customer_id"),), views=(VIEW,),
        outputs=(Output("probability", "FP32", "probabilities", 1),), score="probability", classes=("no", "yes"),
    )  # fmt: skip


def http(path: str, body: bytes, token: str = "") -> bytes:
    """A request as it goes over the wire."""
    authorization = f"authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def ask(port: int, request: bytes, seconds: float) -> tuple[float, float]:
    """(requests a second, 99th percentile in ms) of one client with CONNECTIONS connections, each with one
    request under way. Any answer but 200 ends the measurement."""
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    began: dict[int, float] = {}
    clock = time.perf_counter
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
    start = clock()
    for number, connection in sockets.items():
        began[number] = clock()
        connection.sendall(request)
    latencies: list[float] = []
    while clock() - start < seconds:
        for number, _ in poll.poll(1):
            connection = sockets[number]
            answer = connection.recv(65536)
            while not complete(answer):
                more = connection.recv(65536)
                if not more:
                    raise SystemExit(f"the server hung up: {answer[:200]!r}")
                answer += more
            now = clock()
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not answered: {answer[:500]!r}")
            latencies.append(now - began[number])
            began[number] = now
            connection.sendall(request)
    elapsed = clock() - start
    for connection in sockets.values():
        connection.close()
    return len(latencies) / elapsed, statistics.quantiles(latencies, n=100)[98] * 1000


def complete(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = answer.find(b"content-length: ")
    return len(answer) >= end + 4 + int(answer[at + 16 : answer.find(b"\r", at)])


@contextmanager
def server(folder: Path, command: list[str]) -> Iterator[int]:
    """A server on a free port; the command has {port}."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *(c.format(port=port) for c in command)], cwd=folder, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit((folder / "server.log").read_text()) from None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def governed(root: Path, model: bytes) -> Iterator[tuple[int, bytes, int, str]]:
    """A data plane: port, request, the size of its answer, its memory."""
    home = Home(root / "home")
    token = home.token("bench", ("service",))
    package = home.package(contract(), model)
    writer = OnlineWriter(root / "home" / "online")
    at = int(datetime.now(UTC).timestamp() * 1_000_000)
    rows = [(f"customer-{i}", (at, (0.1, -0.2, 0.3, 0.4, float(i % 7)))) for i in range(10_000)]
    writer.replace(ViewMeta(VIEW.digest, "2026-01-01T00:00:00Z", VIEW.columns, 0, "bench"), rows)
    writer.close()
    home.publish(home.bundle(1, [home.release(package, "bench@1")]))
    plane = Plane(home)
    try:
        inputs = [
            {"name": n, "shape": [1], "datatype": "FP32", "data": [0.25 * i]} for i, n in enumerate(REQUEST_FEATURES)
        ]
        inputs.append({"name": "customer_id", "shape": [1], "datatype": "BYTES", "data": ["customer-77"]})
        body = json.dumps({"inputs": inputs}).encode()
        sizes = [resident(pid) for pid in (plane.process.pid, plane.status()["pid"])]
        path = "/v2/models/bench/infer"
        answer = plane.http.post(path, content=body, headers={"authorization": f"Bearer {token}"})
        assert answer.json()["parameters"]["features"] == {"present": 1, "expired": 0, "missing": 0}, answer.text
        yield plane.port, http(path, body, token), len(answer.content), f"{sum(sizes)} MB ({sizes[0]} + {sizes[1]})"
    finally:
        plane.stop()


def resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


def measure(rounds: int, seconds: float, root: Path) -> tuple[dict[str, list[tuple[float, float]]], str]:
    model = graph()
    (root / "model.onnx").write_bytes(model)
    (root / "fast.py").write_text(FASTAPI)
    row = http("/predict", json.dumps({"row": [0.25 * i for i in range(20)]}).encode())
    granian = ["granian", "--port", "{port}", "--http", "1", "--no-ws", "--log-level", "warning"]
    with governed(root, model) as (port, request, size, memory):
        (root / "bare.py").write_text(CEILING.replace("SIZE", str(size)))
        with (
            server(root, [*granian, "--interface", "rsgi", "bare:app"]) as bare,
            server(root, [*granian, "--interface", "asgi", "fast:app"]) as fast,
            server(
                root, ["uvicorn", "--port", "{port}", "--log-level", "warning", "--no-access-log", "fast:app"]
            ) as slow,
        ):
            targets = {
                "ceiling": (bare, request),
                "plane": (port, request),
                "fastapi/granian": (fast, row),
                "fastapi/uvicorn": (slow, row),
            }
            if os.cpu_count() != 1:
                os.sched_setaffinity(0, range(1, os.cpu_count() or 2))  # the servers keep the first core
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in targets}
            for name, (at, what) in targets.items():
                ask(at, what, 0.3)
                found[name].clear()
            for _ in range(rounds):
                for name in random.sample(sorted(targets), len(targets)):
                    found[name].append(ask(*targets[name], seconds))
    return found, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--floor", type=float, default=0.25)
    options = parser.parse_args()
    os.sched_setaffinity(0, {0})  # what is started from here inherits it
    with tempfile.TemporaryDirectory(prefix="falaj-bench-") as folder:
        found, memory = measure(options.rounds, options.seconds, Path(folder))
    report(found, memory, options)


def report(found: dict[str, list[tuple[float, float]]], memory: str, options: argparse.Namespace) -> None:
    def ratio(one: str, two: str, at: int) -> tuple[float, float, float]:
        ratios = [a[at] / b[at] for a, b in zip(found[one], found[two], strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    print(f"{options.rounds} shuffled rounds of {options.seconds:g} s, {CONNECTIONS} connections, {os.cpu_count()} cores, "
          + ", ".join(f"{p} {metadata.version(p)}" for p in ("granian", "onnxruntime", "msgspec", "lmdb", "fastapi", "uvicorn")))  # fmt: skip
    for name, runs in found.items():
        print(
            f"{name:16} {statistics.median(r for r, _ in runs):8.0f} requests/s   p99 {statistics.median(p for _, p in runs):6.2f} ms"
        )
    for other in list(found)[:1] + list(found)[2:]:
        (speed, low, high), (tail, _, _) = ratio("plane", other, 0), ratio("plane", other, 1)
        print(f"plane / {other:16} {speed:5.2f} (rounds {low:.2f}–{high:.2f})   p99 {tail:5.2f}")
    print(f"idle resident, supervisor + worker: {memory}")
    figure = ratio("plane", "ceiling", 0)[0]
    print(f"serving: {figure:.2f} of the bare HTTP ceiling (floor {options.floor})")
    if figure < options.floor:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
