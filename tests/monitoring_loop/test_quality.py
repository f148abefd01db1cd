"""Quality as known at the end of a day: nothing later counts, nothing earlier is rewritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from mlops_assets.adapters.calendar import Calendar
from mlops_assets.adapters.engine import frame, open_engine, register_days
from mlops_assets.monitoring_loop.quality import history_days, measure_quality
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.monitoring import QualityPolicy
from mlops_assets.service.tasks import OwnMetric

NEW_YORK = Calendar("America/New_York")
FIRST = date(2013, 3, 1)
LABEL = LabelDefinition(
    version="late15",
    source="arrivals",
    request_id="id",
    value="late",
    window_hours=48,
    never_labelled="cancelled",
)


def a_service(**quality: Any) -> Any:
    """All that quality asks of a service: its promises about quality and labels."""
    return SimpleNamespace(
        quality=QualityPolicy(**quality), label=LABEL, model=SimpleNamespace(prior=0.2), is_monitor_only=False,
        task="binary", ranking=None,
    )  # fmt: skip


def all_known(days: Sequence[date]) -> pd.DataFrame:
    """Rows of table ``completeness`` of a service that learns every label at once."""
    return pd.DataFrame(
        [
            {
                "day": day,
                "age_days": age,
                "outcome": outcome,
                "slice": "all",
                "value": 1.0,
                "low": 1.0,
                "variance": 0.0,
                "covariance": 0.0,
                "weekday": 0,
            }
            for day in days
            for age in range(3)
            for outcome in ("positive", "negative")
        ]
    ).assign(reason=pd.Series(dtype="str"), label_version="late15")


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@dataclass
class World:
    """Predictions and label events, written down row by row."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)

    def predict(
        self, number: int, request: str, score: float, *, version="m1", role="champion", served=True, origin="JFK"
    ):
        at = NEW_YORK.start_of(day(number)) + timedelta(hours=12)
        self.predictions.append(
            {
                **{"day": day(number), "request_id": request, "model_version": version, "role": role},
                **{"served": served, "score": score, "context": f'{{"origin": "{origin}"}}', "predicted_at": at},
                **{"prediction_day": day(number), "decision": score > 0.5, "bucket": len(self.predictions) % 10_000},
            }
        )

    def label(self, number: int, request: str, value: float | None, *, event_at: datetime | None = None, hour=20):
        known_at = NEW_YORK.start_of(day(number)) + timedelta(hours=hour)
        self.labels.append(
            {
                **{"day": day(number), "request_id": request, "label_version": "late15", "value": value},
                **{"event_at": event_at or known_at, "known_at": known_at, "source": "arrivals/1"},
            }
        )

    def quality(self, numbers: Sequence[int], service: Any = None, blocked: Sequence[int] = ()) -> pd.DataFrame:
        """Table ``quality`` for some days, from exactly the history that is asked for."""
        service = service or a_service(min_labels=1)
        days = [day(number) for number in numbers]
        oldest = min(days) - timedelta(days=history_days(service))
        with open_engine() as con:
            register_days(con, NEW_YORK, min(days), max(days))
            con.register("completeness", all_known(days))
            for name, rows in (("predictions", self.predictions), ("labels", self.labels)):
                table = pd.DataFrame(rows)
                con.register(name, table[(table["day"] >= oldest) & (table["day"] <= max(days))])
            measure_quality(
                con,
                service,
                predictions="predictions",
                labels="labels",
                completeness="completeness",
                days=days,
                into="quality",
                blocked=[day(number) for number in blocked],
            )
            order = "day, prediction_day, window_days, version, role, slice, metric"
            return frame(con, f"select * from quality order by {order}")


