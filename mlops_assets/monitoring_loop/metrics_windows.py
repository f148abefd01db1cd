"""Measure: binary metrics over several days, with the day as the unit of their 95 % intervals.

Rows that share a day share its weather, its outages, its sale: an interval over rows is too narrow. Labels that have
not come and labels that are wrong are undone as in ``metrics.py``; the error of the completeness curves is common to
many days and is added once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from mlops_assets.monitoring_loop.metrics import (
    Z95,
    Array,
    Completeness,
    Counts,
    Estimate,
    Noise,
    auc_of_arriving_positives,
    auc_without_noise,
    both_sums,
    delong,
)


def student(degrees: Array) -> Array:
    """97.5 % quantile of Student's t; not a number below one degree.

    >>> round(float(student(np.array([6.0]))[0]), 4)
    2.4469
    """
    return np.asarray(stdtrit(np.where(degrees >= 1, degrees, np.nan), 0.975), dtype=np.float64)


@dataclass(frozen=True)
class KnownDays:
    """How much of the labels is known of each day of longer windows, and how sure those shares are as averages.

    ``error_...`` is the variance of the logarithm of a share as an average over days, and ``curves`` says whose it is:
    0, or a weekday. How fast one day was shows in what days differ by, and is not added again.
    """

    shares: Completeness
    error_positive: Array
    error_negative: Array
    curves: NDArray[np.int64]

    @classmethod
    def whole(cls, size: int, *, is_one_sided: bool = False) -> "KnownDays":
        """Of days whose labels are all there."""
        of_all = np.zeros(size, dtype=np.int64)
        return cls(Completeness.whole(size, is_one_sided=is_one_sided), np.zeros(size), np.zeros(size), of_all)

    def part(self, is_wanted: NDArray[np.bool_]) -> "KnownDays":
        """Of some days."""
        errors = self.error_positive[is_wanted], self.error_negative[is_wanted]
        return KnownDays(self.shares.part(is_wanted), *errors, self.curves[is_wanted])

    def owed(self, positive: Array, negative: Array, weight: Array, starts: NDArray[np.int64]) -> Array:
        """Variance that windows owe to the shares beyond what days differ by; slopes are those in their logarithms.

        All ages of one curve rest on the same days: their errors move together and are added before they are squared.
        Curves of different weekdays rest on different days, so what an error moves one weekday by and the others not
        is already among what days differ by (a week has none of it left), and is taken off again. Both outcomes have
        slopes of opposite sign; taken as independent, they cancel nothing.

        Args:
            weight: share of each day in its window; adds up to 1.
        """
        lengths = _lengths(starts, weight)
        found = np.zeros(len(starts))
        for slope, error in ((positive, self.error_positive), (negative, self.error_negative)):
            moved = np.abs(slope) * np.sqrt(error)
            for curve in np.unique(self.curves[moved > 0]):
                of_days = np.where(self.curves == curve, moved, 0.0)
                together = np.add.reduceat(of_days, starts)
                apart = np.add.reduceat((of_days - weight * np.repeat(together, lengths)) ** 2, starts)
                found += np.maximum(together**2 - lengths / np.maximum(lengths - 1, 1) * apart, 0.0)
        return found


def window_ratio(
    metric: str,
    counts: Counts,
    starts: NDArray[np.int64],
    known: KnownDays,
    *,
    noise: Noise | None = None,
    baseline: float = 0.0,
) -> Estimate:
    """A metric of ``RATIOS`` over all rows of several days; the day is the unit of its t interval.

    Linearised: with e = a - value * b per day, variance = D / (D - 1) * sum(e * e) / sum(b)**2 (Cochran, as
    above, with days as clusters), plus what the estimated completeness adds, once. No bounds below two days with
    labels. Rows that share a day share its weather, its outages, its sale: intervals over rows were 3.2 times too
    narrow with a day effect of .03.

    Args:
        counts: of days, question after question.
        starts: where each question's days start.
        known: of the same days.
    """
    shares = known.shares
    one, zero = both_sums(metric, counts, shares, noise, baseline)
    whole = np.ones_like(counts.n)
    w1, w0 = (whole, whole) if shares.is_one_sided else (1 / shares.positive, 1 / shares.negative)
    a, b = w1 * one.a + w0 * zero.a, w1 * one.b + w0 * zero.b
    lengths = _lengths(starts, a)
    below = np.repeat(np.add.reduceat(b, starts), lengths)
    value = np.repeat(np.add.reduceat(a, starts), lengths) / below
    rest = (a - value * b) / below
    days = np.add.reduceat((counts.counted > 0).astype(np.float64), starts)
    spread = days / (days - 1) * np.add.reduceat(rest * rest, starts)
    if shares.is_one_sided:
        times = 1 / shares.positive / (1.0 if noise is None else noise.kept)
        slopes = (-times * (one.gain_a - value * one.gain_b) / below, np.zeros_like(below))
    else:
        slopes = (-w1 * (one.a - value * one.b) / below, -w0 * (zero.a - value * zero.b) / below)
    half = np.sqrt(student(days - 1) ** 2 * spread + Z95**2 * known.owed(*slopes, b / below, starts))
    found = value[starts] if metric != "lift" else 1 - value[starts]
    return Estimate(found, found - half, found + half)


def window_mean(value: Array, daily: Array, starts: NDArray[np.int64]) -> Estimate:
    """A pooled value with a t interval from the spread of the daily ones, within 0 and 1.

    No bounds below two days that have one; days without (not a number) are left out.
    """
    there = np.isfinite(daily)
    days = np.add.reduceat(there.astype(np.float64), starts)
    filled = np.where(there, daily, 0.0)
    lengths = _lengths(starts, daily)
    centre = np.repeat(np.add.reduceat(filled, starts) / days, lengths)
    spread = np.add.reduceat(np.where(there, (daily - centre) ** 2, 0.0), starts) / (days - 1)
    half = student(days - 1) * np.sqrt(spread / days)
    return Estimate(value, value - half, value + half).clipped()


def window_mean_of_shares(
    value: Array, daily: Array, starts: NDArray[np.int64], known: KnownDays, slopes: Array
) -> Estimate:
    """``window_mean`` with what daily values owe to estimated shares, given their slopes in the shares' logarithms.

    Args:
        slopes: in the share of positives and of negatives, one row each.
    """
    found, there = window_mean(value, daily, starts), np.isfinite(daily)
    days = np.repeat(np.add.reduceat(there.astype(np.float64), starts), _lengths(starts, daily))
    positive, negative = np.where(there, slopes, 0.0) / days
    owed = Z95**2 * known.owed(positive, negative, there / days, starts)
    down, up = (np.sqrt(half**2 + owed) for half in (found.value - found.low, found.high - found.value))
    return Estimate(found.value, found.value - down, found.value + up).clipped()


def window_auc(
    pooled: Array, counts: Counts, starts: NDArray[np.int64], known: KnownDays, *, noise: Noise | None = None
) -> Estimate:
    """A pooled AUC with a t interval from the spread of the daily ones; the arguments as in ``window_ratio``.

    Where positives to come hide among the negatives, what their share owes to its error is added.
    """
    shares = known.shares
    if shares.is_one_sided:
        daily = auc_of_arriving_positives(counts, shares)
        share = counts.positive.n / shares.positive / counts.counted
        slope = share * (daily.value - 0.5) / (1 - share)
        slopes = np.stack([slope, np.zeros_like(slope)])
        found = window_mean_of_shares(pooled, daily.value, starts, known, slopes)
    else:
        found = window_mean(pooled, delong(counts).value, starts)
    if noise is None:
        return found
    share = window_ratio("positive_share", counts, starts, known).value
    return auc_without_noise(found, share, noise).clipped()


def _lengths(starts: NDArray[np.int64], daily: Array) -> NDArray[np.int64]:
    """How many days each question has."""
    return np.diff(np.append(starts, len(daily)))
