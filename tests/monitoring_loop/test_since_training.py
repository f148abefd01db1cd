"""The second baseline: a slow drift that every month forgets is still far from what the champion learned."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import open_engine
from mlops_assets.closing.drifting import answers_of, usual_of
from mlops_assets.monitoring_loop.drift import find_drift, history_days
from mlops_assets.monitoring_loop.since_training import Training, learned_columns
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME

POLICY = DriftPolicy()
FIRST = date(2013, 1, 1)
LENGTH = history_days(POLICY) + 60
DAYS = [FIRST + timedelta(days=number) for number in range(LENGTH)]


def creeping() -> pd.DataFrame:
    """A column that moves by a hundredth of its spread a day after the first sixty days."""
    rng = np.random.default_rng(3)
    means = rng.normal(5.0, 0.1, LENGTH) + 0.01 * np.maximum(np.arange(LENGTH) - 60, 0)
    low = np.clip(0.5 - (means - 5.0) / 4, 0.05, 0.95)
    counts = [rng.multinomial(900, [share, 1 - share]) for share in low]
    return pd.DataFrame(
        {
            "day": DAYS, "subject": "features", "column_name": "delay", "n": 900, "nulls": 0, "total": 900 * means,
            "squares": 900 * (means**2 + 1), "version": "", "bins": "b1", "counts": counts,
        }
    )  # fmt: skip


def learned(series: pd.DataFrame, days: int) -> Training:
    """What a model learned that saw the first days."""
    window = series[:days].assign(subject="v1", slice="all")
    with open_engine() as con:
        con.register("seen", window)
        return Training("m1", FIRST, DAYS[days - 1], learned_columns(con, profiles="seen", feature_version="v1"))


def test_a_training_window_is_the_sum_of_its_days():
    series = creeping()
    column = learned(series, 60).columns["delay"]
    assert (column.n, column.days, column.bins) == (900 * 60, 60, "b1")
    assert column.counts == tuple(np.sum(np.stack(series["counts"][:60]), axis=0))
    assert "counts" in {column.name for column in BY_NAME["profiles"].columns}


def test_a_slow_drift_is_noted_once_when_it_has_left_what_the_champion_learned():
    series, days = creeping(), DAYS[-60:]
    training = learned(series, 60)
    found = find_drift(
        series, days=days, policy=POLICY, critical=["delay"], blocked=(), trainings=dict.fromkeys(days, training)
    )
    trailing, since = (found[found["baseline"] == name] for name in ("trailing", "training"))
    assert set(trailing[trailing["statistic"] != "volume"]["tier"]) <= {"stable", "moderate"}
    means = since[since["statistic"] == "mean"]
    far = means[means["size"] >= POLICY.training_mean_shift_stds]
    assert len(far) > 30, "the drift goes on"
    assert list(far["tier"]).count("expected") <= 1, "and is told once"
    assert "sd from" in far["reason"].iloc[-1] and "the champion learned from (2013-01-01" in far["reason"].iloc[-1]
    assert not set(since["tier"]) & {"moderate", "severe"}


def test_days_one_by_one_have_the_same_rows():
    series, days = creeping(), DAYS[-10:]
    trainings = dict.fromkeys(days, learned(series, 60))
    block = find_drift(series, days=days, policy=POLICY, critical=(), blocked=(), trainings=trainings)
    single = [
        find_drift(
            series[series["day"] <= day], days=[day], policy=POLICY, critical=(), blocked=(), trainings=trainings
        )
        for day in days
    ]
    pd.testing.assert_frame_equal(block, pd.concat(single, ignore_index=True), check_exact=True)
    assert (block["baseline"] == "training").sum() == 2 * len(days)


def test_what_a_person_says_about_a_source_is_about_its_columns():
    said = [
        {"subject": "i1", "details": {"as": "bad_data", "from": "2013-03-01", "until": "2013-03-02"}},
        {"subject": "i2", "details": {"as": "new_normal", "from": "2013-04-01"}},
        {"subject": "i3", "details": {"as": "false_alarm"}},
        {"subject": "i4", "details": {"as": "new_normal", "from": "2013-05-01"}},
    ]
    causes = {"i1": "weather", "i2": "drift:rows", "i3": "weather", "i4": "operations:labels"}
    answers = answers_of(said, causes, {"rain": "weather", "wind": "weather", "seats": "planes"})
    march = {date(2013, 3, 1), date(2013, 3, 2)}
    assert answers.bad_days == {"rain": march, "wind": march}
    assert answers.normal_since == {"rows": date(2013, 4, 1), "labels": date(2013, 5, 1)}
    answers = answers_of(said, causes, {"rain": "weather", "seats": "planes"}, {"i1": {"rain", "late_rate"}})
    assert answers.bad_days == {"rain": march, "late_rate": march}, "what moved with it is meant, too"


def test_bad_data_is_no_measure_for_quality_and_its_new_normal_begins_where_a_person_said():
    said = [
        {"subject": "i1", "details": {"as": "bad_data", "from": "2013-03-01", "until": "2013-03-02"}},
        {"subject": "i2", "details": {"as": "new_normal", "from": "2013-04-01"}},
        {"subject": "i3", "details": {"as": "new_normal", "from": "2013-05-01"}},
    ]
    void = {"subject": "of an older epoch", "details": {"as": "bad_data", "from": "2013-04-01", "until": "2013-04-09"}}
    usual = usual_of([*said, void], {"i1": "weather", "i2": "quality:brier", "i3": "drift:rows"})
    assert usual.bad == {date(2013, 3, 1), date(2013, 3, 2)}
    assert usual.since == date(2013, 4, 1), "another timetable does not make the model another one"
    assert [usual.holds(date(2013, *one)) for one in ((3, 1), (3, 31), (4, 1))] == [False, False, True]