def a_busy_world(length: int, rows: int, *, seed: int = 0, decimals: int = 9) -> World:
    """Two versions; labels come after 1 to 60 hours (some too late), are corrected or withdrawn now and then."""
    rng, world = np.random.default_rng(seed), World()
    for number in range(length):
        for name in range(rows):
            request, chance = f"{number}/{name}", rng.beta(2, 5)
            origin = "EWR" if name % 3 == 0 else "JFK"
            world.predict(number, request, round(chance, decimals), origin=origin)
            other = round(float(np.clip(chance + rng.normal(0, 0.1), 0, 1)), decimals)
            world.predict(number, request, other, version="m0", role="fallback", served=False, origin=origin)
            outcome, later = float(rng.random() < chance), int(rng.choice([0, 0, 0, 1, 1, 2, 3]))
            world.label(number + later, request, outcome)
            if rng.random() < 0.02:
                event_at = NEW_YORK.start_of(day(number)) + timedelta(hours=20)
                value = None if rng.random() < 0.3 else 1 - outcome
                world.label(number + later + int(rng.integers(1, 8)), request, value, event_at=event_at, hour=21)
    return world


def one(table: pd.DataFrame, **where: Any) -> dict[str, Any]:
    for name, value in where.items():
        table = table[table[name] == (pd.Timestamp(value) if isinstance(value, date) else value)]
    [row] = table.to_dict("records")
    return row


@pytest.mark.parametrize("decimals", [9, 1], ids=["distinct scores", "many ties"])
def test_metrics_of_a_day_agree_with_scikit_learn(decimals):
    world = a_busy_world(4, 300, decimals=decimals)
    found = world.quality([3])
    labels = pd.DataFrame(world.labels)
    counts = labels[labels["event_at"] <= labels["known_at"]]
    for version in ("m1", "m0"):
        rows = pd.DataFrame(world.predictions).query(f"model_version == '{version}' and prediction_day == @day(1)")
        known = counts[counts["day"] <= day(3)].merge(rows[["request_id", "predicted_at", "score"]], on="request_id")
        known = known[known["event_at"] <= known["predicted_at"] + LABEL.window]
        known = known.sort_values("known_at").groupby("request_id").tail(1).dropna(subset="value")
        y, p = known["value"].astype(int), known["score"]
        expected = {
            "brier": brier_score_loss(y, p),
            "log_loss": log_loss(y, p),
            "auc": roc_auc_score(y, p),
            "calibration_ratio": y.sum() / p.sum(),
            "positive_share": y.mean(),
        }
        for metric, value in expected.items():
            row = one(found, prediction_day=day(1), version=version, window_days=1, metric=metric)
            assert row["value"] == pytest.approx(value, abs=1e-9)
            assert row["low"] < row["value"] < row["high"]
            assert (row["n"], row["n_labelled"], row["state"]) == (300, len(y), "final")


def test_a_label_known_tomorrow_does_not_count_today():
    world = World()
    world.predict(10, "a", 0.5)
    world.predict(10, "b", 0.5)
    world.label(10, "a", 1.0)
    world.label(11, "b", 0.0)
    found = world.quality([10, 11, 12, 13])
    share = found[(found["metric"] == "positive_share") & (found["version"] == "served") & (found["window_days"] == 1)]

    assert list(share["value"]) == [1.0, 0.5, 0.5]
    assert list(share["n_labelled"]) == [1, 2, 2]
    assert list(share["state"]) == ["provisional", "provisional", "final"]


def test_a_day_without_labels_is_open_then_not_measured():
    world = World()
    world.predict(9, "old", 0.5)
    world.label(9, "old", 1.0)
    world.predict(10, "a", 0.5)
    found = world.quality([10, 11, 12])
    mine = found[(found["prediction_day"] == pd.Timestamp(day(10))) & (found["metric"] == "brier")]
    mine = mine[(mine["version"] == "m1") & (mine["window_days"] == 1)]
    assert list(mine["state"]) == ["open", "open", "not_measured"]
    assert list(mine["reason"]) == ["no label yet", "no label yet", "0 labels, below min_labels=1"]


