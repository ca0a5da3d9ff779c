"""Quality figures: scores against labels, by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from falaj.kernel.errors import Invalid
from falaj.lifecycle.training.model import METRICS


class NotMeasurable(ValueError):
    """The figure is not defined on these rows."""


def measure(metric: str, task: str, labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """One figure.

    `labels` are class indices or values, of shape [rows]. `scores` are the probability of the positive
    class [rows], the probabilities of all classes [rows, classes], or the values [rows]. roc_auc of
    several classes is one against the rest, averaged with equal weight; brier of several classes is the
    mean squared distance to the true corner. Raises `NotMeasurable` where it is not defined and
    `Invalid` for a metric that the task does not have.
    """
    if metric not in METRICS.get(task, ()):
        raise Invalid(
            f"{metric} cannot be measured for the task {task}",
            hint=f"use one of {', '.join(METRICS.get(task, ()))}",
            code="unknown_metric",
        )
    if not len(labels):
        raise NotMeasurable("there are no rows")
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise NotMeasurable("the model answers with values that are not finite")
    if task == "regression":
        return _regression(metric, labels, values)
    return _binary(metric, labels, values) if task == "binary" else _multiclass(metric, labels, values)


def _regression(metric: str, labels: NDArray[Any], values: NDArray[np.float64]) -> float:
    if metric == "mae":
        return float(sk.mean_absolute_error(labels, values))
    if metric == "rmse":
        return float(np.sqrt(sk.mean_squared_error(labels, values)))
    if len(labels) < 2 or np.ptp(labels) == 0:
        raise NotMeasurable("r2 needs labels that differ")
    return float(sk.r2_score(labels, values))


def _binary(metric: str, labels: NDArray[Any], values: NDArray[np.float64]) -> float:
    if metric == "roc_auc":
        if len(np.unique(labels)) < 2:
            raise NotMeasurable("one class only")
        return float(sk.roc_auc_score(labels, values))
    if metric == "log_loss":
        return float(sk.log_loss(labels, np.clip(values, 0, 1), labels=[0, 1]))
    if metric == "brier":
        return float(np.mean((values - labels) ** 2))
    return float(np.mean((values >= 0.5) == labels))


def _multiclass(metric: str, labels: NDArray[Any], values: NDArray[np.float64]) -> float:
    classes = np.arange(values.shape[1])
    total = values.sum(axis=1, keepdims=True)
    if (total <= 0).any():
        raise NotMeasurable("the probabilities of some rows sum to nothing")
    shares = values / total
    if metric == "roc_auc":
        if len(np.unique(labels)) < len(classes):
            raise NotMeasurable("not every class occurs")
        if len(classes) == 2:
            return float(sk.roc_auc_score(labels, shares[:, 1]))
        return float(sk.roc_auc_score(labels, shares, multi_class="ovr", labels=classes))
    if metric == "log_loss":
        return float(sk.log_loss(labels, shares, labels=classes))
    if metric == "brier":
        return float(np.mean(np.sum((shares - np.eye(len(classes))[labels]) ** 2, axis=1)))
    return float(np.mean(np.argmax(shares, axis=1) == labels))
