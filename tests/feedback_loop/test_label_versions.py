"""What a label means is versioned: two meanings never mix, may stand side by side, and a silent change surfaces."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from states import assert_same
from toy_log import a_log, a_log_service, deliver_log, deliver_with_accidents
from toy_stories import on, stored, untrained
from toy_world import FIRST, a_service, a_world, close, deliver_all, span

from mlops_assets import DeclarationError, DriftPolicy, LabelDefinition
from mlops_assets.adapters.engine import frame, open_engine, put
from mlops_assets.adapters.people_sql import ask
from mlops_assets.closing.comparing import comparison_page
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.label_comparison import label_agreement_sql, label_quality_sql
from mlops_assets.feedback_loop.labels import label_timing_sql
from mlops_assets.monitoring_loop.drift import find_drift
from mlops_assets.monitoring_loop.profiles import insert_profiles, profile_labels
from mlops_assets.promises import promises
from mlops_assets.status import status_lines, status_of
from mlops_assets.summary import summary_lines

SWITCH = span(4, 4)[0]
STRICT = a_service().label.model_copy(
    update={"version": "late2_v2", "value": "delay_min > 2", "effective_from": SWITCH}
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nine days of parcels; from day 4 on a stricter definition of late runs beside the old one."""
    world = a_world(tmp_path_factory.mktemp("both"), untrained(label=(a_service().label, STRICT)))
    deliver_all(world.home.landing, span(0, 8))
    close(world, span(0, 8))
    return world


def test_an_old_and_a_new_definition_run_side_by_side_and_never_mix(both: World) -> None:
    labels, quality = stored(both, "labels"), stored(both, "quality")
    assert set(labels[labels["day"] < SWITCH]["label_version"]) == {"late10_v1"}
    assert set(on(labels, SWITCH)["label_version"]) == {"late10_v1", "late2_v2"}
    new = quality[quality["label_version"] == "late2_v2"]
    assert new["prediction_day"].dt.date.min() == SWITCH
    last = new[(new["metric"] == "positive_share") & (new["window_days"] == 1) & (new["state"] == "final")]
    old = quality.merge(last, on=["day", "prediction_day", "window_days", "version", "role", "slice", "metric"])
    old = old[old["label_version_x"] == "late10_v1"]
    assert len(old) and (old["value_x"] < old["value_y"]).all(), "later than 2 minutes happens more often than 10"


def test_the_summary_of_a_replay_counts_a_prediction_once_under_the_definition_in_force(both: World) -> None:
    outcomes, labels = stored(both, "outcomes").query("served"), stored(both, "labels")
    mine = outcomes[outcomes["label_version"] == "late10_v1"].dropna(subset="value")
    brier = ((mine["score"] - mine["value"]) ** 2).mean()
    told = labels[(labels["label_version"] == "late10_v1") & labels["value"].notna()]
    lines = list(summary_lines(both, None))
    (month,) = [line.split() for line in lines if line.startswith("  2024-03")]
    assert month[1] == f"{outcomes['request_id'].nunique():,}" and month[4] == f"{brier:.4f}"
    assert f"labels       {len(told):,}" in lines


def test_a_page_compares_the_definitions_on_the_requests_that_both_label(both: World) -> None:
    with open_engine() as con:
        put(con, "labels", stored(both, "labels").drop(columns="kpi"))
        ((first, second, n, rate, other, agreement, kappa, *_),) = con.sql(label_agreement_sql("labels")).fetchall()
    labels = stored(both, "labels").sort_values("known_at").groupby(["request_id", "label_version"])["value"].last()
    pairs = labels.unstack().dropna()
    by_chance = pairs.mean().prod() + (1 - pairs.mean()).prod()
    same = (pairs["late10_v1"] == pairs["late2_v2"]).mean()
    assert (first, second, n) == ("late10_v1", "late2_v2", len(pairs))
    assert (rate, other) == pytest.approx(tuple(pairs.mean()))
    assert (agreement, kappa) == pytest.approx((same, (same - by_chance) / (1 - by_chance)))


