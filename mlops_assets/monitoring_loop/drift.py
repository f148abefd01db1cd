"""Judge: is today's column the column of the last month?

``find_drift`` turns daily profiles into findings with a tier and a sentence. The numbers come from ``shifts.py`` and
``baseline.py``; here stand the thresholds. A monitor that edits its own baseline runs away, so a flagged day stays
in it; only blocked days, and days that a person called bad data when closing an incident, are left out.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import log
from types import MappingProxyType

import numpy as np
import pandas as pd

from mlops_assets.monitoring_loop.grid import (
    FEATURES,
    NO_ANSWERS,
    Answers,
    Grid,
    history_days,
    series_from_profiles,
)
from mlops_assets.monitoring_loop.plain_rules import ruled
from mlops_assets.monitoring_loop.profiles import ALL, SCORE
from mlops_assets.monitoring_loop.shifts import INTEGRITY, ROWS, Shifts, all_shifts
from mlops_assets.monitoring_loop.since_training import Training, training_rows
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME

__all__ = ["FEATURES", "ROWS", "Answers", "find_drift", "history_days", "series_from_profiles", "size_gates"]

LEARNING = "learning"
TRAILING = "trailing"
CUSUM_LIMIT = 5.0
CUSUM_SERIES = 38
"""So many series give one false alarm a quarter at that limit (one in 3,500 days each); more series, a higher one."""
SEVERE_TIMES_GATE = 3
MIN_SEVERE_NULL_SHIFT = 0.05
VANISHED_SHARE = 0.1
"""Below this part of the expected rows a day is a fault and no mere shift."""
TAIL_DEGREES = 15
"""Degrees of freedom of the t that stands for past errors: 48 series and 6 alarms give the measured 3.5."""
SEVERE_TO_MODERATE = 6.0 / 3.5
QUARTER_DAYS = 91


@dataclass(frozen=True)
class Limits:
    """From which surprise on a finding counts; follows from how many series are watched."""

    moderate_z: float
    severe_z: float
    cusum: float

    @classmethod
    def of(cls, policy: DriftPolicy, series: int) -> "Limits":
        """The declared limits, or those that keep chance within the alarm budget.

        >>> limits = Limits.of(DriftPolicy(), 48)
        >>> round(limits.moderate_z, 1), round(limits.severe_z, 1), round(limits.cusum, 1)
        (3.6, 6.1, 5.2)
        """
        from scipy.special import stdtrit

        false_share = min(policy.alarm_budget.tier2_a_quarter / (QUARTER_DAYS * max(series, 1)), 0.01)
        moderate = policy.moderate_z or round(float(stdtrit(TAIL_DEGREES, 1 - false_share)), 3)
        ratio = policy.alarm_budget.tier3_a_quarter / policy.alarm_budget.tier2_a_quarter * 6
        severe = policy.severe_z or round(moderate * SEVERE_TO_MODERATE / min(ratio, 1.0) ** 0.25, 3)
        return cls(moderate, severe, round(CUSUM_LIMIT + max(0.0, log(max(series, 1) / CUSUM_SERIES)) / 1.5, 3))


def find_drift(
    series: pd.DataFrame,
    *,
    days: Sequence[date],
    policy: DriftPolicy,
    critical: Collection[str],
    blocked: Collection[date],
    answers: Answers = NO_ANSWERS,
    closed: Collection[date] = (),
    series_count: int | None = None,
    trainings: Mapping[date, Training] = MappingProxyType({}),
) -> pd.DataFrame:
    """One row per statistic of a column and day beside its baseline: rows of table ``drift``.

    Pure: the rows of day D depend on ``series`` from ``history_days(policy)`` before D up to D and on nothing
    else; earlier and later rows may be there. A series that is still learning is *stable*; one that had a
    baseline and cannot be judged is *unknown*; a column that is gone while others of its subject are there
    was taken back by its owner and has no row.

    Args:
        series: one row per day, subject and column: ``day``, ``subject`` (features or score), ``column_name``,
            numbers of the profile, and, if a series starts afresh with each of its versions (the score with each
            model), ``version``.
        days: the days to judge.
        policy: thresholds.
        critical: columns whose shift may be severe; the score always is one of them.
        blocked: days that are no part of any baseline; *unknown* if judged.
        answers: what people said about earlier incidents; it must have been said before all of ``days``.
        closed: declared non-business days, on which no rows are no fault.
        trainings: what the champion of a day learned from; those days have rows with baseline *training* too.
        series_count: how many series share the alarm budget, if they are more than those at hand.
    """
    if not days:
        return drift_frame([])
    grid = Grid.of(series, min(days), max(days), policy, blocked, answers)
    shifts = list(all_shifts(grid, policy))
    limits = [Limits.of(policy, series_count or watched(shifts, grid, day)) for day in days]
    found = [
        row
        for some in shifts
        for row in judged(some, grid, days=days, policy=policy, limits=limits, critical={*critical, SCORE}, shut=closed)
    ]
    found += ruled(series, grid, days, policy)
    found += training_rows(grid, days, trainings, policy)
    return drift_frame(sorted(found, key=lambda row: (row[0], row[1], row[3], row[4], row[5])))


def watched(shifts: Sequence[Shifts], grid: Grid, day: date) -> int:
    """How many series have a surprise on a day."""
    at = grid.position(day) - (grid.is_usable.shape[1] - shifts[0].value.shape[1])
    return sum(int((~np.isnan(some.surprise.z[:, at])).sum()) for some in shifts)


Row = tuple[date, str, str, str, str, str, float, float, float, float, float, str | None, str, str]


def judged(
    shifts: Shifts,
    grid: Grid,
    *,
    days: Sequence[date],
    policy: DriftPolicy,
    limits: Sequence[Limits],
    critical: Collection[str],
    shut: Collection[date],
) -> Iterator[Row]:
    """The rows of one statistic."""
    offset = grid.is_usable.shape[1] - shifts.value.shape[1]
    has_rows = ~np.isnan(grid.numbers["n"])
    row_of = {key: position for position, key in enumerate(grid.keys)}
    for day, limit in zip(days, limits, strict=True):
        at = grid.position(day) - offset
        present = {key[0] for key, there in zip(grid.keys, has_rows[:, at + offset], strict=True) if there}
        for position, key in enumerate(shifts.keys):
            has_row = shifts.statistic == "volume" or has_rows[row_of[key], at + offset]
            if not has_row and key[0] in present:
                continue
            if np.isnan(shifts.value[position, at]) and not is_missed(shifts, position, at):
                continue
            shift = Shift.at(shifts, position, at, limit)
            gap = "blocked" if day in grid.blocked else "no values" if key[0] in present else "no rows"
            tier, reason = judge(shift, policy=policy, limits=limit, is_critical=key[1] in critical, gap=gap)
            if gap == "no rows" and tier == "unknown" and key[1] == ROWS:
                tier, reason = ("expected", "no rows on a declared non-business day") if day in shut else (
                    "severe", f"no rows, expected {shift.expected:.0f}")  # fmt: skip
            yield (
                *(day, key[0], ALL, key[1], shifts.statistic, TRAILING, shift.value, shift.expected),
                *(shift.scale, shift.z, shift.size, None, tier, reason),
            )


def is_missed(shifts: Shifts, position: int, at: int) -> bool:
    """Whether a value that is not there deserves a row; of several statistics the mean and the nulls speak for all."""
    return shifts.statistic in ("mean", "null_share", "volume") and bool(shifts.known[position, at])


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
    is_ordinary: bool = False

    @classmethod
    def at(cls, shifts: Shifts, position: int, at: int, limits: Limits) -> "Shift":
        """One cell of the arrays, rounded to 9 decimals: decisions are taken on what is stored."""
        here, found = (position, at), shifts.surprise
        is_judged = not (np.isnan(shifts.value[here]) or np.isnan(shifts.expected[here]))
        value, expected, scale, z, size = (
            round(float(number), 9) if is_known else float("nan")
            for number, is_known in (
                (shifts.value[here], True),
                (shifts.expected[here], not np.isnan(shifts.expected[here])),
                (found.scale[here], is_judged),
                (found.z[here], is_judged),
                (shifts.size[here], is_judged),
            )
        )
        is_slow = is_judged and bool(found.cusum[here] > limits.cusum and found.is_rising[here])
        column, known, is_flat = shifts.keys[position][1], int(shifts.known[here]), bool(shifts.is_flat[here])
        return cls(
            column, shifts.statistic, value, expected, scale, z, size, shifts.gate, known, is_flat, is_slow,
            bool(shifts.is_ordinary[here]),
        )  # fmt: skip


def judge(shift: Shift, *, policy: DriftPolicy, limits: Limits, is_critical: bool, gap: str) -> tuple[str, str]:
    """Tier and reason of one shift; ``gap`` says why there would be no value."""
    if np.isnan(shift.expected):
        return "stable", LEARNING
    if np.isnan(shift.value) and gap == "no values":
        return "stable", "no values; null_share says whether that is unusual"
    if np.isnan(shift.value):
        return "unknown", f"{shift.column}: {shift.statistic} cannot be judged: {gap}"
    if shift.statistic == "volume" and shift.value < VANISHED_SHARE * shift.expected:
        return "severe", in_words(shift)
    if shift.statistic in ("out_of_range", "new_category") and shift.value < shift.expected:
        return "stable", "as expected"
    is_learning = shift.known < policy.baseline_days
    moderate_z = max(policy.learning_z, limits.moderate_z) if is_learning else limits.moderate_z
    is_large = shift.size >= shift.gate
    if shift.is_ordinary:
        return "stable", "an ordinary value, though not the expected one" if shift.z >= moderate_z else "as expected"
    if is_large and is_critical and shift.z >= limits.severe_z and is_structural(shift, is_learning=is_learning):
        return "severe", in_words(shift)
    if is_large and shift.z >= moderate_z:
        return "moderate", in_words(shift)
    if is_large and shift.is_slow:
        return "moderate", in_words(shift) + ", adding up over days"
    return "stable", "as expected"


def is_structural(shift: Shift, *, is_learning: bool) -> bool:
    """Whether a shift is large enough, and its baseline good enough, to freeze retraining over it."""
    if shift.statistic == "constant":
        return not is_learning
    if shift.statistic in INTEGRITY:
        least = max(SEVERE_TIMES_GATE * shift.gate, MIN_SEVERE_NULL_SHIFT)
        return shift.value > shift.expected and shift.size >= least
    return shift.size >= SEVERE_TIMES_GATE * shift.gate and not is_learning and not shift.is_flat


SHARE_WORDS = {
    "null_share": "without a value",
    "null_alone": "without a value, alone among the columns that usually lack theirs together",
    "out_of_range": "out of the range of the first weeks",
    "new_category": "with a text that is new",
}


def in_words(shift: Shift) -> str:
    """The finding as a person would say it.

    >>> in_words(Shift("delay", "mean", 21.4, 9.8, 2.1, 5.5, 1.1, 0.15, 30, False, False))
    'delay: mean 21.4, expected 9.8 +- 2.1 (z 5.5, 1.1 sd of the baseline)'
    """
    z = f"z {shift.z:.1f}"
    if shift.statistic in SHARE_WORDS:
        words = SHARE_WORDS[shift.statistic]
        return f"{shift.column}: {shift.value:.1%} {words}, expected {shift.expected:.1%} ({z})"
    if shift.statistic == "volume":
        change = shift.value / shift.expected - 1
        return f"{shift.value:.0f} rows, expected {shift.expected:.0f} ({change:+.0%}, {z})"
    if shift.statistic == "constant":
        return f"{shift.column}: the same value all day, which it was on {shift.expected:.0%} of the days before"
    if shift.statistic == "spread":
        times = shift.value / shift.expected
        return f"{shift.column}: spread {shift.value:.4g}, expected {shift.expected:.4g} ({times:.2f} times, {z})"
    if shift.statistic.startswith("distance"):
        since = " over seven days" if shift.statistic == "distance_7d" else ""
        return f"{shift.column}: distribution {shift.value:.2f} away{since}, expected {shift.expected:.2f} ({z})"
    if shift.statistic == "mean_alone":
        return (
            f"{shift.column}: mean {shift.value:.4g} alone; columns that usually move with it say "
            f"{shift.expected:.4g} +- {shift.scale:.2g} ({z}, {shift.size:.1f} sd of the baseline)"
        )
    if shift.is_flat:
        return f"{shift.column}: mean {shift.value:.4g}, had been constant at {shift.expected:.4g}"
    return (
        f"{shift.column}: mean {shift.value:.4g}, expected {shift.expected:.4g} +- {shift.scale:.2g} "
        f"({z}, {shift.size:.1f} sd of the baseline)"
    )


def size_gates(policy: DriftPolicy) -> dict[str, float]:
    """From which size on a shift counts, per statistic that an event can explain."""
    return {
        "mean": policy.min_mean_shift_stds,
        "mean_alone": policy.min_mean_shift_stds,
        "spread": policy.min_spread_shift_log,
        "distance": policy.min_distance,
        "distance_7d": policy.min_distance,
        "volume": policy.min_volume_shift_share,
        "new_category": policy.min_null_shift_share,
        "out_of_range": policy.min_null_shift_share,
    }


def drift_frame(found: Sequence[Row]) -> pd.DataFrame:
    """Rows of table ``drift`` with the types of its columns."""
    table = BY_NAME["drift"]
    types = {column.name: "float64" if column.type == "DOUBLE" else "str" for column in table.columns}
    types["day"] = "object"
    return pd.DataFrame(list(found), columns=list(types)).astype(types)
