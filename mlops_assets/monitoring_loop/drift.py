"""Judge: is today's column the column of the last month?

``find_drift`` turns daily profiles into findings with a tier and a sentence. The numbers come from
``baseline.py``; here stand the thresholds. Three statistics: ``mean`` (numbers and the score), ``null_share``
(everything) and ``volume`` (rows per day). A monitor that edits its own baseline runs away, so a flagged day
stays in it; only blocked days (and days that a person declared bad) are left out by the caller.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, literal
from mlops_assets.monitoring_loop import baseline
from mlops_assets.monitoring_loop.baseline import Bools, Floats, Ints, Surprise, history_days, window_days
from mlops_assets.monitoring_loop.profiles import ALL, LOG, SCORE
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME

__all__ = ["find_drift", "history_days", "series_from_profiles"]

FEATURES = "features"
"""Subject of every feature series, whatever the feature version."""
LABELS = "labels"
"""Subject of the series of label events: the rate, the delay, what was attributed."""
ROWS = "rows"
"""Column of the volume series."""
LEARNING = "learning"
TRAILING = "trailing"
CUSUM_LIMIT = 5.0
SEVERE_TIMES_GATE = 3
MIN_SEVERE_NULL_SHIFT = 0.05
FLOORS = {"mean": 0.02, "null_share": 0.01, "volume": 0.02}
"""Smallest believable scale: in standard deviations of the values, in asin(sqrt(share)), relative."""


def find_drift(
    series: pd.DataFrame,
    *,
    days: Sequence[date],
    policy: DriftPolicy,
    critical: Collection[str],
    blocked: Collection[date],
) -> pd.DataFrame:
    """One row per statistic of a column and day beside its baseline: the rows of table ``drift``.

    Pure: the rows of day D depend on ``series`` from ``history_days(policy)`` before D up to D and on nothing
    else; earlier and later rows may be there. A series that is still learning is *stable*; one that had a
    baseline and cannot be judged is *unknown*; a column that is gone while others of its subject are there
    was taken back by its owner and has no row.

    Args:
        series: one row per day, subject and column: ``day``, ``subject`` (features or score),
            ``column_name``, ``n``, ``nulls``, ``total``, ``squares`` and, if a series starts afresh with each
            of its versions (the score with each model), ``version``.
        days: the days to judge.
        policy: thresholds.
        critical: columns whose shift may be severe; the score always is one of them.
        blocked: days that are no part of any baseline; *unknown* if judged.
    """
    if not days:
        return drift_frame([])
    grid = Grid.of(series, min(days), max(days), policy, blocked)
    found = [
        row
        for shifts in (mean_shifts(grid, policy), null_shifts(grid, policy), volume_shifts(grid, policy))
        for row in judged(shifts, grid, days=days, policy=policy, critical={*critical, SCORE})
    ]
    return drift_frame(sorted(found, key=lambda row: (row[0], row[1], row[3], row[4])))


@dataclass(frozen=True)
class Grid:
    """Profiles as arrays (series, day), the last axis daily without gaps from ``first`` on."""

    first: date
    keys: tuple[tuple[str, str], ...]
    blocked: frozenset[date]
    is_usable: Bools
    n: Floats
    nulls: Floats
    total: Floats
    squares: Floats
    versions: Floats

    @classmethod
    def of(
        cls, series: pd.DataFrame, first: date, last: date, policy: DriftPolicy, blocked: Collection[date]
    ) -> "Grid":
        """Lay the rows out; rows outside of what the days from ``first`` to ``last`` can see are left out."""
        start = first - timedelta(days=history_days(policy))
        offset = (pd.to_datetime(series["day"]) - pd.Timestamp(start)).dt.days.to_numpy(dtype="int64")
        length = (last - start).days + 1
        seen = series[(offset >= 0) & (offset < length)]
        keys = sorted(set(zip(seen["subject"].astype(str), seen["column_name"].astype(str), strict=True)))
        number = {key: position for position, key in enumerate(keys)}
        at = [number[key] for key in zip(seen["subject"].astype(str), seen["column_name"].astype(str), strict=True)]
        when = offset[(offset >= 0) & (offset < length)]

        def laid_out(column: pd.Series) -> Floats:
            array = np.full((len(keys), length), np.nan)
            array[at, when] = column.to_numpy(dtype="float64", na_value=np.nan)
            return array

        n, nulls, total, squares = (laid_out(seen[name]) for name in ("n", "nulls", "total", "squares"))
        names = seen["version"].astype(str) if "version" in seen else pd.Series("", index=seen.index)
        versions = carried_forward(laid_out(pd.Series(pd.factorize(names)[0], index=seen.index)))
        open_days = np.array([start + timedelta(days=back) not in blocked for back in range(length)], dtype=bool)
        is_usable = (np.nan_to_num(n) > 0) & open_days
        return cls(start, tuple(keys), frozenset(blocked), is_usable, n, nulls, total, squares, versions)

    def position(self, day: date) -> int:
        """Where a day stands on the last axis."""
        return (day - self.first).days


def carried_forward(values: Floats) -> Floats:
    """Every gap filled with the newest value before it."""
    at = np.where(np.isnan(values), 0, np.arange(values.shape[-1]))
    filled: Floats = np.take_along_axis(values, np.maximum.accumulate(at, axis=-1), axis=-1)
    return filled


@dataclass(frozen=True)
class Shifts:
    """One statistic of some series: values on the whole grid, the rest for the judged days (the last ones).

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
    surprise: Surprise


