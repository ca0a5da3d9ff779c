"""A home in small: real keys, blobs, signatures, admissions and bundles, and a data plane process over them.

Used by the tests of the data plane and by the serving benchmark.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from falaj.governance.identity.verify import KnownToken, make_token, token_hash
from falaj.governance.policy.decide import platform_policy, policy_text
from falaj.governance.signing.keys import KeyRing, plane_key, public_pem
from falaj.governance.signing.sealing import seal_to
from falaj.governance.signing.signer import EnvelopeSigner
from falaj.kernel.clock import iso
from falaj.kernel.digests import canonical_json, sha256
from falaj.lifecycle.registry import steps
from falaj.lifecycle.registry.model import Admission, PackageOutcome, PackageTask
from falaj.lifecycle.registry.statements import admission_statement
from falaj.lifecycle.rollout.model import TrafficPlan, all_to
from falaj.lifecycle.serving.model import (
    BLOB_KEY,
    BUNDLE_TYPE,
    ONLINE_KEY,
    PEPPER,
    Access,
    Bundle,
    Release,
    SealedBlob,
)
from falaj.lifecycle.training.model import (
    PROFILE_FILE,
    QUANTILES,
    FeatureProfile,
    Input,
    JoinKey,
    ModelContract,
    Numbers,
    Output,
    Profile,
    ViewUse,
)
from falaj.storage import keychain
from falaj.storage.blobs.local import LocalBlobs
from falaj.storage.keychain import keys_of
from falaj.storage.online.lmdb_store import OnlineWriter, ViewMeta

SOURCE = Path(__file__).parents[4] / "src"
VIEW = ViewUse("airport_weather", sha256(b"airport_weather"), "origin", 7200, ("wind", "gusty"))
CARRIERS = ("AA", "B6", "UA")


class Silent:
    """A reporter for steps that run in this process."""

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        pass

    def metric(self, key: str, value: float, step: int) -> None:
        pass


def flight_contract(model: str = "flight-delay") -> ModelContract:
    """Three request features, one join key, two view features, one probability."""
    return ModelContract(
        model=model,
        task="binary",
        inputs=(
            Input("distance", "float", null="refuse"),
            Input("hour", "integer"),
            Input("carrier", "category", categories=CARRIERS),
            Input("wind", "float", source="view", view="airport_weather"),
            Input("gusty", "boolean", source="view", view="airport_weather"),
        ),
        keys=(JoinKey("airport", "origin"),),
        views=(VIEW,),
        outputs=(Output("probability", "FP32", "probabilities", 1), Output("label", "INT64", "label")),
        score="probability",
        classes=("on time", "late"),
    )


def flight_graph(bias: float = 0.0) -> bytes:
    """Sigmoid of a weighted sum in which nulls count as zero; outputs label [rows] and probabilities [rows, 2]."""
    weights = np.array([[0.001], [0.01], [0.1], [0.05], [0.2]], np.float32)
    constants = {"w": weights, "b": np.array([bias], np.float32), "zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32),
                 "half": np.array([0.5], np.float32), "axis": np.array([1], np.int64)}  # fmt: skip
    nodes = [
        helper.make_node("IsNaN", ["features"], ["null"]),
        helper.make_node("Where", ["null", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "w"], ["sum"]),
        helper.make_node("Add", ["sum", "b"], ["score"]),
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
    return graph_of(nodes, outputs, constants, 5)


def profile_of(contract: ModelContract, mean: float = 0.5) -> bytes:
    """A reference profile that fits a contract: 60 rows, every value as often as the others; `mean` is the score's."""
    features = {}
    for i in contract.inputs:
        values = i.categories if i.type == "category" else ("false", "true")
        counts = {v: 60 // len(values) for v in values}
        nulls = 60 - sum(counts.values())
        if i.type in ("category", "boolean"):
            features[i.name] = FeatureProfile(i.type, nulls, counts)
        else:
            features[i.name] = FeatureProfile(i.type, 0, None, 0.5, 0.25, QUANTILES)
    columns = len(contract.classes) if contract.task == "multiclass" else 1
    return canonical_json(Profile(60, features, (Numbers(mean, 0.25, QUANTILES),) * columns))


def overflow_contract() -> ModelContract:
    return ModelContract(
        model="overflow", task="regression", inputs=(Input("x", "float"),), keys=(), views=(),
        outputs=(Output("value", "FP32", "value", 0),), score="value",
    )  # fmt: skip


def overflow_graph() -> bytes:
    """x · 10³⁰, which is no finite number for large x."""
    nodes = [helper.make_node("Mul", ["features", "huge"], ["value"])]
    outputs = [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["rows", 1])]
    return graph_of(nodes, outputs, {"huge": np.array([1e30], np.float32)}, 1)


