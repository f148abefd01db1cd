"""Measure: ratios whose parts come in clusters that must not be taken for independent rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.metrics import Array
from mlops_assets.monitoring_loop.metrics_windows import student


@dataclass(frozen=True)
class Value:
    """A metric with its 95 % bounds (not a number where nothing can be said) and the clusters it rests on."""

    value: float
    low: float
    high: float
    clusters: int


def clusters_of(days: NDArray[np.generic], units: NDArray[np.generic] | None = None) -> NDArray[np.int64]:
    """The cluster of each row: its day if there are several, else its unit (a query), else the row itself."""
    if len(np.unique(days)) > 1:
        return np.asarray(np.unique(days, return_inverse=True)[1], dtype=np.int64)
    if units is not None:
        return np.asarray(np.unique(units, return_inverse=True)[1], dtype=np.int64)
    return np.arange(len(days))


def summed(values: Array, cluster: NDArray[np.int64]) -> Array:
    """Sums per cluster."""
    return np.bincount(cluster, weights=values).astype(np.float64)


def ratio(a: Array, b: Array, cluster: NDArray[np.int64], *, between: float = 0.0) -> Value:
    """sum(a) / sum(b) with a t interval over clusters, linearised (W. G. Cochran, *Sampling Techniques*, 1977, ch. 6).

    Args:
        between: variance by which days have differed in the past, for a value of one day that is to stand for more.

    >>> ratio(np.array([1.0, 0.0, 1.0, 0.0]), np.ones(4), np.arange(4)).value
    0.5
    """
    tops, bottoms = summed(a, cluster), summed(b, cluster)
    value = float(tops.sum() / bottoms.sum())
    return around_influence(value, (tops - value * bottoms) / bottoms.sum(), between=between)


def around_influence(value: float, influence: Array, *, between: float = 0.0) -> Value:
    """A value with a t interval from what each cluster contributes to it."""
    n = len(influence)
    if n < 2:
        return Value(value, float("nan"), float("nan"), n)
    variance = n / (n - 1) * float((influence**2).sum()) + between
    half = float(student(np.array([n - 1.0]))[0]) * float(np.sqrt(variance))
    return Value(value, value - half, value + half, n)
