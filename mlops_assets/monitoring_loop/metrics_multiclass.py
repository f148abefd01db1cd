"""Measure: metrics of one class out of several."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.clusters import Value, around_influence, clusters_of, ratio, summed
from mlops_assets.monitoring_loop.metrics import Array

MulticlassMetric = Literal["log_loss", "accuracy", "macro_f1"]


def multiclass_metric(
    metric: MulticlassMetric, probabilities: Array, actual: NDArray[np.int64], days: NDArray[np.generic]
) -> Value:
    """One metric over labelled rows; within a day the row is the unit of its interval, over several days the day.

    The predicted class is the most probable one, the first of equals. Log loss is cut off at 2.2e-16 and rows are
    scaled to sum to 1, as in scikit-learn.

    Args:
        probabilities: one row per prediction, one column per class.
        actual: the column of what happened.

    Raises:
        ValueError: no rows.
    """
    if not len(actual):
        raise ValueError(f"{metric}: no labelled rows")
    cluster, one = clusters_of(days), np.ones(len(actual))
    predicted = probabilities.argmax(axis=1)
    if metric == "macro_f1":
        return macro_f1(predicted, actual, cluster)
    if metric == "accuracy":
        return ratio((predicted == actual).astype(np.float64), one, cluster)
    chance = probabilities[np.arange(len(actual)), actual] / probabilities.sum(axis=1)
    smallest = float(np.finfo(np.float64).eps)
    return ratio(-np.log(np.clip(chance, smallest, 1 - smallest)), one, cluster)


def macro_f1(predicted: NDArray[np.int64], actual: NDArray[np.int64], cluster: NDArray[np.int64]) -> Value:
    """Mean over the classes that occur of 2 TP / (2 TP + FP + FN), linearised for its interval."""
    classes = np.unique(np.append(predicted, actual))
    values, influence = [], np.zeros(int(cluster.max()) + 1)
    for name in classes:
        of_class = (predicted == name).astype(np.float64) + (actual == name)
        top = 2.0 * ((predicted == name) & (actual == name))
        value = float(top.sum() / of_class.sum())
        values.append(value)
        influence += (summed(top, cluster) - value * summed(of_class, cluster)) / of_class.sum() / len(classes)
    return around_influence(float(np.mean(values)), influence)
