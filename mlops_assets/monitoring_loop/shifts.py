"""Measure: every statistic of every series beside what the days before predict for it.

Two kinds. A *shift* is a change in what the values say: mean, spread, distance, volume. An *integrity* fault is a
change in whether they say anything: no value, always the same value, values out of range, texts that nobody knows.
No known event ever explains the second kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mlops_assets.monitoring_loop import baseline
from mlops_assets.monitoring_loop.baseline import WEEK, Bools, Floats, Forecast, Ints, Surprise, window_days
from mlops_assets.monitoring_loop.companions import alone
from mlops_assets.monitoring_loop.distances import distance, last_days, reference
from mlops_assets.monitoring_loop.grid import FEATURES, LEAD_DAYS, Grid
from mlops_assets.service.monitoring import DriftPolicy

ROWS = "rows"
"""Column of the volume series."""
INTEGRITY = frozenset({"null_share", "null_alone", "constant", "out_of_range", "new_category"})
FLOORS = {"mean": 0.02, "spread": 0.02, "share": 0.01, "volume": 0.02, "distance": 0.10}
"""Smallest believable scale: in standard deviations of the values, in log, in asin(sqrt(share)), relative, in log."""
FEW_ROWS = 500
"""Below so many rows a day the last seven days are judged together as well."""
DISTANCE_OFFSET = 0.01
MIN_CONSTANT_ROWS = 20


@dataclass(frozen=True)
class Shifts:
    """One statistic of some series, for the judged days.

    ``value`` and ``expected`` are in the unit people read; ``size`` is in the unit of the gate.
    """

    statistic: str
    keys: tuple[tuple[str, str], ...]
    gate: float
    value: Floats
    expected: Floats
    size: Floats
    known: Ints
    is_flat: Bools
    is_ordinary: Bools
    surprise: Surprise


def all_shifts(grid: Grid, policy: DriftPolicy) -> Iterator[Shifts]:
    """Every statistic, for the days of the grid that have a whole history before them."""
    yield from mean_shifts(grid, policy)
    yield spread_shifts(grid, policy)
    for statistic, counted in (("null_share", "nulls"), ("out_of_range", "out_of_range"), ("new_category",) * 2):
        yield from share_shifts(grid, policy, statistic, counted)
    yield constant_shifts(grid, policy)
    beside = reference(np.where(grid.in_baseline[..., None], grid.counts, 0.0), grid.binned)
    today = np.where(grid.is_usable[..., None], grid.counts, 0.0)
    yield distance_shifts(grid, policy, "distance", distance(today, beside), is_asked=np.True_)
    is_small = (beside.days > 0) & (_mean_rows(grid) < FEW_ROWS)
    if is_small.any():
        week = last_days(np.where(grid.in_baseline[..., None], grid.counts, 0.0), grid.binned, WEEK)
        before = reference(np.where(grid.in_baseline[..., None], grid.counts, 0.0), grid.binned, lag=WEEK - 1, same_weekday=1)  # fmt: skip # noqa: E501
        yield distance_shifts(grid, policy, "distance_7d", distance(week, before), is_asked=is_small)
    yield volume_shifts(grid, policy)


def _mean_rows(grid: Grid) -> Floats:
    """Rows a day over the four weeks before each day; 0 without any."""
    usable = grid.in_baseline.astype(float)
    n = np.nan_to_num(grid.numbers["n"]) * usable
    total, days = (np.cumsum(values, axis=-1) for values in (n, usable))
    back = 4 * WEEK
    total[:, back:], days[:, back:] = total[:, back:] - total[:, :-back], days[:, back:] - days[:, :-back]
    rows: Floats = total / np.maximum(days, 1.0)
    return rows


@dataclass(frozen=True)
class Moments:
    """Mean, variance and count of the values of each usable day."""

    counts: Floats
    means: Floats
    variances: Floats

    @classmethod
    def of(cls, grid: Grid) -> "Moments":
        """From sums, cut to the days that statistics of single days look back on."""
        n, nulls, total, squares = (grid.values(name)[:, LEAD_DAYS:] for name in ("n", "nulls", "total", "squares"))
        counts = n - nulls
        with np.errstate(divide="ignore", invalid="ignore"):
            means = np.where(counts > 0, total / counts, np.nan)
            variances = np.maximum(squares / counts - means * means, 0.0)
        return cls(counts, means, variances)


def _in_baseline(grid: Grid, values: Floats) -> Floats:
    found: Floats = np.where(grid.in_baseline[:, LEAD_DAYS:], values, np.nan)
    return found


def mean_shifts(grid: Grid, policy: DriftPolicy) -> Iterator[Shifts]:
    """Means of numbers, each on its own and beside its companions; size in standard deviations of single values."""
    day, runs, past = Moments.of(grid), grid.runs[:, LEAD_DAYS:], window_days(policy)
    known = _in_baseline(grid, day.means)
    std = baseline.pooled_std(day.counts, known, day.variances, runs, policy)
    near = policy.min_mean_shift_stds * std
    forecast = baseline.forecast_level(day.means, runs, policy, known=known, tolerance=near)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = (FLOORS["mean"] * std) ** 2 + std * std / day.counts[..., past:]
    late = slice(policy.residual_days, None)
    usable = (std > 0) & ~np.isnan(known[..., past:])
    own = Shifts(
        statistic="mean",
        keys=grid.keys,
        gate=policy.min_mean_shift_stds,
        value=day.means[..., past:][..., late],
        expected=forecast.expected[..., late],
        size=_in_stds(forecast.errors, std)[..., late],
        known=forecast.known[..., late],
        is_flat=(std <= 0)[..., late],
        is_ordinary=forecast.is_ordinary[..., late],
        surprise=baseline.surprise(forecast, noise=noise[..., late], usable=usable, policy=policy),
    )
    beside, members = alone_shifts(grid, policy, own, forecast, noise[..., late], usable=usable)
    size = _in_stds(beside.value - beside.expected, std[members][:, late])
    yield own
    yield replace(beside, statistic="mean_alone", size=size)


def _in_stds(errors: Floats, std: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.abs(errors) / std
    found: Floats = np.minimum(np.where(std > 0, size, np.where(errors == 0, 0.0, 99.0)), 99.0)
    return found


def alone_shifts(
    grid: Grid, policy: DriftPolicy, own: Shifts, forecast: Forecast, noise: Floats, *, usable: Bools
) -> tuple[Shifts, Ints]:
    """A statistic of the features beside what their companions say, and which series these are.

    A column without companions has no value. ``expected`` is the value less its surprise: right where a statistic is
    predicted as it stands.
    """
    members = np.array([at for at, (subject, _) in enumerate(grid.keys) if subject == FEATURES], dtype=np.int64)
    left = alone(forecast.errors[members], usable[members], policy)
    nothing = np.zeros((*left.today.shape, 0))
    found = baseline.surprise_beside(left.past, left.today, inner=nothing, noise=noise[members], policy=policy)
    value = np.where(np.isnan(left.today), np.nan, own.value[members])
    is_flat = own.is_flat[members]
    return Shifts(
        own.statistic, tuple(grid.keys[at] for at in members), own.gate, value, value - left.today, own.size[members],
        own.known[members], is_flat, np.zeros_like(is_flat), found,
    ), members  # fmt: skip


def spread_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Standard deviations of a day's numbers, predicted as logarithms; size as a difference of logarithms.

    Days that spread less are judged by cube roots of variances, which are nearly normal however few the values are
    (E. B. Wilson and M. M. Hilferty, *PNAS* 17, 1931). Rows often share theirs, a rate of three airports say: as a
    logarithm, a day on which these agree by chance was far out.
    A day on which a column is constant has no row here: ``constant`` speaks of it.
    """
    day, past, late = Moments.of(grid), window_days(policy), policy.residual_days
    with np.errstate(divide="ignore", invalid="ignore"):
        is_real = (day.counts > 1) & (day.variances > 1e-12 * day.means * day.means)
        spread = np.where(is_real, np.log(day.variances) / 2, np.nan)
        noise = FLOORS["spread"] ** 2 + 1 / (2 * day.counts[..., past + late :])
    gate = policy.min_spread_shift_log
    return _plain(grid, policy, "spread", spread, noise, gate, runs=grid.runs, unit=np.exp, judged_as=_as_roots)[0]


