"""A service says what kind of answer it gives, and its daily quality follows: numbers, classes, ranked lists."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    ndcg_score,
    root_mean_squared_error,
)
from states import assert_same
from toy_stories import stored
from toy_tasks import CLASSES, LISTS, ROWS, a_task_service, deliver_tasks, joined
from toy_world import a_service as a_parcel_service
from toy_world import a_world, close, span

from mlops_assets import (
    DeclarationError,
    DegradationRule,
    KpiPolicy,
    LabelDefinition,
    LabelNoise,
    MLService,
    PredictionLog,
    QualityPolicy,
    UnknownNameError,
)
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.row_metrics import Part, Shares, measures_of, owed_to_shares
from mlops_assets.service.monitoring import CalibrationMonitor
from mlops_assets.service.operations import OperationsPolicy, QualityObjective
from mlops_assets.summary import summary_lines

DAYS = span(0, 15)
MATURE = DAYS[12]
"""The newest day whose window of three days is over at the end of the last one."""
MISREAD = LabelNoise(confusion=((0.9, 0.1, 0.0), (0.0, 1.0, 0.0), (0.0, 0.1, 0.9)), source="a recount")
TOO_FAR = DegradationRule(metric="mae", above=10, broken_days=1, of_days=1, min_labels=5)
CHANGES: dict[str, dict[str, Any]] = {
    "regression": {"quality": QualityPolicy(min_labels=5, degradation=(TOO_FAR,))},
    "multiclass": {
        "quality": QualityPolicy(min_labels=5, windows_days=(1, 7)),
        "label": a_task_service("multiclass").label.model_copy(update={"noise": MISREAD}),
    },
}


def replayed(folder: Path, task: str, *, in_pieces: bool = False, **changes: Any) -> World:
    """Sixteen days of one task, closed in one go, or with days by themselves at both ends."""
    world = a_world(folder, a_task_service(task, **changes))
    deliver_tasks(world.home.landing, DAYS, only_clicks=task == "ranking")
    for days in [DAYS[:1], DAYS[1:3], DAYS[3:15], DAYS[15:]] if in_pieces else [DAYS]:
        close(world, days)
    return world


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    """One world per task; what is told of them costs nothing more."""
    folder = tmp_path_factory.mktemp("tasks")
    return {
        task: replayed(folder / task, task, **CHANGES.get(task, {})) for task in ("regression", "multiclass", "ranking")
    }


def newest(world: World, part: str = "all", window: int = 1) -> pd.DataFrame:
    """Metric -> the newest row about whatever answered up to the newest mature day."""
    rows = stored(world, "quality")
    rows = rows[(rows["version"] == "served") & (rows["slice"] == part) & (rows["window_days"] == window)]
    rows = rows[rows["prediction_day"].dt.date == MATURE].sort_values("day")
    rows = rows[~rows["metric"].str.contains("_estimated|_surprise|_denoised")]
    return rows.groupby("metric").last()


def expected(task: str, rows: pd.DataFrame) -> dict[str, float]:
    """What scikit-learn says."""
    if task == "regression":
        actual, told = rows["minutes"], rows["score"]
        return {
            "mae": mean_absolute_error(actual, told), "rmse": root_mean_squared_error(actual, told),
            "bias": float((told - actual).mean()), "wape": float((told - actual).abs().sum() / actual.abs().sum()),
        }  # fmt: skip
    if task == "multiclass":
        chances = np.c_[rows[list(CLASSES)].to_numpy(), np.zeros(len(rows))]  # a tube had no chance
        actual = rows["kind"].map([*CLASSES, "tube"].index)
        return {
            "log_loss": log_loss(actual, chances, labels=[0, 1, 2, 3]),
            "accuracy": accuracy_score(actual, chances.argmax(axis=1)),
            "macro_f1": f1_score(actual, chances.argmax(axis=1), average="macro"),
        }
    lists = [of_list for _, of_list in rows.groupby("page") if of_list["clicked"].any()]
    ndcg = np.mean([ndcg_score([of_list["clicked"]], [of_list["score"]], k=3) for of_list in lists])
    return {"ndcg": float(ndcg), "ctr": rows["clicked"].mean(), "revenue_per_impression": rows["eur"].mean()}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "multiclass", "ranking"])
def test_final_numbers_of_every_task_are_those_of_scikit_learn(worlds: dict[str, World], task: str) -> None:
    week = [MATURE - timedelta(days=back) for back in range(7)]
    of_day = joined([MATURE])
    cases = [("all", 1, of_day), ("arm=a", 1, of_day[of_day["arm"] == "a"]), ("all", 7, joined(week))]
    for part, window, rows in cases:
        found = newest(worlds[task], part, window)
        wanted = expected(task, rows)
        assert set(found.index) == set(wanted), "nothing else is measured: no calibration"
        for metric, value in wanted.items():
            row = found.loc[metric]
            assert row["value"] == pytest.approx(value, abs=1e-9), (part, window, metric)
            assert row["low"] < row["value"] < row["high"]
            assert (row["state"], row["n"]) == ("final", len(rows))


@pytest.mark.slow
def test_the_day_is_the_unit_of_a_weeks_interval_and_the_list_that_of_a_day(worlds: dict[str, World]) -> None:
    week = joined([MATURE - timedelta(days=back) for back in range(7)])
    apart = (week["score"] - week["minutes"]).abs().groupby(week["request"].str[:10]).mean()
    half = 2.446911851 * apart.std(ddof=1) / np.sqrt(7)
    mae = newest(worlds["regression"], window=7).loc["mae"]
    assert mae["high"] - mae["value"] == pytest.approx(half, rel=1e-6)

    of_lists = joined([MATURE]).groupby("page")["clicked"].mean()
    half = 2.200985160 * of_lists.std(ddof=1) / np.sqrt(LISTS)
    ctr = newest(worlds["ranking"]).loc["ctr"]
    assert ctr["high"] - ctr["value"] == pytest.approx(half, rel=1e-6)


@pytest.mark.slow
def test_clicks_that_are_still_to_come_are_reckoned_in_and_an_order_waits_for_them(worlds: dict[str, World]) -> None:
    """Only clicks are reported, a day or two later: a fresh list looks worse than it is."""
    rows = stored(worlds["ranking"], "quality")
    rows = rows[(rows["version"] == "served") & (rows["slice"] == "all") & (rows["window_days"] == 1)]
    fresh = rows[(rows["day"] == DAYS[15]) & (rows["prediction_day"].dt.date == DAYS[14])].set_index("metric")
    assert fresh.loc["ctr", "state"] == "provisional"
    share = fresh.loc["ctr", "completeness"]
    assert 0.2 < share < 0.9
    for metric in ("ctr", "revenue_per_impression"):
        assert fresh.loc[metric, "value"] == pytest.approx(fresh.loc[metric, "raw_value"] / share, rel=1e-6)
    assert fresh.loc["ndcg", "state"] == "not_measured"
    assert fresh.loc["ndcg", "reason"] == "a ranked list is measured when all of its labels are there"


@pytest.mark.slow
def test_what_has_no_labels_yet_says_so_and_a_rule_reads_the_new_metrics(worlds: dict[str, World]) -> None:
    rows = stored(worlds["regression"], "quality")
    own_day = rows[(rows["day"] == DAYS[15]) & (rows["prediction_day"].dt.date == DAYS[15])].query("window_days == 1")
    is_estimate = own_day["metric"].str.endswith("_estimated")
    assert set(own_day[~is_estimate]["state"]) == {"open"} and set(own_day[~is_estimate]["reason"]) == {"no label yet"}
    estimates = own_day[is_estimate & (own_day["version"] == "served")]
    assert set(estimates["metric"]) == {"mae_estimated", "bias_estimated"} and estimates["value"].isna().all()
    assert set(estimates["reason"]) == {
        "regression: a score says nothing about its own error, so a day cannot be estimated before its labels"
    }
    judged = stored(worlds["regression"], "rules").set_index("day").loc[DAYS[15]]
    assert judged["state"] == "broken" and judged["metric"] == "mae" and judged["value"] > 10
    verdict = stored(worlds["regression"], "verdicts").set_index("day").loc[DAYS[15]]
    assert verdict["verdict"] == "investigate" and "mae" in verdict["reason"]


def in_bands(rows: pd.DataFrame) -> pd.DataFrame:
    """Per row: the band of its largest chance, whether that class was right, its loss; a tube had no chance."""
    chances = rows[list(CLASSES)].to_numpy()
    actual = rows["kind"].map({name: place for place, name in enumerate(CLASSES)}).fillna(-1).astype(int).to_numpy()
    of_outcome = np.where(actual >= 0, chances[np.arange(len(rows)), actual], 0.0)
    return pd.DataFrame({
        "band": np.minimum(np.floor(64 / np.pi * np.arcsin(np.sqrt(chances.max(axis=1)))), 31), "n": 1.0,
        "accuracy": (chances.argmax(axis=1) == actual).astype(float),
        "log_loss": -np.log(np.clip(of_outcome, np.finfo(float).eps, 1 - np.finfo(float).eps)),
        "promised_accuracy": chances.max(axis=1), "promised_log_loss": -(chances * np.log(chances)).sum(axis=1),
    })  # fmt: skip


@pytest.mark.slow
def test_a_day_of_classes_is_estimated_before_its_labels_and_what_comes_instead_is_a_row(
    worlds: dict[str, World],
) -> None:
    """The bands of the largest chance, as often right (and at such a loss) as in the week that is mature by then."""
    rows = stored(worlds["multiclass"], "quality")
    rows = rows[(rows["day"] == DAYS[15]) & (rows["version"] == "served") & (rows["slice"] == "all")]
    mature = in_bands(joined(DAYS[6:13])).groupby("band").mean()
    for day, kind in ((DAYS[15], "estimated"), (MATURE, "surprise")):
        of_day = rows[(rows["prediction_day"].dt.date == day) & (rows["window_days"] == 1)].set_index("metric")
        fresh = in_bands(joined([day]))
        for metric in ("accuracy", "log_loss"):
            rates = (
                fresh["band"]
                .map(mature[metric])
                .fillna(fresh["band"].map(fresh.groupby("band")[f"promised_{metric}"].mean()))
            )
            expected_value = rates.mean() if kind == "estimated" else fresh[metric].mean() - rates.mean()
            row = of_day.loc[f"{metric}_{kind}"]
            assert row["value"] == pytest.approx(expected_value, abs=1e-6), (metric, kind)
            assert row["low"] < row["value"] < row["high"]
            assert row["state"] == ("estimated" if kind == "estimated" else "final")


@pytest.mark.slow
def test_metrics_of_classes_stand_beside_those_without_the_declared_wrong_labels(worlds: dict[str, World]) -> None:
    """Every tenth letter and pallet is written down as a box; what cannot be taken off says so."""
    rows = stored(worlds["multiclass"], "quality")
    rows = rows[(rows["version"] == "served") & (rows["slice"] == "all") & (rows["window_days"] == 1)]
    row = rows[(rows["prediction_day"].dt.date == MATURE) & (rows["day"] == DAYS[15])].set_index("metric")
    of_day = joined([MATURE])
    is_answer = np.eye(3)[of_day[list(CLASSES)].to_numpy().argmax(axis=1)]
    corrected = is_answer @ np.linalg.inv(np.array(MISREAD.confusion)).T
    place = of_day["kind"].map({name: n for n, name in enumerate(CLASSES)})
    wanted = [corrected[n, int(p)] if pd.notna(p) else 0.0 for n, p in enumerate(place)]
    assert row.loc["accuracy_denoised", "value"] == pytest.approx(np.mean(wanted), abs=1e-9)
    assert row.loc["accuracy_denoised", "value"] != row.loc["accuracy", "value"]
    assert row.loc["macro_f1_denoised", "state"] == "not_measured"
    assert row.loc["macro_f1_denoised", "reason"].startswith("it is no mean over rows")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multiclass", "ranking"])
def test_single_days_give_the_same_rows_as_a_block(worlds: dict[str, World], task: str, tmp_path: Path) -> None:
    assert_same(worlds[task], replayed(tmp_path, task, in_pieces=True, **CHANGES.get(task, {})))


@pytest.mark.slow
def test_the_summary_of_a_replay_speaks_of_minutes(worlds: dict[str, World]) -> None:
    text = "\n".join(summary_lines(worlds["regression"], None))
    assert "Brier" not in text and "14 days" not in text and re.search(r"mae +\d+\.\d+ \[.*28 days to 2024-03-13", text)


@pytest.mark.slow
def test_minutes_are_no_chances_and_nobody_is_told_that_they_are_out_of_range(worlds: dict[str, World]) -> None:
    profiles = stored(worlds["regression"], "profiles")
    of_both = profiles[profiles["column_name"].isin(["score", "label"])]
    assert len(of_both) > ROWS / 2 and of_both["counts"].isna().all()
    assert set(stored(worlds["regression"], "drift").query("subject != 'operations'")["tier"]) <= {"stable", "expected"}


def test_each_day_of_a_window_is_corrected_by_its_own_share_and_errors_of_one_curve_add_up() -> None:
    """Yesterday half of the clicks are known, the day before all: ten rows each, in lists of two."""
    clicks, nothing = np.array([1.0, 0.0] * 5 + [1.0, 0.0, 0.0, 0.0, 0.0] * 2), np.zeros(20)
    part = Part(
        score=nothing, value=clicks, day=np.repeat([0, 1], 10), is_large=clicks > 0, classes=np.empty((20, 0)),
        unit=np.repeat(np.arange(10, dtype=np.uint64), 2), worth=nothing, weight=nothing + 1, gain_times=nothing + 1,
    )  # fmt: skip
    ones, none = np.ones(2), np.zeros(2)
    known = Shares(np.array([1.0, 0.5]), ones, none, none, 0.0)
    ctr = measures_of(a_task_service("ranking"))["ctr"]
    assert ctr(part.known_by(known, is_one_sided=True)).value == pytest.approx((5 + 2 / 0.5) / 20)
    unsure = Shares(known.positive, ones, np.array([0.0, 0.1]), none, 0.0)
    owed = owed_to_shares(ctr, part, unsure, is_one_sided=True)
    assert owed == pytest.approx((0.1 * 4 / 20) ** 2, rel=1e-4), "10 % of the four clicks that yesterday stands for"


def refused(task: str, **changes: Any) -> str:
    """The message with which a declaration is refused."""
    with pytest.raises((DeclarationError, ValueError)) as error:
        a_task_service(task, **changes)
    return str(error.value)


def test_a_metric_of_another_task_is_refused_by_name() -> None:
    with pytest.raises(UnknownNameError) as error:
        a_task_service("regression", quality=QualityPolicy(metrics=("mae", "auc")))
    assert str(error.value) == (
        "service 'toy_regression' > quality > metrics: no regression metric is named 'auc'. "
        "Declared: bias, mae, rmse, wape."
    )
    promise = OperationsPolicy(objectives=(QualityObjective(good_share=0.9, limit=1),))
    assert "no regression metric is named 'brier'" in refused("regression", operations=promise)


@pytest.mark.parametrize(
    ("quality", "part"),
    [
        ({"calibration": CalibrationMonitor()}, "quality > calibration: observed beside predicted positives say"),
        ({"estimates": True}, "quality > estimates: a day of task 'regression' cannot be estimated"),
        (
            {"kpi": KpiPolicy(name="eur", unit="EUR", value_per_true_alarm=3, value_per_false_alarm=-1)},
            "quality > kpi: values of true and of false alarms are about yes or no, not task 'regression'. Declare an",
        ),
    ],
)
def test_what_only_yes_or_no_can_have_is_refused_in_words(quality: dict[str, Any], part: str) -> None:
    assert part in refused("regression", quality=QualityPolicy(**quality))


def test_wrong_labels_and_silent_negatives_are_about_yes_or_no() -> None:
    label = a_task_service("regression").label
    noise = LabelNoise(wrong_positive_share=0.1, wrong_negative_share=0.1, source="a survey")
    assert "label > noise: shares of wrong labels" in refused(
        "regression", label=label.model_copy(update={"noise": noise})
    )
    silent = label.model_copy(update={"unlabelled": "negative"})
    assert "label > unlabelled: 'negative' is an outcome of yes or no" in refused("regression", label=silent)


def test_wrong_labels_of_classes_are_declared_as_a_square_of_their_classes() -> None:
    label = a_task_service("multiclass").label
    sure = LabelNoise(confusion=((0.9, 0.1, 0.0), (0.0, 1.0, 0.0), (0.0, 0.2, 0.8)), source="a recount")
    service = a_task_service("multiclass", label=label.model_copy(update={"noise": sure}))
    assert {"accuracy_denoised", "log_loss_denoised"} <= set(measures_of(service))
    two = LabelNoise(confusion=((0.9, 0.1), (0.2, 0.8)), source="a recount")
    assert "confusion is about 2 classes, the label has 3" in refused(
        "multiclass", label=label.model_copy(update={"noise": two})
    )
    shares = LabelNoise(wrong_positive_share=0.1, wrong_negative_share=0.1, source="a survey")
    assert "Declare confusion." in refused("multiclass", label=label.model_copy(update={"noise": shares}))
    with pytest.raises(ValueError, match="row 2 of confusion has 2 shares that add up to 0.9"):
        LabelNoise(confusion=((0.9, 0.1), (0.1, 0.8)), source="a recount")
    with pytest.raises(ValueError, match="more than half must be"):
        LabelNoise(confusion=((0.5, 0.5), (0.2, 0.8)), source="a recount")


def test_a_model_of_another_task_is_not_trained_here() -> None:
    with pytest.raises(DeclarationError) as error:
        a_parcel_service(task="regression")
    assert str(error.value) == (
        "service 'parcels' > model: models of task 'regression' are not trained here. Declare the prediction_log of "
        "the model that runs elsewhere, or task='binary'."
    )


def test_classes_are_declared_once_in_the_label_and_each_has_its_chance_in_the_log() -> None:
    label = a_task_service("multiclass").label
    assert "the classes of the answer are not declared" in refused(
        "multiclass", label=label.model_copy(update={"classes": ()})
    )
    two = PredictionLog(
        source="answers", request_id="request", model_version="model", class_scores={"letter": "letter", "box": "box"}
    )
    assert "it has box, letter, and label 'v1' box, letter, pallet" in refused("multiclass", prediction_log=two)
    with pytest.raises(ValueError, match="name two or more, each once"):
        LabelDefinition(version="v1", source="payments", request_id="request", value="kind", window_hours=72,
                        never_labelled="lost", classes=("box", "box"))  # fmt: skip


def test_a_ranking_says_what_a_list_is_and_money_where_it_comes_from() -> None:
    assert "what one list is, is not declared" in refused("ranking", ranking=None)
    label = a_task_service("ranking").label.model_copy(update={"kpi": None})
    assert "'revenue_per_impression' needs what an outcome is worth" in refused("ranking", label=label)


def test_a_declared_task_survives_being_written_down() -> None:
    for task in ("regression", "multiclass", "ranking"):
        service = a_task_service(task)
        again = MLService.model_validate_json(service.model_dump_json())
        assert again == service


def test_the_chances_of_the_classes_are_kept_in_their_order_and_the_largest_is_the_score() -> None:
    log = a_task_service("multiclass").prediction_log
    assert log is not None and log.score == (
        "case when (letter) + (box) + (pallet) is not null then greatest((letter), (box), (pallet)) end"
    )
    assert SimpleNamespace(**log.class_scores).box == "box"
