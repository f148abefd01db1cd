"""Profiles: exact counts and sums, whatever the order of the rows and the company of other days."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import date, timedelta
from math import fsum, inf, nan, nextafter

import duckdb
import numpy as np
import pandas as pd
import pytest

from mlops_assets.adapters.engine import frame, open_engine
from mlops_assets.monitoring_loop.bins import LEARNING_DAYS, Bins, days_to_learn, learn_bins
from mlops_assets.monitoring_loop.drift import series_from_profiles
from mlops_assets.monitoring_loop.profiles import FrozenBins, profile_features, profile_scores
from mlops_assets.tables import BY_NAME

FIRST = date(2013, 3, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(5)]


@pytest.fixture
def con():
    with open_engine() as engine:
        yield engine


def features_frame(seed: int = 0, rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "day": [day for day in DAYS for _ in range(rows)],
            "request_id": [f"{number}" for number in range(rows * len(DAYS))],
            "feature_version": "v1",
            "delay": np.round(rng.normal(10, 300, rows * len(DAYS)), 9),
            "carrier": rng.choice(["AA", "UA", None], rows * len(DAYS)),
        }
    )
    return table.sample(frac=1, random_state=seed)


def profiled(con: duckdb.DuckDBPyConnection, table: pd.DataFrame, days: Sequence[date]) -> pd.DataFrame:
    con.register("features", table)
    con.execute(BY_NAME["profiles"].create_sql("profiles"))
    profile_features(
        con,
        features="features",
        feature_version="v1",
        numeric=["delay"],
        categorical=["carrier"],
        days=days,
        into="profiles",
    )
    con.unregister("features")
    return frame(con, "select * from profiles order by day, column_name")


def test_a_profile_counts_and_sums_exactly(con):
    table = features_frame()
    table.loc[table.index[:7], "delay"] = [nan, inf, -inf, -0.0, 0.0, nan, 1.5]
    found = profiled(con, table, DAYS).set_index(["day", "column_name"])
    for day in DAYS:
        that_day = table[table["day"] == day]
        values = that_day["delay"][np.isfinite(that_day["delay"])]
        row = found.loc[(pd.Timestamp(day), "delay")]
        assert (row["subject"], row["slice"], row["n"]) == ("v1", "all", 200)
        assert row["nulls"] == 200 - len(values)
        assert row["total"] == pytest.approx(fsum(values), rel=1e-14)
        assert row["squares"] == pytest.approx(fsum(values * values), rel=1e-14)
        assert (row["low"], row["high"]) == (values.min(), values.max())
        assert row["distinct_values"] == pytest.approx(values.nunique(), rel=0.15)
        texts = found.loc[(pd.Timestamp(day), "carrier")]
        assert texts["nulls"] == that_day["carrier"].isna().sum()
        assert texts["distinct_values"] == 2
        assert pd.isna(texts["total"])


def test_neither_the_order_of_rows_nor_other_days_change_a_bit(con):
    block = profiled(con, features_frame(rows=900), DAYS)
    shuffled = features_frame(rows=900).sample(frac=1, random_state=9)
    singles = pd.concat([profiled(con, shuffled, [day]) for day in DAYS], ignore_index=True)
    pd.testing.assert_frame_equal(block, singles, check_exact=True)


def test_a_column_without_any_value_and_a_day_without_rows(con):
    table = features_frame()
    table["delay"] = nan
    found = profiled(con, table[table["day"] != DAYS[2]], DAYS)
    assert len(found) == 2 * 4
    empty = found[found["column_name"] == "delay"]
    assert set(empty["nulls"]) == {200}
    assert set(empty["distinct_values"]) == {0}
    assert empty["total"].isna().all()


def test_scores_are_profiled_per_version_and_join_the_features_as_one_series(con):
    predictions = pd.DataFrame({"day": DAYS * 2, "model_version": ["m1"] * 5 + ["m2"] * 5, "score": np.arange(10) / 10})
    con.register("predictions", predictions)
    profiled(con, features_frame(), DAYS)
    profile_scores(con, predictions="predictions", days=DAYS, into="profiles")
    roles = pd.DataFrame({"day": DAYS, "feature_version": "v1", "model_version": ["m1", "m1", "m1", "m2", "m2"]})
    con.register("roles", roles)
    series = series_from_profiles(con, profiles="profiles", roles="roles").sort_values(["subject", "day"])

    scores = series[series["subject"] == "score"]
    assert list(scores["total"]) == [0.0, 0.1, 0.2, 0.8, 0.9]
    assert list(scores["version"]) == ["m1", "m1", "m1", "m2", "m2"]
    assert len(series[series["subject"] == "features"]) == 10


def with_bins(con: duckdb.DuckDBPyConnection, table: pd.DataFrame, learned_from: Sequence[date]) -> pd.DataFrame:
    """Profiles in bins that were learned from some of the days."""
    con.register("learned", table[table["day"].isin(learned_from)])
    bins = learn_bins(con, "learned", numeric=["delay"], categorical=["carrier"])
    con.register("features", table)
    con.execute(BY_NAME["profiles"].create_sql("profiles"))
    profile_features(
        con,
        features="features",
        feature_version="v1",
        numeric=["delay"],
        categorical=["carrier"],
        days=DAYS,
        into="profiles",
        frozen=FrozenBins(bins, dict.fromkeys(bins, DAYS[2])),
    )
    return frame(con, "select * from profiles order by day, column_name")


def test_a_month_is_the_sum_of_its_days(con):
    """Counts, sums and histograms of the days add up to those of all their rows profiled at once, bit for bit."""
    table = features_frame()
    days = with_bins(con, table, DAYS)
    days = days[days["day"] >= pd.Timestamp(DAYS[2])]
    later = table["day"].where(table["day"] < DAYS[2], DAYS[2])
    once = with_bins(con, table.assign(day=later), DAYS)
    for column in ("delay", "carrier"):
        parts = days[days["column_name"] == column]
        whole = once[(once["column_name"] == column) & (once["day"] == pd.Timestamp(DAYS[2]))].iloc[0]
        assert set(parts["bins"]) == {whole["bins"]}
        assert list(np.sum(np.stack(parts["counts"]), axis=0)) == list(whole["counts"])
        assert (parts["n"].sum(), parts["nulls"].sum()) == (whole["n"], whole["nulls"])
        assert whole["counts"].sum() == whole["n"] - whole["nulls"]


def test_zeros_have_a_bin_of_their_own_and_the_open_ends_hold_what_is_absurd(con):
    table = features_frame()
    table["delay"] = np.where(np.arange(len(table)) % 3 == 0, 0.0, np.abs(table["delay"]) + 1.0)
    table.loc[table["day"] == DAYS[4], "delay"] *= 100
    found = with_bins(con, table, DAYS[:4]).set_index(["day", "column_name"])
    calm, absurd = (found.loc[(pd.Timestamp(day), "delay")] for day in (DAYS[3], DAYS[4]))
    edges = list(calm["edges"])
    zeros = int((table[table["day"] == DAYS[3]]["delay"] == 0).sum())
    assert calm["counts"][edges.index(0.0)] == zeros
    assert calm["out_of_range"] == 0
    assert absurd["out_of_range"] > 50


def test_a_text_that_nobody_knew_is_counted_as_new(con):
    table = features_frame()
    table.loc[(table["day"] == DAYS[4]) & (table["carrier"] == "UA"), "carrier"] = "U2"
    found = with_bins(con, table, DAYS[:4]).set_index(["day", "column_name"])
    calm, renamed = (found.loc[(pd.Timestamp(day), "carrier")] for day in (DAYS[3], DAYS[4]))
    moved = int((table[table["day"] == DAYS[4]]["carrier"] == "U2").sum())
    assert (calm["new_category"], renamed["new_category"], renamed["counts"][-1]) == (0, moved, moved)
    assert not calm["is_constant"]


def test_before_its_bins_are_frozen_a_column_has_no_histogram(con):
    found = with_bins(con, features_frame(), DAYS)
    early = found[found["day"] < pd.Timestamp(DAYS[2])]
    assert early["counts"].isna().all() and early["bins"].isna().all()
    assert early["n"].gt(0).all()


def test_bins_freeze_on_the_day_after_two_weeks_with_values():
    days = [FIRST + timedelta(days=number) for number in range(30)]
    learned = days_to_learn({"early": days, "late": days[3:], "never": days[:5]}, days)
    assert learned["early"].since == days[LEARNING_DAYS]
    assert learned["late"].since == days[LEARNING_DAYS + 3]
    assert learned["late"].from_days == tuple(days[3 : LEARNING_DAYS + 3])
    assert "never" not in learned


def test_awkward_numbers_are_summed_and_counted_as_fractions_and_bisection_would(con):
    """Edges side by side, values on an edge, huge ones whose squares no double holds, infinities and nulls."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 3, 9000).round(1), rng.normal(0, 1e12, 900), [0.0, -0.0, nan, inf, -inf]])
    edges = tuple(sorted({*np.linspace(-9, 9, 40).round(2), nextafter(0.0, -inf), 0.0, nextafter(1.0, -inf), 1.0}))
    bins = FrozenBins({"x": Bins(edges=edges)}, {})
    con.register("given", pd.DataFrame({"day": FIRST, "feature_version": "v1", "x": values}))
    profile_features(con, features="given", feature_version="v1", numeric=["x"], categorical=[], days=[FIRST],
                     into="profiles", frozen=bins)  # fmt: skip
    row = frame(con, "select * from profiles").iloc[0]
    known = values[np.isfinite(values)]
    small, large = known[np.abs(known) < 1e9], known[np.abs(known) >= 1e9]
    squares = sum(int(np.rint(x * x * 1e12)) for x in small) / 1e12 + sum(int(np.rint(x * x)) for x in large)

    assert row["nulls"] == 3
    assert row["total"] == pytest.approx(sum(int(np.rint(x * 1e9)) for x in known) / 1e9, rel=1e-15)
    assert row["squares"] == pytest.approx(squares, rel=1e-15)
    assert list(row["counts"]) == np.bincount([bisect_left(edges, x) for x in known], minlength=len(edges) + 1).tolist()