def mean_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Means of numbers; size in standard deviations of the single values of the baseline."""
    counts = np.where(grid.is_usable, grid.n - grid.nulls, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(counts > 0, grid.total / counts, np.nan)
        variances = np.maximum(grid.squares / counts - means * means, 0.0)
    forecast = baseline.forecast_level(means, grid.versions, policy)
    std = baseline.pooled_std(counts, means, variances, grid.versions, policy)
    past = window_days(policy)
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = (FLOORS["mean"] * std) ** 2 + std * std / counts[..., past:]
        size = np.abs(forecast.errors) / std
    size = np.where(std > 0, size, np.where(forecast.errors == 0, 0.0, 99.0))
    late = slice(policy.residual_days, None)
    found = baseline.surprise(forecast, noise=noise[..., late], usable=std > 0, policy=policy)
    return Shifts(
        statistic="mean",
        keys=grid.keys,
        gate=policy.min_mean_shift_stds,
        value=means[..., past + policy.residual_days :],
        expected=forecast.expected[..., late],
        size=np.minimum(size, 99.0)[..., late],
        known=forecast.known[..., late],
        is_flat=(std <= 0)[..., late],
        surprise=found,
    )


def null_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Shares of rows without a value, predicted as asin(sqrt(share)); size as a difference of shares."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(grid.is_usable, grid.nulls / grid.n, np.nan)
    forecast = baseline.forecast_level(np.arcsin(np.sqrt(shares)), grid.versions * 0, policy)
    past, late = window_days(policy), policy.residual_days
    with np.errstate(divide="ignore"):
        noise = FLOORS["null_share"] ** 2 + 1 / (4 * grid.n[..., past + late :])
    found = baseline.surprise(forecast, noise=noise, usable=np.ones_like(forecast.errors, dtype=bool), policy=policy)
    expected = np.sin(np.clip(forecast.expected, 0.0, np.pi / 2)) ** 2
    return Shifts(
        statistic="null_share",
        keys=grid.keys,
        gate=policy.min_null_shift_share,
        value=shares[..., past + late :],
        expected=expected[..., late:],
        size=np.abs(shares[..., past:] - expected)[..., late:],
        known=forecast.known[..., late:],
        is_flat=np.zeros_like(found.z, dtype=bool),
        surprise=found,
    )


def volume_shifts(grid: Grid, policy: DriftPolicy) -> Shifts:
    """Rows per day beside the same weekday of eight weeks; size as a share of what was expected."""
    members = [position for position, (subject, _) in enumerate(grid.keys) if subject == FEATURES]
    keys = ((FEATURES, ROWS),) if members else ()
    counts = np.where(grid.is_usable, grid.n, np.nan)[members]
    volume = np.fmax.reduce(counts, axis=0, keepdims=True) if members else counts
    forecast = baseline.forecast_volume(volume, policy)
    past, late = window_days(policy), policy.residual_days
    noise = FLOORS["volume"] ** 2 + 1 / forecast.expected[..., late:]
    found = baseline.surprise(forecast, noise=noise, usable=np.ones_like(forecast.errors, dtype=bool), policy=policy)
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
        surprise=found,
    )


Row = tuple[date, str, str, str, str, str, float, float, float, float, float, None, str, str]


def judged(
    shifts: Shifts, grid: Grid, *, days: Sequence[date], policy: DriftPolicy, critical: Collection[str]
) -> Iterator[Row]:
    """The rows of one statistic."""
    offset = history_days(policy)
    for day in days:
        at = grid.position(day) - offset
        present = {key[0] for key, there in zip(grid.keys, ~np.isnan(grid.n[:, at + offset]), strict=True) if there}
        for position, key in enumerate(shifts.keys):
            has_row = shifts.statistic == "volume" or not np.isnan(grid.n[position, at + offset])
            if not has_row and key[0] in present:
                continue
            if np.isnan(shifts.value[position, at]) and not shifts.known[position, at]:
                continue
            shift = Shift.at(shifts, position, at)
            tier, reason = judge(
                shift, policy=policy, is_critical=key[1] in critical,
                gap="blocked" if day in grid.blocked else "no values" if key[0] in present else "no rows",
            )  # fmt: skip
            yield (
                *(day, key[0], ALL, key[1], shifts.statistic, TRAILING, shift.value, shift.expected),
                *(shift.scale, shift.z, shift.size, None, tier, reason),
            )


@dataclass(frozen=True)
class Shift:
    """One statistic of one column on one day beside its baseline; numbers not-a-number where unknown."""

    column: str
    statistic: str
    value: float
    expected: float
    scale: float
    z: float
    size: float
    gate: float
    known: int
    is_flat: bool
    is_slow: bool

    @classmethod
    def at(cls, shifts: Shifts, position: int, day: int) -> "Shift":
        """One cell of the arrays, rounded as it is stored; judged is what is stored."""
        here = (position, day)
        found = shifts.surprise
        is_judged = not np.isnan(shifts.expected[here]) and not np.isnan(shifts.value[here])
        value, expected, scale, z, size = (
            round(float(number), 9) if is_known else np.nan
            for number, is_known in (
                (shifts.value[here], True),
                (shifts.expected[here], not np.isnan(shifts.expected[here])),
                (found.scale[here], is_judged),
                (found.z[here], is_judged),
                (shifts.size[here], is_judged),
            )
        )
        is_slow = is_judged and bool(found.cusum[here] > CUSUM_LIMIT and found.is_rising[here])
        column, known, is_flat = shifts.keys[position][1], int(shifts.known[here]), bool(shifts.is_flat[here])
        return cls(column, shifts.statistic, value, expected, scale, z, size, shifts.gate, known, is_flat, is_slow)


def judge(shift: Shift, *, policy: DriftPolicy, is_critical: bool, gap: str) -> tuple[str, str]:
    """Tier and reason of one shift; ``gap`` says why there would be no value."""
    if np.isnan(shift.expected):
        return "stable", LEARNING
    if np.isnan(shift.value):
        return "unknown", f"{shift.column}: {shift.statistic} cannot be judged: {gap}"
    is_learning = shift.known < policy.baseline_days
    moderate_z = max(policy.learning_z, policy.moderate_z) if is_learning else policy.moderate_z
    is_large = shift.size >= shift.gate
    if is_large and is_critical and shift.z >= policy.severe_z and is_structural(shift, is_learning=is_learning):
        return "severe", in_words(shift)
    if is_large and shift.z >= moderate_z:
        return "moderate", in_words(shift)
    if is_large and shift.is_slow:
        return "moderate", in_words(shift) + ", adding up over days"
    return "stable", "as expected"


def is_structural(shift: Shift, *, is_learning: bool) -> bool:
    """Whether a shift is large enough, and its baseline good enough, to freeze retraining over it."""
    if shift.statistic == "null_share":
        least = max(SEVERE_TIMES_GATE * shift.gate, MIN_SEVERE_NULL_SHIFT)
        return shift.value > shift.expected and shift.size >= least
    return shift.size >= SEVERE_TIMES_GATE * shift.gate and not is_learning and not shift.is_flat


def in_words(shift: Shift) -> str:
    """The finding as a person would say it.

    >>> in_words(Shift("delay", "mean", 21.4, 9.8, 2.1, 5.5, 1.1, 0.15, 30, False, False))
    'delay: mean 21.4, expected 9.8 +- 2.1 (z 5.5, 1.1 sd of the baseline)'
    """
    z = f"z {shift.z:.1f}"
    if shift.statistic == "null_share":
        return f"{shift.column}: {shift.value:.1%} without a value, expected {shift.expected:.1%} ({z})"
    if shift.statistic == "volume":
        change = shift.value / shift.expected - 1
        return f"{shift.value:.0f} rows, expected {shift.expected:.0f} ({change:+.0%}, {z})"
    if shift.is_flat:
        return f"{shift.column}: mean {shift.value:.4g}, had been constant at {shift.expected:.4g}"
    return (
        f"{shift.column}: mean {shift.value:.4g}, expected {shift.expected:.4g} +- {shift.scale:.2g} "
        f"({z}, {shift.size:.1f} sd of the baseline)"
    )


def drift_frame(found: Sequence[Row]) -> pd.DataFrame:
    """Rows of table ``drift`` with the types of its columns."""
    table = BY_NAME["drift"]
    types = {column.name: "float64" if column.type == "DOUBLE" else "str" for column in table.columns}
    types["day"] = "object"
    return pd.DataFrame(list(found), columns=list(types)).astype(types)


def series_from_profiles(
    con: duckdb.DuckDBPyConnection, *, profiles: str, roles: str, label_version: str = ""
) -> pd.DataFrame:
    """The series that ``find_drift`` reads, one per feature and one of the score.

    Args:
        profiles: relation of that table's shape.
        roles: relation ``(day, feature_version, model_version)``: whose features and whose score stand for a
            day, for example the champion's. One row per day; it must not change once the day is closed.
        label_version: the definition whose labels are watched.
    """
    return frame(con, series_sql(profiles, roles, label_version))


def series_sql(profiles: str, roles: str, label_version: str) -> str:
    """SQL of one row per day and series: features under one subject, the score with its model version, the log,
    and what the label definition in force brought: its rate, its delay and what was attributed.

    Reads   ``profiles`` and ``roles(day, feature_version, model_version)``; slice *all* only.
    """
    numbers = "profiles.day as day, column_name, n, nulls, total, squares"
    profiled = f"{profiles} as profiles join {roles} as roles on profiles.day = roles.day and slice = '{ALL}'"
    return f"""
        select {numbers}, '{FEATURES}' as subject, '' as version
        from {profiled} and subject = feature_version
        union all
        select {numbers}, '{SCORE}' as subject, model_version as version
        from {profiled} and subject = model_version and column_name = '{SCORE}'
        union all
        select {numbers}, subject, '' as version
        from {profiles} as profiles where subject = '{LOG}' and slice = '{ALL}'
        union all
        select {numbers}, '{LABELS}' as subject, subject as version
        from {profiles} as profiles
        where subject = {literal(label_version)} and slice = '{ALL}' and column_name <> 'own_decision'
    """
