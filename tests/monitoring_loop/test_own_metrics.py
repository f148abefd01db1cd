"""A service brings a metric of its own: measured like any other, and an error in it costs nobody a day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from own_metrics import minutes_beyond_twenty, share_of_arm_a
from toy_stories import stored
from toy_tasks import a_task_service, deliver_tasks, joined
from toy_world import a_world, close, span

from mlops_assets import DeclarationError, OwnMetric, QualityPolicy
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.own_metrics import own_value
from mlops_assets.promises import promises

DAYS = span(0, 11)
MATURE = DAYS[8]


def a_metric(name: str, **changes: Any) -> OwnMetric:
    declared = {"name": name, "function": f"own_metrics:{name}", "unit": "minutes", "lower_is_better": True}
    return OwnMetric(**{**declared, **changes})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Twelve days of the service that tells minutes, with three metrics of its own."""
    weighted = a_metric("minutes_beyond_twenty", is_weighted=True)
    own = (weighted, a_metric("share_of_arm_a"), a_metric("broken_on_short_days"))
    service = a_task_service("regression", quality=QualityPolicy(min_labels=5, own_metrics=own))
    label = service.label.model_copy(update={"prior_completeness": (0.01, 0.5, 0.99)})
    world = a_world(tmp_path_factory.mktemp("own"), service.model_copy(update={"labels": (label,)}))
    deliver_tasks(world.home.landing, DAYS)
    close(world, DAYS)
    return world


def newest(world: World, metric: str, window: int, part: str = "all") -> dict[str, Any]:
    """The newest row about whatever answered up to the newest mature day."""
    rows = stored(world, "quality").query("version == 'served' and slice == @part and window_days == @window")
    rows = rows[rows["metric"] == metric]
    return rows[rows["prediction_day"].dt.date == MATURE].sort_values("day").iloc[-1].to_dict()


def as_given(days: list[Any]) -> pd.DataFrame:
    rows = joined(days)
    return rows.assign(value=rows["minutes"], weight=1.0, day=rows["request"].str[:10])


@pytest.mark.slow
def test_it_is_measured_per_window_and_slice_and_its_interval_leaves_out_one_day_after_the_other(world: World) -> None:
    week = as_given(DAYS[2:9])
    for metric in (minutes_beyond_twenty, share_of_arm_a):
        found = newest(world, metric.__name__, 7)
        without = np.array([metric(week[week["day"] != day].copy()) for day in sorted(set(week["day"]))])
        half = 2.446911851 * np.sqrt(6 / 7 * ((without - without.mean()) ** 2).sum())
        assert found["value"] == pytest.approx(metric(week.copy()), abs=1e-9) and found["state"] == "final"
        assert found["high"] - found["value"] == pytest.approx(half, rel=1e-6)
    of_arm = newest(world, "minutes_beyond_twenty", 1, "arm=a")
    rows = as_given([MATURE]).query("arm == 'a'")
    assert of_arm["value"] == pytest.approx(minutes_beyond_twenty(rows), abs=1e-9)
    assert of_arm["low"] < of_arm["value"] < of_arm["high"]


@pytest.mark.slow
def test_what_does_not_weigh_its_rows_waits_for_all_labels(world: World) -> None:
    rows = stored(world, "quality").query("version == 'served' and slice == 'all' and window_days == 1")
    early = rows[(rows["day"] == DAYS[-1]) & (rows["prediction_day"].dt.date == DAYS[-2])].set_index("metric")
    waiting = early.loc["share_of_arm_a"]
    assert waiting["state"] == "not_measured"
    assert waiting["reason"] == "'share_of_arm_a' is measured when all labels are there"
    assert early.loc["minutes_beyond_twenty", "state"] == "provisional"


@pytest.mark.slow
def test_an_error_is_a_reason_and_a_finding_and_the_day_goes_on(world: World) -> None:
    found = newest(world, "broken_on_short_days", 1)
    assert (found["state"], found["reason"]) == (
        "not_measured",
        "own metric 'broken_on_short_days' failed: KeyError: 'price'",
    )
    assert newest(world, "broken_on_short_days", 7)["value"] == 420
    verdict = stored(world, "verdicts").set_index("day").loc[DAYS[-1]]
    assert verdict["verdict"] == "investigate" and "KeyError: 'price'" in verdict["reason"]
    incidents = world.ledger.effective("incidents", world.name)
    assert [row["cause"] for row in incidents] == ["quality:broken_on_short_days"]


def test_the_interval_of_a_mean_is_the_usual_one_and_the_same_every_time() -> None:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"score": rng.normal(60, 60, 400), "value": 0.0, "weight": 1.0})
    group = np.arange(400) % 20
    first = own_value(a_metric("minutes_beyond_twenty"), rows, group).value
    assert first is not None and first == own_value(a_metric("minutes_beyond_twenty"), rows, group).value
    means = np.maximum(rows["score"].abs() - 20, 0).groupby(group).mean()
    assert first.high - first.value == pytest.approx(2.093024054 * means.std(ddof=1) / np.sqrt(20), rel=1e-6)


def test_a_metric_that_cannot_be_loaded_or_whose_name_is_taken_is_refused(tmp_path: Path) -> None:
    gone = QualityPolicy(own_metrics=(a_metric("gone"),))
    with pytest.raises(
        DeclarationError, match="own_metrics > gone > function: module 'own_metrics' has no attribute 'gone'"
    ):
        list(promises(a_world(tmp_path, a_task_service("regression", quality=gone))))
    reason = own_value(a_metric("gone"), pd.DataFrame({"weight": [1.0]}), np.zeros(1, dtype=np.int64)).reason
    assert reason is not None and reason.startswith("own metric 'gone' failed: DeclarationError")
    with pytest.raises(DeclarationError, match="the name 'mae' is taken"):
        a_task_service("regression", quality=QualityPolicy(own_metrics=(a_metric("mae"),)))
