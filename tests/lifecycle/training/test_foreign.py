"""Models that exist already, as they are brought in: what is allowed, what is asked for, and that the answers stay the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from falaj.kernel.digests import FileEntry
from falaj.kernel.errors import Invalid
from falaj.lifecycle.evidence.model import MANDATORY
from falaj.lifecycle.evidence.steps.parity import parity
from falaj.lifecycle.evidence.steps.scan import scan
from falaj.lifecycle.training.foreign import Declared, ImportOutcome, ImportTask, check_source, read_declared
from falaj.lifecycle.training.model import Input, TrainingSpec
from falaj.lifecycle.training.steps.contract import LoadedModel
from falaj.lifecycle.training.steps.foreign.contract import agree
from falaj.lifecycle.training.steps.foreign.originals import Foreign, Place, open_original
from falaj.lifecycle.training.steps.foreign.run import _plain, run
from falaj.workflow.confine import supported
from tests.lifecycle.serving.plane.fleet import Silent
from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[3]
GATES = ("parity max_abs_difference", "scan", "provenance")
NOTHING = Declared()
TWO = (Input("a", "float"), Input("b", "float"))


@pytest.fixture(scope="module")
def corpus() -> Iterator[ModuleType]:
    with loaded(ROOT / "proofs" / "_malicious.py") as module:
        yield module


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models as MLflow really saves them."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about type hints and pickles
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        import mlflow.lightgbm
        import mlflow.onnx
        import mlflow.sklearn
        from mlflow.models import infer_signature

        root = tmp_path_factory.mktemp("mlflow")
        rng = np.random.default_rng(0)
        rows = pd.DataFrame(
            {"a": rng.normal(size=300), "b": rng.normal(size=300), "c": rng.choice(["x", "y", "z"], 300)}
        )
        late = (rows.a + (rows.c == "x") > 0).astype(int)
        encode = ColumnTransformer(
            [("n", StandardScaler(), ["a", "b"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"])]
        )
        pipeline = make_pipeline(encode, LogisticRegression()).fit(rows, late)
        mlflow.sklearn.save_model(
            pipeline, root / "sklearn", serialization_format="cloudpickle", pip_requirements=["scikit-learn"],
            signature=infer_signature(rows, pipeline.predict(rows)),
        )  # fmt: skip
        mlflow.sklearn.save_model(
            pipeline, root / "skops", serialization_format="skops", skops_trusted_types=[], pip_requirements=["skops"],
            signature=infer_signature(rows, pipeline.predict(rows)),
        )  # fmt: skip
        boosted = lightgbm.LGBMRegressor(n_estimators=15, verbose=-1).fit(rows[["a", "b"]], rows.a * 3)
        mlflow.lightgbm.save_model(boosted.booster_, root / "lightgbm", pip_requirements=["lightgbm"])
        return root


def brought(tmp_path: Path, kind: str, source: Path | bytes, said: Declared = NOTHING) -> ImportOutcome:
    given = tmp_path / "given" / "source"
    given.mkdir(parents=True)
    if isinstance(source, bytes):
        (given / "model.onnx").write_bytes(source)
    else:
        for path in source.iterdir():
            (given / path.name).write_bytes(path.read_bytes())
    task = ImportTask(
        "late", kind, str(tmp_path / "given"), str(tmp_path), said, GATES, hidden=(str(tmp_path / "home"),)
    )
    return run(task, None, Silent())


def apart(tmp_path: Path) -> float:
    """By how much the graph that serves and the original differ, as the gate measures it."""
    found = parity(MANDATORY[0], LoadedModel.read(tmp_path / "model"), tmp_path / "parity.parquet")
    assert found.value is not None, found.problem
    assert scan(MANDATORY[1], tmp_path / "model").value == 0
    return found.value


@pytest.mark.parametrize(("folder", "kind"), [("sklearn", "pickle"), ("skops", "skops")])
def test_a_pipeline_with_text_keeps_its_answers(mlflow: Path, tmp_path: Path, folder: str, kind: str) -> None:
    if supported():
        pytest.skip("no sandbox on this machine: a pickle is refused, which tests/workflow sees to")
    found = brought(tmp_path, "mlflow", mlflow / folder)
    assert (found.format, found.library, found.contract.task) == (kind, "sklearn", "binary")
    assert found.contract.inputs[2].categories == ("x", "y", "z")
    assert [i.null for i in found.contract.inputs] == ["refuse"] * 3
    assert found.missing == {
        "provenance": "imported: training run, code, datasets, training set, runtime are not known"
    }
    assert found.claims["mlflow_version"]
    assert apart(tmp_path) < 1e-5


def test_a_skops_file_with_a_type_that_nobody_trusts_is_not_opened(mlflow: Path, tmp_path: Path) -> None:
    if supported():
        pytest.skip("no sandbox on this machine: no skops file is opened at all")
    source = tmp_path / "made"
    shutil.copytree(mlflow / "skops", source)
    skops.io.dump({"model": FunctionTransformer(subprocess.check_output)}, source / "model.skops")
    with pytest.raises(Invalid) as refused:
        brought(tmp_path, "mlflow", source)
    assert refused.value.code == "untrusted_types" and "subprocess.check_output" in refused.value.message


def test_boosted_trees_in_their_own_text_keep_their_answers(mlflow: Path, tmp_path: Path) -> None:
    found = brought(tmp_path, "mlflow", mlflow / "lightgbm")
    assert (found.format, found.contract.task) == ("lightgbm", "regression")
    assert [(i.name, i.null) for i in found.contract.inputs] == [("a", "allow"), ("b", "allow")]
    assert apart(tmp_path) < 1e-5


def columns(task: str = "binary") -> bytes:
    """A graph with a float, a whole number and a text as inputs, and one probability as output."""
    inputs = [
        helper.make_tensor_value_info("a", TensorProto.DOUBLE, [None, 1]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("c", TensorProto.STRING, [None, 1]),
    ]
    nodes = [
        helper.make_node("Cast", ["a"], ["a32"], to=1),
        helper.make_node("Cast", ["n"], ["n32"], to=1),
        helper.make_node("Unsqueeze", ["n32", "one"], ["n2"]),
        helper.make_node(
            "LabelEncoder", ["c"], ["code"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_floats=[1.0, 2.0],
            default_float=-1.0,
        ),
        helper.make_node("Concat", ["a32", "n2", "code"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["z"]),
        helper.make_node("Sigmoid" if task == "binary" else "Identity", ["z"], ["p"]),
    ]  # fmt: skip
    weights = [
        numpy_helper.from_array(np.array([[1.0], [0.5], [-1.0]], np.float32), "w"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    outputs = [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)])
    data: bytes = model.SerializeToString()
    return data


def test_inputs_of_several_types_become_one_tensor(tmp_path: Path) -> None:
    said = Declared(
        task="binary", classes=("no", "yes"), positive="yes",
        inputs=(Input("a", "float"), Input("n", "integer"), Input("c", "category", categories=("y", "x"))),
    )  # fmt: skip
    found = brought(tmp_path, "onnx", columns(), said)
    assert [i.null for i in found.contract.inputs] == ["refuse"] * 3  # it answers no number to any null
    assert found.contract.classes == ("no", "yes")
    assert apart(tmp_path) < 1e-6


def test_the_positive_class_may_be_the_first(tmp_path: Path) -> None:
    said = Declared(
        task="binary", classes=("late", "early"), positive="late",
        inputs=(Input("a", "float"), Input("n", "integer"), Input("c", "category", categories=("x", "y"))),
    )  # fmt: skip
    found = brought(tmp_path, "onnx", columns(), said)
    model = LoadedModel.read(tmp_path / "model")
    answers = model.run(np.array([[0.0, 0.0, 0.0]], np.float32))
    assert found.contract.classes == ("early", "late")
    assert answers["probability"][0] == pytest.approx(1 - 1 / (1 + np.exp(1)))  # the graph's own is of the second
    assert apart(tmp_path) < 1e-6


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        (Declared(), ["its task", "the categories of c", "its classes"]),
        (Declared(task="binary", classes=("no", "yes")), ["the categories of c", "which class is the positive one"]),
        (Declared(task="regression"), ["the categories of c"]),
    ],
)
def test_what_nobody_says_is_named_and_not_guessed(said: Declared, missing: list[str], tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        brought(tmp_path, "onnx", columns(), said)
    assert refused.value.code == "contract_incomplete"
    told = refused.value.details["missing"]
    wanted = [m for m in missing if m != "its classes" or said.task]
    assert [any(t.startswith(m) for t in told) for m in wanted] == [True] * len(wanted), told


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (Declared(task="multiclass", inputs=TWO, classes=("a", "b")), "contract_differs"),
        (Declared(task="regression", inputs=(*TWO, Input("c", "float"))), "contract_differs"),
        (Declared(task="regression", inputs=TWO[:1]), "contract_differs"),
        (Declared(task="binary", inputs=TWO, classes=("a", "b"), positive="c"), "contract_differs"),
    ],
)
def test_what_contradicts_itself_is_refused(said: Declared, code: str, corpus: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(Invalid) as refused:
        brought(tmp_path, "onnx", corpus._plain(), said)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("classes", "said", "defined", "found"),
    [
        (("early", "late"), "early", "late", None),
        (("early", "late"), "late", "late", 1),
        (("early", "late"), "", "early", 0),
        (("0", "1"), "1", "true", 1),
        (("false", "true"), "false", "true", None),
    ],
)
def test_who_imports_does_not_turn_the_project_s_classes_round(
    classes: tuple[str, str], said: str, defined: str, found: int | None
) -> None:
    """Labels are counted by the project's positive class: with the other one every figure would be of its opposite."""
    definition = TrainingSpec("late", "binary", "late", "at", TWO, positive=defined)
    model, declared = Foreign("onnx", "onnx", classes=classes), Declared(positive=said, inputs=TWO)
    if found is not None:
        assert agree(model, declared, definition).positive == found
        return
    with pytest.raises(Invalid) as refused:
        agree(model, declared, definition)
    assert refused.value.code == "contract_differs" and "in the project" in refused.value.message