def test_the_page_says_what_each_model_is_worth_under_both_definitions_on_the_same_requests(both: World) -> None:
    """Computed again from the stored outcomes with scikit-learn; the numbers of ``mlops status`` are these."""
    from sklearn.metrics import roc_auc_score

    (compared,) = status_of(both)["label_definitions"]
    outcomes = stored(both, "outcomes").pivot(index=["request_id", "model_version", "score"], columns="label_version",
                                              values="value").dropna().reset_index()  # fmt: skip
    (model,) = compared["models"]
    old, new, score = outcomes["late10_v1"], outcomes["late2_v2"], outcomes["score"]
    assert model["n"] == len(outcomes) > 50
    for labels, prefix in ((old, ""), (new, "other_")):
        assert model[f"{prefix}brier"] == pytest.approx(((score - labels) ** 2).mean(), abs=1e-9)
        assert model[f"{prefix}auc"] == pytest.approx(roc_auc_score(labels, score), abs=1e-9)
    lines = list(status_lines(status_of(both)))
    (first,) = [number for number, line in enumerate(lines) if line.startswith("  labels ")]
    assert "late10_v1 beside late2_v2" in lines[first] and f"kappa {compared['kappa']:.2f}" in lines[first]
    assert lines[first + 1].strip().startswith(f"prior: {len(outcomes)} answers, Brier {model['brier']:.4f} and ")
    page = comparison_page([compared])
    assert page.splitlines()[-1].startswith(f"| prior | {len(outcomes)} | {model['brier']:.4f} | ")
    earlier = status_of(both, span(6, 6)[0])["label_definitions"][0]
    assert earlier["n"] < compared["n"] and status_of(both, span(3, 3)[0])["label_definitions"] == []


