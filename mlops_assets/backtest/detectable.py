"""What the monitor cannot see: the smallest shift of each feature that it would find."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.drift import FEATURES, ROWS, Limits
from mlops_assets.service.monitoring import DriftPolicy

Floats = NDArray[np.float64]
CHANCE = 0.8
DAYS = 7
FRESH_DAYS = 4
"""So long a sustained shift stands out in full: then it is half of the last seven days, whose median error the
forecast takes in by half."""


@dataclass(frozen=True)
class Smallest:
    """The smallest sustained shift of a feature that alarms with 80 % chance, within one day and within seven.

    ``day_shift`` and ``week_shift`` are in the unit of the feature, ``day_stds`` and ``week_stds`` in standard
    deviations of its values; ``null_points`` is a rise of the share of missing values within one day, in points of
    100. None: it is no number, or was never judged, so no shift of it would be seen.
    """

    column: str
    day_shift: float | None
    day_stds: float | None
    week_shift: float | None
    week_stds: float | None
    null_points: float | None


def smallest_shifts(drift: pd.DataFrame, policy: DriftPolicy, series: int) -> tuple[Smallest, ...]:
    """Per feature, from rows of ``drift`` and the limit that so many series have; the blindest first.

    On a past day with error e and scale s a shift d alarms if abs(e + d) >= max(z s, gate sd); so the smallest such d
    is known for every day and side, and the 80th percentile over days and both sides is seen with 80 % chance. It is
    the detection limit of L. A. Currie, Analytical Chemistry 40 (1968), 586-593 (critical level plus what covers the
    error of a single reading), with the measured errors in place of normal ones. A column is judged on its own and
    beside its companions (``mean_alone``): the smaller shift counts. For seven days the easiest of them counts; from
    the fifth on the forecast has followed by half. The slow-drift sum is left out: it finds a little more.
    """
    limit = Limits.of(policy, series).moderate_z
    own = drift[(drift["subject"] == FEATURES) & (drift["baseline"] == "trailing")]
    found = []
    for column, rows in own[own["column_name"] != ROWS].groupby("column_name"):
        means, alone, nulls = (rows[(rows["statistic"] == name) & rows["scale"].notna()].sort_values("day")
                               for name in ("mean", "mean_alone", "null_share"))  # fmt: skip
        found.append(Smallest(str(column), *_of_mean(means, alone, policy, limit), _of_nulls(nulls, policy, limit)))
    return tuple(sorted(found, key=lambda one: (-(one.week_stds or np.inf), one.column)))


def _of_mean(
    means: pd.DataFrame, alone: pd.DataFrame, policy: DriftPolicy, limit: float
) -> tuple[float | None, float | None, float | None, float | None]:
    errors = (means["value"] - means["expected"]).to_numpy(dtype="float64")
    beside = alone.set_index("day").reindex(means["day"])
    sizes = means["size"].to_numpy(dtype="float64")
    is_known = sizes > 0
    if is_known.sum() < DAYS:
        return None, None, None, None
    std = float(np.median(np.abs(errors[is_known]) / sizes[is_known]))
    gate, own = policy.min_mean_shift_stds * std, means["scale"].to_numpy(dtype="float64")
    left = (beside["value"] - beside["expected"]).to_numpy(dtype="float64")
    scales = beside["scale"].to_numpy(dtype="float64")
    needed = [
        np.fmin(_needed(errors, own, gate, limit, side), _needed(left, scales, gate, limit, side))
        for side in (1.0, -1.0)
    ]
    needed = [one[~np.isnan(one)] for one in needed if (~np.isnan(one)).sum() >= DAYS]
    if not needed:
        return None, None, None, None
    day, week = (round(float(np.quantile(np.concatenate(some), CHANCE)), 9)
                 for some in (needed, [_easiest(one) for one in needed]))  # fmt: skip
    return day, round(day / std, 9), week, round(week / std, 9)


def _needed(errors: Floats, scales: Floats, gate: float, limit: float, side: float) -> Floats:
    """Per day, the smallest shift to one side that would have alarmed; a day's scale is known on its own side only."""
    is_own = np.where(errors < 0, -1.0, 1.0) == side
    scale = pd.Series(np.where(is_own, scales, np.nan)).ffill().bfill().to_numpy(dtype="float64")
    needed: Floats = np.maximum(np.maximum(limit * scale, gate) - side * errors, 0.0)
    return needed


def _easiest(needed: Floats) -> Floats:
    """Per first day, the smallest shift that alarms on one of seven days."""
    weights = np.where(np.arange(DAYS) < FRESH_DAYS, 1.0, 2.0)
    easiest: Floats = (np.lib.stride_tricks.sliding_window_view(needed, DAYS) * weights).min(axis=-1)
    return easiest


def _of_nulls(nulls: pd.DataFrame, policy: DriftPolicy, limit: float) -> float | None:
    """The rise of the null share, in points; its scale is one of asin(sqrt(share))."""
    if len(nulls) < DAYS:
        return None
    value, expected, scale = (nulls[name].to_numpy(dtype="float64") for name in ("value", "expected", "scale"))
    angle, usual = np.arcsin(np.sqrt(value)), np.arcsin(np.sqrt(expected))
    seen = np.sin(np.clip(usual + limit * scale, 0.0, np.pi / 2)) ** 2
    today = np.sin(angle) ** 2
    needed = np.maximum(np.maximum(seen, expected + policy.min_null_shift_share) - today, 0.0)
    return round(100 * float(np.quantile(needed, CHANCE)), 9)
