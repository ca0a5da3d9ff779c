"""Models as strangers saved them. Imported inside the sandbox only; where there is none, what runs code when loaded is refused.

An MLflow model may hold several forms of one model. They are taken in this order: ONNX and LightGBM's own text hold no code;
skops is read with types of a list; pickle and cloudpickle run what they say, and that is what the sandbox is for.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightgbm
import msgspec
import numpy as np
import onnx
import onnxruntime
import sklearn.base
from numpy.typing import NDArray

from falaj.kernel.errors import Denied, Invalid
from falaj.lifecycle.training.encoding import Encoder
from falaj.lifecycle.training.model import TENSOR, Input
from falaj.lifecycle.training.steps.convert import to_onnx
from falaj.lifecycle.training.steps.native import booster_of, final_step, library_of

Columns = Mapping[str, Sequence[Any]]
Scores = NDArray[np.float64]
IR_VERSION = 10
"""The version of the file format that the runtime reads; what newer ones add, no allowed graph uses."""

_TYPES = {
    "double": "float", "float": "float", "long": "integer", "integer": "integer", "boolean": "boolean", "string": "category",
}  # fmt: skip
_DTYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip
_SKOPS_TRUSTED = ("sklearn.", "numpy.", "lightgbm.", "scipy.", "collections.OrderedDict", "collections.defaultdict")
_CLAIMS = ("run_id", "model_id", "model_uuid", "utc_time_created", "mlflow_version", "databricks_runtime")


class Foreign(msgspec.Struct, frozen=True):
    """What a model says of itself. Empty where it does not say.

    `names` are its features in the order of its columns, `width` how many there are (0: not known), `types` those of its
    signature by name, `categories` by name; `classes` are in the order of its probabilities. `text`: it reads
    categories as text rather than as codes.
    """

    format: str
    library: str
    task: str = ""
    width: int = 0
    names: tuple[str, ...] = ()
    types: dict[str, str] = {}
    categories: dict[str, tuple[str, ...]] = {}
    classes: tuple[str, ...] = ()
    text: bool = False
    claims: dict[str, str] = {}


class Original(Protocol):
    """A stranger's model, loaded."""

    found: Foreign

    def graph(self) -> bytes:
        """The model as ONNX."""
        ...

    def scores(self, columns: Columns, inputs: tuple[Input, ...]) -> Scores:
        """Its own answers for raw columns: probabilities [rows, classes] or values [rows, 1]."""
        ...


class OnnxOriginal:
    """A graph as it came, fed input by input."""

    def __init__(self, data: bytes, found: Foreign, score: str) -> None:
        self._data = data
        self._score = score
        self._session: onnxruntime.InferenceSession | None = None
        self.found = found

    def graph(self) -> bytes:
        """The graph, as it came."""
        return self._data

    def scores(self, columns: Columns, inputs: tuple[Input, ...]) -> Scores:
        """What the output that is the score answers."""
        session = self._session = self._session or self._opened()
        matrix = Encoder(inputs).encode(columns)
        feeds, at = {}, 0
        wanted = session.get_inputs()
        for value in wanted:
            wide = len(inputs) if len(wanted) == 1 else 1
            kind = _DTYPES[value.type]
            if kind is np.object_:
                part = np.array([_text(v) for v in columns[inputs[at].name]], dtype=np.object_).reshape(-1, 1)
            else:
                part = matrix[:, at : at + wide].astype(kind)
            feeds[value.name] = part if len(value.shape) == 2 else part.reshape(-1)
            at += wide
        answer = session.run([self._score], feeds)[0]
        if isinstance(answer, list):  # a map of probabilities for each row
            answer = [list(row.values()) for row in answer]
        return np.asarray(answer, dtype=np.float64).reshape(len(matrix), -1)

    def _opened(self) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        model = onnx.ModelProto()
        model.ParseFromString(self._data)
        model.ir_version = min(model.ir_version, IR_VERSION)
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Estimator:
    """A fitted LightGBM or scikit-learn model."""

    def __init__(self, model: Any, found: Foreign) -> None:
        self._model = model
        self.found = _described(model, found)

    def graph(self) -> bytes:
        """The model, converted."""
        found = self.found
        names = found.names or tuple(f"f{n}" for n in range(found.width))
        inputs = tuple(
            Input(
                n, "category" if found.types.get(n) == "category" else "float", categories=found.categories.get(n, ())
            )
            for n in names
        )
        graph = to_onnx(self._model, "imported", TENSOR, inputs, text=found.text)
        data: bytes = graph.SerializeToString(deterministic=True)
        return data

    def scores(self, columns: Columns, inputs: tuple[Input, ...]) -> Scores:
        """What the estimator itself answers."""
        features = self._features(columns, inputs)
        if isinstance(self._model, lightgbm.Booster):
            raw = np.asarray(self._model.predict(features), dtype=np.float64)
            return np.stack([1 - raw, raw], axis=1) if self.found.task == "binary" else raw.reshape(len(features), -1)
        answer = self._model.predict if self.found.task == "regression" else self._model.predict_proba
        return np.asarray(answer(features), dtype=np.float64).reshape(len(features), -1)

    def _features(self, columns: Columns, inputs: tuple[Input, ...]) -> Any:
        codes = Encoder(inputs).encode(columns).astype(np.float64)
        named = self.found.text or (hasattr(self._model, "feature_names_in_") and library_of(self._model) == "sklearn")
        if not named:
            return codes
        import pandas as pd  # optional: a model that was trained on a matrix needs none

        return pd.DataFrame(
            {
                i.name: pd.Series(list(columns[i.name]), dtype=object)
                if self.found.text and i.type == "category"
                else codes[:, n]
                for n, i in enumerate(inputs)
            }
        )


