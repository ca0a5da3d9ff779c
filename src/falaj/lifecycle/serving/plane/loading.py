"""A release becomes something that can answer: its own bytes, checked, and nothing else.

The runtime gets the very bytes that were hashed; no file is opened a second time, so nothing can be
swapped between the check and the use. Only ONNX and JSON are read.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from falaj.governance.signing.model_signature import verify_model_signature
from falaj.governance.signing.sealing import unseal
from falaj.kernel.digests import FileEntry, sha256
from falaj.kernel.errors import Integrity, Unavailable
from falaj.lifecycle.registry.model import Admission
from falaj.lifecycle.serving.model import BLOB_KEY, Release, SealedBlob
from falaj.lifecycle.serving.plane.metrics import Counts
from falaj.lifecycle.serving.plane.protocol import Wanted, wanted_inputs
from falaj.lifecycle.serving.plane.rows import RowEncoder
from falaj.lifecycle.serving.plane.verify import Trust
from falaj.lifecycle.training.encoding import Encoder, Matrix
from falaj.lifecycle.training.model import ModelContract
from falaj.storage.blobs.format import open_sealed
from falaj.storage.blobs.local import blob_path

GRAPH = "model.onnx"
CONTRACT = "signature.json"
_DATATYPES = {
    "tensor(float)": ("FP32", "FP64"),
    "tensor(double)": ("FP64",),
    "tensor(int64)": ("INT64",),
    "tensor(int32)": ("INT32", "INT64"),
    "tensor(bool)": ("BOOL",),
    "tensor(string)": ("BYTES",),
}


class Version:
    """A loaded version: contract, session, counts. Kept as long as its digest is released."""

    def __init__(self, digest: str, alias: str, contract: ModelContract, session: onnxruntime.InferenceSession) -> None:
        self.digest = digest
        self.alias = alias
        self.label = alias.rpartition("@")[2]
        self.contract = contract
        self.wanted: dict[str, Wanted] = wanted_inputs(contract)
        self.required = tuple(w.name for w in self.wanted.values() if w.source == "request")
        self._encoder = Encoder(contract.inputs)
        self._row = RowEncoder(self._encoder)
        self.seconds = 0.0  # that the last run of few rows took
        self.counts = Counts(contract.model, alias, digest)
        ranks = {o.name: len(o.shape) for o in session.get_outputs()}
        self.shapes = {o.name: [-1] if o.column >= 0 or ranks[o.tensor] == 1 else [-1, -1] for o in contract.outputs}
        self._session = session
        self._tensors = list(dict.fromkeys(o.tensor for o in contract.outputs))
        self._places = [(o.name, self._tensors.index(o.tensor), o.column) for o in contract.outputs]

    def matrix(self, rows: int, columns: Mapping[str, list[Any]]) -> Matrix:
        """A request's values as the model reads them, of shape [rows, inputs]. Raises like `Encoder.encode`."""
        return self._row.encode(columns) if rows == 1 else self._encoder.encode(columns)

    def run(self, matrix: Matrix) -> dict[str, NDArray[Any]]:
        """The contract's outputs for a matrix of shape [rows, inputs]; one array of shape [rows] or
        [rows, width] each. May be called from any thread."""
        tensors = self._session.run(self._tensors, {self.contract.tensor: matrix})
        return {
            name: tensors[at][:, column] if column >= 0 and tensors[at].ndim == 2 else tensors[at]
            for name, at, column in self._places
        }


class Loader:
    """Turns releases into versions."""

    def __init__(self, trust: Trust, key: X25519PrivateKey, blobs: Path) -> None:
        self.trust = trust
        self._key = key
        self._blobs = blobs

    def load(self, release: Release, admission: Admission) -> Version:
        """Load a release whose admission holds. Raises `Integrity`, `Unavailable` (a blob is not there)."""
        sealed = {f.path: f for f in release.files}
        kept: dict[str, bytes] = {}
        for entry in admission.files:
            data = self._read(sealed[entry.path], entry)
            if entry.path in (GRAPH, CONTRACT):
                kept[entry.path] = data
        verify_model_signature(release.signature, admission.files, self.trust.model, release.signed_at)
        if len(kept) != 2:
            raise _unusable(f"it has no {GRAPH} or no {CONTRACT}", "not_a_model")
        contract = read_contract(kept[CONTRACT])
        if contract.model != release.model:
            raise _unusable(f"its contract is for {contract.model}", "bad_contract")
        session = _session(kept[GRAPH])
        check_graph(contract, session)
        version = Version(release.digest, release.alias, contract, session)
        _warm_up(version)
        return version

    def _read(self, sealed: SealedBlob, entry: FileEntry) -> bytes:
        if sealed.blob != entry.sha256:
            raise Integrity(
                f"{entry.path} is not the file that was admitted",
                hint="publish the bundle again with `falaj up`; look for the change in the audit log",
                code="files_differ",
            )
        try:
            encrypted = blob_path(self._blobs, sealed.blob).read_bytes()
        except OSError as e:
            raise Unavailable(
                f"the blob of {entry.path} cannot be read: {type(e).__name__}",
                hint="make the blob store reachable for the data plane; it tries again by itself",
                code="blob_missing",
            ) from e
        key = unseal(self._key, sealed.key, BLOB_KEY + sealed.blob)
        try:
            data = open_sealed(encrypted, key)
        except Integrity as e:
            raise Integrity(f"{entry.path}: {e.message}", hint=e.hint, code=e.code) from e
        if len(data) != entry.size or sha256(data) != entry.sha256:
            raise Integrity(
                f"{entry.path} holds other bytes than were admitted",
                hint="restore the home's blobs folder from a backup",
                code="files_differ",
            )
        return data


