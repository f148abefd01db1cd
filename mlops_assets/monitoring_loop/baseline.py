"""Measure: what the days before a day predict for it, and how far off such predictions usually are.

All arrays are (series, day) on one daily grid, not-a-number where a day is missing or unusable. A row about
day D reads only columns before D, a fixed number of calendar days back, so a block of days gives the same
bits as its days one by one. Every reduction runs over the last, contiguous axis of a fixed length for the
same reason.

The method is the measured one (docs/monitoring-loop.md): a baseline of robust medians, judged against its
own past one-step errors. Those errors already contain season, autocorrelation and skew, so none of them is
modelled.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mlops_assets.service.monitoring import DriftPolicy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

WEEK = 7
VOLUME_WEEKS = 8
MIN_SAME_WEEKDAYS = 3
MAD_TO_STD = 1.4826
ORDINARY_SHARE = 0.1
TAIL_SHARE = 3.5e-4
"""Share of days on which one of 190 series may be wrong within six false alarms a quarter."""
MAX_TAIL_STEP = 1.0
CUSUM_ALLOWANCE = 0.75
"""Slack of the slow-drift sum, in standard deviations; with a limit of 5, one false alarm in 3,500 days."""


def window_days(policy: DriftPolicy) -> int:
    """Calendar days in which the baseline days are looked for: twice as many, in whole weeks."""
    return WEEK * max(ceil(2 * policy.baseline_days / WEEK), VOLUME_WEEKS)


@dataclass(frozen=True)
class Forecast:
    """Predictions of the days after the first ``window_days`` of the grid.

    ``known`` counts baseline days; ``expected`` and ``errors`` (value minus expected) are not-a-number until
    there are enough; ``inner`` holds the deviations of the baseline days themselves, newest first.
    ``is_ordinary``: a tenth of the baseline days were as far out or farther, on the same side, and weekdays differ
    less than days of one weekday. A day without rain after a wet week is no surprise, however small the errors on
    that side were.
    """

    known: Ints
    expected: Floats
    errors: Floats
    inner: Floats
    is_ordinary: Bools


@dataclass(frozen=True)
class Surprise:
    """How unusual the last days of a forecast are.

    ``scale``: standard deviation of past errors on the side of the shift; ``z``: error over scale, at most
    99; ``cusum``: slow-drift sum on that side, and whether it rose on the day itself.
    """

    scale: Floats
    z: Floats
    cusum: Floats
    is_rising: Bools


def trailing(values: Floats, length: int) -> Floats:
    """The ``length`` values before each day from position ``length`` on, newest first: (.., day, back)."""
    windows = sliding_window_view(values, length, axis=-1)[..., :-1, ::-1]
    return windows.copy(order="C")


def median(values: Floats) -> Floats:
    """Median over the last axis without not-a-numbers; not-a-number if nothing is left.

    By sorting: ``numpy.nanmedian`` takes twenty times as long on many short rows.
    """
    ordered = np.sort(values, axis=-1)
    count = (~np.isnan(values)).sum(axis=-1)
    low = np.take_along_axis(ordered, np.maximum((count - 1) // 2, 0)[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, np.maximum(count // 2, 0)[..., None].clip(max=values.shape[-1] - 1), axis=-1)
    middle: Floats = np.where(count > 0, (low + high[..., 0]) / 2, np.nan)
    return middle


def baseline_days(values: Floats, versions: Floats, policy: DriftPolicy) -> Floats:
    """The newest ``policy.baseline_days`` usable values of the same version before each day, newest first."""
    length = window_days(policy)
    same = trailing(versions, length) == versions[..., length:, None]
    usable = trailing(values, length)
    usable[~same] = np.nan
    usable[np.cumsum(~np.isnan(usable), axis=-1) > policy.baseline_days] = np.nan
    return usable


def by_weekday(baseline: Floats) -> Floats:
    """The same with one row per weekday: (series, day, 7, weeks); row 6 is the weekday of the day itself."""
    weeks = baseline.shape[-1] // WEEK
    return np.ascontiguousarray(np.swapaxes(baseline.reshape(*baseline.shape[:-1], weeks, WEEK), -1, -2))


def spread_out(weekdays: Floats, weeks: int) -> Floats:
    """One number per weekday laid beside the days of a baseline: the inverse of ``by_weekday``."""
    return np.tile(weekdays, (1, 1, weeks))


def forecast_level(
    values: Floats, versions: Floats, policy: DriftPolicy, *, known: Floats, tolerance: Floats | float = 0.0
) -> Forecast:
    """Median of the baseline, plus a shrunken weekday term, plus half the median error of the last week.

    Args:
        known: those of the values that may stand in a baseline.
        tolerance: a value that is so near to one of the baseline days is no farther out than it.
    """
    baseline = baseline_days(known, versions, policy)
    count_known = (~np.isnan(baseline)).sum(axis=-1)
    middle = median(baseline)
    deviations = baseline - middle[..., None]
    weekly = by_weekday(deviations)
    count = (~np.isnan(weekly)).sum(axis=-1)
    weekday = np.where(count > 0, count / (count + 2) * np.nan_to_num(median(weekly)), 0.0)
    inner = deviations - spread_out(weekday, weekly.shape[-1])
    newest = np.where(np.cumsum(~np.isnan(inner), axis=-1) <= WEEK, inner, np.nan)
    expected = middle + weekday[..., -1] + 0.5 * median(newest)
    expected[count_known < policy.min_days] = np.nan
    today = values[..., window_days(policy) :]
    errors = today - expected
    with np.errstate(invalid="ignore"):
        near = np.nan_to_num(np.broadcast_to(tolerance, today.shape))[..., None]
        below, above = baseline <= today[..., None] + near, baseline >= today[..., None] - near
        beyond = np.where(errors[..., None] < 0, below, above)
        is_common = beyond.sum(axis=-1) >= np.maximum(ORDINARY_SHARE * count_known, 1)
        rest = np.where(np.isnan(inner), 0.0, inner)
        std = np.sqrt((rest * rest).sum(axis=-1) / np.maximum(count_known, 1))
        between = np.sqrt((weekday * weekday).sum(axis=-1) / WEEK)
        is_ordinary = is_common & (between < np.maximum(std, np.abs(errors) / 2))
    return Forecast(count_known, expected, errors, inner, is_ordinary)


def forecast_volume(values: Floats, policy: DriftPolicy, *, known: Floats) -> Forecast:
    """Median of the same weekday over eight weeks; errors are relative: -0.1 is 10 % below.

    A robust scale on weekday differences alone fired 33 times a year on flights; the relative size gate that
    goes with these errors is what made it quiet.
    """
    length = window_days(policy)
    past = trailing(known, length)
    past[..., WEEK * VOLUME_WEEKS :] = np.nan
    weekly = by_weekday(past)
    usual = median(weekly)
    count = (~np.isnan(weekly)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.where(
            spread_out(usual, weekly.shape[-1]) > 0, past / spread_out(usual, weekly.shape[-1]) - 1, np.nan
        )
        days = np.minimum((~np.isnan(past)).sum(axis=-1), policy.baseline_days)
        enough = (count[..., -1] >= MIN_SAME_WEEKDAYS) & (days >= policy.min_days) & (usual[..., -1] > 0)
        expected = np.where(enough, usual[..., -1], np.nan)
        errors = values[..., length:] / expected - 1
        return Forecast(days, expected, errors, inner, np.zeros(errors.shape, dtype=bool))


def pooled_std(counts: Floats, means: Floats, variances: Floats, versions: Floats, policy: DriftPolicy) -> Floats:
    """Standard deviation of the single values of the baseline days, from what is known of each day."""
    usable_means = baseline_days(means, versions, policy)
    usable = ~np.isnan(usable_means)
    n = np.where(usable, trailing(counts, window_days(policy)), 0.0)
    day_means = np.where(usable, usable_means, 0.0)
    within = np.where(usable, trailing(variances, window_days(policy)), 0.0)
    total = np.maximum(n.sum(axis=-1), 1.0)
    mean = (n * day_means).sum(axis=-1) / total
    between = day_means - mean[..., None]
    std: Floats = np.sqrt((n * (within + between * between)).sum(axis=-1) / total)
    return std


def surprise(forecast: Forecast, *, noise: Floats, usable: Bools, policy: DriftPolicy) -> Surprise:
    """Errors of the days after the first ``residual_days``, beside the errors of the days before them.

    Args:
        noise: variance that each judged day has anyway: a floor, and the sampling error of its rows.
        usable: days whose error may stand as a past error (a baseline without any variation says nothing).
        policy: how many days count.
    """
    length = policy.residual_days
    past = trailing(np.where(usable, forecast.errors, np.nan), length)
    return surprise_beside(
        past, forecast.errors[..., length:], inner=forecast.inner[..., length:, :], noise=noise, policy=policy
    )


def surprise_beside(past: Floats, errors: Floats, *, inner: Floats, noise: Floats, policy: DriftPolicy) -> Surprise:
    """Errors beside those of the days before them, newest first.

    Until ``baseline_days`` past errors are known, the deviations ``inner`` of the baseline days stand in for the rest.
    """
    is_cold = (~np.isnan(past)).sum(axis=-1) < policy.baseline_days
    pool = np.concatenate([past, np.where(is_cold[..., None], inner, np.nan)], axis=-1)
    back = np.concatenate([np.arange(past.shape[-1]), np.arange(inner.shape[-1])])
    side = np.where(errors < 0, -1.0, 1.0)
    middle = np.nan_to_num(median(np.abs(pool)))
    second = second_worst(side[..., None] * pool, back)
    spread = np.maximum(MAD_TO_STD * middle, second / 2 * tail_factor(second, middle, (~np.isnan(pool)).sum(axis=-1)))
    scale = np.sqrt(spread * spread + noise)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(scale > 0, side * errors / scale, np.where(errors == 0, 0.0, 99.0))
    cusum, is_rising = slow_drift(side[..., None] * past, side * errors)
    quiet = np.where(is_cold, 0.0, cusum)
    return Surprise(scale, np.where(np.isnan(errors), np.nan, np.minimum(z, 99.0)), quiet, is_rising)


def tail_factor(second: Floats, middle: Floats, count: Ints) -> Floats:
    """How many times as far as with an exponential tail the rare errors of a series lie; 1 for lighter tails.

    A Weibull tail through the median and the second worst of ``count`` errors, followed out to the share of days on
    which a series may be wrong: heavy rain after a dry month is far beyond all that month had, and ordinary.
    Never more than a tail of shape 1/2.

    >>> tail_factor(np.array([2.2, 30.0]), np.array([0.67, 0.5]), np.array([75, 75])).round(1).tolist()
    [1.0, 2.2]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        outer = np.log(np.maximum(count, 8) / 2)
        shape_inverse = np.where(middle > 0, np.log(second / middle) / np.log(outer / np.log(2.0)), np.inf)
        steeper = np.clip(np.where(second > 0, shape_inverse - 1.0, 0.0), 0.0, MAX_TAIL_STEP)
    factor: Floats = (np.log(1 / TAIL_SHARE) / outer) ** steeper
    return factor


