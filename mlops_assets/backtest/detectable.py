"""What the monitor cannot see: the smallest shift of each feature that it would find."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.drift import FEATURES, ROWS, Limits
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.shifts import DISTANCE_OFFSET
from mlops_assets.service.monitoring import DriftPolicy

Floats = NDArray[np.float64]
CHANCE = 0.8
DAYS = 7
FRESH_DAYS = 4
"""So long a sustained shift stands out in full: then it is half of the last seven days, whose median error the
forecast takes in by half."""


STATISTIC_OF = {
    "day_shift": "mean", "day_stds": "mean", "week_shift": "mean", "week_stds": "mean", "null_points": "null_share",
    "spread_times": "spread", "distance": "distance", "new_points": "new_category",
}  # fmt: skip
"""Which statistic each number speaks of."""
STATISTICS = (*dict.fromkeys(STATISTIC_OF.values()), "mean_alone", "volume")


@dataclass(frozen=True)
class Smallest:
    """The smallest sustained shift of a feature, or of the rows, that alarms with 80 % chance.

    Of its mean within one day and within seven, in the unit of the feature (``day_shift``, ``week_shift``) and in
    standard deviations of its values (``day_stds``, ``week_stds``). Within one day: of its spread (``spread_times``: so
    many times as wide, or as narrow); of its distribution (``distance``: how far from the last 35 days it must be,
    for distances do not add up); of the share of missing values and of new texts (``null_points``, ``new_points``, in
    points of 100); of the number of rows (``rows_share``). None: ``why`` says, by field, why no shift would be seen.
    """

    column: str
    day_shift: float | None = None
    day_stds: float | None = None
    week_shift: float | None = None
    week_stds: float | None = None
    null_points: float | None = None
    spread_times: float | None = None
    distance: float | None = None
    new_points: float | None = None
    rows_share: float | None = None
    why: Mapping[str, str] = field(default_factory=dict)


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
    own = drift[(drift["subject"] == FEATURES) & (drift["baseline"] == "trailing") & (drift["slice"] == ALL)]
    found = [_of_column(str(column), rows, policy, limit) for column, rows in own.groupby("column_name")]
    return tuple(sorted(found, key=lambda one: (-(one.week_stds or np.inf), one.column)))


def _of_column(column: str, rows: pd.DataFrame, policy: DriftPolicy, limit: float) -> Smallest:
    of = {str(name): some.sort_values("day") for name, some in rows[rows["scale"].notna()].groupby("statistic")}
    nothing = rows.iloc[:0]
    known = {name: of.get(name, nothing) for name in STATISTICS}
    if column == ROWS:
        share = _of_volume(known["volume"], policy, limit)
        return Smallest(
            column, rows_share=share, why={} if share is not None else {"rows_share": _why(known["volume"])}
        )
    means = _of_mean(known["mean"], known["mean_alone"], policy, limit)
    numbers: dict[str, float | None] = {
        **dict(zip(("day_shift", "day_stds", "week_shift", "week_stds"), means, strict=True)),
        "null_points": _of_share(known["null_share"], policy, limit),
        "spread_times": _of_spread(known["spread"], policy, limit),
        "distance": _of_distance(known["distance"], policy, limit),
        "new_points": _of_share(known["new_category"], policy, limit),
    }
    missing = {name: _why(known[STATISTIC_OF[name]]) for name, number in numbers.items() if number is None}
    return Smallest(column, **numbers, why=missing)


def _why(rows: pd.DataFrame) -> str:
    """Why nothing can be said about a statistic."""
    if rows.empty:
        return "never judged: the column has no such number, or is still learning"
    if len(rows) >= DAYS and set(rows["statistic"]) == {"distance"}:
        return "not even a distance of 1, the largest there is, alarms on eight of ten days"
    return f"{len(rows)} judged days with an error of their own, below {DAYS}"


def _of_mean(
    means: pd.DataFrame, alone: pd.DataFrame, policy: DriftPolicy, limit: float
) -> tuple[float | None, float | None, float | None, float | None]:
    errors = (means["value"] - means["expected"]).to_numpy(dtype="float64")
    beside = alone.drop_duplicates("day").set_index("day").reindex(means["day"])
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


def _both_sides(errors: Floats, scales: Floats, gate: float, limit: float) -> float | None:
    """The shift to either side that is seen on 80 % of days."""
    needed = np.concatenate([_needed(errors, scales, gate, limit, side) for side in (1.0, -1.0)])
    known = needed[~np.isnan(needed)]
    return float(np.quantile(known, CHANCE)) if len(known) >= DAYS else None


def _of_spread(rows: pd.DataFrame, policy: DriftPolicy, limit: float) -> float | None:
    """How many times as wide or narrow; spreads are predicted as logarithms, and falls of them judged as roots."""
    if rows.empty:
        return None
    value, expected, scale = _numbers(rows)
    errors = np.log(value / expected)
    with np.errstate(divide="ignore"):
        fallen = -1.5 * np.log(np.maximum(1 - limit * scale / 1.5, 0.0)) / limit
    log = _both_sides(errors, np.where(errors < 0, fallen, scale), policy.min_spread_shift_log, limit)
    return round(float(np.exp(log)), 9) if log is not None and np.isfinite(log) else None


def _of_volume(rows: pd.DataFrame, policy: DriftPolicy, limit: float) -> float | None:
    """The change of the number of rows as a share of what was expected."""
    value, expected, scale = _numbers(rows)
    share = _both_sides(value / expected - 1, scale, policy.min_volume_shift_share, limit) if len(rows) else None
    return None if share is None else round(share, 9)


def _of_distance(rows: pd.DataFrame, policy: DriftPolicy, limit: float) -> float | None:
    """The distance from which on a day alarms; it is predicted as a logarithm and judged upwards only."""
    if len(rows) < DAYS:
        return None
    value, expected, scale = _numbers(rows)
    seen: Floats = (
        np.exp(np.log(expected + DISTANCE_OFFSET) + limit * _of_side(value - expected, scale, 1.0)) - DISTANCE_OFFSET
    )
    if np.isnan(seen).all():
        return None
    needed = round(float(np.nanquantile(np.maximum(seen, policy.min_distance), CHANCE)), 9)
    return needed if needed <= 1 else None


def _numbers(rows: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Value, expected and scale."""
    value, expected, scale = (rows[name].to_numpy(dtype="float64") for name in ("value", "expected", "scale"))
    return value, expected, scale


