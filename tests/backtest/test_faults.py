"""Injected faults look in a profile as they would in rows, and the smallest shift that is seen is one that is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import monitor_faults
import numpy as np
import pandas as pd
import pytest

from mlops_assets.backtest.detectable import smallest_shifts
from mlops_assets.backtest.faults import (
    CATALOGUE,
    SIZES,
    fewer,
    moved_counts,
    renamed,
    scaled,
    shifted,
    stuck,
    without,
)
from mlops_assets.backtest.injecting import first_hit
from mlops_assets.monitoring_loop.drift import find_drift, history_days
from mlops_assets.service.monitoring import DriftPolicy

FIRST = date(2013, 1, 1)
EDGES = np.linspace(-4.0, 8.0, 49)
POLICY = DriftPolicy()


def profiled(days: list[np.ndarray]) -> pd.DataFrame:
    """Profiles of one number, a day per array."""
    counts = [np.histogram(v[~np.isnan(v)], np.concatenate([[-np.inf], EDGES, [np.inf]]))[0] for v in days]
    return pd.DataFrame({
        "day": [FIRST + timedelta(days=number) for number in range(len(days))], "subject": "features",
        "column_name": "x", "version": "", "bins": "b1",
        "n": [len(v) for v in days], "nulls": [int(np.isnan(v).sum()) for v in days],
        "total": [np.nansum(v) for v in days], "squares": [np.nansum(v * v) for v in days],
        "is_constant": False, "out_of_range": [c[0] + c[-1] for c in counts], "new_category": 0,
        "counts": counts, "edges": [EDGES] * len(days),
    })  # fmt: skip


def values(days: int, seed: int = 1, rows: int = 900) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(2.0 + rng.normal(0, 0.1), 1.0, rows) for _ in range(days)]


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.7), (1.6, 0.0), (-1.0, 0.0)])
def test_a_moved_histogram_is_that_of_the_moved_values(factor: float, offset: float):
    rows = values(1, rows=20_000)
    before = profiled(rows)
    moved = (shifted(offset) if factor == 1.0 else scaled(factor))(before, 1.0)
    real = profiled([row * factor + offset for row in rows])

    assert moved["total"].iloc[0] == pytest.approx(real["total"].iloc[0])
    assert moved["squares"].iloc[0] == pytest.approx(real["squares"].iloc[0])
    assert np.sum(moved["counts"].iloc[0]) == pytest.approx(20_000)
    apart = np.abs(np.asarray(moved["counts"].iloc[0]) - real["counts"].iloc[0]).sum() / 2
    assert apart < 0.02 * 20_000


def test_missing_values_rows_and_a_stuck_sensor_leave_what_they_leave():
    before = profiled(values(2))

    missing, less, constant = without(0.2)(before, 1.0), fewer(0.5)(before, 1.0), stuck(before, 1.0)

    assert list(missing["nulls"] / missing["n"]) == [0.2, 0.2]
    valued = missing["n"] - missing["nulls"]
    assert missing["total"].iloc[0] / valued.iloc[0] == pytest.approx(before["total"].iloc[0] / 900)
    assert list(less["n"]) == [450, 450]
    assert constant["is_constant"].all()
    assert constant["squares"].iloc[1] * 900 == pytest.approx(constant["total"].iloc[1] ** 2)
    assert max(constant["counts"].iloc[1]) == 900


def test_a_renamed_category_is_a_text_that_nobody_knows():
    profiles = profiled(values(1)).assign(counts=[np.array([5, 80, 10, 5])], edges=[None])

    [counts] = renamed(profiles, 0.0)["counts"]

    assert list(counts) == [5, 0, 10, 85]
    assert list(renamed(profiles, 0.0)["new_category"]) == [80]


def test_counts_are_neither_lost_nor_made():
    assert sum(moved_counts([1, 2, 3, 4], [0.0, 1.0, 2.0], 3.0, -5.0)) == pytest.approx(10)
    assert len({fault.name for fault in CATALOGUE}) == len(CATALOGUE)


def test_what_a_backtest_injects_the_benchmark_injects_by_the_same_name_and_size():
    """Into profiles here, into rows there: one catalogue, so that their numbers can be laid beside each other."""
    names = {fault.name for fault in monitor_faults.CATALOGUE}
    assert {fault.name for fault in CATALOGUE} <= names
    assert set(SIZES) <= names


def test_a_hit_is_an_alarm_that_would_not_have_been_there_without_the_fault():
    days = [FIRST + timedelta(days=number) for number in range(7)]

    assert first_hit({days[2], days[4]}, {days[2]}, days) == 4
    assert first_hit({days[2]}, {days[2]}, days) is None


@pytest.mark.slow
def test_the_smallest_shift_that_is_seen_is_seen_in_eight_of_ten_weeks():
    """The formula beside the monitor itself: the shift it names alarms in about 80 % of weeks, half of it does not."""
    length = history_days(POLICY) + 120
    profiles = profiled(values(length))
    judged_days = list(profiles["day"])[history_days(POLICY) :]
    quiet = find_drift(profiles, days=judged_days, policy=POLICY, critical=(), blocked=(), series_count=40)

    [found] = [one for one in smallest_shifts(quiet, POLICY, 40) if one.column == "x"]

    assert found.week_shift is not None
    assert found.day_shift is not None
    assert found.week_shift < found.day_shift
    assert found.day_stds == pytest.approx(found.day_shift, rel=0.1)  # the values' own standard deviation is 1
    assert share_seen(profiles, judged_days, found.day_shift, days=1) == pytest.approx(0.8, abs=0.12)
    assert 0.7 <= share_seen(profiles, judged_days, found.week_shift, days=7) <= 1.0
    assert share_seen(profiles, judged_days, found.week_shift / 2, days=7) < 0.3


def share_seen(profiles: pd.DataFrame, judged_days: list[date], shift: float, *, days: int) -> float:
    """Share of starts and sides at which a sustained shift of the mean alarms within some days."""
    both = [shifted(side * shift) for side in (1, -1)]
    return share_alarmed(profiles, judged_days, both, "mean", days=days)


Breaks = Callable[[pd.DataFrame, float], pd.DataFrame]


def share_alarmed(
    profiles: pd.DataFrame, judged_days: list[date], breaks: Sequence[Breaks], statistic: str, *, days: int = 1
) -> float:
    """Share of starts and ways to break a column at which its statistic alarms within some days."""
    starts = judged_days[:-7:4]
    parts = []
    for number, (start, broken) in enumerate((start, one) for start in starts for one in breaks):
        during = (profiles["day"] >= start) & (profiles["day"] < start + timedelta(days=days))
        kept = profiles[profiles["day"] < start]
        parts.append(pd.concat([kept, broken(profiles[during], 1.0)]).assign(column_name=f"x{number:03d}"))
    found = find_drift(pd.concat(parts), days=judged_days, policy=POLICY, critical=(), blocked=(), series_count=40)
    loud = found[(found["tier"].isin(["moderate", "severe"])) & (found["statistic"] == statistic)]
    return float(loud["column_name"].nunique() / len(parts))


def widened(times: float) -> Breaks:
    """The same mean, so many times as wide."""

    def breaks(rows: pd.DataFrame, _std: float) -> pd.DataFrame:
        mean = rows["total"] / rows["n"]
        return rows.assign(squares=((rows["squares"] / rows["n"] - mean**2) * times**2 + mean**2) * rows["n"])

    return breaks


def with_new_texts(share: float) -> Breaks:
    """So many more rows whose text nobody knows."""
    return lambda rows, _std: rows.assign(new_category=rows["new_category"] + share * rows["n"])


@pytest.mark.slow
def test_the_smallest_spread_share_of_new_texts_and_number_of_rows_that_are_seen_are_seen_on_eight_of_ten_days():
    rng = np.random.default_rng(7)
    length = history_days(POLICY) + 90
    sizes = rng.poisson(900 * np.exp(rng.normal(0, 0.05, length)))
    rows = [rng.normal(2.0, np.exp(rng.normal(0, 0.1)), int(size)) for size in sizes]
    profiles = profiled(rows).assign(new_category=rng.binomial(sizes, 0.01))
    days = list(profiles["day"])[history_days(POLICY) :]
    quiet = find_drift(profiles, days=days, policy=POLICY, critical=(), blocked=(), series_count=40)
    found = {one.column: one for one in smallest_shifts(quiet, POLICY, 40)}
    x, fewer_rows = found["x"], found["rows"].rows_share
    assert x.spread_times and x.new_points and x.distance and fewer_rows and not x.why

    both = [widened(x.spread_times), widened(1 / x.spread_times)]
    assert share_alarmed(profiles, days, both, "spread") == pytest.approx(0.8, abs=0.12)
    assert share_alarmed(profiles, days, [widened(x.spread_times**0.4)], "spread") < 0.3
    new = x.new_points / 100
    assert share_alarmed(profiles, days, [with_new_texts(new)], "new_category") == pytest.approx(0.8, abs=0.15)
    assert share_alarmed(profiles, days, [with_new_texts(new / 3)], "new_category") < 0.3
    on = quiet[(quiet["statistic"] == "volume")].set_index("day")
    seen = [
        abs(on.loc[day, "value"] * (1 + side * fewer_rows) / on.loc[day, "expected"] - 1) > 0.1
        for day in days for side in (1, -1)
    ]  # fmt: skip
    assert np.mean(seen) > 0.8, "what it names is more than the gate on most days"


def test_a_number_that_is_not_known_says_why():
    profiles = profiled(values(60)).assign(total=np.nan, squares=np.nan)
    quiet = find_drift(profiles, days=list(profiles["day"]), policy=POLICY, critical=(), blocked=())
    found = {one.column: one for one in smallest_shifts(quiet, POLICY, 40)}["x"]
    assert found.day_shift is None and found.null_points is not None
    assert found.why["day_shift"] == found.why["spread_times"]
    assert found.why["day_shift"] == "never judged: the column has no such number, or is still learning"