def test_auc_under_both_definitions_is_that_of_scikit_learn() -> None:
    """With ties between scores, and a definition under which nothing is positive."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(5)
    score, old = rng.integers(1, 9, 200) / 10, rng.integers(0, 2, 200).astype(float)
    rows = pd.DataFrame({"request_id": [str(n) for n in range(200)], "model_version": "m", "score": score})
    told = pd.concat([rows.assign(label_version="v1", value=old), rows.assign(label_version="v2", value=0.0)])
    with open_engine() as con:
        put(con, "told", told)
        (row,) = frame(con, label_quality_sql(a_service(), "told", "predictions")).to_dict("records")
    assert row["auc"] == pytest.approx(roc_auc_score(old, score), abs=1e-12) and pd.isna(row["other_auc"])


def test_a_changed_meaning_without_a_new_version_is_refused(both: World) -> None:
    changed = a_service().label.model_copy(update={"value": "delay_min > 30"})
    again = World(untrained(label=changed), both.home)
    with pytest.raises(DeclarationError) as refused:
        close(again, span(9, 9))
    assert str(refused.value) == (
        "service 'parcels' > label 'late10_v1': value was 'delay_min > 10' and is 'delay_min > 30', under the same "
        "version. Give the new meaning a new version, and keep the old one beside it while you compare them."
    )
    with pytest.raises(DeclarationError) as checked:
        list(promises(again))
    assert str(checked.value) == str(refused.value), "a check says so before a day is closed"


BY_CUSTOMER = LabelDefinition(
    version="default_v2", source="payments", value="defaulted", window_hours=72, never_labelled="not taken",
    attribution="last", entity="customer", request_entity="customer", needs_decision=True,
)  # fmt: skip
"""Payments that name the customer and not the request; a customer may have asked several times in the window."""


def test_an_attributed_label_goes_through_the_day_loop(tmp_path: Path) -> None:
    decided = a_log(decision="score >= 0.5")
    world = a_world(tmp_path, a_log_service(label=BY_CUSTOMER, prediction_log=decided))
    deliver_log(world.home.landing, span(0, 4))
    close(world, span(0, 4))
    labels, asked = stored(world, "labels"), stored(world, "predictions").set_index("request_id")
    assert len(labels) > 50 and set(labels["request_id"]) <= set(asked.index)
    watched = stored(world, "profiles").query("subject == 'default_v2'").groupby("column_name")["total"].sum()
    assert {"label", "delay_hours", "unattributed", "several_candidates", "own_decision"} <= set(watched.index)
    assert watched["several_candidates"] > 0 and watched["own_decision"] > 0
    served = stored(world, "predictions").query("served").set_index("request_id")["decision"]
    own = stored(world, "labels")["request_id"].map(served).dropna().astype(float).mean()
    assert 0.3 < own < 0.7
    assert f"  own labels      {own:.1%} of 28 days' labels exist only because of our own decision" in status_lines(
        status_of(world)
    )


@pytest.mark.slow
def test_an_outcome_told_on_an_earlier_day_is_taken_over_whether_days_close_together_or_one_by_one(
    tmp_path: Path,
) -> None:
    """Half the answers of day 9 are logged a day late: outcomes told before they were change hands on day 10."""
    service = a_log_service(label=BY_CUSTOMER, prediction_log=a_log(decision="score >= 0.5"))
    worlds = [a_world(tmp_path / name, service) for name in ("block", "days")]
    for world, parts in zip(worlds, ([span(0, 11)], [span(n, n) for n in range(12)]), strict=True):
        deliver_with_accidents(world.home.landing)
        for part in parts:
            close(world, part)
    lost = stored(worlds[0], "labels").query("value.isna()")
    assert len(lost), "a request that loses its outcome is told so"
    assert_same(*worlds)


def test_dagster_shows_the_comparison_beside_the_labels_of_the_last_closed_day(both: World) -> None:
    from mlops_assets.adapters.dagster_events import definitions_page

    page = definitions_page(both, span(8, 8)[0])["definitions side by side"].md_str
    assert page is not None and page.startswith("**late10_v1 beside late2_v2**: ")


def a_shop(redesigned_on: date, days: int = 60) -> pd.DataFrame:
    """Label events of a shop: *bought* is an event of the checkout page, ``kpi`` the revenue of the visit.

    From one day on the page shows its event when a basket is opened: more labels, sooner, no more revenue.
    """
    rng = np.random.default_rng(7)
    parts = []
    for day in (FIRST + timedelta(days=n) for n in range(days)):
        is_new = day >= redesigned_on
        paid = rng.uniform(size=400) < 0.2
        bought = paid | (rng.uniform(size=400) < 0.25) if is_new else paid
        minutes = rng.gamma(2, 5 if is_new else 30, 400)
        start = pd.Timestamp(day)
        parts.append(pd.DataFrame({
            "day": start, "request_id": [f"{day}-{n}" for n in range(400)], "label_version": "bought_v1",
            "value": bought.astype(float), "kpi": paid * rng.gamma(4, 10, 400),
            "known_at": start + pd.to_timedelta(minutes, unit="m"), "predicted_at": start,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def findings(events: pd.DataFrame) -> pd.DataFrame:
    """What the monitor says about the label series of the last 25 days."""
    with open_engine() as con:
        put(con, "labels", events.drop(columns="predicted_at"))
        put(con, "predictions", events[["request_id", "predicted_at"]].assign(served=True, decision=True))
        put(con, "block_days", events[["day"]].drop_duplicates())
        days = sorted(set(events["day"].dt.date))
        profile_labels(con, labels="labels", days=days, into="profiles")
        timing = label_timing_sql(labels="labels", predictions="predictions", needs_decision=False, has_kpi=True)
        columns = dict.fromkeys(("delay_hours", "per_kpi"), True)
        insert_profiles(con, "profiles", f"({timing})", "label_version", columns, {}, days)
        series = frame(con, "select *, 'labels' as subject_, subject as version from profiles")
    series = series.assign(subject="labels")
    drift = find_drift(series, days=days[-25:], policy=DriftPolicy(), critical=(), blocked=())
    return drift[drift["tier"] == "moderate"]


def test_a_checkout_redesign_surfaces_though_our_text_is_unchanged() -> None:
    """The drill: rate, delay and labels per revenue leave their baselines on the day of the redesign."""
    redesign = FIRST + timedelta(days=45)
    found = findings(a_shop(redesign))
    on_the_day: Any = found[pd.to_datetime(found["day"]).dt.date == redesign]
    assert set(on_the_day["column_name"]) == {"label", "delay_hours", "per_kpi"}
    assert (pd.to_datetime(found["day"]).dt.date >= redesign).all()


def test_a_shop_that_changes_nothing_is_left_alone() -> None:
    assert findings(a_shop(FIRST + timedelta(days=1000))).empty


def test_people_ask_for_the_comparison_and_lock_nobody_else_out(both: World, tmp_path: Path) -> None:
    """Asked twice in one process; what the day loop opens beside it still reads the landing zone."""
    pd.DataFrame({"n": [1]}).to_parquet(tmp_path / "landed.parquet")
    for _ in range(2):
        answer = ask([both.service], both.home, "select version, other, n, kappa from parcels.label_agreement")
        ((first, second, n, kappa),) = answer.rows
        assert (first, second) == ("late10_v1", "late2_v2") and n > 50 and 0 < kappa < 1
    with open_engine() as con:
        assert con.sql(f"select n from read_parquet('{tmp_path}/landed.parquet')").fetchall() == [(1,)]
