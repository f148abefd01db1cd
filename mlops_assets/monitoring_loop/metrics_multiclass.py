"""Measure: metrics of one class out of several."""

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.clusters import Value, around_influence, clusters_of, ratio, summed
from mlops_assets.monitoring_loop.metrics import Array, wilson

MAX_GAP = 1e-3
"""Chances of a row that add up to less or more than 1 by this are no chances."""


def multiclass_metric(
    metric: str,
    probabilities: Array,
    actual: NDArray[np.int64],
    days: NDArray[np.generic],
    *,
    weights: Array | None = None,
) -> Value:
    """One metric over labelled rows; within a day the row is the unit of its interval, over several days the day.

    The predicted class is the most probable one, the first of equals. Log loss is cut off at 2.2e-16, as in
    scikit-learn.

    Args:
        probabilities: one row per prediction, one column per class.
        actual: the column of what happened; -1: none of them, a class that had no chance.
        weights: what a row stands for, if not for itself: 1 / completeness of its outcome.

    Raises:
        ValueError: no rows, or, for log loss, chances that do not add up to 1.
    """
    if not len(actual):
        raise ValueError(f"{metric}: no labelled rows")
    cluster, weight = clusters_of(days), np.ones(len(actual)) if weights is None else weights
    predicted = probabilities.argmax(axis=1)
    if metric == "macro_f1":
        return macro_f1(predicted, actual, cluster, weight)
    if metric == "accuracy":
        return accuracy(predicted == actual, cluster, weight)
    astray = int((np.abs(probabilities.sum(axis=1) - 1) > MAX_GAP).sum())
    if astray:
        raise ValueError(f"{metric}: the chances of {astray} rows do not add up to 1")
    chance = probabilities[np.arange(len(actual)), actual]
    smallest = float(np.finfo(np.float64).eps)
    loss = -np.log(np.clip(np.where(actual >= 0, chance, 0.0), smallest, 1 - smallest))
    return ratio(weight * loss, weight, cluster)


def accuracy(is_right: NDArray[np.bool_], cluster: NDArray[np.int64], weight: Array) -> Value:
    """Share of right answers; within a day with E. B. Wilson's interval (JASA 22, 1927), over as many rows as give
    this variance where rows stand for several."""
    found = ratio(weight * is_right, weight, cluster)
    if found.clusters < len(is_right):
        return found
    rows = np.array([float(weight.sum() ** 2 / (weight**2).sum())])
    share = wilson(np.array([found.value]), rows)
    return Value(found.value, float(share.low[0]), float(share.high[0]), found.clusters)


def macro_f1(
    predicted: NDArray[np.int64], actual: NDArray[np.int64], cluster: NDArray[np.int64], weight: Array
) -> Value:
    """Mean over the classes that occur of 2 TP / (2 TP + FP + FN), linearised for its interval."""
    classes = np.unique(np.append(predicted, actual))
    values, influence = [], np.zeros(int(cluster.max()) + 1)
    for name in classes:
        of_class = weight * ((predicted == name).astype(np.float64) + (actual == name))
        top = weight * 2.0 * ((predicted == name) & (actual == name))
        value = float(top.sum() / of_class.sum())
        values.append(value)
        influence += (summed(top, cluster) - value * summed(of_class, cluster)) / of_class.sum() / len(classes)
    return around_influence(float(np.mean(values)), influence)


def denoised_metric(
    metric: str,
    probabilities: Array,
    actual: NDArray[np.int64],
    days: NDArray[np.generic],
    confusion: Array,
    *,
    weights: Array | None = None,
) -> Value:
    """Accuracy or log loss as it would be under true labels, on average over the declared wrong ones.

    With T the share of the true class t that is labelled j, the loss under label j is taken as the j-th entry of the
    inverse of T times the losses under every class: its mean over the labels of a true class is the loss under that
    class (G. Patrini et al., *Making Deep Neural Networks Robust to Label Noise*, CVPR 2017, theorem 1; with two
    classes this is N. Natarajan et al., 2013). A label of a class that nobody declared counts as it stands.

    Args:
        confusion: T; a row per true class, a column per labelled one.

    Raises:
        ValueError: no rows, or a metric that is no mean over rows.
    """
    if not len(actual):
        raise ValueError(f"{metric}_denoised: no labelled rows")
    if metric == "macro_f1":
        raise ValueError(
            f"{metric}_denoised: it is no mean over rows, so wrong labels cannot be taken off; see accuracy_denoised"
        )
    weight = np.ones(len(actual)) if weights is None else weights
    smallest = float(np.finfo(np.float64).eps)
    if metric == "accuracy":
        under = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
        unknown = 0.0
    else:
        under = -np.log(np.clip(probabilities, smallest, 1 - smallest))
        unknown = float(-np.log(smallest))
    corrected = under @ np.linalg.inv(confusion).T
    values = np.where(actual >= 0, corrected[np.arange(len(actual)), actual], unknown)
    return ratio(weight * values, weight, clusters_of(days))
