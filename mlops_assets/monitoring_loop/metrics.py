"""Measure: binary metrics and their 95 % intervals from counts, for all questions of a block at once.

Every array has one entry per question. Within one day the row is the unit of an interval; over several days
the day is (``metrics_windows.py``). Counts are exact sums of integers; what follows is arithmetic on doubles in
a fixed order, so a block of days gives the same bits as its days one by one.

Labels that have not come: with ``G`` the share of the labels of one outcome that are known at this age
(feedback loop, table ``completeness``), a labelled row stands for 1 / G rows of its outcome, and sums are
divided by the sum of these weights (J. Hajek 1971; inverse probability weighting). Where a request without a
label counts as negative, the positives that are still to come hide among the negatives, and a positive that
came stands for 1 / G of itself and against 1 / G - 1 rows that look like it. Both assume that the delay does
not depend on the score once the outcome (and the weekday) is given.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LOSS_UNIT = 10**12
"""Powers and losses of one row are counted in 1e-12."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Loss:
    """Sums over the rows of one outcome: the loss, its square, the loss that the other outcome would have
    given, its square, and the product of the two."""

    own: Array
    own_squares: Array
    other: Array
    other_squares: Array
    product: Array


@dataclass(frozen=True)
class Outcome:
    """The labelled rows of one outcome: how many, sums of powers of their scores, and their log loss."""

    n: Array
    p1: Array
    p2: Array
    p3: Array
    p4: Array
    log_loss: Loss
    is_positive: bool

    @cached_property
    def brier(self) -> Loss:
        """Squared distance of the score from the outcome, by the binomial theorem from the power sums."""
        far = self.n - 4 * self.p1 + 6 * self.p2 - 4 * self.p3 + self.p4
        to_one = (self.n - 2 * self.p1 + self.p2, far)
        to_zero = (self.p2, self.p4)
        own, other = (to_one, to_zero) if self.is_positive else (to_zero, to_one)
        return Loss(*own, *other, self.p2 - 2 * self.p3 + self.p4)

    def loss(self, metric: str) -> Loss:
        """The loss under a metric: ``brier`` or ``log_loss``."""
        return self.brier if metric == "brier" else self.log_loss


@dataclass(frozen=True)
class Counts:
    """Groups of predictions: all that their metrics need.

    ``n`` counts predictions, ``n_labelled`` those with a label. ``below`` sums over positives twice the number
    of negatives scored lower, ties counting half; ``below_squares`` and ``above_squares`` sum the squares of
    these placements over positives and over negatives.
    """

    n: Array
    n_labelled: Array
    positive: Outcome
    negative: Outcome
    below: Array
    below_squares: Array
    above_squares: Array

    @property
    def counted(self) -> Array:
        """Rows that have an outcome."""
        return self.positive.n + self.negative.n


@dataclass(frozen=True)
class Completeness:
    """Share of the labels of each outcome that are known, per question; not a number where nobody knows.

    ``variance_...`` is the variance of the logarithm of an estimated share, ``covariance`` that of both.
    ``is_one_sided``: a request without a label counts as negative, so that only positives arrive.
    """

    positive: Array
    negative: Array
    variance_positive: Array
    variance_negative: Array
    covariance: Array
    is_one_sided: bool = False

    @classmethod
    def whole(cls, size: int, *, is_one_sided: bool = False) -> "Completeness":
        """Of days whose labels are all there."""
        ones, zeros = np.ones(size), np.zeros(size)
        return cls(ones, ones, zeros, zeros, zeros, is_one_sided)

    @classmethod
    def of(cls, numbers: Array, *, is_one_sided: bool) -> "Completeness":
        """From one row per question: both shares, their variances, the covariance."""
        positive, negative, variance_positive, variance_negative, covariance = numbers.T
        return cls(positive, negative, variance_positive, variance_negative, covariance, is_one_sided)

    def part(self, is_wanted: NDArray[np.bool_]) -> "Completeness":
        """Of some questions."""
        arrays = (self.positive, self.negative, self.variance_positive, self.variance_negative, self.covariance)
        return Completeness.of(np.stack(arrays, axis=1)[is_wanted], is_one_sided=self.is_one_sided)

    @property
    def is_whole(self) -> NDArray[np.bool_]:
        """Where nothing is missing."""
        return np.asarray((self.positive == 1.0) & (self.negative == 1.0), dtype=bool)

    def variance(self, positive: Array, negative: Array) -> Array:
        """Variance that a metric owes to the estimated shares, given its slopes in their logarithms.

        The delta method; the error of a share is common to all rows, so it is added once.
        """
        return (
            positive**2 * self.variance_positive
            + 2 * positive * negative * self.covariance
            + negative**2 * self.variance_negative
        )


@dataclass(frozen=True)
class Noise:
    """Chance per question that a label is wrong: ``to_positive``, a true negative is labelled positive; and back."""

    to_positive: Array
    to_negative: Array

    def at(self, which: NDArray[Any]) -> "Noise":
        """Of some questions, or of the days of questions."""
        return Noise(self.to_positive[which], self.to_negative[which])

    @property
    def kept(self) -> Array:
        """What of a difference between outcomes the noise leaves."""
        return 1 - self.to_positive - self.to_negative


