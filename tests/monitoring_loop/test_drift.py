"""The drift monitor: quiet when nothing happened, loud the same day when something did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from mlops_assets.monitoring_loop.drift import Answers, Limits, find_drift, history_days
from mlops_assets.monitoring_loop.grid import NO_ANSWERS
from mlops_assets.monitoring_loop.plain_rules import records
from mlops_assets.service.drifting import DriftRule
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
    policy: DriftPolicy = POLICY,
    answers: Answers = NO_ANSWERS,
) -> pd.DataFrame:
    return find_drift(
        series,
        days=[day(number) for number in days],
        policy=policy,
        critical=critical,
        blocked=[day(number) for number in blocked],
        answers=answers,
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

    assert len(found) == 40 * 300 * 3 + 300, "mean, spread and null share of each, and the volume"
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


def test_a_fault_that_nobody_confirmed_does_not_blind_for_the_next_one():
    """It comes for five days, and again 40 days later, too small on its first day: of the two it is only one error."""
    means = noise(200)
    means[140:145] += 1.0
    means[180:187] += [0.45, *[0.6] * 6]
    found = judged(a_series("delay", means), range(180, 187), policy=DriftPolicy(moderate_z=4.5))
    assert [tier(found, "mean", number) for number in (180, 182)] == ["stable", "moderate"]


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


def test_a_day_without_rows_is_severe_and_its_columns_are_unknown():
    series = a_series("delay", noise(200))
    series = series[series["day"] != day(190)]
    found = judged(series, [190])
    assert tier(found, "volume", 190) == "severe"
    assert set(found[found["statistic"] != "volume"]["tier"]) == {"unknown"}
    assert all("no rows" in reason for reason in found["reason"])


def test_a_declared_non_business_day_may_be_empty():
    series = a_series("delay", noise(200))
    series = series[series["day"] != day(190)]
    found = find_drift(series, days=[day(190)], policy=POLICY, critical=(), blocked=(), closed=[day(190)])
    assert tier(found, "volume", 190) == "expected"


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
            rows=rng.integers(300, 1000, length),
            null_share=rng.uniform(0, 0.05, length),
        ).assign(
            bins="b1",
            counts=list(rng.multinomial(800, [0.1, 0.2, 0.3, 0.4], length)),
            is_constant=rng.random(length) < 0.02,
            out_of_range=rng.integers(0, 9, length),
            new_category=0,
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


def binned(column: str, shares: np.ndarray, *, rows: int = 900, seed: int = 0, **changes: Any) -> pd.DataFrame:
    """Profiles with histograms: a row of ``shares`` per day, each day a fresh sample of rows."""
    rng = np.random.default_rng(seed)
    series = a_series(column, np.full(len(shares), 5.0), rows=rows)
    counts = [rng.multinomial(rows, share / share.sum()) for share in shares]
    return series.assign(bins="b1", counts=counts, is_constant=False, out_of_range=0, new_category=0).assign(**changes)


def test_two_humps_where_one_was_are_seen_although_the_mean_stays():
    """Half of the values move up, half of them down."""
    shares = np.tile([1.0, 4.0, 10.0, 4.0, 1.0], (200, 1))
    shares[190] = [6.0, 4.0, 0.5, 4.0, 6.0]
    found = judged(binned("delay", shares), [189, 190], critical=["delay"])
    assert tier(found, "distance", 189) == "stable"
    assert tier(found, "distance", 190) == "severe"
    assert tier(found, "mean", 190) == "stable"


@pytest.mark.parametrize("rows", [24, 200, 5_000])
def test_the_number_of_rows_alone_makes_no_distance(rows):
    """Nothing changes; 24 rows in five bins lie far from any distribution, and that is no news."""
    shares = np.tile([1.0, 4.0, 10.0, 4.0, 1.0], (HISTORY + 60, 1))
    found = judged(binned("delay", shares, rows=rows), range(HISTORY, HISTORY + 60))
    distances = found[found["statistic"] == "distance"]
    assert set(distances["tier"]) == {"stable"}
    assert distances["value"].median() < 0.06


def test_few_rows_a_day_are_judged_over_seven_days():
    """A change that 40 rows cannot show in a day shows in a week of them."""
    shares = np.tile([1.0, 1.0, 1.0, 1.0], (HISTORY + 30, 1))
    shares[HISTORY + 10 :] = [1.9, 0.7, 0.7, 0.7]
    found = judged(binned("delay", shares, rows=40), range(HISTORY + 10, HISTORY + 30))
    seen = found[found["tier"] == "moderate"]
    assert "distance_7d" in set(seen["statistic"])
    assert judged(binned("delay", shares, rows=900), [HISTORY + 5]).query("statistic == 'distance_7d'").empty


def test_a_column_that_gets_stuck_is_severe_and_a_rain_gauge_is_not():
    shares = np.tile([1.0, 1.0], (200, 1))
    stuck = np.arange(200) == 190
    assert tier(judged(binned("delay", shares, is_constant=stuck), [190], critical=["delay"]), "constant", 190) == (
        "severe"
    )
    gauge = (np.arange(200) % 3 > 0) | stuck
    assert tier(judged(binned("rain", shares, is_constant=gauge), [190], critical=["rain"]), "constant", 190) == (
        "stable"
    )


@pytest.mark.parametrize("statistic", ["out_of_range", "new_category"])
def test_a_renamed_category_and_an_absurd_value_are_integrity_faults(statistic):
    shares, counts = np.tile([1.0, 1.0], (200, 1)), np.zeros(200)
    counts[190] = 150
    found = judged(binned("carrier", shares, **{statistic: counts}), [189, 190], critical=["carrier"])
    assert (tier(found, statistic, 189), tier(found, statistic, 190)) == ("stable", "severe")


@pytest.mark.parametrize(("statistic", "expected"), [("out_of_range", "stable"), ("new_category", "moderate")])
def test_a_range_that_two_weeks_had_is_no_promise_and_a_list_of_codes_is(statistic, expected):
    """One late flight in a window of few is enough for 3 % beyond all that January had."""
    counts = np.where(np.arange(200) == 190, 27, 0)
    found = judged(binned("delay", np.tile([1.0, 1.0], (200, 1)), **{statistic: counts}), [190])
    assert tier(found, statistic, 190) == expected


def test_groups_that_agree_by_chance_are_no_surprise_and_twice_the_spread_is():
    """Three airports, one rate each: every row has one of three values, and once a year they nearly agree."""
    rng = np.random.default_rng(3)
    spread = np.maximum(rng.normal(0.2, 0.03, (200, 3)).std(axis=1), 0.01)
    spread[190:192] = 0.002, 0.12
    series = a_series("rate", np.full(200, 0.2), std=0.02)
    means, n = series["total"] / series["n"], series["n"]
    series["squares"] = n * (means**2 + spread[: len(series)] ** 2)
    found = judged(series, [190, 191])
    assert (tier(found, "spread", 190), tier(found, "spread", 191)) == ("stable", "moderate")


def test_a_spread_that_collapses_is_seen_although_the_mean_stays():
    series = a_series("delay", noise(200))
    means, n = series["total"] / series["n"], series["n"]
    narrow = series["day"] == day(190)
    series.loc[narrow, "squares"] = (n * (means**2 + 0.2**2))[narrow]
    found = judged(series, [189, 190])
    assert (tier(found, "spread", 189), tier(found, "spread", 190)) == ("stable", "moderate")


def test_a_day_without_rain_is_no_surprise():
    """Dry days are common; after a wet week zero is far below what was expected, and still ordinary."""
    rng = np.random.default_rng(5)
    rain = np.where(rng.random(HISTORY + 20) < 0.5, 0.0, rng.exponential(0.3, HISTORY + 20))
    rain[HISTORY + 3 : HISTORY + 10] = 0.5
    rain[HISTORY + 10] = 0.0
    found = judged(a_series("rain", rain, std=0.1), [HISTORY + 10])
    assert tier(found, "mean", HISTORY + 10) == "stable"


def test_a_clear_day_after_a_week_of_fog_is_no_surprise_though_it_is_clearer_than_any_day_before():
    """By a hair: less than the size gate is no farther out."""
    sight = np.random.default_rng(6).normal(9.9, 0.02, HISTORY + 20).clip(max=9.95)
    sight[HISTORY + 3 : HISTORY + 10] = 5.0
    sight[HISTORY + 10] = 10.0
    found = judged(a_series("sight", sight), [HISTORY + 10])
    assert tier(found, "mean", HISTORY + 10) == "stable"


def test_rain_beyond_all_of_a_dry_month_is_ordinary_and_a_broken_gauge_is_not():
    """Of a series with rare large values the next one may be more than twice as large."""
    rain = np.random.default_rng(7).exponential(0.01, HISTORY + 20)
    rain[HISTORY - 60 : HISTORY : 20] = 0.3
    rain[HISTORY + 10] = 0.75
    assert tier(judged(a_series("rain", rain, std=0.2), [HISTORY + 10]), "mean", HISTORY + 10) == "stable"
    rain[HISTORY + 10] = 2.0
    assert tier(judged(a_series("rain", rain, std=0.2), [HISTORY + 10]), "mean", HISTORY + 10) == "moderate"


def test_bad_data_leaves_the_baseline_when_a_person_says_so_and_a_new_normal_starts_afresh():
    means = noise(260)
    means[200:230] += 1.0
    series = a_series("delay", means)
    bad = Answers(bad_days={"delay": {day(number) for number in range(200, 230)}})
    assert tier(judged(series, [228]), "mean", 228) == "stable", "nobody said a word: the new level is accepted"
    assert tier(judged(series, [228], answers=bad), "mean", 228) == "moderate"
    since = Answers(normal_since={"all": day(200)})
    [row] = judged(series, [205], answers=since).query("statistic == 'mean'").to_dict("records")
    assert row["reason"] == "learning"


def test_more_series_need_more_surprise():
    """The alarm budget is for all series together."""
    few, many = Limits.of(POLICY, 10), Limits.of(POLICY, 1_000)
    assert few.moderate_z < many.moderate_z < many.severe_z
    assert few.cusum < many.cusum
    declared = Limits.of(DriftPolicy(moderate_z=4.0, severe_z=8.0), 1_000)
    assert (declared.moderate_z, declared.severe_z) == (4.0, 8.0)


def test_a_plain_rule_says_what_it_would_have_done_and_does_nothing():
    shares = np.tile([1.0, 4.0, 10.0, 4.0, 1.0], (200, 1))
    shares[190] = [6.0, 4.0, 0.5, 4.0, 6.0]
    rules = tuple(DriftRule(measure=name, threshold=limit) for name, limit in (("psi", 0.2), ("js", 0.1)))
    acting = DriftRule(measure="psi", threshold=0.2, tier="moderate")
    series = binned("delay", shares)
    found = judged(series, [189, 190], policy=DriftPolicy(rules=rules))
    ruled = found[found["statistic"].str.startswith("rule_")]
    assert set(ruled["tier"]) == {"stable"}
    assert [reason.split(":")[0] for reason in ruled["reason"]] == ["as expected"] * 2 + ["would fire"] * 2
    assert tier(judged(series, [190], policy=DriftPolicy(rules=(acting,))), "rule_psi", 190) == "moderate"


def test_no_days_and_no_history_are_ordinary():
    assert judged(a_series("delay", noise(10)), []).empty
    assert judged(a_series("delay", noise(0)), [3]).empty


def test_a_plain_rule_knows_what_it_would_have_done_before_it_was_declared():
    """Counted from profiles, as if it had been there: two days far out, of the last ten."""
    shares = np.tile([1.0, 4.0, 10.0, 4.0, 1.0], (200, 1))
    shares[190] = shares[195] = [6.0, 4.0, 0.5, 4.0, 6.0]
    policy = DriftPolicy(rules=(DriftRule(measure="psi", threshold=0.2),))
    series = pd.concat([binned("delay", shares), binned("weight", shares[:0])], ignore_index=True)
    [record] = records(series, [day(number) for number in range(188, 198)], policy)
    assert record.in_words() == "psi above 0.2: would have given 2 alarms on 2 of the last 10 days"
    with pytest.raises(ValidationError, match="psi is declared twice"):
        DriftPolicy(rules=policy.rules * 2)