def graph_of(nodes: list[Any], outputs: list[Any], constants: dict[str, Any], width: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])],
        outputs,
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Home:
    """Keys, blobs and a data plane's folder below one root."""

    def __init__(self, root: Path, environment: str = "production") -> None:
        self.root = root
        self.environment = environment
        self.ring = KeyRing(root / "keys")
        self.blobs = LocalBlobs(root / "blobs", self.ring.kek)
        self.plane = root / "plane"
        self.plane_key = plane_key(self.plane)
        self.signer = EnvelopeSigner(self.ring.of(environment))
        self.tokens: list[KnownToken] = []
        self.policy = policy_text(environment)
        trust = {
            "environment": environment,
            "keys": [public_pem(self.ring.of(environment))],
            "model": [public_pem(self.ring.model)],
            "journal": self._held(root),
        }
        (self.plane / "trust.json").write_bytes(msgspec.json.encode(trust))
        (root / "online").mkdir()

    @staticmethod
    def _held(root: Path) -> bytes:
        """The stores below the root get keys; returns what segments are sealed to."""
        keys = keychain.fresh()
        keychain.hold(root, keys)
        return keys.reader

    def token(self, principal: str, roles: tuple[str, ...], lasts: timedelta = timedelta(days=1)) -> str:
        """A token that the bundles from now on know."""
        identifier, token = make_token()
        expires = iso(datetime.now(UTC) + lasts)
        self.tokens.append(
            KnownToken(identifier, token_hash(token, self.ring.pepper), principal, "service", roles, expires)
        )
        return token

    def package(self, contract: ModelContract, graph: bytes, files: dict[str, bytes] | None = None) -> PackageOutcome:
        """Write a model folder, sign it, store its files."""
        folder = self.root / "packaged" / sha256(graph + canonical_json(contract))[7:19]
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "model.onnx": graph,
            PROFILE_FILE: profile_of(contract, int(sha256(graph)[7:11], 16) / 65536),  # each version has its own
            "signature.json": msgspec.json.encode(contract),
            **(files or {}),
        }
        for name, data in content.items():
            (folder / name).write_bytes(data)
            self.blobs.put(data)
        return steps.run(PackageTask(str(folder), str(self.ring.model_path)), Silent())

    def release(
        self, package: PackageOutcome, alias: str, signer: EnvelopeSigner | None = None, /, **changed: Any
    ) -> Release:
        """Admit a package (`changed` are fields of the admission) and seal its keys to the data plane."""
        now = datetime.now(UTC)
        admission = Admission(
            digest=package.digest, model=alias.partition("@")[0], alias=alias, environment=self.environment,
            files=package.files, evidence=sha256(b"evidence"), approvals=("risk",),
            issued_at=iso(now), expires_at=iso(now + timedelta(days=30)),
        )  # fmt: skip
        statement = admission_statement(msgspec.structs.replace(admission, **changed))
        return Release(
            digest=package.digest,
            alias=alias,
            model=alias.partition("@")[0],
            files=tuple(SealedBlob(f.path, f.sha256, self._sealed_key(f.sha256)) for f in package.files),
            signature=package.signature,
            admission=(signer or self.signer).sign_statement(statement),
        )

    def bundle(
        self, generation: int, releases: Iterable[Release], plans: Iterable[TrafficPlan] | None = None
    ) -> Bundle:
        """A bundle; without plans, each model's last release gets all of its traffic."""
        releases = tuple(releases)
        if plans is None:
            plans = (all_to(r.model, r.digest) for r in {r.model: r for r in releases}.values())
        reader = self.plane_key.public_key()
        pepper, online = seal_to(reader, self.ring.pepper, PEPPER), keys_of(self.root).online
        return Bundle(
            generation, self.environment, iso(datetime.now(UTC)), tuple(plans), releases,
            Access(
                tuple(self.tokens), self.policy, pepper, platform_policy(self.environment),
                tuple(seal_to(reader, key, ONLINE_KEY) for key in online),
            ),
        )  # fmt: skip

    def publish(self, bundle: Bundle, signer: EnvelopeSigner | None = None) -> None:
        """Sign the bundle and put it where the data plane looks."""
        self.publish_raw(msgspec.json.encode((signer or self.signer).sign(BUNDLE_TYPE, canonical_json(bundle))))

    def publish_raw(self, data: bytes) -> None:
        temporary = self.plane / "bundle.next"
        temporary.write_bytes(data)
        temporary.replace(self.plane / "bundle.json")

    def materialise(self, rows: dict[str, tuple[datetime, tuple[float | str | None, ...]]]) -> None:
        """Fill the view."""
        meta = ViewMeta(VIEW.digest, iso(datetime.now(UTC)), VIEW.columns, 0, os.urandom(8).hex())
        writer = OnlineWriter(self.root / "online", map_bytes=1 << 24)
        writer.replace(meta, [(key, (int(at.timestamp() * 1_000_000), values)) for key, (at, values) in rows.items()])
        writer.close()

    def _sealed_key(self, blob: str) -> str:
        return seal_to(self.plane_key.public_key(), self.blobs.data_key(blob), BLOB_KEY + blob)


