"""Parcels suddenly arrive late, and no feature shows it: only labels do. What the days then decide."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from states import assert_same
from toy_stories import copy_of, stored
from toy_strike import LAST, OFF, STRIKE, before_the_strike, parcels
from toy_world import close, span

from mlops_assets.closing.world import World
from mlops_assets.promises import rules

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Everything is well up to the day before."""
    return before_the_strike(tmp_path_factory.mktemp("parcels"))


@pytest.fixture(scope="module")
def after(before: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same, and the days of the strike in one block."""
    world = copy_of(before, tmp_path_factory.mktemp("strike") / "home")
    close(world, span(STRIKE, LAST))
    return world


def decided(world: World, kind: str) -> dict[date, str]:
    """Day -> reason of the decisions of one kind since the strike."""
    rows = world.ledger.effective("decisions", world.name)
    return {row["day"]: row["because"] for row in rows if row["kind"] == kind and row["day"] >= span(STRIKE, STRIKE)[0]}


def test_the_strike_is_one_incident_with_its_numbers(after: World) -> None:
    rows = after.ledger.effective("incidents", after.name)
    opened = [row for row in rows if row["cause"] == "quality:calibration"]
    assert len(opened) == 1 and opened[0]["day"] <= span(STRIKE + 1, STRIKE + 1)[0]
    assert "observed/predicted" in opened[0]["text"]
    verdicts = stored(after, "verdicts").set_index("day")
    found = verdicts.loc[span(STRIKE + 1, STRIKE + 1)[0]]
    assert found["tier"] == "moderate" and "calibration: observed/predicted" in found["reason"]


def test_the_performance_retrains_once_per_cool_down_and_the_cadence_goes_on(after: World) -> None:
    trained = decided(after, "retrain")
    mature, sunday = (span(n, n)[0] for n in (STRIKE + 1, LAST))
    assert list(trained) == [mature, sunday], "not on the day between them: the cool-down"
    assert trained[mature].startswith("performance: calibration_ratio above 1.4: ")
    assert trained[sunday].startswith("cadence: weekly")
    broken = stored(after, "rules").query("leads_to == 'retraining' and state == 'broken'")
    assert span(STRIKE + 2, STRIKE + 2)[0] in set(broken["day"]), "though it was still as bad"


def test_every_evaluation_is_a_row_with_the_numbers_it_used(after: World) -> None:
    rules = stored(after, "rules")
    assert rules.groupby("day").size().min() >= 2, "the monitor and the trigger, every day"
    day = span(STRIKE + 1, STRIKE + 1)[0]
    row = rules[(rules["day"] == day) & (rules["rule"] == OFF.sentence)].iloc[0]
    assert (row["state"], row["days_broken"], row["known_as"]) == ("broken", 1, "final")
    assert row["value"] > 1.4 and row["compared"] == 1.4
    quality = stored(after, "quality")
    same = quality[
        (quality["day"] == day)
        & (quality["window_days"] == 1)
        & (quality["prediction_day"] == pd.Timestamp(row["prediction_day"]))
        & (quality[["version", "slice", "metric"]] == ["served", "all", "calibration_ratio"]).all(axis=1)
    ]
    assert same["value"].tolist() == [row["value"]]


def test_what_the_answers_were_worth_stands_beside_their_quality(after: World) -> None:
    keys = ["day", "prediction_day", "window_days", "version", "role"]
    quality = stored(after, "quality").query("metric == 'positive_share' and state in ('final', 'restated')")
    kpi = stored(after, "kpi").query("slice == 'all' and state in ('final', 'restated')")
    assert set(map(tuple, kpi[keys].to_numpy())) == set(map(tuple, quality[keys].to_numpy()))
    assert set(kpi["window_days"]) == {1, 7, 14, 28}
    single = kpi.query("version == 'served' and window_days == 1").set_index("prediction_day")
    week = kpi.query("version == 'served' and window_days == 7").iloc[-1]
    days = single.loc[week["prediction_day"] - pd.Timedelta(days=6) : week["prediction_day"]]
    assert len(days) == 7 and week["total"] == days["total"].sum()


def test_what_scoring_used_stands_in_the_row_of_each_version(before: World) -> None:
    rows = stored(before, "operations").query("slice == 'all' and n > 0")
    scored = rows[~rows["version"].isin(["served", "prior"])]
    assert (scored["cpu_seconds"] > 0).all() and (scored["peak_mib"] > 50).all() and scored["version"].nunique() >= 2
    assert rows.loc[rows["version"].isin(["served", "prior"]), "cpu_seconds"].isna().all()


def test_the_block_equals_its_days_one_by_one(before: World, after: World, tmp_path: Path) -> None:
    one_by_one = copy_of(before, tmp_path / "home")
    for day in span(STRIKE, LAST):
        close(one_by_one, [day])
    assert_same(after, one_by_one)


def test_the_check_of_the_declaration_says_how_often_a_rule_would_be_wrong(after: World) -> None:
    told = [words for what, words in rules(after) if what == "rule"]
    assert told == [
        "calibration_ratio above 1.4 -> retraining, then silent for 2 days; "
        "false alarms not known before 28 days are measured"
    ]


def test_a_freeze_wins_over_the_trigger(before: World, tmp_path: Path) -> None:
    grave = OFF.model_copy(update={"tier": "severe"})
    world = copy_of(before, tmp_path / "home", parcels(incident=[grave]))
    close(world, span(STRIKE, STRIKE + 2))
    mature = span(STRIKE + 1, STRIKE + 1)[0]
    assert list(decided(world, "freeze")) == [mature]
    assert decided(world, "retrain") == {}
    held = decided(world, "hold_retraining")
    assert list(held) == [mature], "said once, not every day"
    assert held[mature].startswith("calibration")