@pytest.mark.parametrize(
    "said",
    [
        Foreign("onnx\n", "sklearn"), Foreign("pickle", "x" * 201), Foreign("pickle", "sklearn", task="ranking"),
        Foreign("pickle", "sklearn", types={"a": "picture"}), Foreign("pickle", "sklearn", claims={"run_id": "x" * 201}),
        Foreign("pickle", "sklearn", claims={str(n): "x" for n in range(51)}), Foreign("pickle", "sklearn", names=("",)),
    ],
)  # fmt: skip
def test_what_no_honest_model_says_is_not_taken_from_a_sandbox(said: Foreign) -> None:
    with pytest.raises(Invalid) as refused:
        _plain(said)
    assert refused.value.code == "bad_source"


def test_texts_in_one_tensor_are_not_guessed_apart(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node(
                "LabelEncoder", ["c"], ["code"], domain="ai.onnx.ml", keys_strings=["x", "y"], values_floats=[1.0, 2.0],
                default_float=-1.0,
            ),
            helper.make_node("ReduceSum", ["code", "axes"], ["p"], keepdims=1),
        ],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.STRING, [None, 2])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(np.array([1], np.int64), "axes")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)])
    inputs = (Input("a", "category", categories=("x", "y")), Input("b", "category", categories=("y", "x")))
    with pytest.raises(Invalid) as refused:
        brought(tmp_path, "onnx", model.SerializeToString(), Declared(task="regression", inputs=inputs))
    assert refused.value.code == "graph_not_adaptable" and "several texts" in refused.value.message


