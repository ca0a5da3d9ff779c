"""What is in the model folder: only what may be there, and nothing that can run code.

The allow-list does the work: an ONNX graph of standard operators, its contract and its reference
profile, both JSON of a known shape. Scanners for
pickles are advisory (each has known ways around it) and run beside it.
"""

from __future__ import annotations

from importlib import metadata
from io import BytesIO
from pathlib import Path

import msgspec
import onnx
from picklescan import scanner as picklescan

from falaj.kernel.digests import manifest
from falaj.kernel.errors import FalajError
from falaj.lifecycle.evidence.model import GateSpec, Measurement
from falaj.lifecycle.training.model import CONTRACT_FILE, PROFILE_BYTES, PROFILE_FILE, ModelContract, read_profile
from falaj.lifecycle.training.steps.contract import MODEL_FILE
from falaj.lifecycle.training.steps.graphs import problems

ALLOWED_FILES = (MODEL_FILE, CONTRACT_FILE, PROFILE_FILE)

_PICKLE_SUFFIX = ".pkl"  # makes picklescan read the bytes as a pickle whatever the file is called


def scan(gate: GateSpec, folder: Path) -> Measurement:
    """The number of problems in a model folder. A scanner that could not run is a problem of the measurement itself."""
    try:
        files = [entry.path for entry in manifest(folder)]
    except FalajError as e:
        return Measurement(gate.name, 1.0, {"problems": [e.message]})
    found = [f"{name} does not belong in a model" for name in files if name not in ALLOWED_FILES]
    found += [f"{name} is missing" for name in ALLOWED_FILES if name not in files]
    if MODEL_FILE in files:
        found += _graph(folder)
    if PROFILE_FILE in files:
        found += _profile(folder)
    try:
        scanned, pickles = _pickles(folder, files)
    except Exception as e:  # any failure of a scanner means that nothing is known, and that is no pass
        return Measurement(gate.name, None, problem=f"picklescan did not run: {type(e).__name__}: {str(e)[:200]}")
    detail = {
        "problems": [*found, *pickles],
        "files": files,
        "scanners": {f"onnx {onnx.__version__}": 1, f"picklescan {metadata.version('picklescan')}": scanned},
    }
    return Measurement(gate.name, float(len(found) + len(pickles)), detail)


def _graph(folder: Path) -> list[str]:
    try:
        model = onnx.load_model(folder / MODEL_FILE, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
    except Exception as e:  # protobuf, checker and shape inference each have their own; all mean: not a sound graph
        return [
            f"{MODEL_FILE} is not a sound ONNX graph: {str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__}"
        ]
    return problems(model) + _fits(folder, model)


def _fits(folder: Path, model: onnx.ModelProto) -> list[str]:
    """Whether the contract speaks of this graph."""
    contract = _contract(folder)
    if isinstance(contract, str):
        return [contract]
    initial = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in initial]
    if [i.name for i in inputs] != [contract.tensor]:
        return [f"the graph reads {', '.join(i.name for i in inputs)}, the contract {contract.tensor}"]
    problems = []
    tensor = inputs[0].type.tensor_type
    widths = [d.dim_value for d in tensor.shape.dim][1:]
    if tensor.elem_type != onnx.TensorProto.FLOAT or widths != [len(contract.inputs)]:
        problems.append(f"the graph does not read float32 [rows, {len(contract.inputs)}] as the contract says")
    outputs = {o.name for o in model.graph.output}
    problems += [f"the graph has no output {o.tensor}" for o in contract.outputs if o.tensor not in outputs]
    return problems


def _profile(folder: Path) -> list[str]:
    """Whether the profile is one, and of this contract. No more of the file is read than a profile may have."""
    contract = _contract(folder)
    if isinstance(contract, str):
        return [f"{PROFILE_FILE} has no contract to be compared with"]
    with (folder / PROFILE_FILE).open("rb") as f:
        data = f.read(PROFILE_BYTES + 1)
    try:
        read_profile(data, contract)
    except FalajError as e:
        return [e.message]
    return []


def _contract(folder: Path) -> ModelContract | str:
    """The contract, or what is wrong with it."""
    try:
        return msgspec.json.decode((folder / CONTRACT_FILE).read_bytes(), type=ModelContract)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        return f"{CONTRACT_FILE} is not a contract: {str(e)[:200]}"


def _pickles(folder: Path, files: list[str]) -> tuple[int, list[str]]:
    """Scan by folder, and each file's bytes for an archive or a pickle under another name."""
    found = []
    whole = picklescan.scan_directory_path(str(folder))
    if whole.scan_err:
        raise ValueError("a file could not be scanned")
    if whole.issues_count or whole.infected_files:
        found.append(f"picklescan found {max(whole.issues_count, whole.infected_files)} dangerous globals")
    scanned = 0
    for name in files:
        data = (folder / name).read_bytes()
        scanned += 1
        if data[:2] in (b"PK", b"7z", b"\x1f\x8b") or (data[:1] == b"\x80" and data[1:2] <= b"\x05"):
            found.append(f"{name} begins like an archive or a pickle")
            continue
        if name in ALLOWED_FILES:
            result = picklescan.scan_bytes(BytesIO(data), name, _PICKLE_SUFFIX)
            if result.issues_count or result.infected_files:
                found.append(f"picklescan found dangerous globals in {name}")
    return scanned, found