def _needed(errors: Floats, scales: Floats, gate: float, limit: float, side: float) -> Floats:
    """Per day, the smallest shift to one side that would have alarmed; a day's scale is known on its own side only."""
    needed: Floats = np.maximum(np.maximum(limit * _of_side(errors, scales, side), gate) - side * errors, 0.0)
    return needed


def _of_side(errors: Floats, scales: Floats, side: float) -> Floats:
    """The scale of one side on every day: that of the newest day whose error lay there, else of the next one."""
    is_own = np.where(errors < 0, -1.0, 1.0) == side
    own = pd.Series(np.where(is_own, scales, np.nan)).ffill().bfill()
    return np.asarray(own, dtype=np.float64)


def _easiest(needed: Floats) -> Floats:
    """Per first day, the smallest shift that alarms on one of seven days."""
    weights = np.where(np.arange(DAYS) < FRESH_DAYS, 1.0, 2.0)
    easiest: Floats = (np.lib.stride_tricks.sliding_window_view(needed, DAYS) * weights).min(axis=-1)
    return easiest


def _of_share(rows: pd.DataFrame, policy: DriftPolicy, limit: float) -> float | None:
    """The rise of a share of rows, in points; its scale is one of asin(sqrt(share))."""
    if len(rows) < DAYS:
        return None
    value, expected, scale = _numbers(rows)
    angle, usual = np.arcsin(np.sqrt(value)), np.arcsin(np.sqrt(expected))
    up = np.nan_to_num(_of_side(value - expected, scale, 1.0), nan=float(np.max(scale)))
    seen = np.sin(np.clip(usual + limit * up, 0.0, np.pi / 2)) ** 2
    today = np.sin(angle) ** 2
    needed = np.maximum(np.maximum(seen, expected + policy.min_null_shift_share) - today, 0.0)
    return round(100 * float(np.quantile(needed, CHANCE)), 9)