class Place(msgspec.Struct, frozen=True):
    """Where the model is, whether this process is confined, and which output of a graph is the score."""

    folder: Path
    confined: bool
    score: str = ""


def open_original(place: Place, kind: str) -> Original:
    """The model in a folder, in the safest form that it has. Raises `Invalid`, and `Denied` without a sandbox for it."""
    if kind == "onnx":
        (file,) = [p for p in place.folder.iterdir() if p.is_file()]
        return OnnxOriginal(file.read_bytes(), Foreign("onnx", "onnx"), place.score)
    return _mlflow(place)


def _mlflow(place: Place) -> Original:
    folder = place.folder
    file = folder / "MLmodel"
    if not file.is_file():
        raise Invalid(
            "there is no MLmodel file in it",
            hint="name the model's own folder, the one that save_model wrote",
            code="not_an_mlflow_model",
        )
    said = _library("yaml", "`pip install 'falaj[mlflow]'`; or export the model to ONNX").safe_load(
        file.read_text("utf-8")
    )
    flavours = said.get("flavors") if isinstance(said, dict) else None
    if not isinstance(flavours, dict):
        raise Invalid(
            "its MLmodel names no flavour", hint="save the model again with MLflow", code="not_an_mlflow_model"
        )
    claims = {k: str(said[k])[:200] for k in _CLAIMS if said.get(k)}
    types, wide = _signature(said.get("signature"))
    for name, reader in _READERS.items():
        if isinstance(flavours.get(name), dict):
            seen = Foreign("", name, width=len(types) or wide, names=tuple(types), types=types, claims=claims)
            return reader(place, flavours[name], seen)
    known = ", ".join(_READERS)
    raise Invalid(
        f"its flavours are {', '.join(sorted(map(str, flavours)))[:200]}, and {known} are understood",
        hint="export the model to ONNX and import that, or save it with one of these flavours",
        code="foreign_format_unknown",
    )


def _signature(said: Any) -> tuple[dict[str, str], int]:
    """MLflow's signature of the inputs: type by name, or the width of its one tensor."""
    try:
        columns = json.loads(said["inputs"])
        if columns and columns[0].get("type") == "tensor" and "name" not in columns[0]:
            shape = columns[0]["tensor-spec"]["shape"]
            return {}, int(shape[-1]) if len(shape) == 2 and shape[-1] > 0 else 0
        return {str(c["name"]): _TYPES[c["type"]] for c in columns}, 0
    except (KeyError, TypeError, ValueError, IndexError):
        return {}, 0  # it says nothing that is understood, so somebody has to


def _inside(folder: Path, name: Any) -> Path:
    """A file that MLmodel names, if it is one of the folder's own."""
    text = str(name)
    path = (folder / text).resolve() if "\0" not in text else folder
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise Invalid(
            f"its MLmodel names {text[:80]!r}, which is no file in it",
            hint="save the model again",
            code="bad_source",
        )
    return path


def _read_onnx(place: Place, said: dict[str, Any], found: Foreign) -> Original:
    data = _inside(place.folder, said.get("data")).read_bytes()
    return OnnxOriginal(data, msgspec.structs.replace(found, format="onnx"), place.score)


def _read_lightgbm(place: Place, said: dict[str, Any], found: Foreign) -> Original:
    path = _inside(place.folder, said.get("data"))
    with path.open("rb") as f:
        native = f.read(5) == b"tree\n"
    if not native:
        return _read_sklearn(place, {**said, "pickled_model": said.get("data")}, found)
    booster = lightgbm.Booster(model_file=str(path))
    return Estimator(booster, msgspec.structs.replace(found, format="lightgbm"))


def _read_sklearn(place: Place, said: dict[str, Any], found: Foreign) -> Original:
    path = _inside(place.folder, said.get("pickled_model"))
    skops = said.get("serialization_format") == "skops" or path.suffix == ".skops"
    if not place.confined:
        raise Denied(
            f"{path.name} can run code when it is loaded, and there is no sandbox here",
            hint="export it to ONNX; or import it on Linux 6.2 or later with unprivileged user namespaces",
            code="no_sandbox",
        )
    model = _load_skops(path) if skops else _load_pickle(path)
    return Estimator(model, msgspec.structs.replace(found, format="skops" if skops else "pickle"))


_READERS: dict[str, Callable[[Place, dict[str, Any], Foreign], Original]] = {
    "onnx": _read_onnx,
    "lightgbm": _read_lightgbm,
    "sklearn": _read_sklearn,
}