@dataclass(frozen=True)
class Estimate:
    """A metric per question with its 95 % bounds; not a number where nothing can be said."""

    value: Array
    low: Array
    high: Array

    def clipped(self) -> "Estimate":
        """Bounds kept within 0 and 1."""
        return Estimate(self.value, np.maximum(self.low, 0.0), np.minimum(self.high, 1.0))


def around(value: Array, variance: Array) -> Estimate:
    """A normal interval.

    >>> round(float(around(np.array([0.5]), np.array([0.01])).low[0]), 3)
    0.304
    """
    half = Z95 * np.sqrt(np.maximum(variance, 0.0))
    return Estimate(value, value - half, value + half)


@dataclass(frozen=True)
class Mix:
    """What a row of one outcome counts as: so many times itself and so many times the other outcome; adds to 1."""

    itself: Array
    other: Array


def mixes(known: Completeness, noise: Noise | None) -> tuple[Mix, Mix]:
    """What a positive and a negative count as, given labels to come and labels that may be wrong.

    A positive among requests that count as negative until a label comes: 1 / G of itself, 1 - 1 / G of a negative.
    Wrong labels: the loss that is right on average (N. Natarajan, I. S. Dhillon, P. Ravikumar and A. Tewari,
    *Learning with Noisy Labels*, NeurIPS 2013, lemma 1).
    """
    nothing = np.zeros_like(known.positive)
    noise = Noise(nothing, nothing) if noise is None else noise
    to_positive, to_negative, kept = noise.to_positive, noise.to_negative, noise.kept
    swapped_1, swapped_0 = -to_negative / kept, -to_positive / kept
    times = 1 / known.positive if known.is_one_sided else np.ones_like(known.positive)
    other = times * swapped_1 + (1 - times) * (1 - swapped_0)
    return Mix(1 - other, other), Mix(np.full_like(other, 1 - swapped_0), np.full_like(other, swapped_0))


@dataclass(frozen=True)
class Sums:
    """A metric as sum(a) / sum(b): sums over the rows of one outcome of a, b, a * a, a * b and b * b, and what
    a and b would gain if a row counted once more as itself and once less as the other outcome."""

    a: Array
    b: Array
    aa: Array
    ab: Array
    bb: Array
    gain_a: Array
    gain_b: Array


def outcome_sums(metric: str, rows: Outcome, mix: Mix, *, baseline: float = 0.0) -> Sums:
    """Sums of one outcome for a metric of ``RATIOS``.

    ``lift`` is one minus Brier over the Brier of always answering ``baseline``; a and b are those two.
    """
    n, own, other = rows.n, mix.itself, mix.other
    if metric in ("brier", "log_loss", "lift"):
        loss = rows.log_loss if metric == "log_loss" else rows.brier
        a = own * loss.own + other * loss.other
        aa = own**2 * loss.own_squares + 2 * own * other * loss.product + other**2 * loss.other_squares
        gain = loss.own - loss.other
        if metric != "lift":
            return Sums(a, n, aa, a, n, gain, np.zeros_like(n))
        near, far = (baseline - rows.is_positive) ** 2, (baseline - (not rows.is_positive)) ** 2
        each = own * near + other * far
        return Sums(a, n * each, aa, a * each, n * each**2, gain, n * (near - far))
    chance = own if rows.is_positive else other
    a, aa, gain = n * chance, n * chance**2, n if rows.is_positive else -n
    if metric == "calibration_ratio":
        return Sums(a, rows.p1, aa, chance * rows.p1, rows.p2, gain, np.zeros_like(n))
    return Sums(a, n, aa, a, n, gain, np.zeros_like(n))


RATIOS = ("brier", "log_loss", "calibration_ratio", "positive_share", "lift")
"""Metrics that are a ratio of two sums over rows."""


def both_sums(
    metric: str, counts: Counts, known: Completeness, noise: Noise | None, baseline: float
) -> tuple[Sums, Sums]:
    """``Sums`` of the positives and of the negatives."""
    positive, negative = mixes(known, noise)
    return (
        outcome_sums(metric, counts.positive, positive, baseline=baseline),
        outcome_sums(metric, counts.negative, negative, baseline=baseline),
    )


