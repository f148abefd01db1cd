"""Losses agree with scikit-learn, and an interval of a difference covers as often as it says."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss

from mlops_assets.model_loop.evaluation import (
    auc,
    brier,
    calibration_ratio,
    compare,
    evaluation_rows,
    log_loss,
    paired_mean,
)


def judged(days: int = 5, per_day: int = 300, *, seed: int = 0, worse: float = 0.1) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    count = days * per_day
    truth = chance.beta(1, 3, count)
    return pd.DataFrame(
        {
            "prediction_day": np.repeat([pd.Timestamp(2013, 1, 1 + n) for n in range(days)], per_day),
            "value": (chance.random(count) < truth).astype("float64"),
            "score": np.round(truth, 2),
            "rival_score": np.round(np.clip(truth + chance.normal(scale=worse, size=count), 0, 1), 9),
            "origin": chance.choice(["EWR", "JFK"], count),
        }
    )


def test_metrics_agree_with_scikit_learn_ties_and_certain_scores_included():
    rows = judged()
    for column in ("score", "rival_score"):
        outcomes, scores = rows["value"].to_numpy(), rows[column].to_numpy()
        assert brier(outcomes, scores) == pytest.approx(brier_score_loss(outcomes, scores), abs=1e-12)
        assert log_loss(outcomes, scores) == pytest.approx(sklearn_log_loss(outcomes, scores), abs=1e-12)
        assert auc(outcomes, scores) == pytest.approx(roc_auc_score(outcomes, scores), abs=1e-12)
        assert calibration_ratio(outcomes, scores) == pytest.approx(outcomes.sum() / scores.sum(), abs=1e-12)


def test_the_difference_is_the_mean_of_daily_differences_whatever_the_order():
    rows = judged()
    one = compare(rows, slices=("origin",))
    assert one == compare(rows.sample(frac=1, random_state=1), slices=("origin",))

    loss = (rows["score"] - rows["value"]) ** 2 - (rows["rival_score"] - rows["value"]) ** 2
    daily = loss.groupby(rows["prediction_day"]).mean()
    assert one[0].difference == pytest.approx(daily.mean(), abs=1e-15)
    assert one[0].day_sd == pytest.approx(daily.std(), abs=1e-15)
    assert [(c.metric, c.slice) for c in one if c.metric == "auc"] == [
        ("auc", "all"), ("auc", "origin=EWR"), ("auc", "origin=JFK"),
    ]  # fmt: skip


def test_rows_that_the_rival_did_not_score_are_left_out_for_both():
    rows = judged()
    rows.loc[rows.index[:100], "rival_score"] = np.nan

    assert compare(rows)[0].n == 1400


def test_rows_have_the_columns_of_the_evaluation_table():
    from mlops_assets.tables import BY_NAME

    rows = evaluation_rows(compare(judged()), day=date(2013, 1, 31), version="new", rival="prior")

    assert [set(row) for row in rows] == [set(BY_NAME["evaluation"].content)] * 4


def daily_differences(days: int, correlation: float, runs: int) -> np.ndarray:
    shocks = np.random.default_rng(7).normal(size=(runs, days + 30))
    series = np.zeros_like(shocks)
    for n in range(1, days + 30):
        series[:, n] = correlation * series[:, n - 1] + shocks[:, n]
    return series[:, 30:]


@pytest.mark.parametrize(("correlation", "at_least"), [(0.0, 0.94), (0.4, 0.86)])
def test_an_interval_covers_as_often_as_its_docstring_says(correlation, at_least):
    bounds = [paired_mean(row) for row in daily_differences(14, correlation, 2000)]
    covered = np.mean([one["low"] <= 0 <= one["high"] for one in bounds])

    assert at_least <= covered <= 0.975


def test_one_day_has_a_difference_without_bounds_and_no_day_has_nothing():
    assert paired_mean([0.5]) == {
        "difference": 0.5, "low": None, "high": None, "day_sd": None, "correlation": None, "standard_error": None,
    }  # fmt: skip
    assert paired_mean([])["difference"] is None
    assert compare(judged().head(0))[0].value is None


def test_a_day_with_one_outcome_only_does_not_count_for_auc():
    rows = judged()
    first = rows["prediction_day"] == rows["prediction_day"].min()
    rows.loc[first, "value"] = 0.0

    assert {c.metric: c.days for c in compare(rows)} == {"brier": 5, "log_loss": 5, "auc": 4, "calibration_ratio": 5}
    assert rows["prediction_day"].max() - rows["prediction_day"].min() == timedelta(days=4)
