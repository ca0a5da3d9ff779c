"""Nothing that runs here reports about itself to anybody: ONNX Runtime would, and keeps what it has not sent yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USERS = (
    "falaj.lifecycle.serving.plane.loading",
    "falaj.lifecycle.training.steps.contract",
    "falaj.lifecycle.training.steps.foreign.originals",
)
"""Whatever imports the runtime."""
SESSION = """
import onnx, onnxruntime
from onnx import TensorProto, helper
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


def left_behind(folder: Path, code: str, **environment: str) -> set[str]:
    """What a process with this folder as home and for temporary files leaves there."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT / "src")}
    subprocess.run(
        [sys.executable, "-B", "-c", code], env={**environ, **environment}, cwd=folder, check=True, timeout=60
    )
    return {p.name for p in folder.rglob("*")}


@pytest.mark.parametrize("user", USERS)
def test_the_runtime_collects_nothing(tmp_path: Path, user: str) -> None:
    assert left_behind(tmp_path, f"import {user}\n{SESSION}") == set()


def test_a_project_s_own_session_collects_nothing(tmp_path: Path) -> None:
    assert left_behind(tmp_path, f"import falaj as fj\n{SESSION}") == set()


def test_who_wants_to_report_still_may(tmp_path: Path) -> None:
    code = "import falaj, os\nassert os.environ['ORT_DISABLE_TELEMETRY'] == '0'\n"
    assert left_behind(tmp_path, code, ORT_DISABLE_TELEMETRY="0") == set()


def test_every_user_of_the_runtime_is_looked_at() -> None:
    files = (p for p in (ROOT / "src" / "falaj").rglob("*.py") if "import onnxruntime" in p.read_text("utf-8"))
    names = {".".join(p.relative_to(ROOT / "src").with_suffix("").parts) for p in files}
    assert names == set(USERS)