class Plane:
    """A running data plane."""

    def __init__(
        self,
        home: Home,
        workers: int = 1,
        *,
        port: int = 0,
        program: Sequence[str] = ("-m", "falaj.entrypoints.data_plane"),
    ) -> None:
        self.home = home
        self.port = port or _free_port()
        self.log = home.root / "plane.log"
        environ = {**os.environ, "PYTHONPATH": str(SOURCE)}
        command = [sys.executable, *program, "--port", str(self.port), "--workers", str(workers)]
        for flag, folder in (("--dir", home.plane), ("--blobs", home.root / "blobs"), ("--online", home.root / "online"),
                             ("--home", home.root)):  # fmt: skip
            command += [flag, str(folder)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environ, cwd=home.root, stdout=log, stderr=log)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        eventually(self._answers, f"no answer; log: {self.log}")

    def status(self, worker: int = 1) -> dict[str, Any]:
        """`status/<worker>.json`."""
        value: dict[str, Any] = msgspec.json.decode((self.home.plane / "status" / f"{worker}.json").read_bytes())
        return value

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.http.get("/v2/health/live").status_code == 200
        except httpx.TransportError:
            return False


def eventually(true: Callable[[], bool], otherwise: str, seconds: float = 20) -> None:
    """Wait until something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def flight(rows: int = 1, **changed: Any) -> dict[str, Any]:
    """An infer request for the flight model."""
    columns = {
        "distance": ("FP64", 500.0),
        "hour": ("INT64", 9),
        "carrier": ("BYTES", "AA"),
        "origin": ("BYTES", "JFK"),
    }
    return {
        "id": "request-1",
        "inputs": [
            {"name": name, "shape": [rows], "datatype": datatype, "data": [changed.get(name, value)] * rows}
            for name, (datatype, value) in columns.items()
        ],
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