def _as_roots(logs: Floats) -> Floats:
    """Falls of a logarithm as those of the power 2/3 of what it is of, in the same unit where they are small."""
    found: Floats = np.where(logs < 0, 1.5 * np.expm1(logs * 2 / 3), logs)
    return found


def share_shifts(grid: Grid, policy: DriftPolicy, statistic: str, counted: str) -> Iterator[Shifts]:
    """Shares of rows, predicted as asin(sqrt(share)); size as a difference of shares. Nulls also beside companions."""
    n, part = grid.values("n")[:, LEAD_DAYS:], grid.values(counted)[:, LEAD_DAYS:]
    past, late = window_days(policy), policy.residual_days
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(n > 0, part / n, np.nan)
        noise = FLOORS["share"] ** 2 + 1 / (4 * n[..., past + late :])
    angles = np.arcsin(np.sqrt(shares))
    gate = policy.min_out_of_range_share if statistic == "out_of_range" else policy.min_null_shift_share
    found, forecast = _plain(grid, policy, statistic, angles, noise, gate, runs=grid.runs * 0, unit=_share_of)
    value = shares[..., past + late :]
    own = replace(found, value=value, size=np.abs(value - found.expected), is_ordinary=found.is_flat)
    yield own
    if statistic == "null_share":
        usable = ~np.isnan(_in_baseline(grid, angles)[..., past:])
        beside, _ = alone_shifts(grid, policy, own, forecast, noise, usable=usable)
        said = _share_of(np.arcsin(np.sqrt(beside.value)) - (beside.value - beside.expected))
        yield replace(beside, statistic="null_alone", expected=said, size=np.abs(beside.value - said))


def _share_of(angle: Floats) -> Floats:
    found: Floats = np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2
    return found