def test_a_brier_score_of_ones_own_is_the_brier_score():
    """Two days, both versions, the slice: whatever is asked of a metric is asked of a function of rows too."""
    own = OwnMetric(name="mine", function="own_metrics:brier", unit="1", lower_is_better=True)
    service = a_service(
        min_labels=5, own_metrics=(own,), slices={"origin": "origin"}, windows_days=(1, 7), metrics=("brier",)
    )
    service.context = service.quality.slices
    found = a_busy_world(6, 60).quality([4, 5], service)
    key = ["day", "prediction_day", "window_days", "version", "slice"]
    both = found[found["metric"] == "brier"].merge(found[found["metric"] == "mine"], on=key, suffixes=("", "_mine"))
    both = both[both["state"].isin(["final", "restated"])]
    assert len(both) > 10 and {1, 7} <= set(both["window_days"]) and "origin=JFK" in set(both["slice"])
    np.testing.assert_allclose(both["value"], both["value_mine"], atol=2e-9)
    long = both[(both["window_days"] == 7) & (both["slice"] == "all")]
    np.testing.assert_allclose(long["low"], long["low_mine"], atol=0.005)  # linearised there, jackknifed here


def test_the_lift_over_the_fallback_is_paired_by_day_and_only_on_the_same_requests():
    """Both versions suffer from the same hard days, which cancel: the interval of the lift is narrow."""
    rng, world = np.random.default_rng(1), World()
    for number in range(9):
        hard = rng.uniform(0.1, 0.5)
        for name in range(60):
            request, outcome = f"{number}/{name}", float(rng.random() < hard)
            world.predict(number, request, round(float(abs(outcome - 0.7 * rng.random())), 9))
            if (number, name) != (8, 0):  # once the fallback was not asked
                cheap = round(float(abs(outcome - 0.8 * rng.random())), 9)
                world.predict(number, request, cheap, version="m0", role="fallback", served=False)
            world.label(number, request, outcome)
    found = world.quality([8, 9, 10], a_service(min_labels=1, metrics=("brier", "lift_over_fallback")))

    of_day = found[(found["day"] == pd.Timestamp(day(8))) & (found["window_days"] == 1)]
    served, fallback = (
        one(of_day, prediction_day=day(6), version=v, metric="brier")["value"] for v in ("served", "m0")
    )
    lift = one(of_day, prediction_day=day(6), version="served", metric="lift_over_fallback")
    assert (
        lift["value"] == pytest.approx(1 - served / fallback, abs=1e-8) and lift["low"] < lift["value"] < lift["high"]
    )
    assert one(of_day, prediction_day=day(6), version="m0", metric="lift_over_fallback")["state"] == "not_measured"

    rows = pd.DataFrame(world.predictions).merge(pd.DataFrame(world.labels)[["request_id", "value"]], on="request_id")
    rows = rows[rows["prediction_day"].isin([day(n) for n in range(1, 8)])]
    daily = (
        ((rows["score"] - rows["value"]) ** 2).groupby([rows["prediction_day"], rows["model_version"]]).sum().unstack()
    )
    ratio = daily["m1"].sum() / daily["m0"].sum()
    apart = (daily["m1"] - ratio * daily["m0"]) / daily["m0"].sum()
    week = one(found, prediction_day=day(7), window_days=7, version="m1", metric="lift_over_fallback")
    assert week["value"] == pytest.approx(1 - ratio, abs=1e-8)
    assert week["high"] - week["value"] == pytest.approx(2.446911851 * np.sqrt(7 / 6 * (apart**2).sum()), rel=1e-6)

    last = one(found, day=day(10), prediction_day=day(8), window_days=1, version="m1", metric="lift_over_fallback")
    assert (last["state"], last["reason"]) == ("not_measured", "the fallback has no score for the same requests")


def test_the_first_day_has_no_curve_and_says_so():
    world = World()
    world.predict(0, "a", 0.5)
    world.label(5, "a", 1.0)
    found = world.quality([0], a_service(metrics=("average_precision",), min_labels=1))
    assert set(found["state"]) == {"open"}


