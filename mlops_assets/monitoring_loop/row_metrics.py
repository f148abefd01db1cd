"""Measure: metrics that are functions of rows: of numbers, of classes, of ranked lists.

A *part* are the rows of one question: one version or whatever answered, one slice, one window. Labels that have not
come: a labelled row stands for 1 / G rows of its outcome; where a row without a label has no gain, its gain does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.clusters import Value
from mlops_assets.monitoring_loop.metrics import Z95, Array
from mlops_assets.monitoring_loop.metrics_multiclass import denoised_metric, multiclass_metric
from mlops_assets.monitoring_loop.metrics_ranking import ranking_metric
from mlops_assets.monitoring_loop.metrics_regression import regression_metric
from mlops_assets.service.service import MLService

STEP = 1e-3
"""Share of a standard error with which a slope is measured."""
SHARES = frozenset({"accuracy", "accuracy_denoised", "macro_f1", "ndcg", "ctr"})
"""Metrics that lie within 0 and 1."""
SIGNED = frozenset({"bias", "revenue_per_impression"})
"""Metrics that may be below 0."""


@dataclass(frozen=True)
class Shares:
    """Per day of a question: shares of the labels that are known, of large outcomes and of others, and the standard
    errors of their logarithms; ``correlation`` is that of both errors."""

    positive: Array
    negative: Array
    error_positive: Array
    error_negative: Array
    correlation: float

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return bool((self.positive == 1.0).all() and (self.negative == 1.0).all())

    @property
    def is_exact(self) -> bool:
        """Whether no share is an estimate."""
        return not (self.error_positive.any() or self.error_negative.any())

    def moved(self, positive: float, negative: float) -> "Shares":
        """With the logarithms moved by so many standard errors, on all days alike: they come from one curve."""
        return replace(
            self,
            positive=self.positive * np.exp(positive * self.error_positive),
            negative=self.negative * np.exp(negative * self.error_negative),
        )


@dataclass(frozen=True)
class Part:
    """Rows with a score and an outcome, oldest day first: what was answered, what happened, and what a row stands for.

    ``unit``: the list that a row was shown in; ``classes``: one column per class; ``worth``: money. Each has no
    columns or rows where the task has none. ``is_large``: which share of ``Shares`` a row's label arrives by.
    """

    score: Array
    value: Array
    day: NDArray[np.int64]
    is_large: NDArray[np.bool_]
    unit: NDArray[np.uint64]
    classes: Array
    worth: Array
    weight: Array
    gain_times: Array

    def known_by(self, shares: Shares, *, is_one_sided: bool) -> "Part":
        """The same rows, as so many of their labels are known."""
        if is_one_sided:
            return replace(self, gain_times=1 / shares.positive[self.day])
        weight = np.where(self.is_large, 1 / shares.positive[self.day], 1 / shares.negative[self.day])
        return replace(self, weight=weight)


Measure = Callable[[Part], Value]


def measures_of(service: MLService) -> dict[str, Measure]:
    """The declared metrics of the service's task as functions of rows; none for yes or no, which is counted."""
    makers: Mapping[str, Callable[[MLService, str], Measure]] = {
        "regression": of_numbers, "multiclass": of_classes, "ranking": of_lists,
    }  # fmt: skip
    maker = makers.get(service.task)
    found = {} if maker is None else {name: maker(service, name) for name in service.quality.metrics}
    if service.task == "multiclass" and service.label.noise is not None:
        found |= {f"{name}_denoised": of_noisy_classes(service, name) for name in service.quality.metrics}
    return found


def of_numbers(service: MLService, metric: str) -> Measure:
    """A metric of predicted numbers."""
    return lambda part: regression_metric(metric, part.score, part.value, part.day, weights=part.weight)


def of_classes(service: MLService, metric: str) -> Measure:
    """A metric of one class out of several; a label of none of them is a class that had no chance."""
    return lambda part: multiclass_metric(
        metric, part.classes, part.value.astype(np.int64), part.day, weights=part.weight
    )


def of_noisy_classes(service: MLService, metric: str) -> Measure:
    """A metric of one class out of several without the declared share of wrong labels."""
    noise = service.label.noise
    confusion = np.array(noise.confusion if noise else (), dtype=np.float64)
    return lambda part: denoised_metric(
        metric, part.classes, part.value.astype(np.int64), part.day, confusion, weights=part.weight
    )


def of_lists(service: MLService, metric: str) -> Measure:
    """A metric of ranked lists."""
    k = service.ranking.at_k if service.ranking else 0
    if metric == "ndcg":
        return lambda part: ranking_metric(metric, part.unit, part.day, gain=part.value, score=part.score, k=k)
    if metric == "ctr":
        return lambda part: ranking_metric(
            metric, part.unit, part.day, gain=part.gain_times * (part.value > 0).astype(np.float64), weights=part.weight
        )
    return lambda part: ranking_metric(
        metric, part.unit, part.day, gain=part.gain_times * part.worth, weights=part.weight
    )


def measured(metric: str, measure: Measure, part: Part, shares: Shares, *, is_one_sided: bool) -> Value:
    """A metric with its 95 % bounds, corrected for labels to come; bounds never leave what a metric can be.

    The error of the known shares is common to all rows: it is added once, by the delta method.

    Raises:
        ValueError: it is not defined for these rows; says why.
    """
    found = measure(part.known_by(shares, is_one_sided=is_one_sided))
    variance = owed_to_shares(measure, part, shares, is_one_sided=is_one_sided)
    down, up = (np.sqrt(half**2 + Z95**2 * variance) for half in (found.value - found.low, found.high - found.value))
    lowest = -np.inf if metric in SIGNED else 0.0
    highest = 1.0 if metric in SHARES else np.inf
    low, high = np.maximum(found.value - down, lowest), np.minimum(found.value + up, highest)
    return Value(found.value, float(low), float(high), found.clusters)


def owed_to_shares(measure: Measure, part: Part, shares: Shares, *, is_one_sided: bool) -> float:
    """Variance that a metric owes to the estimated shares."""
    if shares.is_exact:
        return 0.0
    slopes = []
    for moved in ((STEP, 0.0), (0.0, STEP)):
        up, down = (
            measure(part.known_by(shares.moved(sign * moved[0], sign * moved[1]), is_one_sided=is_one_sided)).value
            for sign in (1.0, -1.0)
        )
        slopes.append((up - down) / (2 * STEP))
    positive, negative = slopes
    return positive**2 + 2 * positive * negative * shares.correlation + negative**2