def distance_shifts(
    grid: Grid, policy: DriftPolicy, statistic: str, distances: Floats, *, is_asked: "Bools | np.bool_"
) -> Shifts:
    """Distances from the histograms before, predicted as logarithms; size is the distance itself, upwards only."""
    asked = np.where(grid.is_usable & is_asked, distances, np.nan)[:, LEAD_DAYS:]
    logs = np.log(asked + DISTANCE_OFFSET)
    noise = np.full(logs[..., window_days(policy) + policy.residual_days :].shape, FLOORS["distance"] ** 2)
    found, _ = _plain(
        grid, policy, statistic, logs, noise, policy.min_distance,
        runs=grid.runs, unit=lambda log: np.maximum(np.exp(log) - DISTANCE_OFFSET, 0.0),
    )  # fmt: skip
    size = np.where(found.value > found.expected, found.value, 0.0)
    return replace(found, size=np.where(np.isnan(found.value), np.nan, size), is_ordinary=found.is_flat)


def _plain(
    grid: Grid,
    policy: DriftPolicy,
    statistic: str,
    values: Floats,
    noise: Floats,
    gate: float,
    *,
    runs: Floats,
    unit: "np.ufunc | object",
    judged_as: Callable[[Floats], Floats] = lambda errors: errors,
) -> tuple[Shifts, Forecast]:
    """A statistic that is predicted as it stands, and its forecast; ``unit`` turns it into what people read.

    ``judged_as``: what errors are turned into before they are laid beside each other.
    """
    past, late = window_days(policy), slice(policy.residual_days, None)
    known = _in_baseline(grid, values)
    forecast = baseline.forecast_level(values, runs[:, LEAD_DAYS:], policy, known=known)
    judged = replace(forecast, errors=judged_as(forecast.errors), inner=judged_as(forecast.inner))
    found = baseline.surprise(judged, noise=noise, usable=~np.isnan(known[..., past:]), policy=policy)
    assert callable(unit)
    return Shifts(
        statistic=statistic,
        keys=grid.keys,
        gate=gate,
        value=unit(values[..., past:][..., late]),
        expected=unit(forecast.expected[..., late]),
        size=np.abs(forecast.errors[..., late]),
        known=forecast.known[..., late],
        is_flat=np.zeros_like(found.z, dtype=bool),
        is_ordinary=forecast.is_ordinary[..., late],
        surprise=found,
    ), forecast


def constant_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Whether all values of a day are the same; expected is the share of the baseline days on which they were.

    A rain gauge is at zero all day more often than not: only a column that hardly ever was constant is judged, and
    only on days on which most rows have a value.
    """
    valued = grid.values("n") - grid.values("nulls")
    is_asked = (valued >= MIN_CONSTANT_ROWS) & (valued >= grid.values("n") / 2)
    constant = np.where(is_asked, grid.values("is_constant"), np.nan)[:, LEAD_DAYS:]
    past, late = window_days(policy), policy.residual_days
    before = baseline.baseline_days(_in_baseline(grid, constant), grid.runs[:, LEAD_DAYS:] * 0, policy)
    known = (~np.isnan(before)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(known >= policy.min_days, np.nan_to_num(before).sum(axis=-1) / known, np.nan)
    value, share, known = constant[..., past + late :], share[..., late:], known[..., late:]
    is_new = (value > 0) & (share < policy.max_constant_day_share)
    nothing = np.zeros_like(value)
    z = np.where(np.isnan(value) | np.isnan(share), np.nan, np.where(is_new, 99.0, 0.0))
    return Shifts(
        "constant", grid.keys, 1.0, value, share, np.where(np.isnan(z), np.nan, is_new.astype(float)), known,
        np.zeros_like(is_new), np.zeros_like(is_new), Surprise(nothing, z, nothing, np.zeros_like(is_new)),
    )  # fmt: skip


def volume_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Rows per day beside the same weekday of eight weeks; size as a share of what was expected."""
    members = [position for position, (subject, _) in enumerate(grid.keys) if subject == FEATURES]
    keys = ((FEATURES, ROWS),) if members else ()
    counts, known = (np.where(mask, grid.numbers["n"], np.nan)[members, LEAD_DAYS:]
                     for mask in (grid.is_usable, grid.in_baseline))  # fmt: skip
    volume, before = (np.fmax.reduce(v, axis=0, keepdims=True) if members else v for v in (counts, known))
    forecast = baseline.forecast_volume(volume, policy, known=before)
    past, late = window_days(policy), policy.residual_days
    noise = FLOORS["volume"] ** 2 + 1 / forecast.expected[..., late:]
    usable = ~np.isnan(before[..., past:])
    found = baseline.surprise(forecast, noise=noise, usable=usable, policy=policy)
    found = Surprise(found.scale, found.z, np.zeros_like(found.cusum), found.is_rising)
    return Shifts(
        statistic="volume",
        keys=keys,
        gate=policy.min_volume_shift_share,
        value=volume[..., past + late :],
        expected=forecast.expected[..., late:],
        size=np.abs(forecast.errors[..., late:]),
        known=forecast.known[..., late:],
        is_flat=np.zeros_like(found.z, dtype=bool),
        is_ordinary=np.zeros_like(found.z, dtype=bool),
        surprise=found,
    )