def test_every_graph_that_is_not_allowed_is_refused(corpus: ModuleType, tmp_path: Path) -> None:
    said = Declared(task="regression", inputs=TWO)
    for n, case in enumerate(c for c in corpus.GRAPHS if "terabyte" not in c.name):
        folder = tmp_path / str(n)
        folder.mkdir()
        case.write(folder, None)
        with pytest.raises(Invalid) as refused:
            brought(folder, "onnx", (folder / "model.onnx").read_bytes(), said)
        assert refused.value.code == "onnx_not_allowed", case.name
    brought(tmp_path / "good", "onnx", corpus._plain(), said)  # the same without what is not allowed


@pytest.mark.parametrize("path", ["../up", "/abs", "a//b", "a/./b", "", "a\\..\\b", "a\nb", "x" * 400])
def test_only_plain_paths_name_files(path: str) -> None:
    with pytest.raises(Invalid) as refused:
        check_source("mlflow", (FileEntry(path, 1, "sha256:" + "0" * 64),))
    assert refused.value.code == "bad_source"


@pytest.mark.parametrize("name", ["../up.onnx", "/up.onnx", "a\0b", "none.onnx", None, ["a"], "link/up.onnx", "."])
def test_an_mlmodel_names_files_of_its_own_folder_only(tmp_path: Path, name: object) -> None:
    (tmp_path / "up.onnx").write_bytes(b"")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"onnx": {"data": name}}}))
    with pytest.raises(Invalid) as refused:
        open_original(Place(folder, False, ""), "mlflow")
    assert refused.value.code == "bad_source"


def test_a_file_of_less_than_nothing_makes_no_room_for_others() -> None:
    files = (FileEntry("a", 1 << 40, "sha256:" + "0" * 64), FileEntry("b", -(1 << 40), "sha256:" + "1" * 64))
    with pytest.raises(Invalid) as refused:
        check_source("mlflow", files)
    assert refused.value.code == "bad_source"


@pytest.mark.parametrize(
    "table",
    [
        {"task": "ranking"}, {"tasks": "binary"}, {"inputs": [{"name": "a", "type": "picture"}]},
        {"inputs": [{"name": "a", "type": "float"}, {"name": "a", "type": "float"}]}, {"p99_ms": 0},
        {"classes": ["a", "b"], "positive": "c"}, {"inputs": [{"name": "a", "type": "float", "source": "view", "view": "v"}]},
    ],
)  # fmt: skip
def test_a_contract_file_says_what_can_be_meant(table: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        read_declared(table)
    assert refused.value.code == "bad_contract_file"


def test_a_linear_model_of_a_matrix_needs_names(tmp_path: Path) -> None:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    fitted = LinearRegression().fit(np.eye(2), np.array([1.0, 2.0]))
    graph = convert_sklearn(fitted, initial_types=[("x", FloatTensorType([None, 2]))]).SerializeToString()
    with pytest.raises(Invalid) as refused:
        brought(tmp_path / "1", "onnx", graph, Declared(task="regression"))
    assert refused.value.details["missing"] == [
        "the names of its 2 columns in their order ([[inputs]] in a contract file)"
    ]
    found = brought(tmp_path / "2", "onnx", graph, Declared(task="regression", inputs=TWO))
    assert (found.contract.tensor, apart(tmp_path / "2") < 1e-6) == ("x", True)