def test_an_outcome_after_the_window_never_counts():
    world = World()
    world.predict(10, "a", 0.5)
    world.label(12, "a", 1.0, hour=13)  # 49 hours after the prediction
    world.predict(10, "b", 0.5)
    world.label(12, "b", 0.0, hour=11)
    row = one(world.quality([12]), metric="positive_share", version="m1", window_days=1, prediction_day=day(10))
    assert (row["value"], row["n_labelled"], row["n"]) == (0.0, 1, 2)


def test_a_correction_after_final_is_restated_under_its_own_day_and_only_there():
    world = World()
    for number in range(30):
        world.predict(number, f"{number}", 0.5)
        world.label(number, f"{number}", 0.0)
    before = world.quality(range(8, 20))
    at_noon = NEW_YORK.start_of(day(10)) + timedelta(hours=15)
    world.label(15, "10", 1.0, event_at=at_noon, hour=9)
    after = world.quality(range(8, 20))

    untouched = after["day"] < pd.Timestamp(day(15))
    pd.testing.assert_frame_equal(before[before["day"] < pd.Timestamp(day(15))], after[untouched], check_exact=True)
    restated = after[
        (after["state"] == "restated") & (after["metric"] == "positive_share") & (after["version"] == "m1")
    ]
    assert set(restated["day"]) == {pd.Timestamp(day(15))}
    ends = {
        length: [stamp.date() for stamp in group["prediction_day"]] for length, group in restated.groupby("window_days")
    }
    assert ends[1] == [day(10)]
    assert ends[7] == [day(10), day(11), day(12)], "day 13 becomes final on day 15, later ones are not mature"
    week = restated[(restated["window_days"] == 7) & (restated["prediction_day"] == pd.Timestamp(day(12)))]
    assert list(week["value"]) == [pytest.approx(1 / 7)]


def test_a_withdrawn_outcome_leaves_the_request_unlabelled():
    world = World()
    for request in ("a", "b"):
        world.predict(10, request, 0.5)
        world.label(10, request, 1.0)
    world.label(11, "a", None, event_at=NEW_YORK.start_of(day(10)) + timedelta(hours=20))
    found = world.quality([10, 11])
    labelled = found[(found["metric"] == "brier") & (found["version"] == "m1") & (found["window_days"] == 1)]
    assert list(labelled["n_labelled"]) == [2, 1]


def test_the_day_the_clocks_change_is_mature_when_the_window_has_passed_in_hours():
    """48 hours after the end of 9 March are over on the 12th: the 10th has 23 hours."""
    world = World()
    for number in range(7, 12):
        world.predict(number, f"{number}", 0.5)
        world.label(number, f"{number}", 1.0)
    found = world.quality([10, 11])  # 11 and 12 March
    brier = found[(found["metric"] == "brier") & (found["version"] == "m1") & (found["window_days"] == 1)]
    states = {(row["day"].date(), row["prediction_day"].date()): row["state"] for row in brier.to_dict("records")}
    assert states[day(10), day(8)] == "provisional"
    assert states[day(11), day(8)] == "final"


def test_a_block_of_days_equals_its_days_one_by_one():
    world = a_busy_world(45, 30, seed=5)
    service = a_service(min_labels=5, slices={"origin": "origin"})
    block = world.quality(range(38, 45), service)
    singles = pd.concat([world.quality([number], service) for number in range(38, 45)], ignore_index=True)

    assert {"provisional", "final", "restated"} <= set(block["state"])
    assert {"all", "origin=EWR", "origin=JFK"} == set(block["slice"])
    assert {1, 7, 14, 28} == set(block.query("slice != 'all'")["window_days"])
    pd.testing.assert_frame_equal(block, singles, check_exact=True)


