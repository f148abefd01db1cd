"""Judge: is the last week still what the champion learned from?

A trailing baseline follows a slow drift and forgets it.
The week is the exact sum of its days, the training window the exact sum of its own; no row is read again. Seasons move
inputs far from what a model saw without harming it, so such a shift is recorded, once when it begins, and asks nobody
to look: whether it does harm is what quality says.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlops_assets.adapters.engine import literal, rows
from mlops_assets.monitoring_loop.baseline import WEEK, Floats
from mlops_assets.monitoring_loop.distances import MAX_BINS, Reference, distance, last_days
from mlops_assets.monitoring_loop.grid import FEATURES, Grid
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.monitoring import DriftPolicy

TRAINING = "training"
MIN_WEEK_ROWS = 50
Row = tuple[date, str, str, str, str, str, float, float, float, float, float, str | None, str, str]


@dataclass(frozen=True)
class Learned:
    """One column over a whole training window."""

    n: float
    nulls: float
    total: float | None
    squares: float | None
    days: int
    bins: str | None
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Training:
    """What one model version learned from: first and last prediction day, and its columns."""

    version: str
    first: date
    last: date
    columns: Mapping[str, Learned]


def learned_columns(con: duckdb.DuckDBPyConnection, *, profiles: str, feature_version: str) -> dict[str, Learned]:
    """Add up the profiles of a training window: column -> the whole of it."""
    counted: dict[str, tuple[str, list[int]]] = {}
    for name, bins, counts in rows(con, merged_counts_sql(profiles, feature_version)):
        counted[name] = (bins, counts)
    found = {}
    for name, n, nulls, total, squares, days in rows(con, merged_sums_sql(profiles, feature_version)):
        bins, counts = counted.get(name, (None, []))
        found[name] = Learned(float(n), float(nulls), total, squares, days, bins, tuple(counts))
    return found


def merged_sums_sql(profiles: str, feature_version: str) -> str:
    """SQL of the sums of every column: sums of doubles in the order of their days."""
    return f"""
        select column_name, sum(n)::double, sum(nulls)::double, list_aggregate(list(total order by day), 'fsum'),
               list_aggregate(list(squares order by day), 'fsum'), count(*)
        from {profiles} where slice = {literal(ALL)} and subject = {literal(feature_version)} group by 1 order by 1
    """


def merged_counts_sql(profiles: str, feature_version: str) -> str:
    """SQL of the histogram of every column, over the days that have the newest bins: column, bins, counts."""
    return f"""
        with binned as (
            select column_name, bins, unnest(counts) as count, generate_subscripts(counts, 1) as place
            from {profiles} where slice = {literal(ALL)} and subject = {literal(feature_version)} and bins is not null
            qualify bins = last_value(bins) over (
                partition by column_name order by day rows between unbounded preceding and unbounded following)
        )
        select column_name, bins, list(total order by place)
        from (select column_name, bins, place, sum(count)::bigint as total from binned group by all)
        group by all order by all
    """


def training_rows(
    grid: Grid, days: Sequence[date], trainings: Mapping[date, Training], policy: DriftPolicy
) -> Iterator[Row]:
    """Rows of table ``drift`` with baseline *training*, for the days whose champion is known.

    Args:
        trainings: what the champion of each day learned from.
    """
    for training in {training.version: training for training in trainings.values()}.values():
        sizes = {"mean": week_means(grid, training), "distance": week_distances(grid, training, min(days))}
        for day in days:
            if trainings.get(day) != training:
                continue
            for statistic, arrays in sizes.items():
                gate = policy.training_mean_shift_stds if statistic == "mean" else policy.training_distance
                yield from _rows(grid, day, training, statistic, arrays, gate)


def _rows(
    grid: Grid, day: date, training: Training, statistic: str, arrays: tuple[Floats, Floats, Floats], gate: float
) -> Iterator[Row]:
    at, size, nothing = grid.position(day), arrays[2], float("nan")
    for position, (subject, column) in enumerate(grid.keys):
        if subject != FEATURES or np.isnan(size[position, at]):
            continue
        numbers = [round(float(array[position, at]), 9) for array in arrays]
        is_far = numbers[2] >= gate
        was_far = bool((size[position, max(at - WEEK, 0) : at] >= gate).any())
        tier = "expected" if is_far and not was_far else "stable"
        reason = in_words(column, statistic, numbers, training) if is_far else "as the champion learned it"
        yield (
            *(day, subject, ALL, column, statistic, TRAINING, numbers[0], numbers[1], nothing, nothing, numbers[2]),
            *(None, tier, reason),
        )


def in_words(column: str, statistic: str, numbers: Sequence[float], training: Training) -> str:
    """The finding as a person would say it."""
    window = f"the champion learned from ({training.first} to {training.last})"
    if statistic == "distance":
        return f"{column}: the last week is {numbers[0]:.2f} away from what {window}"
    return (
        f"{column}: mean {numbers[0]:.4g} over the last week, {numbers[2]:.1f} sd from {numbers[1]:.4g}, what {window}"
    )


def _week(values: Floats) -> Floats:
    """Sums over each day and the six before it; nothing where a day has none."""
    padded = np.concatenate([np.zeros((len(values), WEEK - 1)), np.nan_to_num(values)], axis=1)
    sums: Floats = np.ascontiguousarray(sliding_window_view(padded, WEEK, axis=1)).sum(axis=-1)
    return sums


def week_means(grid: Grid, training: Training) -> tuple[Floats, Floats, Floats]:
    """Mean of the last seven days, of the training window, and how many standard deviations of values lie between."""
    counts = _week(grid.values("n")) - _week(grid.values("nulls"))
    expected, std = np.full(len(grid.keys), np.nan), np.full(len(grid.keys), np.nan)
    for position, (_, column) in enumerate(grid.keys):
        known = training.columns.get(column)
        if known and known.total is not None and known.squares is not None and known.n > known.nulls:
            expected[position] = known.total / (known.n - known.nulls)
            variance = known.squares / (known.n - known.nulls) - expected[position] ** 2
            std[position] = np.sqrt(max(variance, 0.0)) or np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(counts >= MIN_WEEK_ROWS, _week(grid.values("total")) / counts, np.nan)
        size = np.abs(value - expected[:, None]) / std[:, None]
    return value, np.broadcast_to(expected[:, None], value.shape), size


def week_distances(grid: Grid, training: Training, first: date) -> tuple[Floats, Floats, Floats]:
    """Distance of the last seven days' histogram from the training window's, from a week before ``first`` on."""
    late = max(grid.position(first) - 2 * WEEK, 0)
    usable = np.where(grid.is_usable[..., None], grid.counts, 0.0)[:, late:]
    week = last_days(usable, grid.binned[:, late:], WEEK)
    shape = week.shape
    whole, days = np.zeros((len(grid.keys), MAX_BINS)), np.zeros(shape[:2])
    for position, (_, column) in enumerate(grid.keys):
        known = training.columns.get(column)
        if known and known.bins in grid.bin_names:
            whole[position, : len(known.counts)] = known.counts
            is_same = grid.bins[position, late:] == grid.bin_names.index(known.bins)
            days[position] = np.where(is_same, known.days, 0.0)
    total = np.broadcast_to(whole.sum(axis=-1)[:, None], shape[:2])
    beside = Reference(np.broadcast_to(whole[:, None, :], shape), total, total, days)
    value = np.full(grid.is_usable.shape, np.nan)
    value[:, late:] = distance(week, beside)
    return value, np.zeros_like(value), value
