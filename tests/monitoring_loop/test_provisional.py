"""Metrics of days whose labels are still arriving, and of labels that may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
)
from test_quality import LABEL, NEW_YORK, World, day, history_days, one

from mlops_assets import LabelNoise
from mlops_assets.adapters.engine import frame, open_engine, register_days
from mlops_assets.monitoring_loop.label_noise import Audited, audit_rows
from mlops_assets.monitoring_loop.metrics import Completeness
from mlops_assets.monitoring_loop.metrics_windows import KnownDays
from mlops_assets.monitoring_loop.quality import measure_quality
from mlops_assets.service.monitoring import QualityPolicy

METRICS = ("brier", "log_loss", "auc", "calibration_ratio", "positive_share")


def a_service(*, metrics: tuple[str, ...] = METRICS, **label: Any) -> Any:
    declared = LABEL.model_copy(update=label)
    quality = QualityPolicy(min_labels=1, metrics=metrics)
    return SimpleNamespace(
        quality=quality, label=declared, model=SimpleNamespace(prior=0.2), is_monitor_only=False, task="binary",
        ranking=None,
    )  # fmt: skip


def a_day(rows: int, *, seed: int, arrives: dict[bool, float]) -> tuple[World, pd.DataFrame]:
    """Predictions of day 10; by its end labels have come with a chance that depends on the outcome, the rest later."""
    rng, world = np.random.default_rng(seed), World()
    score = np.round(rng.beta(1, 4, rows), 9)
    outcome = rng.random(rows) < score
    early = rng.random(rows) < np.where(outcome, arrives[True], arrives[False])
    for name in range(rows):
        world.predict(10, f"{name}", float(score[name]))
        world.label(10 if early[name] else 11, f"{name}", float(outcome[name]), hour=23 if early[name] else 9)
    return world, pd.DataFrame({"p": score, "y": outcome, "early": early})


def known(positive: float | None, negative: float | None = None, *, variance: float = 0.0, reason: str | None = None):
    """Rows of table ``completeness`` for age 0 of day 10."""
    shares = {"positive": positive, "negative": negative}
    return pd.DataFrame(
        [
            {
                "day": day(10), "age_days": 0, "outcome": outcome, "slice": "all", "label_version": "late15",
                "value": share, "low": share, "variance": variance, "covariance": 0.0, "weekday": 0, "reason": reason,
            }
            for outcome, share in shares.items()
        ]
    ).astype({"value": "float64", "low": "float64", "reason": "str"})  # fmt: skip


def measured(
    world: World, service: Any, completeness: pd.DataFrame, number: int = 10, *, window_days: int = 1
) -> pd.DataFrame:
    with open_engine() as con:
        register_days(con, NEW_YORK, day(number - history_days(service)), day(number))
        for name, rows in (("predictions", world.predictions), ("labels", world.labels)):
            table = pd.DataFrame(rows)
            con.register(name, table[table["day"] <= day(number)])
        con.register("known", completeness)
        measure_quality(
            con, service, predictions="predictions", labels="labels", completeness="known", days=[day(number)],
            into="quality",
        )  # fmt: skip
        return frame(con, "select * from quality where version = 'm1' and window_days = ?", [window_days])


def test_each_label_stands_for_those_of_its_outcome_that_have_not_come() -> None:
    """Late flights land late: at midnight they are missing more often than punctual ones."""
    world, rows = a_day(800, seed=1, arrives={True: 0.5, False: 0.8})
    found = measured(world, a_service(), known(0.5, 0.8))
    there = rows[rows["early"]]
    weight = np.where(there["y"], 2.0, 1.25)
    loss = (there["p"] - there["y"]) ** 2
    expected = {
        "positive_share": np.average(there["y"], weights=weight),
        "brier": np.average(loss, weights=weight),
        "log_loss": log_loss(there["y"], there["p"], sample_weight=weight),
        "calibration_ratio": (weight * there["y"]).sum() / (weight * there["p"]).sum(),
        "auc": roc_auc_score(there["y"], there["p"]),
    }
    for metric, value in expected.items():
        row = one(found, metric=metric)
        assert row["value"] == pytest.approx(value, abs=1e-9)
        assert row["low"] < row["value"] < row["high"]
        assert row["state"] == "provisional"
    share = one(found, metric="positive_share")
    assert share["raw_value"] == pytest.approx(there["y"].mean(), abs=1e-9)
    assert share["completeness"] == pytest.approx(len(there) / 800, abs=1e-9)


def three_days(seed: int) -> tuple[World, pd.DataFrame]:
    """Days 8 to 10, as known at the end of day 10: the first is mature, of the others labels are still to come."""
    rng, world, found = np.random.default_rng(seed), World(), []
    arrives = {8: (1.0, 1.0), 9: (0.8, 0.9), 10: (0.4, 0.7)}
    for number, (positive, negative) in arrives.items():
        score = np.round(rng.beta(1, 4, 400), 9)
        outcome = rng.random(400) < score
        early = rng.random(400) < np.where(outcome, positive, negative)
        for name in range(400):
            world.predict(number, f"{number}-{name}", float(score[name]))
            world.label(number if early[name] else 11, f"{number}-{name}", float(outcome[name]), hour=23)
        weight = np.where(outcome, 1 / positive, 1 / negative)
        found.append(pd.DataFrame({"day": number, "p": score, "y": outcome, "early": early, "weight": weight}))
    return world, pd.concat(found, ignore_index=True)


def known_by_age(*, low: float = 1.0) -> pd.DataFrame:
    """The curve of ``three_days`` as known on day 10; ``low`` times its shares are its lower bounds."""
    shares = {0: (0.4, 0.7), 1: (0.8, 0.9)}
    rows = [known(*both).assign(age_days=age) for age, both in shares.items()]
    return pd.concat(rows, ignore_index=True).assign(low=lambda rows: rows["value"] * low)


def the_week(world: World, service: Any, completeness: pd.DataFrame) -> pd.DataFrame:
    found = measured(world, service, completeness, window_days=7)
    return found[found["state"] == "provisional"]


def test_a_window_that_ends_today_weighs_the_labels_of_each_day_by_its_own_age() -> None:
    world, rows = three_days(7)
    found = the_week(world, a_service(metrics=(*METRICS, "average_precision")), known_by_age())
    there = rows[rows["early"]]
    y, p, weight = (there[name].to_numpy(float) for name in ("y", "p", "weight"))
    expected = {
        "positive_share": np.average(y, weights=weight),
        "brier": np.average((p - y) ** 2, weights=weight),
        "log_loss": log_loss(y, p, sample_weight=weight),
        "calibration_ratio": (weight * y).sum() / (weight * p).sum(),
        "auc": roc_auc_score(y, p, sample_weight=weight),
        "average_precision": average_precision_score(y, p, sample_weight=weight),
    }
    for metric, value in expected.items():
        row = one(found, metric=metric)
        assert row["value"] == pytest.approx(value, abs=1e-7), metric
        assert row["prediction_day"].date() == day(10) and row["n"] == 1200
    assert one(found, metric="brier")["raw_value"] == pytest.approx(brier_score_loss(y, p), abs=1e-9)
    gap = weight * ((p - y) ** 2 - expected["brier"]) / weight.sum()
    squares = np.array([gap[there["day"] == number].sum() ** 2 for number in (8, 9, 10)])
    half = 4.302653 * np.sqrt(3 / 2 * squares.sum())
    assert one(found, metric="brier")["high"] - expected["brier"] == pytest.approx(half, rel=1e-5), "days are the unit"


def test_what_is_uncertain_about_the_curve_is_common_to_the_days_of_a_window() -> None:
    world, _ = three_days(7)
    service = a_service(metrics=("brier", "average_precision", "precision_at_recall"))
    found = [the_week(world, service, known_by_age(low=low)) for low in (1.0, 0.5)]
    for metric in service.quality.metrics:
        sure, unsure = (one(table, metric=metric) for table in found)
        assert unsure["value"] == sure["value"]
        assert unsure["high"] - unsure["low"] > 1.02 * (sure["high"] - sure["low"]), metric


@pytest.mark.parametrize("weekdays", [range(1, 8), [*range(1, 8)] * 2, [0] * 7], ids=["week", "fortnight", "one curve"])
def test_the_error_of_a_curve_is_counted_once_among_what_days_differ_by_or_beside_it(weekdays: Sequence[int]) -> None:
    """Days that differ only by the errors of their curves: both parts together are what a window is off by."""
    days, error = np.array(weekdays), 0.04
    n = len(days)
    first, weight = np.zeros(1, dtype=np.int64), np.full(n, 1 / n)
    known = KnownDays(Completeness.whole(n), np.full(n, error), np.zeros(n), days)
    beside = float(known.owed(weight, np.zeros(n), weight, first)[0])
    moved = np.random.default_rng(1).normal(0, np.sqrt(error), (20_000, 8))[:, days]
    differ = ((moved - moved.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / (n - 1) / n
    assert differ.mean() + beside == pytest.approx(moved.mean(axis=1).var(), rel=0.05)


def test_where_only_positives_arrive_a_window_counts_those_that_hide() -> None:
    world, rows = three_days(8)
    world.labels = [event for event in world.labels if event["value"] == 1.0]
    found = the_week(world, a_service(unlabelled="negative"), known_by_age())
    came, p = rows[rows["early"] & rows["y"]], rows["p"].to_numpy()
    weight = came["weight"].to_numpy()
    brier = ((p**2).sum() + (weight * (1 - 2 * came["p"])).sum()) / len(rows)
    assert one(found, metric="brier")["value"] == pytest.approx(brier, abs=1e-9)
    assert one(found, metric="positive_share")["value"] == pytest.approx(weight.sum() / len(rows), abs=1e-9)
    whole = roc_auc_score(rows["y"], rows["p"])
    auc = one(found, metric="auc")
    assert auc["low"] < whole < auc["high"] and abs(auc["value"] - whole) < 0.05
    assert one(found, metric="brier")["completeness"] == pytest.approx(len(came) / weight.sum(), abs=1e-9)


def test_a_window_with_a_day_of_unknown_completeness_is_not_measured() -> None:
    world, _ = three_days(7)
    few = known_by_age().assign(value=np.nan, reason="3 days past the label window, below 10")
    week = measured(world, a_service(), few, window_days=7)
    assert "provisional" not in set(week["state"])
    row = one(week[week["prediction_day"] == pd.Timestamp(day(10))], metric="auc")
    assert (row["state"], row["reason"]) == ("not_measured", "3 days past the label window, below 10")


def test_what_is_uncertain_about_completeness_widens_the_interval() -> None:
    world, _ = a_day(800, seed=1, arrives={True: 0.5, False: 0.8})
    sure = one(measured(world, a_service(), known(0.5, 0.8)), metric="brier")
    unsure = one(measured(world, a_service(), known(0.5, 0.8, variance=0.05)), metric="brier")
    assert unsure["value"] == sure["value"]
    assert unsure["high"] - unsure["low"] > 1.5 * (sure["high"] - sure["low"])


def test_without_a_curve_a_fresh_day_is_not_measured_and_its_raw_value_stays_visible() -> None:
    world, rows = a_day(300, seed=2, arrives={True: 0.5, False: 0.8})
    found = measured(world, a_service(), known(None, None, reason="3 days past the label window, below 10"))
    brier = one(found, metric="brier")
    assert (brier["state"], brier["reason"]) == ("not_measured", "3 days past the label window, below 10")
    there = rows[rows["early"]]
    assert brier["raw_value"] == pytest.approx(brier_score_loss(there["y"], there["p"]), abs=1e-9)
    assert one(found, metric="auc")["state"] == "provisional", "weights of one outcome cancel: it needs no curve"


def test_positives_to_come_do_not_count_as_negatives() -> None:
    """Claims: only positives are ever reported. The forms of METHODS.md 6.3, written out."""
    world, rows = a_day(900, seed=3, arrives={True: 0.6, False: 0.0})
    world.labels = [event for event in world.labels if event["value"] == 1.0]
    service = a_service(unlabelled="negative")
    found = measured(world, service, known(0.6))
    p, n, share = rows["p"], len(rows), 0.6
    came = p[rows["early"] & rows["y"]]
    rank = p.rank(method="average")[came.index].sub(0.5).div(n).mean()
    pi = len(came) / (n * share)
    expected = {
        "positive_share": pi,
        "brier": ((p**2).sum() + (1 - 2 * came).sum() / share) / n,
        "log_loss": (-np.log(1 - p).sum() - (np.log(came / (1 - came))).sum() / share) / n,
        "calibration_ratio": len(came) / share / p.sum(),
        "auc": (rank - pi / 2) / (1 - pi),
    }
    for metric, value in expected.items():
        row = one(found, metric=metric)
        assert row["value"] == pytest.approx(value, abs=1e-9), metric
        assert row["low"] < row["value"] < row["high"]
        assert row["completeness"] == 0.6
    assert one(found, metric="brier")["raw_value"] < 0.9 * expected["brier"], "a fresh day looks better than it is"

    final = measured(world, service, known(0.6), number=12)
    final = final[final["prediction_day"] == pd.Timestamp(day(10))]
    assert one(final, metric="brier")["value"] == pytest.approx(brier_score_loss(rows["y"], p), abs=1e-9)
    assert one(final, metric="auc")["value"] == pytest.approx(roc_auc_score(rows["y"], p), abs=1e-9)
    assert one(final, metric="auc")["state"] == "final"


def test_wrong_labels_at_a_declared_rate_are_undone_on_average() -> None:
    """5 % of the negatives and 20 % of the positives are labelled wrong."""
    rng, rows = np.random.default_rng(5), 6000
    world, clean = World(), {}
    score = np.round(rng.beta(1, 2, rows), 9)
    outcome = rng.random(rows) < score
    flips = rng.random(rows) < np.where(outcome, 0.2, 0.05)
    for name in range(rows):
        world.predict(10, f"{name}", float(score[name]))
        world.label(10, f"{name}", float(outcome[name] != flips[name]))
    clean = {
        "brier": brier_score_loss(outcome, score), "log_loss": log_loss(outcome, score),
        "auc": roc_auc_score(outcome, score), "positive_share": outcome.mean(),
        "calibration_ratio": outcome.sum() / score.sum(),
    }  # fmt: skip
    noise = LabelNoise(wrong_positive_share=0.05, wrong_negative_share=0.2, source="double labels of March")
    found = measured(world, a_service(noise=noise), known(1.0, 1.0))
    for metric, value in clean.items():
        raw, right = one(found, metric=metric), one(found, metric=f"{metric}_denoised")
        assert right["raw_value"] == raw["value"]
        assert right["low"] < value < right["high"], metric
        assert abs(right["value"] - value) < abs(raw["value"] - value), metric
    noisy = outcome != flips
    keep = {True: (0.95, 0.2), False: (0.8, 0.05)}  # Natarajan et al. 2013, lemma 1, written out row by row
    losses = [
        (keep[bool(y)][0] * (p - y) ** 2 - keep[bool(y)][1] * (p - (not y)) ** 2) / 0.75
        for p, y in zip(score, noisy, strict=True)
    ]
    assert one(found, metric="brier_denoised")["value"] == pytest.approx(np.mean(losses), abs=1e-9)


@pytest.mark.slow
def test_wrong_labels_that_cannot_be_are_a_reason_and_no_number() -> None:
    """A third of the labels is positive; if six of ten negatives were labelled so, more than that would be."""
    world, _rows = a_day(900, seed=3, arrives={True: 1.0, False: 1.0})
    noise = LabelNoise(wrong_positive_share=0.6, wrong_negative_share=0.1, source="a slip of the pen")
    found = measured(world, a_service(noise=noise), known(1.0, 1.0))
    assert one(found, metric="positive_share")["value"] < 0.5
    for metric in ("brier", "auc", "log_loss", "positive_share", "calibration_ratio"):
        row = one(found, metric=f"{metric}_denoised")
        assert pd.isna(row["value"]) and pd.isna(row["low"]) and row["state"] == "not_measured"
        assert row["reason"].startswith("with the shares of wrong labels that are declared or audited there would be")


def test_a_second_reading_of_some_labels_says_how_often_they_are_wrong() -> None:
    """A fifth of the requests is read again: 5 % of the negatives and 20 % of the positives turn out to be wrong."""
    rng, rows = np.random.default_rng(9), 4000
    world = World()
    score = np.round(rng.beta(1, 2, rows), 9)
    outcome = rng.random(rows) < score
    flips = rng.random(rows) < np.where(outcome, 0.2, 0.05)
    is_audited = rng.random(rows) < 0.2
    for name in range(rows):
        world.predict(10, f"{name}", float(score[name]))
        world.label(10, f"{name}", float(outcome[name] != flips[name]))
    first = list(world.labels)
    for name in np.flatnonzero(is_audited):
        world.label(11, f"{name}", float(outcome[name]))
        world.labels[-1]["label_version"] = "audit"
    noise = LabelNoise(audited_by="audit", source="the second desk")
    service = a_service(noise=noise, metrics=("brier", "auc"))
    early = measured(world, service, known(1.0, 1.0))
    denoised = one(early, metric="brier_denoised")
    assert (denoised["state"], denoised["reason"]) == ("not_measured", "0 negatives were read twice, below 30")
    found = measured(world, service, known(1.0, 1.0).assign(day=day(11), age_days=1), number=11)
    found = found[found["prediction_day"] == pd.Timestamp(day(10))]
    is_wrong = flips[is_audited & outcome].mean(), flips[is_audited & ~outcome].mean()
    fixed = LabelNoise(wrong_negative_share=is_wrong[0], wrong_positive_share=is_wrong[1], source="the same, by hand")
    world.labels = first
    by_hand = measured(world, a_service(noise=fixed, metrics=("brier", "auc")), known(1.0, 1.0))
    for metric in ("brier_denoised", "auc_denoised"):
        assert one(found, metric=metric)["value"] == pytest.approx(one(by_hand, metric=metric)["value"], abs=1e-9)
    assert abs(one(found, metric="brier_denoised")["value"] - brier_score_loss(outcome, score)) < 0.01


def test_the_shares_of_wrong_labels_are_rows_of_their_own() -> None:
    service = a_service(noise=LabelNoise(audited_by="audit", source="the second desk"))
    audits = {day(10): Audited(100, 5, 50, 10), day(11): Audited(100, 5, 20, 10)}
    known_then, too_few = audit_rows(service, audits, [day(10), day(11)])
    assert dict(zip(known_then["metric"], known_then["value"], strict=True)) == {
        "wrong_positive_share": 0.05, "wrong_negative_share": 0.2
    }  # fmt: skip
    assert (known_then["low"] < known_then["value"]).all() and (known_then["state"] == "estimated").all()
    assert set(too_few["reason"]) == {"20 positives were read twice, below 30"} and too_few["value"].isna().all()


def test_noise_is_declared_in_one_way() -> None:
    with pytest.raises(ValueError, match="declare both wrong_positive_share and wrong_negative_share, or audited_by"):
        LabelNoise(wrong_positive_share=0.1, source="?")
    with pytest.raises(ValueError, match="or audited_by"):
        LabelNoise(wrong_positive_share=0.1, wrong_negative_share=0.1, audited_by="audit", source="?")


CURVES = ("average_precision", "precision_at_recall", "recall_at_precision", "calibration_error", "lift")


@pytest.mark.parametrize("decimals", [9, 1], ids=["distinct scores", "many ties"])
def test_metrics_of_the_whole_order_agree_with_scikit_learn_with_and_without_labels_to_come(decimals: int) -> None:
    world, rows = a_day(700, seed=6, arrives={True: 0.5, False: 0.8})
    for prediction in world.predictions:
        prediction["score"] = round(prediction["score"], decimals)
    rows["p"] = rows["p"].round(decimals)
    early = measured(world, a_service(metrics=CURVES), known(0.5, 0.8))
    final = measured(world, a_service(metrics=CURVES), known(0.5, 0.8), number=12)
    final = final[final["prediction_day"] == pd.Timestamp(day(10))]
    for found, there, weight in (
        (early, rows[rows["early"]], np.where(rows[rows["early"]]["y"], 2.0, 1.25)),
        (final, rows, np.ones(len(rows))),
    ):
        y, p = there["y"].to_numpy(), there["p"].to_numpy()
        precision, recall, _ = precision_recall_curve(y, p, sample_weight=weight)
        bands = np.minimum((p * 10).astype(int), 9)
        gaps = [abs((weight * (y - p))[bands == band].sum()) for band in range(10)]
        brier = np.average((p - y) ** 2, weights=weight)
        expected = {
            "average_precision": average_precision_score(y, p, sample_weight=weight),
            "precision_at_recall": precision[np.flatnonzero(recall >= 0.8 - 1e-12)[-1]],
            "recall_at_precision": recall[precision >= 0.5].max(),
            "calibration_error": sum(gaps) / weight.sum(),
            "lift": 1 - brier / np.average((0.2 - y) ** 2, weights=weight),
        }
        for metric, value in expected.items():
            row = one(found, metric=metric)
            assert row["value"] == pytest.approx(value, abs=1e-9), metric
            assert row["low"] < row["value"] < row["high"], metric


def test_versions_are_compared_at_equal_risk_and_not_at_equal_threshold() -> None:
    """A rival that says half of what the champion says approves the same requests."""
    rng, world = np.random.default_rng(7), World()
    for number in range(14):
        for name in range(150):
            score = round(float(rng.beta(1, 4)), 9)
            world.predict(number, f"{number}/{name}", score)
            world.predict(
                number, f"{number}/{name}", round(score / 2, 9), version="m2", role="challenger", served=False
            )
            world.label(number, f"{number}/{name}", float(rng.random() < score), hour=23)
    service = a_service(metrics=("approval_at_risk", "approval_uplift"))
    with open_engine() as con:
        register_days(con, NEW_YORK, day(13 - history_days(service)), day(13))
        con.register("predictions", pd.DataFrame(world.predictions))
        con.register("labels", pd.DataFrame(world.labels))
        con.register("known", known(1.0, 1.0))
        measure_quality(
            con, service, predictions="predictions", labels="labels", completeness="known", days=[day(13)],
            into="quality",
        )  # fmt: skip
        found = frame(con, "select * from quality where window_days = 1")
    today = found[found["prediction_day"] == pd.Timestamp(day(13))]
    champion = one(today, metric="approval_at_risk", version="m1")
    assert 0.1 < champion["value"] < 0.9
    assert one(today, metric="approval_at_risk", version="m2")["value"] == champion["value"]
    assert one(today, metric="approval_uplift", version="m2")["value"] == 0.0


def test_a_day_is_estimated_before_it_has_labels_and_what_comes_instead_is_a_signal() -> None:
    """Ten calm days, then one on which the same scores mean twice as much."""
    rng, world = np.random.default_rng(8), World()
    for number in range(13):
        for name in range(400):
            score = round(float(rng.beta(2, 6)), 9)
            chance = score if number < 12 else min(1.0, 2.2 * score)
            world.predict(number, f"{number}/{name}", score)
            world.label(number, f"{number}/{name}", float(rng.random() < chance), hour=23)
    service = a_service()
    found = {}
    for number in (11, 12):
        with open_engine() as con:
            register_days(con, NEW_YORK, day(number - history_days(service)), day(number))
            for name, rows in (("predictions", world.predictions), ("labels", world.labels)):
                table = pd.DataFrame(rows)
                con.register(name, table[table["day"] <= day(number)])
            con.register("known", known(1.0, 1.0).assign(day=day(number)))
            measure_quality(
                con, service, predictions="predictions", labels="labels", completeness="known", days=[day(number)],
                into="quality",
            )  # fmt: skip
            rows = frame(con, "select * from quality where version = 'm1' and window_days = 1")
            found[number] = rows[rows["prediction_day"] == pd.Timestamp(day(number))]
    for number in (11, 12):
        estimate = one(found[number], metric="brier_estimated")
        score = np.array([p["score"] for p in world.predictions if p["prediction_day"] == day(number)])
        assert estimate["state"] == "estimated"
        assert estimate["value"] == pytest.approx((score * (1 - score)).mean(), abs=0.01)
        surprise = one(found[number], metric="brier_surprise")
        realised = one(found[number], metric="brier")["value"]
        assert surprise["value"] == pytest.approx(realised - estimate["value"], abs=2e-9)
        assert (surprise["low"] > 0) == (number == 12), "an estimate cannot see concept drift; the surprise does"


def test_a_version_without_mature_days_is_not_estimated() -> None:
    world, _ = a_day(300, seed=9, arrives={True: 0.5, False: 0.8})
    row = one(measured(world, a_service(), known(0.5, 0.8)), metric="brier_estimated")
    assert (row["state"], row["reason"]) == ("not_measured", "0 mature days of this version, below 7")