def outcomes_and_scores(world: World, window: dict[str, Any], known_on: int) -> list[tuple[float, float]]:
    """The labelled rows of a version that one row of ``quality`` is about."""
    last, part = window["prediction_day"].date(), window["slice"]
    inside = [
        p
        for p in world.predictions
        if p["model_version"] == window["version"] and 0 <= (last - p["prediction_day"]).days < window["window_days"]
        and (part == "all" or part.removeprefix("origin=") in p["context"])
    ]  # fmt: skip
    newest, at = {}, {p["request_id"]: p["predicted_at"] for p in inside}
    for event in sorted(world.labels, key=lambda event: event["known_at"]):
        request = event["request_id"]
        if request in at and event["day"] <= day(known_on) and event["event_at"] <= at[request] + LABEL.window:
            newest[request] = event["value"]
    return [(newest[p["request_id"]], p["score"]) for p in inside if newest.get(p["request_id"]) is not None]


@pytest.mark.slow
def test_a_window_is_its_rows_put_together_of_everybody_and_of_a_slice():
    """Brier and AUC of several days are those of one pile of rows, however many; so are those of a slice."""
    world = a_busy_world(31, 110, seed=2)
    service = a_service(min_labels=1, slices={"origin": "origin"})
    found = world.quality([30], service).query("window_days > 1 and state == 'final' and version in ('m0', 'm1')")
    counts = []
    for part in ("all", "origin=EWR"):
        for length in (7, 14, 28):
            for version in ("m0", "m1"):
                where = {"window_days": length, "version": version, "slice": part}
                y, p = zip(*outcomes_and_scores(world, one(found, metric="auc", **where), 30), strict=True)
                for metric, expected in (("auc", roc_auc_score(y, p)), ("brier", brier_score_loss(y, p))):
                    row = one(found, metric=metric, **where)
                    assert row["n_labelled"] == len(y)
                    assert row["value"] == pytest.approx(expected, abs=1e-9)
                    assert row["low"] < row["value"] < row["high"]
                counts.append(len(y))
    assert max(counts) >= 2000 > 200 > min(counts)


@pytest.mark.slow
def test_slices_may_have_fewer_windows_than_the_whole():
    world = a_busy_world(12, 20)
    service = a_service(min_labels=1, slices={"origin": "origin"}, slice_windows_days=(7,))
    found = world.quality([11], service)
    assert set(found.query("slice == 'all'")["window_days"]) == {1, 7, 14, 28}
    assert set(found.query("slice == 'origin=EWR'")["window_days"]) == {1, 7}
    only = world.quality([11], a_service(min_labels=1, slices={"origin": "origin"}, slice_windows_days=()))
    assert set(only.query("slice == 'origin=EWR'")["window_days"]) == {1}
    with pytest.raises(ValueError, match=r"slice_windows_days \[21\] are no windows"):
        QualityPolicy(slice_windows_days=(7, 21))


def test_the_interval_of_a_long_window_has_the_day_as_its_unit():
    """Days that differ make a wide interval, however many rows each has."""
    rng, world = np.random.default_rng(0), World()
    for number in range(10):
        for name in range(200):
            world.predict(number, f"{number}/{name}", 0.5)
            world.label(number, f"{number}/{name}", float(rng.random() < (0.2 if number % 2 else 0.8)))
    row = one(world.quality([8]), window_days=7, metric="positive_share", version="m1", state="final")
    assert row["high"] - row["low"] > 0.4


def test_too_few_labels_and_a_single_outcome_are_reasons():
    world = World()
    for name in range(60):
        world.predict(10, f"{name}", 0.5)
        world.label(10, f"{name}", 0.0)
    auc = one(world.quality([10]), metric="auc", version="m1", window_days=1)
    assert (auc["state"], auc["reason"]) == ("not_measured", "only one outcome among 60 labels")
    brier = one(world.quality([10], a_service(min_labels=100)), metric="brier", version="m1", window_days=1)
    assert (brier["state"], brier["reason"]) == ("not_measured", "60 labels, below min_labels=100")
    assert pd.isna(brier["value"])


def test_a_blocked_day_says_so():
    world = World()
    world.predict(9, "a", 0.5)
    world.label(9, "a", 1.0)
    row = one(world.quality([10], blocked=[10]), prediction_day=day(10), metric="brier", window_days=1)
    assert (row["version"], row["state"], row["reason"], row["n"]) == ("served", "not_measured", "blocked", 0)
