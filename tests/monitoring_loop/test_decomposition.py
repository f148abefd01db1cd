"""Worse because other requests came, or because the same ones turn out differently? And where?"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_assets import LabelDefinition
from mlops_assets.adapters.engine import open_engine, put
from mlops_assets.monitoring_loop.decomposition import (
    auc_of,
    decompose,
    explain_change,
    holding_slices,
    split,
    unusual_slices,
)

FIRST = date(2013, 6, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(40)]
BEFORE, AFTER = DAYS[:28], DAYS[28:35]
LABEL = LabelDefinition(version="v", source="a", request_id="id", value="true", window_hours=48, never_labelled="none")


def requests(rng: np.random.Generator, *, hard_share: float, rows: int = 400) -> pd.DataFrame:
    """Requests of which some are hard (score .5) and the others easy (.1), turning out as the score says."""
    is_hard = rng.random(rows) < np.clip(hard_share + rng.normal(0, 0.03), 0, 1)
    score = np.where(is_hard, 0.5, 0.1)
    return pd.DataFrame({"score": score, "value": (rng.random(rows) < score).astype(float)})


def told(con, *, hard_share: float, lift: float, where: str | None = None, metric: str = "log_loss", seed: int = 0):
    """Why the last seven days are worse: more hard requests, or ``lift`` of all (of one slice) turning out badly."""
    rng = np.random.default_rng(seed)
    parts = []
    for day in [*BEFORE, *AFTER]:
        is_new = day in AFTER
        table = requests(rng, hard_share=hard_share if is_new else 0.2)
        table["dest"] = rng.choice(["SFO", "LAX", "ORD"], len(table), p=[0.1, 0.5, 0.4])
        hit = (table["dest"] == where) if where else True
        flips = (rng.random(len(table)) < lift) & hit & is_new
        parts.append(table.assign(prediction_day=day, value=np.where(flips, 1.0, table["value"])))
    table = pd.concat(parts, ignore_index=True)
    at = pd.to_datetime(table["prediction_day"])
    table = table.assign(
        request_id=[str(n) for n in range(len(table))], served=True, predicted_at=at.astype("datetime64[us]"),
        context=[f'{{"dest":"{dest}"}}' for dest in table["dest"]],
    )  # fmt: skip
    put(con, "predictions", table.drop(columns=["value", "dest"]))
    known = table[["request_id", "value"]].assign(
        label_version="v", day=table["prediction_day"], event_at=table["predicted_at"], known_at=table["predicted_at"]
    )
    put(con, "labels", known)
    return explain_change(
        con, predictions="predictions", labels="labels", label=LABEL, slices=["dest"], metric=metric, after=AFTER,
        before=BEFORE, as_of=DAYS[-1],
    )  # fmt: skip


@pytest.fixture
def con():
    with open_engine() as engine:
        yield engine


def test_harder_requests_are_a_covariate_shift(con):
    found = told(con, hard_share=0.6, lift=0.0)
    assert found.kind == "covariate"
    assert found.covariate.value == pytest.approx(found.after - found.before, abs=0.02)


def test_the_same_requests_turning_out_worse_are_a_concept_shift(con):
    found = told(con, hard_share=0.2, lift=0.2)
    assert found.kind == "concept" and "(concept shift)" in found.in_words()


def test_both_at_once_are_told_apart_and_add_up(con):
    found = told(con, hard_share=0.6, lift=0.2)
    assert found.kind == "both"
    assert found.covariate.value + found.concept.value == pytest.approx(found.after - found.before)


def test_no_change_is_unclear_and_names_no_slice(con):
    found = told(con, hard_share=0.2, lift=0.0)
    assert found.kind == "unclear" and found.slices == ()


def test_the_slice_that_holds_a_drop_is_named(con):
    found = told(con, hard_share=0.2, lift=0.6, where="SFO")
    assert found.slices[0][0] == "dest=SFO" and found.slices[0][1] > 0.5
    assert "dest=SFO holds" in found.in_words()


def test_a_named_slice_has_an_interval_and_says_what_happened_inside_of_it(con):
    """Its own rows turned out worse; others came to it as before. One good day more or less moves its share a bit."""
    (held,) = told(con, hard_share=0.2, lift=0.6, where="SFO").slices
    assert 0.3 < held.low < held.share < held.high
    assert held.concept is not None and held.covariate is not None
    assert held.concept.is_sure and held.concept.value > 5 * abs(held.covariate.value)
    assert f"({held.low:.0%} to {held.high:.0%}), in itself covariate" in held.in_words()


def test_a_calibration_gap_and_a_fallen_auc_are_taken_apart_as_well(con):
    """Harder requests that turn out as predicted leave no gap; requests that turn out worse do."""
    harder = told(con, hard_share=0.6, lift=0.0, metric="calibration_ratio")
    worse = told(con, hard_share=0.2, lift=0.2, metric="calibration_ratio")
    assert harder.kind == "unclear"
    assert worse.kind == "concept" and worse.after - worse.before > 0.1
    assert worse.in_words().startswith("observed minus predicted positives ")
    ranked = told(con, hard_share=0.2, lift=0.3, metric="auc")
    assert ranked.kind == "concept" and ranked.after < ranked.before
    assert ranked.covariate.value + ranked.concept.value == pytest.approx(ranked.after - ranked.before)
    assert ranked.in_words().startswith("AUC over score bins ") and ranked.slices == ()


def test_the_auc_of_bins_is_the_chance_that_a_positive_ranks_higher():
    assert float(auc_of(np.array([0.5, 0.5]), np.array([0.0, 1.0]))) == 1.0
    assert float(auc_of(np.array([0.5, 0.5]), np.array([0.3, 0.3]))) == pytest.approx(0.5)
    assert np.isnan(auc_of(np.array([0.5, 0.5]), np.array([0.0, 0.0])))


def test_a_bin_that_only_one_period_has_is_part_of_the_covariate_shift():
    before, after = np.array([100.0, 0.0]), np.array([50.0, 50.0])
    covariate, concept = split(before, np.array([10.0, 0.0]), after, np.array([5.0, 25.0]))
    assert (round(float(covariate), 9), round(float(concept), 9)) == (0.2, 0.0)


def test_two_days_are_too_few_for_an_explanation():
    days = np.ones((2, 3))
    assert decompose(np.ones((28, 3)), np.ones((28, 3)), days, days) is None


def test_the_interval_counts_days_and_not_rows():
    """Days differ: with a day effect of .05 the split of a quiet week is sure of itself in one of twenty."""
    rng = np.random.default_rng(4)
    sure = 0
    for _ in range(200):
        n = np.full((35, 1), 900.0)
        loss = n * (0.2 + rng.normal(0, 0.05, (35, 1)))
        sure += decompose(n[:28], loss[:28], n[28:], loss[28:]).concept.is_sure
    assert sure <= 20


def test_a_slice_that_holds_its_share_of_a_drop_is_not_named():
    before = {"all": (1000.0, 100.0), "by=UA": (500.0, 50.0), "by=AA": (500.0, 50.0)}
    after = {name: (n, 2 * loss) for name, (n, loss) in before.items()}
    assert holding_slices(before, after) == ()


def routes(shut: dict[tuple[int, str], int], storm: int | None = None) -> pd.DataFrame:
    """Ten routes with 40 requests a day of which one or two have no label; ``shut`` puts more on one of them."""
    rng = np.random.default_rng(3)
    rows = []
    for number, day in enumerate(DAYS):
        bads = {f"to={name}": int(rng.binomial(40, 0.5 if number == storm else 0.03)) for name in "ABCDEFGHIJ"}
        bads |= {name: bad for (when, name), bad in shut.items() if when == number}
        rows += [(day, name, 40, bad) for name, bad in bads.items()] + [(day, "all", 400, sum(bads.values()))]
    return pd.DataFrame(rows, columns=["day", "slice", "n", "bad"])


def test_a_shut_route_stands_out_although_the_whole_hardly_moves():
    (found,) = unusual_slices(routes({(35, "to=C"): 20}), DAYS)
    assert (found.day, found.slice, found.n, found.bad) == (DAYS[35], "to=C", 40, 20)


def test_a_storm_over_all_routes_names_none_of_them():
    assert unusual_slices(routes({}, storm=35), DAYS) == []


def test_a_route_that_is_often_bad_is_not_unusual():
    often = {(number, "to=C"): 20 for number in range(5, 40, 4)}
    assert [one.day for one in unusual_slices(routes(often), DAYS[30:])] == []


def test_unusual_slices_of_a_block_are_those_of_its_days_one_by_one():
    table = routes({(33, "to=C"): 20, (36, "to=D"): 25})
    block = unusual_slices(table, DAYS[30:])
    assert block == [one for day in DAYS[30:] for one in unusual_slices(table, [day])]
    assert len(block) == 2
