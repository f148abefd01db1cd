"""The drift monitor: quiet when nothing happened, loud the same day when something did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_assets.monitoring_loop.drift import find_drift, history_days
from mlops_assets.service.monitoring import DriftPolicy

POLICY = DriftPolicy()
FIRST = date(2013, 1, 1)
HISTORY = history_days(POLICY)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def a_series(
    column: str,
    means: np.ndarray,
    *,
    rows: np.ndarray | int = 900,
    null_share: np.ndarray | float = 0.0,
    std: float = 1.0,
    subject: str = "features",
    version: str = "",
) -> pd.DataFrame:
    """Profiles of one column, a day per mean, from FIRST on."""
    n = np.broadcast_to(rows, means.shape).astype("int64")
    nulls = np.round(n * null_share).astype("int64")
    return pd.DataFrame(
        {
            "day": [day(number) for number in range(len(means))],
            "subject": subject,
            "column_name": column,
            "n": n,
            "nulls": nulls,
            "total": (n - nulls) * means,
            "squares": (n - nulls) * (means**2 + std**2),
            "version": version,
        }
    )


def noise(length: int, seed: int = 0, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(5.0, scale, length)


def judged(
    series: pd.DataFrame,
    days: Sequence[int],
    *,
    critical: Sequence[str] = (),
    blocked: Sequence[int] = (),
) -> pd.DataFrame:
    return find_drift(
        series,
        days=[day(number) for number in days],
        policy=POLICY,
        critical=critical,
        blocked=[day(number) for number in blocked],
    )


def tier(found: pd.DataFrame, statistic: str, number: int) -> str:
    [only] = found[(found["statistic"] == statistic) & (found["day"] == day(number))]["tier"]
    return str(only)


def test_a_year_of_noise_raises_hardly_an_alarm():
    """40 series, 300 days each: the alarm budget is a handful, not hundreds."""
    length = HISTORY + 300
    series = pd.concat(a_series(f"f{number:02d}", noise(length, seed=number), null_share=0.02) for number in range(40))
    found = pd.concat(
        judged(series, range(first, min(first + 14, length)), critical=["f00"]) for first in range(HISTORY, length, 14)
    )
    alarms = found[found["tier"] != "stable"]

    assert len(found) == 40 * 300 * 2 + 300
    assert len(alarms) <= 12, "one false alarm per 1,000 days of a series would be 12"
    assert not (alarms["tier"] == "severe").any()


def test_a_large_shift_of_a_critical_feature_is_severe_the_same_day():
    means = noise(200)
    means[190] += 1.2  # twelve times its own day-to-day spread, 1.2 sd of the values
    series = a_series("delay", means)

    [row] = judged(series, [190], critical=["delay"]).query("statistic == 'mean'").to_dict("records")
    assert row["tier"] == "severe"
    assert row["reason"].startswith("delay: mean 6.")
    assert "sd of the baseline" in row["reason"]
    assert tier(judged(series, [190]), "mean", 190) == "moderate", "nobody said it is critical"


def test_four_standard_deviations_of_the_values_are_severe_the_same_day():
    means = noise(200)
    means[190] += 4.0
    assert tier(judged(a_series("delay", means), [190], critical=["delay"]), "mean", 190) == "severe"


@pytest.mark.parametrize(("critical", "expected"), [(["delay"], "severe"), ([], "moderate")])
def test_a_fifth_of_the_values_missing_is_caught(critical, expected):
    shares = np.full(200, 0.01)
    shares[190] = 0.2
    found = judged(a_series("delay", noise(200), null_share=shares), [189, 190], critical=critical)

    assert tier(found, "null_share", 189) == "stable"
    assert tier(found, "null_share", 190) == expected


def test_two_percent_missing_is_worth_a_look_but_no_freeze():
    shares = np.zeros(200)
    shares[190] = 0.03
    found = judged(a_series("delay", noise(200), null_share=shares), [190], critical=["delay"])
    assert tier(found, "null_share", 190) == "moderate"


def test_fewer_values_missing_than_usual_is_never_severe():
    shares = np.full(200, 0.3)
    shares[190] = 0.0
    found = judged(a_series("delay", noise(200), null_share=shares), [190], critical=["delay"])
    assert tier(found, "null_share", 190) == "moderate"


def test_saturdays_do_not_alarm_the_volume_and_half_a_day_does():
    length = HISTORY + 70
    rows = np.array([720 if day(number).isoweekday() == 6 else 930 for number in range(length)])
    rows = rows + np.random.default_rng(3).integers(-15, 16, length)
    calm = judged(a_series("delay", noise(length), rows=rows), range(HISTORY, length))
    assert set(calm[calm["statistic"] == "volume"]["tier"]) == {"stable"}

    rows[-1] //= 2
    halved = judged(a_series("delay", noise(length), rows=rows), [length - 1])
    assert tier(halved, "volume", length - 1) == "moderate"


def test_a_fault_of_five_days_that_nobody_confirmed_does_not_blind_the_monitor():
    """The same fault forty days later is seen again, although the first one stayed in the history."""
    means = noise(260)
    means[180:185] += 0.9
    means[225] += 0.9
    found = judged(a_series("delay", means), [180, 225], critical=["delay"])

    assert tier(found, "mean", 180) == "severe"
    assert tier(found, "mean", 225) in {"moderate", "severe"}


def test_a_slow_drift_adds_up():
    """Half a spread a day never is a surprise; together it is."""
    means = noise(220, scale=0.15)
    means[195:] += 0.045 * np.arange(1, 26)
    found = judged(a_series("delay", means), range(195, 220)).query("statistic == 'mean'")
    assert any("adding up over days" in reason for reason in found["reason"])


def test_a_new_series_learns_quietly_and_then_needs_more_surprise():
    means = noise(40)
    means[5] += 3.0
    means[20] += 3.0
    found = judged(a_series("delay", means), range(40), critical=["delay"]).query("statistic == 'mean'")
    early = found[found["day"] < day(POLICY.min_days)]

    assert set(early["tier"]) == {"stable"}
    assert set(early["reason"]) == {"learning"}
    assert tier(found, "mean", 20) == "moderate", "while it learns nothing but missing values is severe"


def test_the_score_of_a_new_model_is_a_new_series():
    """A constant prior gives way to a model: that is a release and no drift."""
    prior = a_series("score", np.full(60, 0.2), std=0.0, subject="score", version="prior")
    model = a_series("score", 0.05 * noise(120), std=0.1, subject="score", version="m1")
    series = pd.concat([prior, model[model["day"] >= day(60)]])
    found = judged(series, range(50, 110)).query("statistic == 'mean'")

    assert set(found["tier"]) == {"stable"}
    assert list(found[found["day"] == day(60)]["reason"]) == ["learning"]
    assert list(found[found["day"] == day(109)]["reason"]) == ["as expected"]


def test_a_blocked_day_is_unknown_and_no_part_of_any_baseline():
    means = noise(200)
    broken = means.copy()
    broken[170] += 50.0
    with_fault = judged(a_series("delay", broken), [170, 171], blocked=[170])
    without = judged(a_series("delay", means), [170, 171], blocked=[170])

    assert set(with_fault[with_fault["day"] == day(170)]["tier"]) == {"unknown"}
    pd.testing.assert_frame_equal(with_fault, without)


def test_a_day_without_rows_is_unknown_once_there_was_a_baseline():
    series = a_series("delay", noise(200))
    series = series[series["day"] != day(190)]
    found = judged(series, [190])
    assert set(found["tier"]) == {"unknown"}
    assert all("no rows" in reason for reason in found["reason"])


def test_a_column_that_its_owner_took_back_is_not_missed():
    kept, dropped = a_series("kept", noise(200)), a_series("dropped", noise(200, seed=1))
    found = judged(pd.concat([kept, dropped[dropped["day"] < day(190)]]), [190])
    assert "dropped" not in set(found["column_name"])


def test_a_flagged_day_stays_in_the_baseline():
    """The new level is accepted after a while: the monitor does not edit its own memory."""
    means = noise(230)
    means[180:] += 1.0
    found = judged(a_series("delay", means), [180, 229])
    assert tier(found, "mean", 180) == "moderate"
    assert tier(found, "mean", 229) == "stable"


def test_a_block_of_days_equals_its_days_one_by_one():
    rng = np.random.default_rng(7)
    length = HISTORY + 20
    series = pd.concat(
        a_series(
            f"f{number}",
            noise(length, seed=number),
            rows=rng.integers(700, 1000, length),
            null_share=rng.uniform(0, 0.05, length),
        )
        for number in range(6)
    )
    series = series[rng.random(len(series)) > 0.03].sample(frac=1, random_state=1)
    blocked = [HISTORY - 20, HISTORY + 8]
    days = range(HISTORY + 3, HISTORY + 17)
    block = judged(series, days, critical=["f1"], blocked=blocked)
    single = []
    for number in days:  # nothing later and nothing older than the history is there
        known = series[(series["day"] <= day(number)) & (series["day"] >= day(number) - timedelta(days=HISTORY))]
        single.append(judged(known, [number], critical=["f1"], blocked=blocked))

    assert not block.empty
    pd.testing.assert_frame_equal(block, pd.concat(single, ignore_index=True), check_exact=True)


def test_no_days_and_no_history_are_ordinary():
    assert judged(a_series("delay", noise(10)), []).empty
    assert judged(a_series("delay", noise(0)), [3]).empty