def read_contract(data: bytes) -> ModelContract:
    """`signature.json`. Raises `Integrity` if it is not a usable contract."""
    try:
        contract = msgspec.json.decode(data, type=ModelContract)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise _unusable(f"its contract cannot be read: {e}", "bad_contract") from e
    columns = {(v.name, c) for v in contract.views for c in v.columns}
    keys = {k.name for k in contract.keys}
    names = [i.name for i in contract.inputs]
    if not names or len(set(names)) != len(names) or not contract.outputs:
        raise _unusable("its contract has no inputs, no outputs, or an input twice", "bad_contract")
    if any(v.key not in keys for v in contract.views):
        raise _unusable("its contract looks up a view by a key that it does not ask for", "bad_contract")
    if any(i.source == "view" and (i.view, i.name) not in columns for i in contract.inputs):
        raise _unusable("its contract reads a feature that no view has", "bad_contract")
    return contract


def check_graph(contract: ModelContract, session: onnxruntime.InferenceSession) -> None:
    """Raise `Integrity` unless the graph reads and answers what the contract says."""
    inputs = session.get_inputs()
    if [i.name for i in inputs] != [contract.tensor] or inputs[0].type != "tensor(float)":
        raise _unusable(f"its graph does not read one float32 tensor {contract.tensor!r}", "contract_and_graph_differ")
    shape: Sequence[Any] = inputs[0].shape
    if len(shape) != 2 or isinstance(shape[0], int) or shape[1] not in (len(contract.inputs), None):
        raise _unusable(f"its graph reads {shape}, not [rows, {len(contract.inputs)}]", "contract_and_graph_differ")
    outputs = {o.name: o for o in session.get_outputs()}
    for output in contract.outputs:
        found = outputs.get(output.tensor)
        if found is None or output.datatype not in _DATATYPES.get(found.type, ()):
            raise _unusable(
                f"its graph does not answer {output.name} as {output.datatype}", "contract_and_graph_differ"
            )
        if len(found.shape) not in (1, 2):
            raise _unusable(f"its answer {output.name} is neither a vector nor a matrix", "contract_and_graph_differ")
        width = found.shape[1] if len(found.shape) == 2 else 1
        if isinstance(width, int) and output.column >= width:
            raise _unusable(f"its graph has no column {output.column} in {output.tensor}", "contract_and_graph_differ")


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one process a core: more threads only wait for each other
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # the runtime raises its own untyped errors for graphs that it cannot use
        raise _unusable(f"the runtime does not take its graph: {e}"[:500], "graph_not_loadable") from e


def _warm_up(version: Version) -> None:
    """Run the model once before traffic does: on one row and on two, of zeros and of nulls."""
    width = len(version.contract.inputs)
    try:
        for matrix in (np.zeros((1, width), np.float32), np.full((2, width), np.nan, np.float32)):
            started = time.perf_counter()
            answers = version.run(matrix)
            version.seconds = time.perf_counter() - started
            for name, answer in answers.items():
                if len(answer) != len(matrix):
                    raise _unusable(f"its output {name} does not have one value a row", "contract_and_graph_differ")
    except Integrity:
        raise
    except Exception as e:  # as above: whatever the runtime raises, this version must not serve
        raise _unusable(f"it fails on zeros and nulls: {e}"[:500], "warm_up_failed") from e


def _unusable(why: str, code: str) -> Integrity:
    return Integrity(
        f"the version cannot be served: {why}",
        hint="package the version again with `falaj train`; the planes must be of the same release",
        code=code,
    )
