"""What answering cost, how long it took and what failed: counted so that days, versions and slices add up."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_assets import LabelDefinition
from mlops_assets.adapters.calendar import Calendar
from mlops_assets.adapters.engine import frame, open_engine, put, register_days
from mlops_assets.monitoring_loop.operations import GAMMA, bin_of, measure_operations, operations_series
from mlops_assets.tables import BY_NAME

FIRST = date(2013, 7, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(6)]
CALENDAR = Calendar("UTC")
LABEL = LabelDefinition(
    version="late", source="arrivals", request_id="id", value="true", window_hours=48, never_labelled="cancelled"
)


@pytest.fixture
def con():
    with open_engine() as engine:
        register_days(engine, CALENDAR, DAYS[0], DAYS[-1])
        yield engine


def predictions(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    """Requests to two places on every day, scored by a champion that serves and a fallback that does not."""
    rng = np.random.default_rng(seed)
    parts = []
    for day in DAYS:
        for role, price in (("champion", 0.002), ("fallback", 0.0001)):
            parts.append(
                pd.DataFrame(
                    {
                        "day": day,
                        "request_id": [f"{day}-{number}" for number in range(rows)],
                        "model_version": role,
                        "role": role,
                        "served": role == "champion",
                        "status": rng.choice(["ok", "ok", "ok", "error", "timeout"], rows),
                        "context": [
                            '{"dest":"SFO"}' if number % 3 == 0 else '{"dest":"LAX"}' for number in range(rows)
                        ],
                        "predicted_at": [pd.Timestamp(day) + pd.Timedelta(minutes=10 + 20 * n) for n in range(rows)],
                        "latency_ms": rng.lognormal(3, 1, rows),
                        "cost": price,
                    }
                )
            )
    return pd.concat(parts).sample(frac=1, random_state=seed).reset_index(drop=True)


def labels(without: set[str]) -> pd.DataFrame:
    """A label 20 hours after each request, except for some."""
    asked = predictions().query("served and request_id not in @without")
    at = asked["predicted_at"] + pd.Timedelta(hours=20)
    return pd.DataFrame(
        {
            "day": at.dt.date,
            "request_id": asked["request_id"],
            "label_version": "late",
            "value": 1.0,
            "event_at": at,
            "known_at": at,
        }
    )


def measured(con, days, table: pd.DataFrame, told: pd.DataFrame | None = None, limit: float | None = None):
    for name, rows in (("predictions", table), ("labels", labels(set()) if told is None else told)):
        kept = rows.reset_index(drop=True)
        put(con, name, kept.astype({c: "datetime64[us]" for c in kept.columns if c.endswith("_at")}))
    con.execute("drop table if exists operations")
    measure_operations(
        con, predictions="predictions", labels="labels", label=LABEL, max_label_delay_hours=limit, days=days,
        slices=["dest"], into="operations",
    )  # fmt: skip
    return frame(con, "select * from operations order by day, version, slice")


def row(table: pd.DataFrame, day: date, version: str, part: str = "all") -> pd.Series:
    found = table[(table["day"] == pd.Timestamp(day)) & (table["version"] == version) & (table["slice"] == part)]
    assert len(found) == 1
    return found.iloc[0]


def test_a_day_counts_what_failed_what_it_cost_and_its_busiest_hour(con):
    asked = predictions()
    one = row(measured(con, DAYS, asked), DAYS[2], "champion")
    mine = asked[(asked["day"] == DAYS[2]) & (asked["model_version"] == "champion")]
    assert one["n"] == 60 and one["peak_per_hour"] == 3
    assert one["errors"] == (mine["status"] == "error").sum()
    assert one["timeouts"] == (mine["status"] == "timeout").sum()
    assert one["error_share"] == pytest.approx((one["errors"] + one["timeouts"]) / 60)
    assert (one["cost"], one["cost_per_1000"]) == (0.12, 2.0)


def test_whatever_answered_stands_beside_the_versions(con):
    table = measured(con, DAYS, predictions())
    champion, served = row(table, DAYS[0], "champion"), row(table, DAYS[0], "served")
    assert (champion["n"], champion["cost"]) == (served["n"], served["cost"])
    assert set(table["version"]) == {"champion", "fallback", "served"}


def test_a_percentile_is_off_by_at_most_one_percent(con):
    asked = predictions(rows=70)
    one = row(measured(con, DAYS, asked), DAYS[0], "champion")
    mine = np.sort(asked[(asked["day"] == DAYS[0]) & (asked["model_version"] == "champion")]["latency_ms"])
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        exact = mine[int(np.ceil(share * len(mine))) - 1]
        assert one[name] == pytest.approx(exact, rel=0.0101)


def test_histograms_of_slices_add_up_to_that_of_all(con):
    table = measured(con, DAYS, predictions())
    parts: Counter[int] = Counter()
    for dest in ("dest=SFO", "dest=LAX"):
        one = row(table, DAYS[1], "served", dest)
        parts += Counter(dict(zip(one["latency_bins"], one["latency_counts"], strict=True)))
    whole = row(table, DAYS[1], "served")
    assert dict(zip(whole["latency_bins"], whole["latency_counts"], strict=True)) == parts


def test_the_bins_of_python_and_of_sql_are_the_same(con):
    asked = predictions().assign(latency_ms=np.geomspace(1e-9, 1e6, 720))
    table = measured(con, DAYS, asked).query("slice == 'all' and version != 'served'")
    counted: Counter[int] = Counter()
    for one in table.itertuples():
        counted += Counter(dict(zip(one.latency_bins, one.latency_counts, strict=True)))
    assert counted == Counter(bin_of(value) for value in asked["latency_ms"])
    assert GAMMA ** bin_of(37.0) >= 37.0 > GAMMA ** (bin_of(37.0) - 1)


def test_a_block_of_days_equals_the_days_one_by_one_whatever_the_order_of_the_rows(con):
    content = list(BY_NAME["operations"].content)
    block = measured(con, DAYS, predictions())[content]
    single = pd.concat(
        [measured(con, [day], predictions().sample(frac=1, random_state=9))[content] for day in DAYS], ignore_index=True
    )
    pd.testing.assert_frame_equal(block, single, check_exact=True)


def test_a_request_without_a_label_counts_on_the_day_its_window_ends(con):
    """Requests of 3 July to San Francisco are never labelled: it shows on the 5th, and in that slice alone."""
    cancelled = {f"{DAYS[2]}-{number}" for number in range(0, 60, 3)}
    table = measured(con, DAYS, predictions(), labels(cancelled))
    ended = row(table, DAYS[4], "served")
    assert (ended["matured"], ended["unlabelled"]) == (60, 20)
    assert row(table, DAYS[4], "served", "dest=SFO")["unlabelled"] == 20
    assert row(table, DAYS[4], "served", "dest=LAX")["unlabelled"] == 0
    assert table.loc[(table["version"] == "served") & (table["day"] != pd.Timestamp(DAYS[4])), "unlabelled"].sum() == 0


def test_a_label_later_than_promised_is_slow(con):
    assert row(measured(con, DAYS, predictions(), limit=19.0), DAYS[3], "served")["slow_labels"] == 60
    assert row(measured(con, DAYS, predictions(), limit=21.0), DAYS[3], "served")["slow_labels"] == 0


def test_the_monitor_gets_what_is_missing_as_nulls_and_latencies_only_on_demand(con):
    measured(con, DAYS, predictions(), labels({f"{DAYS[2]}-0"}))
    series = operations_series(con, operations="operations", with_latency=False)
    assert set(series["subject"]) == {"operations"}
    assert set(series["column_name"]) == {"answers", "champion_answers", "labels", "cost"}
    lost = series.query("column_name == 'labels'").set_index("day")["nulls"]
    assert lost[pd.Timestamp(DAYS[4])] == 1 and lost.sum() == 1
    watched = operations_series(con, operations="operations", with_latency=True)
    latencies = watched.query("column_name == 'latency_ms'").iloc[0]
    assert latencies["n"] == 60 and latencies["nulls"] == 0 and latencies["total"] > 0
