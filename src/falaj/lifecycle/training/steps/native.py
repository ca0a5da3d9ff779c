"""What the trained estimator itself answers: the other side of the parity check."""

from __future__ import annotations

from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import Input
from falaj.lifecycle.training.steps.training_set import Estimator, Form, features_as


def library_of(estimator: object) -> str:
    """The library that defines an estimator: 'lightgbm', 'sklearn', …"""
    return type(estimator).__module__.split(".")[0]


def final_step(estimator: Any) -> Any:
    """The last estimator of a pipeline, or the estimator itself."""
    return final_step(estimator.steps[-1][1]) if hasattr(estimator, "steps") and estimator.steps else estimator


def booster_of(estimator: Any) -> Any:
    """LightGBM's booster: the one inside its scikit-learn estimator, or itself."""
    return estimator if isinstance(estimator, lightgbm.Booster) else estimator.booster_


class Native:
    """A trained estimator with the form of rows that it was trained on.

    Raises `Invalid` for what is no fitted estimator of the task: not_an_estimator, wrong_estimator, wrong_classes.
    """

    def __init__(self, estimator: Estimator, task: str, classes: tuple[str, ...], form: Form) -> None:
        self._estimator = estimator
        self._task = task
        self._check(classes)
        self._form = _form(estimator, form)

    def answers(self, inputs: tuple[Input, ...], frame: pl.DataFrame) -> NDArray[np.float64]:
        """Probabilities of shape [rows, classes], or values of shape [rows], for raw rows."""
        features = features_as(self._form, inputs, frame)
        model: Any = self._estimator
        if self._task == "regression":
            return np.asarray(model.predict(features), dtype=np.float64).reshape(frame.height)
        return np.asarray(model.predict_proba(features), dtype=np.float64)

    def with_rules(self, inputs: tuple[Input, ...], frame: pl.DataFrame) -> tuple[Input, ...]:
        """The inputs with their null rule, found by asking: what the estimator fails on, the contract refuses.

        `frame` is a sample; its most complete row is asked with each feature null in turn.
        """
        sample = frame.select(i.name for i in inputs)
        whole = sample[int(np.argmin(sample.select(pl.sum_horizontal(pl.all().is_null())).to_series().to_numpy()))]
        blank = whole.with_columns(_null(i) for i in inputs)
        if self._answers(inputs, blank):
            return inputs
        return tuple(
            i
            if self._answers(inputs, whole.with_columns(_null(i)))
            else msgspec.structs.replace(i, null="refuse", unknown="refuse")
            for i in inputs
        )

    def _answers(self, inputs: tuple[Input, ...], frame: pl.DataFrame) -> bool:
        try:
            return bool(np.isfinite(self.answers(inputs, frame)).all())
        except Exception:  # any library, any error: it could not answer, so the contract will refuse
            return False

    def _check(self, classes: tuple[str, ...]) -> None:
        estimator: Any = self._estimator
        if isinstance(estimator, type) or not callable(getattr(estimator, "predict", None)):
            what = f"the class {estimator.__name__}" if isinstance(estimator, type) else type(estimator).__name__
            raise Invalid(
                f"the training function returned {what}, which cannot predict",
                hint="return the fitted estimator itself",
                code="not_an_estimator",
            )
        _check_fitted(estimator)
        if self._task == "regression":
            if hasattr(estimator, "classes_"):
                raise Invalid(
                    f"the task is regression and the training function returned {type(estimator).__name__}",
                    hint="return a regressor, or set the task to 'binary' or 'multiclass'",
                    code="wrong_estimator",
                )
            return
        if not hasattr(estimator, "predict_proba"):
            raise Invalid(
                f"the task is {self._task} and {type(estimator).__name__} gives no probabilities",
                hint="return a classifier with predict_proba; scikit-learn's CalibratedClassifierCV adds it to one without",
                code="wrong_estimator",
            )
        given = getattr(estimator, "classes_", ())
        known = [c.tolist() if isinstance(c, np.generic | np.ndarray) else c for c in given]
        if known != list(range(len(classes))):
            raise Invalid(
                f"the estimator knows the classes {str(known)[:200]}, and the label has {len(classes)}",
                hint="train on the label as it is given: the index into data.classes",
                code="wrong_classes",
            )


def _check_fitted(estimator: Any) -> None:
    try:
        check_is_fitted(estimator)
    except NotFittedError as e:
        raise Invalid(
            f"the training function returned {type(estimator).__name__} unfitted",
            hint="call its fit(rows.features, rows.label) before returning it",
            code="not_an_estimator",
        ) from e
    except TypeError:
        return  # not one of scikit-learn's: the conversion will tell


def _form(estimator: Any, asked: Form) -> Form:
    """The form that an estimator wants: frames where it has learnt names or categories, else the matrix."""
    last = final_step(estimator)
    if library_of(estimator) == "lightgbm":
        if getattr(booster_of(last), "pandas_categorical", None):
            return Form("pandas", False)
        return Form("numpy", True)
    if not hasattr(estimator, "feature_names_in_"):
        return Form("numpy", True)
    return asked if asked.kind != "numpy" else Form("pandas", True)


def _null(i: Input) -> pl.Expr:
    return pl.lit(None).cast({"category": pl.String, "boolean": pl.Boolean}.get(i.type, pl.Float64)).alias(i.name)
