"""What the project's training function is handed, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.encoding import Encoder
from falaj.lifecycle.training.model import Input
from falaj.lifecycle.training.steps.split import Part, Split, raw_columns
from falaj.workflow.reporting import Reporter

if TYPE_CHECKING:
    import pandas as pd

Label = NDArray[np.int64] | NDArray[np.float64]


class Estimator(Protocol):
    """What a training function returns: anything that predicts and that ONNX can express.

    A classifier also has `predict_proba` and `classes_`, as LightGBM's and scikit-learn's have.
    """

    def predict(self, X: Any, /) -> Any:  # the name that the libraries use
        """The answers for the rows of X."""
        ...


class Params(Mapping[str, Any]):
    """The parameters of a run, read-only: `params["trees"]`, `params.get("trees", 200)`, `**params`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise Invalid(
                f"there is no parameter {key!r}",
                hint=f"the run has {', '.join(self._values) or 'none'}; add it to params= of the model",
                code="unknown_parameter",
            )
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """The parameter, or `default` when the run has none of that name."""
        return self._values.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class Form(NamedTuple):
    """How rows look: the library, and whether categories are codes (float32, NaN for null) or named."""

    kind: Literal["pandas", "numpy", "polars"]
    codes: bool


class PandasRows(NamedTuple):
    """Features as float32 columns and pandas categoricals, and the label."""

    features: pd.DataFrame
    label: pd.Series[Any]


class NumpyRows(NamedTuple):
    """Features as a float32 matrix with category codes and NaN for null, and the label."""

    features: NDArray[np.float32]
    label: Label


class PolarsRows(NamedTuple):
    """Features as Float32 and Enum columns with nulls, and the label."""

    features: pl.DataFrame
    label: pl.Series


def features_as(form: Form, inputs: tuple[Input, ...], frame: pl.DataFrame) -> Any:
    """The features of a raw frame in one form; values are float32, exactly as the served model reads them."""
    if form.kind == "numpy":
        return Encoder(inputs).encode(raw_columns(frame, inputs))
    table = frame.select(_column(i, form.codes) for i in inputs)
    if form.kind == "polars":
        return table
    import pandas as pd  # optional: a project that never asks for pandas need not have it

    return pd.DataFrame(
        {
            i.name: pd.Categorical.from_codes(
                table[i.name].to_physical().cast(pl.Int64).fill_null(-1).to_numpy(),
                categories=pd.Index(list(i.categories)),
            )
            if i.type == "category" and not form.codes
            else table[i.name].fill_null(float("nan")).to_numpy()
            for i in inputs
        }
    )


def _column(i: Input, codes: bool) -> pl.Expr:
    if i.type != "category":
        return pl.col(i.name).cast(pl.Float32)
    known = pl.col(i.name).cast(pl.Enum(list(i.categories)), strict=False)
    return known.to_physical().cast(pl.Float32) if codes else known


class Rows:
    """One part of the training set, in the form that suits the training function."""

    def __init__(self, part: Part, inputs: tuple[Input, ...], asked: Callable[[Form], None]) -> None:
        self._part = part
        self._inputs = inputs
        self._asked = asked

    def __len__(self) -> int:
        return self._part.frame.height

    def pandas(self, *, codes: bool = False) -> PandasRows:
        """As pandas; categories are `Categorical` with the frozen list, or their codes."""
        import pandas as pd  # optional, see `features_as`

        return PandasRows(self._features(Form("pandas", codes)), pd.Series(self._part.label, name="label"))

    def numpy(self) -> NumpyRows:
        """As NumPy: a float32 matrix; categories are codes, nulls are NaN."""
        return NumpyRows(self._features(Form("numpy", True)), self._part.label)

    def polars(self, *, codes: bool = False) -> PolarsRows:
        """As Polars; categories are `Enum` with the frozen list, or their codes."""
        return PolarsRows(self._features(Form("polars", codes)), pl.Series("label", self._part.label))

    def _features(self, form: Form) -> Any:
        self._asked(form)
        return features_as(form, self._inputs, self._part.frame)


class TrainingSet(Rows):
    """The training part, and beside it `validation`, which comes after it in time.

    The holdout is not here: nothing that trains can see it. `names` are the features in the model's
    order, `categories` the values of each categorical one. For a classification the label is the
    index into `classes` (for binary, 1 is the positive class). `seed` makes a run repeatable.
    """

    def __init__(self, parts: Split, task: str, seed: int, report: Reporter) -> None:
        self.form = Form("numpy", True)
        super().__init__(parts.train, parts.inputs, self._note)
        self.validation = Rows(parts.validation, parts.inputs, self._note)
        self.task = task
        self.seed = seed
        self.names = tuple(i.name for i in parts.inputs)
        self.categories = {i.name: i.categories for i in parts.inputs if i.type == "category"}
        self.classes = parts.classes
        self._report = report

    def metric(self, key: str, value: float, step: int) -> None:
        """Report one point of a learning curve."""
        self._report.metric(key, float(value), step)

    def log_lightgbm(self) -> Callable[[Any], None]:
        """A LightGBM callback that reports every evaluation: `fit(..., callbacks=[data.log_lightgbm()])`."""

        def log(env: Any) -> None:
            for part, name, value, *_ in env.evaluation_result_list or ():
                self.metric(f"{part}_{name}", value, env.iteration)

        return log

    def _note(self, form: Form) -> None:
        self.form = form


def params_of(values: Mapping[str, Any]) -> Params:
    """Parameters for a training function; they must survive JSON, for they name the training set. Raises `Invalid`."""
    try:
        decoded = msgspec.json.decode(msgspec.json.encode(dict(values)))
    except (TypeError, msgspec.MsgspecError) as e:
        raise Invalid(
            f"the parameters of a run are JSON values: {e}",
            hint="use numbers, strings, booleans, lists and objects",
            code="wrong_parameter",
        ) from None
    return Params(decoded)
