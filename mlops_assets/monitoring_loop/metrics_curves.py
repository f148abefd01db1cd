"""Measure: metrics that need the whole order of the scores, question by question. Computed only if declared.

A curve is what stands at each distinct score, from the highest down. Labels to come are weighed as in
``metrics.py``. Over several days the value is pooled and the interval comes from the spread of the daily values.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.monitoring_loop.metrics import Z95, Array

STEP = 1.0
"""Standard errors of log G over which a slope is measured: a step function has one too, over such a distance."""


@dataclass(frozen=True)
class Weights:
    """Of one question: the shares known of both outcomes, the variance of their logarithms, and one-sidedness."""

    positive: float = 1.0
    negative: float = 1.0
    variance_positive: float = 0.0
    variance_negative: float = 0.0
    covariance: float = 0.0
    is_one_sided: bool = False

    def moved(self, positive: float, negative: float) -> "Weights":
        """With the logarithms of the shares moved."""
        return Weights(
            self.positive * np.exp(positive), self.negative * np.exp(negative), is_one_sided=self.is_one_sided
        )


@dataclass(frozen=True)
class ScoreCurve:
    """Labelled positives and negatives at each distinct score, from the highest score down."""

    score: Array
    positives: Array
    negatives: Array

    def weighed(self, weights: Weights) -> tuple[Array, Array]:
        """What the positives and negatives at each score stand for."""
        positives = self.positives / weights.positive
        if weights.is_one_sided:
            return positives, self.negatives + self.positives - positives
        return positives, self.negatives / weights.negative


def together(days: Sequence[ScoreCurve]) -> ScoreCurve:
    """Several days as one."""
    score, place = np.unique(-np.concatenate([day.score for day in days]), return_inverse=True)
    positives, negatives = (
        np.bincount(place, weights=np.concatenate(rows), minlength=len(score)).astype(np.float64)
        for rows in ([day.positives for day in days], [day.negatives for day in days])
    )
    return ScoreCurve(-score, positives, negatives)


def average_precision(curve: ScoreCurve, weights: Weights, level: float) -> float:
    """Mean precision over the positives, from the highest score down; as in scikit-learn."""
    positives, negatives = curve.weighed(weights)
    found = np.cumsum(positives)
    precision = found / (found + np.cumsum(negatives))
    return float((positives * precision).sum() / found[-1])


def precision_at_recall(curve: ScoreCurve, weights: Weights, level: float) -> float:
    """Precision at the highest threshold that finds a share ``level`` of the positives."""
    positives, negatives = curve.weighed(weights)
    at = place_of_recall(curve, level)
    found = positives[: at + 1].sum()
    return float(found / (found + negatives[: at + 1].sum()))


def place_of_recall(curve: ScoreCurve, level: float) -> int:
    """Where the threshold stands that finds a share of the positives; weights do not move it."""
    found = np.cumsum(curve.positives)
    return int(np.searchsorted(found, level * found[-1] * (1 - 1e-12)))


def recall_at_precision(curve: ScoreCurve, weights: Weights, level: float) -> float:
    """Largest share of the positives found by a threshold whose precision is at least ``level``; 0 if none is."""
    positives, negatives = curve.weighed(weights)
    found = np.cumsum(positives)
    reaches = found / (found + np.cumsum(negatives)) >= level
    return float((found[reaches] / found[-1]).max(initial=0.0))


def calibration_error(curve: ScoreCurve, weights: Weights, level: float) -> float:
    """Mean distance between score and rate over ``level`` bands of equal width (M. P. Naeini et al., AAAI 2015).

    Never below 0, so noise lifts it: compare groups of like size.
    """
    positives, negatives = curve.weighed(weights)
    gap = bands_of(curve, positives * (1 - curve.score) - negatives * curve.score, int(level))
    return float(np.abs(gap).sum() / (positives.sum() + negatives.sum()))


def bands_of(curve: ScoreCurve, values: Array, bands: int) -> Array:
    """Sums of values per band of scores."""
    band = np.minimum((curve.score * bands).astype(np.int64), bands - 1)
    return np.bincount(band, weights=values, minlength=bands).astype(np.float64)


Metric = Callable[[ScoreCurve, Weights, float], float]
CURVES: dict[str, Metric] = {
    "average_precision": average_precision,
    "precision_at_recall": precision_at_recall,
    "recall_at_precision": recall_at_precision,
    "calibration_error": calibration_error,
}


def daily_curve_metric(metric: str, curve: ScoreCurve, weights: Weights, level: float) -> tuple[float, float, float]:
    """Value and 95 % bounds on one day; the row is the unit.

    Average precision: logit interval (K. Boyd, K. H. Eng and C. D. Page, ECML 2013). Precision and recall: logit
    interval by the delta method along the curve, for the threshold found is an estimate too. Calibration error: normal,
    with the side of each band as found. The error of the known shares is added by the delta method.
    """
    value = CURVES[metric](curve, weights, level)
    extra = owed_to_weights(metric, curve, weights, level)
    share = value * (1 - value)
    if metric == "calibration_error":
        half = Z95 * np.sqrt(calibration_variance(curve, weights, int(level), value) + extra)
        return value, max(0.0, value - half), min(1.0, value + half)
    if metric == "average_precision":
        variance = share / float(curve.positives.sum())
    else:
        variance = threshold_variance(metric, curve, weights, level, value)
    if not (share > 0 and np.isfinite(variance)):
        return value, np.nan, np.nan
    logit, half = np.log(value / (1 - value)), Z95 * np.sqrt(variance + extra) / share
    return value, float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))


def threshold_variance(metric: str, curve: ScoreCurve, weights: Weights, level: float, value: float) -> float:
    """Variance over rows of a precision at fixed recall, or a recall at fixed precision; the threshold varies too.

    With r the share of the positives above the threshold, F that of the other rows, and n and k how many there are of
    each, the errors of r, of F and of log(n / k) are independent: r (1 - r) / n, F (1 - F) / k and 1 / n + 1 / k. The
    threshold moves until what is fixed is right again, along the curve as found within a standard error of r. A share
    G that is known of the labels changes the precision q of the labelled rows, but neither r nor F.
    """
    above, others = np.cumsum(curve.positives), np.cumsum(curve.negatives)
    n, k = float(above[-1]), float(others[-1])
    r = level if metric == "precision_at_recall" else value
    at = place_of_recall(curve, r)
    error = np.sqrt(r * (1 - r) / n)
    ends = [place_of_recall(curve, min(max(r + side * error, 1 / n), 1.0)) for side in (-1.0, 1.0)]
    run, rise = (float(total[ends[1]] - total[ends[0]]) for total in (above / n, others / k))
    share = max(float(others[at]), 0.5) / k
    if not (run > 0 and 0 < r < 1):
        return np.nan
    of_share, of_counts, along = (1 - share) / (share * k), 1 / n + 1 / k, rise / run
    if metric == "precision_at_recall":
        of_logit = of_counts + of_share + (along / share) ** 2 * error**2
        labelled = above[at] / (above[at] + others[at])
        slope = value * (1 - (labelled if weights.is_one_sided else value))
        return float(slope**2 * of_logit)
    fall = 1 / r - along / share  # of the logit of precision, per recall
    pull = 1 / fall if fall < 0 else np.nan
    return float((1 - pull / r) ** 2 * error**2 + pull**2 * (of_share + of_counts))


def owed_to_weights(metric: str, curve: ScoreCurve, weights: Weights, level: float) -> float:
    """Variance that a metric owes to the estimated shares."""
    positive, negative = slopes_of(metric, curve, weights, level)
    return (
        positive**2 * weights.variance_positive
        + 2 * positive * negative * weights.covariance
        + negative**2 * weights.variance_negative
    )


def slopes_of(metric: str, curve: ScoreCurve, weights: Weights, level: float) -> tuple[float, float]:
    """How a metric changes with the logarithms of the two shares; 0 for a share that is sure, or plays no part."""
    found = []
    errors = (weights.variance_positive, 0.0 if weights.is_one_sided else weights.variance_negative)
    for side, variance in enumerate(errors):
        step = STEP * np.sqrt(variance)
        if not step > 0:
            found.append(0.0)
            continue
        up, down = (
            CURVES[metric](curve, weights.moved(*((sign * step, 0.0) if side == 0 else (0.0, sign * step))), level)
            for sign in (1.0, -1.0)
        )
        found.append(float(up - down) / (2 * step))
    return found[0], found[1]


def calibration_variance(curve: ScoreCurve, weights: Weights, bands: int, value: float) -> float:
    """Variance of the calibration error over rows, each band staying on the side where it was found."""
    positives, negatives = curve.weighed(weights)
    gap = bands_of(curve, positives * (1 - curve.score) - negatives * curve.score, bands)
    side = np.sign(gap)[np.minimum((curve.score * bands).astype(np.int64), bands - 1)]
    total, times = positives.sum() + negatives.sum(), 1 / weights.positive
    if weights.is_one_sided:
        of_positives, of_negatives, other = side * (times - curve.score) - value, -side * curve.score - value, 1.0
    else:
        of_positives, of_negatives = times * (side * (1 - curve.score) - value), -side * curve.score - value
        other = 1 / weights.negative
    squares = curve.positives * of_positives**2 + curve.negatives * (other * of_negatives) ** 2
    return float(squares.sum() / total**2)


def threshold_at_risk(curve: ScoreCurve, risk: float) -> float:
    """The highest score up to which at most a share ``risk`` of the rows is positive; below every score if none is."""
    bad, good = np.cumsum(curve.positives[::-1]), np.cumsum(curve.negatives[::-1])
    is_within = bad / (bad + good) <= risk
    return float(curve.score[::-1][np.flatnonzero(is_within)[-1]]) if is_within.any() else -1.0