def daily_ratio(
    metric: str, counts: Counts, known: Completeness, *, noise: Noise | None = None, baseline: float = 0.0
) -> Estimate:
    """A metric of ``RATIOS`` over single days; the row is the unit of its interval.

    Linearised (W. G. Cochran, *Sampling Techniques*, 3rd ed. 1977, ch. 6), plus what the estimated completeness
    adds. ``positive_share``: E. B. Wilson's score interval (JASA 22, 1927), over as many rows as would give
    this variance where labels are missing.
    """
    one, zero = both_sums(metric, counts, known, noise, baseline)
    whole = np.ones_like(counts.n)
    w1, w0 = (whole, whole) if known.is_one_sided else (1 / known.positive, 1 / known.negative)
    below = w1 * one.b + w0 * zero.b
    value = (w1 * one.a + w0 * zero.a) / below
    spread = w1**2 * residual_squares(one, value) + w0**2 * residual_squares(zero, value)
    n = counts.counted
    variance = np.where(n > 1, n / (n - 1) * np.maximum(spread, 0.0) / below**2, np.nan)
    if known.is_one_sided:
        times = 1 / known.positive / (1.0 if noise is None else noise.kept)
        slopes = (-times * (one.gain_a - value * one.gain_b) / below, np.zeros_like(n))
    else:
        slopes = (-w1 * (one.a - value * one.b) / below, -w0 * (zero.a - value * zero.b) / below)
    variance = variance + known.variance(*slopes)
    if metric == "lift":
        return around(1 - value, variance)
    if metric == "positive_share" and noise is None:
        share = value * (1 - value)
        effective = np.where(known.is_whole | ~(variance > 0) | ~(share > 0), n, share / variance)
        return wilson(value, effective)
    return around(value, variance)


def residual_squares(sums: Sums, value: Array) -> Array:
    """Sum of (a - value * b) squared."""
    return sums.aa - 2 * value * sums.ab + value**2 * sums.bb


def wilson(share: Array, n: Array) -> Estimate:
    """A share with Wilson's interval, which stays within 0 and 1.

    >>> float(wilson(np.array([0.5]), np.array([10.0])).value[0])
    0.5
    """
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(np.maximum(share * (1 - share), 0.0) / n + Z95**2 / (4 * n * n))
    return Estimate(share, centre - half, centre + half).clipped()


def daily_auc(counts: Counts, known: Completeness, *, noise: Noise | None = None) -> Estimate:
    """Chance that a positive is scored above a negative, ties counting half; within 0 and 1.

    Interval: E. R. DeLong, D. M. DeLong and D. L. Clarke-Pearson (Biometrics 44, 1988), from placements. If both
    outcomes arrive, missing labels change neither (weights of one outcome cancel).
    """
    found = auc_of_arriving_positives(counts, known) if known.is_one_sided else delong(counts)
    if noise is None:
        return found.clipped()
    share = daily_ratio("positive_share", counts, known).value
    return auc_without_noise(found, share, noise).clipped()


def delong(counts: Counts) -> Estimate:
    """AUC of labelled rows with DeLong's interval."""
    m, k = counts.positive.n, counts.negative.n
    value = counts.below / (2 * m * k)
    of_positives = np.maximum(0.0, counts.below_squares / (4 * k * k) - m * value * value) / (m - 1)
    of_negatives = np.maximum(0.0, counts.above_squares / (4 * m * m) - k * value * value) / (k - 1)
    variance = np.where((m > 1) & (k > 1), of_positives / m + of_negatives / k, np.nan)
    return around(value, variance)


def auc_of_arriving_positives(counts: Counts, known: Completeness) -> Estimate:
    """AUC where positives to come hide among the negatives: (A - pi / 2) / (1 - pi).

    A is the mean rank (ties at the middle, 0 to 1) of the arrived positives among all rows, pi = m / (n G).
    Among all rows a positive meets positives with chance pi and is above them half the time. With G = 1 this is
    the AUC. Interval: from the influence of every row on A and pi, plus the error of G.
    """
    m, n = counts.positive.n, counts.counted
    rank = (counts.below / 2 + m * m / 2) / (m * n)
    share = m / known.positive / n
    value = (rank - share / 2) / (1 - share)
    slope = (rank - 0.5) / (1 - share)
    at_positive = 1 - n / m * rank + slope / known.positive - rank - slope * share
    at_other = rank + slope * share
    squares = (
        counts.below_squares / (4 * m * m) + at_positive * counts.below / m + m * at_positive**2
        + counts.above_squares / (4 * m * m) - at_other * counts.below / m + (n - m) * at_other**2
    )  # fmt: skip
    variance = squares / (n * (n - 1)) / (1 - share) ** 2
    of_share = -share * slope / (1 - share)
    return around(value, np.where(m > 1, variance + known.variance(of_share, np.zeros_like(n)), np.nan))


def auc_without_noise(found: Estimate, share: Array, noise: Noise) -> Estimate:
    """The AUC that right labels would give, where ``share`` of the labels is positive.

    (AUC - (a + b) / 2) / (1 - a - b), with a the share of wrong labels among positives and b among negatives
    (A. K. Menon, B. van Rooyen, C. S. Ong and R. C. Williamson, ICML 2015). The error of a and b is left out.
    """
    right = (share - noise.to_positive) / noise.kept
    wrong = (1 - right) * noise.to_positive / share + right * noise.to_negative / (1 - share)
    value, low, high = ((bound - wrong / 2) / (1 - wrong) for bound in (found.value, found.low, found.high))
    return Estimate(value, low, high)