def _library(name: str, hint: str) -> Any:
    """A library that only some models need. Raises `Invalid` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise Invalid(
            f"reading this model needs {name}, which is not installed", hint=hint, code="library_missing"
        ) from e


def _load_skops(path: Path) -> Any:
    skops = _library("skops.io", "`pip install 'falaj[mlflow]'`; or export the model to ONNX")
    named = skops.get_untrusted_types(file=path)
    strange = [t for t in named if not str(t).startswith(_SKOPS_TRUSTED)]
    if strange:
        raise Invalid(
            f"its skops file holds types that are not trusted: {', '.join(map(str, strange[:5]))}",
            hint="export the model to ONNX",
            code="untrusted_types",
        )
    return skops.load(path, trusted=named)


def _load_pickle(path: Path) -> Any:
    """The one place where a pickle is loaded: in a process that can do nothing but answer (`workflow.confine`)."""
    with path.open("rb") as f:
        return pickle.load(f)  # noqa: S301  # confined: see above


def _described(model: Any, found: Foreign) -> Foreign:
    """What a loaded model says beside what its folder said."""
    library = library_of(model)
    last = final_step(model)
    if library not in ("lightgbm", "sklearn"):
        raise Invalid(
            f"it holds a {type(model).__name__} of {library[:40]}, and estimators of scikit-learn and LightGBM are understood",
            hint="export the model to ONNX and import that",
            code="foreign_format_unknown",
        )
    if isinstance(last, lightgbm.Booster) or library_of(last) == "lightgbm":
        found = _of_booster(booster_of(last), found) if last is model else found
    task, classes = _answers(model, last)
    given = getattr(model, "feature_names_in_", None)
    names = tuple(map(str, given)) if given is not None else found.names
    width = int(getattr(model, "n_features_in_", 0) or len(names) or found.width)
    categories = found.categories or _encoded(model, names)
    text = library == "sklearn" and any(found.types.get(n) == "category" for n in names)
    return msgspec.structs.replace(
        found, library=library, task=task, classes=classes or found.classes, names=names, width=width,
        categories=categories, text=text,
    )  # fmt: skip


def _answers(model: Any, last: Any) -> tuple[str, tuple[str, ...]]:
    """Its task, and its classes where it has them."""
    if isinstance(last, lightgbm.Booster):
        objective = str(last.dump_model()["objective"]).split(" ")[0] if last.num_trees() else ""
        if objective in ("binary", "cross_entropy"):
            return "binary", ()
        if objective in ("multiclass", "multiclassova", "softmax"):
            return "multiclass", ()
        if objective in ("lambdarank", "rank_xendcg", ""):
            raise _no_task(f"its objective is {objective or 'not known'}")
        return "regression", ()
    if hasattr(model, "predict_proba") and hasattr(model, "classes_"):
        classes = tuple(str(c).lower() if isinstance(c, bool | np.bool_) else str(c) for c in model.classes_)
        return ("binary" if len(classes) == 2 else "multiclass"), classes
    if sklearn.base.is_regressor(model):
        return "regression", ()
    raise _no_task(f"{type(last).__name__} gives no probabilities and is no regressor")


def _no_task(why: str) -> Invalid:
    return Invalid(
        f"it answers none of the tasks binary, multiclass and regression: {why}",
        hint="a classifier needs predict_proba; scikit-learn's CalibratedClassifierCV adds it to one without",
        code="foreign_task_unknown",
    )


def _of_booster(booster: Any, found: Foreign) -> Foreign:
    """Names and categories as LightGBM's own text has them."""
    names = tuple(booster.feature_name())
    if all(re.fullmatch(r"Column_\d+", n) for n in names):
        names = found.names if len(found.names) == len(names) else ()
    text = booster.model_to_string(num_iteration=1)
    infos = re.search(r"^feature_infos=(.*)$", text, re.MULTILINE)
    ranges = infos[1].split(" ") if infos else []
    coded = [n for n, info in zip(booster.feature_name(), ranges, strict=False) if info != "none" and "[" not in info]
    lists = getattr(booster, "pandas_categorical", None) or []
    categories = {n: tuple(map(str, c)) for n, c in zip(coded, lists, strict=False)} if len(coded) == len(lists) else {}
    types = {**found.types, **dict.fromkeys(coded, "category")}
    return msgspec.structs.replace(found, names=names, width=len(ranges), types=types, categories=categories)


def _encoded(model: Any, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The categories that encoders inside a pipeline have learnt for columns that they read by name or place."""
    found: dict[str, tuple[str, ...]] = {}
    for _, step in getattr(model, "steps", None) or [("", model)]:
        for _, inner, columns in getattr(step, "transformers_", ()):
            first = inner.steps[-1][1] if hasattr(inner, "steps") else inner
            lists = getattr(first, "categories_", None)
            picked = [columns] if isinstance(columns, str | int) else list(columns) if lists is not None else []
            if lists is None or len(lists) != len(picked):
                continue
            for column, values in zip(picked, lists, strict=True):
                name = names[column] if isinstance(column, int) and column < len(names) else str(column)
                found[name] = tuple(str(v) for v in values if v is not None and v == v)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
