"""Measure: how far a day's histogram is from the days before it.

All counts are whole numbers, so that rolling sums are exact wherever they start, and every reduction runs over a
last axis of the fixed length ``MAX_BINS``: a block of days gives the bits of its days one by one.
"""

from dataclasses import dataclass

import numpy as np

from mlops_assets.monitoring_loop.baseline import WEEK, Floats, Ints

MAX_BINS = 80
HISTOGRAM_DAYS = 35
"""Days before a day whose histograms are added up to be compared with: five of each weekday."""
SAME_WEEKDAY_WEIGHT = 3
MIN_HISTOGRAMS = 12


@dataclass(frozen=True)
class Reference:
    """What the days before each day look like together: weighted counts per bin, and what they weigh.

    ``counts`` is (series, day, bin); ``total`` the sum of weights, ``effective`` the rows that a sample without
    weights would need for the same precision; ``days`` how many days went in.
    """

    counts: Floats
    total: Floats
    effective: Floats
    days: Floats


def reference(counts: Floats, runs: Floats, *, lag: int = 0, same_weekday: int = SAME_WEEKDAY_WEIGHT) -> Reference:
    """Add up the ``HISTOGRAM_DAYS`` days that end ``lag`` days before each day and belong to the same run.

    Args:
        counts: (series, day, bin); zeros where a day is missing or unusable.
        runs: (series, day); a new number where bins or model version change.
        lag: days left out before the day.
        same_weekday: weight of a day of the same weekday, beside 1 for all others.
    """
    length = counts.shape[1]
    at = np.arange(length)
    last = np.maximum(at - lag, 0)
    first = np.maximum(np.maximum(at - lag - HISTOGRAM_DAYS, 0), np.minimum(_starts(runs), last))
    rows = counts.sum(axis=-1, keepdims=True)
    plain, n, days = (_between(values, first, last) for values in (counts, rows, (rows > 0).astype(float)))
    same, same_n = np.zeros_like(plain), np.zeros_like(n)
    for weeks in range(1, HISTOGRAM_DAYS // WEEK + 1):
        back = at - lag - WEEK * weeks
        counted = (back >= first)[..., None]
        same += np.where(counted, counts[:, np.maximum(back, 0)], 0.0)
        same_n += np.where(counted, rows[:, np.maximum(back, 0)], 0.0)
    extra = same_weekday - 1.0
    total = (n + extra * same_n)[..., 0]
    squares = (n + (same_weekday**2 - 1.0) * same_n)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = np.where(squares > 0, total * total / squares, 0.0)
    return Reference(plain + extra * same, total, effective, days[..., 0])


def _starts(runs: Floats) -> Ints:
    """Where the run of each day begins."""
    changed = np.ones(runs.shape, dtype=bool)
    changed[:, 1:] = runs[:, 1:] != runs[:, :-1]
    starts: Ints
    starts = np.maximum.accumulate(np.where(changed, np.arange(runs.shape[1]), 0), axis=1)
    return starts


def _between(values: Floats, first: Ints, last: Ints) -> Floats:
    """Sums over the days from ``first`` up to but without ``last``."""
    before = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, axis=1)], axis=1)
    last = np.broadcast_to(last, first.shape)
    upper = np.take_along_axis(before, last[..., None], axis=1)
    sums: Floats = upper - np.take_along_axis(before, first[..., None], axis=1)
    return sums


def last_days(counts: Floats, runs: Floats, days: int) -> Floats:
    """The histograms of the last ``days`` days together, each day itself included."""
    at = np.arange(counts.shape[1])
    first = np.maximum(np.maximum(at - days + 1, 0), _starts(runs))
    return _between(counts, first, at + 1)


def distance(counts: Floats, beside: Reference) -> Floats:
    """Jensen-Shannon distance without what the number of rows alone would give; from 0 to 1.

    The divergence of a sample of n rows from the distribution it was drawn from averages, in nats, about the sum of
    (1 - p) over the bins, divided by 8, times 1/n + 1/m (second-order expansion; bins that would hold less than one
    row count in part). That is taken off before the root. With nothing changed, 200 rows in 22 bins would otherwise
    be at 0.10 on nearly every day.

    Source: J. Lin, IEEE Transactions on Information Theory 37 (1991), 145-151.
    """
    n = counts.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = counts / n[..., None]
        q = beside.counts / beside.total[..., None]
        middle = (p + q) / 2
        bits = (_entropy_term(p, middle) + _entropy_term(q, middle)).sum(axis=-1) / 2
        filled = np.minimum(1.0, q * n[..., None])
        by_chance = ((1 - q) * filled).sum(axis=-1) / 8 * (1 / n + 1 / beside.effective) / np.log(2)
        found: Floats = np.sqrt(np.maximum(bits - by_chance, 0.0))
    found[(beside.days < MIN_HISTOGRAMS) | (n <= 0)] = np.nan
    return found


def _entropy_term(share: Floats, middle: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        term: Floats = np.where(share > 0, share * np.log2(share / middle), 0.0)
    return term


def stability_index(counts: Floats, beside: Reference) -> Floats:
    """Population stability index over the bins, empty ones at 0.0001 as is usual; above 0.2 is said to be drift."""
    p, q = _shares(counts, beside)
    p, q = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
    found: Floats = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def plain_distance(counts: Floats, beside: Reference) -> Floats:
    """Jensen-Shannon distance as others report it, chance included."""
    p, q = _shares(counts, beside)
    middle = (p + q) / 2
    found: Floats = np.sqrt((_entropy_term(p, middle) + _entropy_term(q, middle)).sum(axis=-1) / 2)
    return found


def largest_gap(counts: Floats, beside: Reference) -> Floats:
    """Kolmogorov-Smirnov statistic over the bins: the largest difference of cumulated shares."""
    p, q = _shares(counts, beside)
    found: Floats = np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1)
    return found


def gap_chance(gap: Floats, n: Floats, m: Floats) -> Floats:
    """How often rows drawn without any change would show a larger gap; rows are taken as independent.

    Source: N. V. Smirnov, Annals of Mathematical Statistics 19 (1948), 279-281; the first terms of the series.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.sqrt(n * m / (n + m))
        x = (size + 0.12 + 0.11 / size) * gap
    terms = sum(2 * (-1.0) ** (k - 1) * np.exp(-2.0 * (k * x) ** 2) for k in range(1, 6))
    found: Floats = np.clip(np.where(x < 0.2, 1.0, terms), 0.0, 1.0)
    return found


def transport(counts: Floats, beside: Reference, widths: Floats) -> Floats:
    """Wasserstein-1 distance in the unit of the column, from cumulated shares times the widths of the bins.

    ``widths`` is (series, bin): the distance between the middle of a bin and the next.
    """
    p, q = _shares(counts, beside)
    found: Floats = (np.abs(np.cumsum(p - q, axis=-1)) * widths[:, None, :]).sum(axis=-1)
    return found


def _shares(counts: Floats, beside: Reference) -> tuple[Floats, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return counts / counts.sum(axis=-1)[..., None], beside.counts / beside.total[..., None]
