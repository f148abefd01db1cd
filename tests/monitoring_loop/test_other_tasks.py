"""Numbers, classes and ranked lists: the same values as scikit-learn, and intervals with the right unit."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    ndcg_score,
    root_mean_squared_error,
)

from mlops_assets.monitoring_loop.metrics_multiclass import denoised_metric, multiclass_metric
from mlops_assets.monitoring_loop.metrics_ranking import ranking_metric
from mlops_assets.monitoring_loop.metrics_regression import regression_metric

ONE_DAY = np.zeros(500, dtype=int)


def test_errors_of_numbers_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    actual = rng.gamma(2, 50, 500)
    predicted = actual + rng.normal(5, 20, 500)
    expected = {
        "mae": mean_absolute_error(actual, predicted),
        "rmse": root_mean_squared_error(actual, predicted),
        "bias": (predicted - actual).mean(),
        "wape": np.abs(predicted - actual).sum() / actual.sum(),
    }
    for metric, value in expected.items():
        found = regression_metric(metric, predicted, actual, ONE_DAY)
        assert found.value == pytest.approx(value, abs=1e-9)
        assert found.low < value < found.high
        assert found.clusters == 500


def test_a_row_that_stands_for_two_counts_twice() -> None:
    found = regression_metric(
        "mae", np.array([1.0, 4.0]), np.array([0.0, 0.0]), np.array([1, 1]), weights=np.array([2.0, 1.0])
    )
    assert found.value == 2.0


def test_classes_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([2, 1, 1], 500)
    actual = np.array([rng.choice(3, p=row) for row in probabilities])
    expected = {
        "log_loss": log_loss(actual, probabilities),
        "accuracy": accuracy_score(actual, probabilities.argmax(axis=1)),
        "macro_f1": f1_score(actual, probabilities.argmax(axis=1), average="macro"),
    }
    for metric, value in expected.items():
        found = multiclass_metric(metric, probabilities, actual, ONE_DAY)
        assert found.value == pytest.approx(value, abs=1e-9)
        assert found.low < value < found.high


@pytest.mark.parametrize("decimals", [9, 1], ids=["distinct scores", "many ties"])
def test_ranked_lists_agree_with_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(3)
    gain, score = rng.integers(0, 4, (40, 12)).astype(float), np.round(rng.random((40, 12)), decimals)
    gain[:, 0] += 1  # every query has something to find
    queries = np.repeat(np.arange(40), 12)
    found = ranking_metric("ndcg", queries, np.zeros(480, dtype=int), gain=gain.ravel(), score=score.ravel(), k=5)
    assert found.value == pytest.approx(ndcg_score(gain, score, k=5), abs=1e-9)
    assert found.clusters == 40


def test_the_unit_of_a_click_rate_is_the_query_and_over_days_the_day() -> None:
    """Every query is clicked on everywhere or nowhere: four hundred rows know no more than twenty queries."""
    clicks = np.repeat(np.arange(20) % 2, 20).astype(float)
    queries, one_day = np.repeat(np.arange(20), 20), np.zeros(400, dtype=int)
    of_a_day = ranking_metric("ctr", queries, one_day, gain=clicks)
    by_row = ranking_metric("ctr", np.arange(400), one_day, gain=clicks)
    assert of_a_day.value == by_row.value == 0.5
    assert of_a_day.high - of_a_day.low > 4 * (by_row.high - by_row.low)
    over_days = ranking_metric("ctr", queries, np.repeat(np.arange(4), 100), gain=clicks)
    assert over_days.clusters == 4
    wider = ranking_metric("ctr", queries, one_day, gain=clicks, between_days=0.04)
    assert wider.high - wider.low > of_a_day.high - of_a_day.low


def test_a_class_that_nobody_declared_had_no_chance() -> None:
    """As if there were one more class to which every row gave a chance of 0."""
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    actual, with_another = np.array([0, 1, -1]), np.c_[probabilities, np.zeros(3)]
    loss = multiclass_metric("log_loss", probabilities, actual, np.zeros(3))
    assert loss.value == pytest.approx(log_loss([0, 1, 2], with_another), abs=1e-9)
    assert multiclass_metric("accuracy", probabilities, actual, np.zeros(3)).value == pytest.approx(2 / 3)


def test_all_right_on_one_day_is_not_certain_to_stay_so() -> None:
    found = multiclass_metric("accuracy", np.tile([0.9, 0.1], (20, 1)), np.zeros(20, dtype=int), np.zeros(20))
    assert found.value == 1.0 and 0.8 < found.low < 0.9


def test_what_cannot_be_measured_says_why() -> None:
    nothing = np.empty(0)
    with pytest.raises(ValueError, match="log_loss: the chances of 1 rows do not add up to 1"):
        multiclass_metric("log_loss", np.array([[0.9, 0.9], [0.5, 0.5]]), np.array([0, 1]), np.zeros(2))
    with pytest.raises(ValueError, match="mae: no labelled rows"):
        regression_metric("mae", nothing, nothing, nothing)
    with pytest.raises(ValueError, match="wape: every actual value is zero; use mae"):
        regression_metric("wape", np.ones(2), np.zeros(2), np.ones(2))
    with pytest.raises(ValueError, match="ndcg: no query has a row with a gain"):
        ranking_metric("ndcg", np.ones(2), np.ones(2), gain=np.zeros(2), score=np.ones(2))


def test_declared_wrong_labels_of_classes_are_taken_off_again() -> None:
    """A clerk writes down every tenth letter as a box, and some pallets as anything: the true numbers come back."""
    rng = np.random.default_rng(5)
    confusion = np.array([[0.9, 0.1, 0.0], [0.05, 0.9, 0.05], [0.1, 0.2, 0.7]])
    probabilities = rng.dirichlet([2, 1, 1], 40_000)
    true = np.array([rng.choice(3, p=row) for row in probabilities])
    labelled = np.array([rng.choice(3, p=confusion[one]) for one in true])
    days = np.zeros(len(true), dtype=int)
    for metric in ("accuracy", "log_loss"):
        wanted = multiclass_metric(metric, probabilities, true, days).value
        raw = multiclass_metric(metric, probabilities, labelled, days)
        found = denoised_metric(metric, probabilities, labelled, days, confusion)
        assert found.low < wanted < found.high, metric
        assert not raw.low < wanted < raw.high, metric
    with pytest.raises(ValueError, match="macro_f1_denoised: it is no mean over rows"):
        denoised_metric("macro_f1", probabilities, labelled, days, confusion)


def test_without_noise_nothing_is_taken_off_and_an_unknown_class_counts_as_it_stands() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3]])
    for metric in ("accuracy", "log_loss"):
        actual = np.array([0, -1])
        raw = multiclass_metric(metric, probabilities, actual, ONE_DAY[:2]).value
        found = denoised_metric(metric, probabilities, actual, ONE_DAY[:2], np.eye(3)).value
        assert found == pytest.approx(raw, abs=1e-12)