def second_worst(errors: Floats, back: Ints) -> Floats:
    """The worst error at least a week away from the worst one and from the judged day; 0 if there is none above 0.

    One error per week, because a fault of five days otherwise supplies both and blinds the monitor while
    it stays among the past errors. The week of the judged day is its own: otherwise a fault that comes again, and was
    not seen on its first day, is never seen, for its first day and the earlier fault are the two worst.
    """
    filled = np.where(np.isnan(errors) | (back < WEEK - 1), -np.inf, errors)
    worst = back[np.argmax(filled, axis=-1)]
    apart = np.abs(back - worst[..., None]) >= WEEK
    second: Floats = np.maximum(np.where(apart, filled, -np.inf).max(axis=-1), 0.0)
    return second


def slow_drift(past: Floats, today: Floats) -> tuple[Floats, Bools]:
    """One-sided CUSUM over the past errors (newest first) and today's, and whether today's raised it.

    S = max(0, S + clip(z, -3, 3) - 0.75), where z is on the larger of robust and plain standard deviation,
    widened for the lag-1 autocorrelation of the errors (Page, Biometrika 41, 1954).
    """
    count = np.maximum((~np.isnan(past)).sum(axis=-1), 1)
    filled = np.nan_to_num(past)
    mean = filled.sum(axis=-1) / count
    centred = np.where(np.isnan(past), 0.0, past - mean[..., None])
    squares = (centred * centred).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = np.clip(np.nan_to_num((centred[..., 1:] * centred[..., :-1]).sum(axis=-1) / squares), 0.0, 0.8)
        spread = np.maximum(MAD_TO_STD * np.nan_to_num(median(np.abs(past))), np.sqrt(squares / count))
        scale = spread * np.sqrt((1 + rho) / (1 - rho))
        steps = np.concatenate([past[..., ::-1], today[..., None]], axis=-1) / scale[..., None]
    steps = np.nan_to_num(np.clip(steps, -3.0, 3.0)) - np.where(np.isnan(steps), 0.0, CUSUM_ALLOWANCE)
    total = np.zeros_like(today)
    for step in range(steps.shape[-1]):
        total = np.maximum(0.0, total + steps[..., step])
    return total, steps[..., -1] > 0
