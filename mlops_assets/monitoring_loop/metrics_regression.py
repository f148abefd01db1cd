"""Measure: metrics of predicted numbers. Errors are predicted minus actual, in the unit of the label."""

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.clusters import Value, clusters_of, ratio
from mlops_assets.monitoring_loop.metrics import Array


def regression_metric(
    metric: str,
    predicted: Array,
    actual: Array,
    days: NDArray[np.generic],
    *,
    weights: Array | None = None,
) -> Value:
    """One metric over labelled rows; within a day the row is the unit of its interval, over several days the day.

    ``mae``: mean absolute error. ``rmse``: root of the mean squared error, its interval by the delta method.
    ``bias``: mean error. ``wape``: sum of absolute errors over the sum of absolute actual values.

    Args:
        weights: what a row stands for, if not for itself: 1 / completeness of its outcome.

    Raises:
        ValueError: no rows, or all actual values are zero where a share of them is asked.

    >>> regression_metric("bias", np.array([3.0, 5.0]), np.array([2.0, 2.0]), np.array([1, 1])).value
    2.0
    """
    if not len(predicted):
        raise ValueError(f"{metric}: no labelled rows")
    error, weight = predicted - actual, np.ones_like(predicted) if weights is None else weights
    cluster = clusters_of(days)
    if metric == "wape":
        if not np.abs(actual).sum():
            raise ValueError("wape: every actual value is zero; use mae")
        return ratio(weight * np.abs(error), weight * np.abs(actual), cluster)
    terms = {"mae": np.abs(error), "rmse": error**2, "bias": error}
    found = ratio(weight * terms[metric], weight, cluster)
    return root(found) if metric == "rmse" else found


def root(found: Value) -> Value:
    """The square root of a value, with bounds by the delta method, never below 0."""
    value = float(np.sqrt(found.value))
    half = (found.high - found.value) / (2 * value) if value else float("nan")
    return Value(value, max(0.0, value - half), value + half, found.clusters)
