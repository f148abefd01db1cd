"""No feature knows what could not be read yet, and none depends on what else was computed with it.

`expected_features` is the definition in slow, obvious Python: for each request, look at every row.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlops_assets.adapters.engine import open_engine, rows
from mlops_assets.feature_loop.point_in_time import compute_features, spine_sql
from mlops_assets.service.features import (
    Aggregate,
    FeatureSet,
    LatestView,
    Request,
    RequestView,
    StaticView,
    View,
    WindowView,
)
from mlops_assets.service.sources import Expected, Source

T = datetime(2013, 6, 1, 12)
HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
WINDOWS = (2, 6)


@dataclass(frozen=True)
class Ask:
    """One request."""

    request_id: str
    predicted_at: datetime
    place: str | None = "jfk"
    miles: float | None = 100.0


@dataclass(frozen=True)
class Row:
    """One source row."""

    row_id: int
    available_at: datetime
    place: str | None = "jfk"
    delay: float | None = 1.0
    late: bool | None = None
    event_at: datetime = T - 100 * HOUR


def a_source(name: str, columns: dict[str, str], key: str) -> Source:
    times = {"event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}
    return Source(
        name=name,
        description="",
        columns={key: "VARCHAR", **columns, **times},
        key=(key,),
        expected=Expected(first=date(2013, 1, 1)),
        on_missing_day="block",
        contract=name,
    )


ASKS = a_source("asks", {"predicted_at": "TIMESTAMP", "place": "VARCHAR", "miles": "DOUBLE"}, "request_id")
FLIGHTS = a_source("flights", {"place": "VARCHAR", "delay": "DOUBLE", "late": "BOOLEAN"}, "row_id")

AGGREGATES = {
    "rows": Aggregate(function="count"),
    "delays": Aggregate(function="count", expression="delay"),
    "total": Aggregate(function="sum", expression="delay", decimals=1),
    "mean": Aggregate(function="mean", expression="delay", decimals=1),
    "whole": Aggregate(function="mean", expression="delay"),
    "spread": Aggregate(function="std", expression="delay", decimals=1),
    "least": Aggregate(function="min", expression="delay", decimals=1),
    "most": Aggregate(function="max", expression="delay", decimals=1),
    "share": Aggregate(function="rate", expression="late"),
}
BY_PLACE, BY_NOTHING = {"place": "place"}, {}


def a_window(name: str, keys: dict[str, str], where: str | None = None) -> WindowView:
    named = {f"{name}_{aggregate}": declared for aggregate, declared in AGGREGATES.items()}
    return WindowView(name=name, source="flights", keys=keys, windows_hours=WINDOWS, aggregates=named, where=where)


def the_latest(**changed: Any) -> LatestView:
    declared = {"keys": BY_PLACE, "features": {"newest": "delay", "newest_id": "row_id"}, "max_age_hours": 3}
    return LatestView(name="latest", source="flights", categorical=("newest_id",), **{**declared, **changed})


EVERY_KIND: tuple[View, ...] = (
    RequestView(name="asked", features={"km": "miles * 1.609344", "where_to": "place"}, categorical=("where_to",)),
    the_latest(),
    StaticView(name="lookup", source="flights", keys=BY_PLACE, features={"ever": "delay"}),
    a_window("place", BY_PLACE),
    a_window("all", BY_NOTHING),
    a_window("early", BY_PLACE, where="delay < 0"),
)


def a_feature_set(*views: View) -> FeatureSet:
    request = Request(source="asks", request_id="request_id", predicted_at="predicted_at", columns=("place", "miles"))
    return FeatureSet(request=request, views=views, sources=(ASKS, FLIGHTS))


# --- the definition, row by row -------------------------------------------------------------------


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def in_units(value: float | None, decimals: int) -> int | None:
    """A number as the whole number of its last decimal place, halves away from zero."""
    if finite(value) is None:
        return None
    return int(Decimal(value * 10**decimals).quantize(Decimal(1), ROUND_HALF_UP))


def statistic(aggregate: Aggregate, seen: Sequence[Row]) -> float | None:
    if aggregate.function == "count":
        return len([row for row in seen if aggregate.expression == "1" or row.delay is not None])
    if aggregate.function == "rate":
        held = [row.late for row in seen if row.late is not None]
        return sum(held) / len(held) if held else None
    units = [unit for row in seen if (unit := in_units(row.delay, aggregate.decimals)) is not None]
    if not units or (aggregate.function == "std" and len(units) < 2):
        return None
    mean = Fraction(sum(units), len(units))
    found = {
        "sum": lambda: sum(units),
        "mean": lambda: mean,
        "min": lambda: min(units),
        "max": lambda: max(units),
        "std": lambda: math.sqrt(sum((unit - mean) ** 2 for unit in units) / (len(units) - 1)),
    }[aggregate.function]()
    return float(found) / 10**aggregate.decimals


def expected_features(ask: Ask, table: Sequence[Row]) -> dict[str, Any]:
    """What EVERY_KIND says about one request."""
    known = [row for row in table if row.available_at <= ask.predicted_at]
    here = [row for row in known if row.place is not None and row.place == ask.place]
    newest = max(here, key=lambda row: (row.available_at, row.event_at, str(row.row_id)), default=None)
    is_fresh = newest is not None and ask.predicted_at - newest.available_at <= 3 * HOUR
    answer: dict[str, Any] = {
        "km": None if ask.miles is None else ask.miles * 1.609344,
        "where_to": ask.place,
        "newest": finite(newest.delay) if is_fresh else None,
        "newest_id": str(newest.row_id) if is_fresh else None,
        "ever": finite(newest.delay) if newest else None,
    }
    early = [row for row in here if row.delay is not None and row.delay < 0]
    for view, readable in {"place": here, "all": known, "early": early}.items():
        for name, aggregate in AGGREGATES.items():
            for hours in WINDOWS:
                seen = [row for row in readable if row.available_at > ask.predicted_at - hours * HOUR]
                answer[f"{view}_{name}_{hours}h"] = statistic(aggregate, seen)
    return answer


# --- the same by the package ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine() as connection:
        yield connection


def computed(
    con: duckdb.DuckDBPyConnection, asks: Sequence[Ask], table: Sequence[Row], *views: View
) -> dict[str, dict[str, Any]]:
    """Request id -> its features, as stored."""
    features = a_feature_set(*(views or EVERY_KIND))
    con.execute(
        "create or replace temp table spine (request_id varchar, predicted_at timestamp, place varchar, miles double)"
    )
    con.executemany(
        "insert into spine values (?, ?, ?, ?)",
        [(ask.request_id, ask.predicted_at, ask.place, ask.miles) for ask in asks] or [(None,) * 4],
    )
    con.execute("delete from spine where request_id is null")
    con.execute(
        "create or replace temp table flights (row_id varchar, place varchar, delay double, late boolean, "
        "event_at timestamp, available_at timestamp)"
    )
    if table:
        con.executemany(
            "insert into flights values (?, ?, ?, ?, ?, ?)",
            [(r.row_id, r.place, r.delay, r.late, r.event_at, r.available_at) for r in table],
        )
    compute_features(con, features, spine="spine", sources={"flights": "flights"}, into="answers")
    answers = rows(con, "select * from answers")
    assert len(answers) == len(asks)
    return {answer[0]: dict(zip(features.names, answer[2:], strict=True)) for answer in answers}


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, int | float):
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1.1e-9), name
        else:
            assert found[name] == value, name


# --- every kind of view, every aggregate ----------------------------------------------------------

instants = st.builds(
    lambda hours, edge: T + hours * HOUR + edge * MICROSECOND,
    st.integers(-8, 1),
    st.sampled_from([-1, 0, 0, 1]),
)
places = st.sampled_from(["jfk", "lga", None])
delays = (
    st.none()
    | st.sampled_from([-0.25, 0.05, 12.5, math.nan, math.inf])
    | st.integers(-900, 900).map(lambda tenths: tenths / 10)
)
tables = st.lists(
    st.builds(Row, st.integers(0, 999), instants, places, delays, st.none() | st.booleans(), instants),
    max_size=12,
    unique_by=lambda row: row.row_id,
)
questions = st.lists(
    st.builds(Ask, st.uuids().map(str), instants, places, st.none() | st.floats(0, 3000)),
    min_size=1,
    max_size=4,
    unique_by=lambda ask: ask.request_id,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asks=questions, table=tables)
def test_every_view_says_what_its_definition_says(con: duckdb.DuckDBPyConnection, asks: list[Ask], table: list[Row]):
    found = computed(con, asks, table)
    for ask in asks:
        assert_same(found[ask.request_id], expected_features(ask, table))


def a_busy_week(seed: int, *, asks: int, flights: int) -> tuple[list[Ask], list[Row]]:
    """Requests and rows on a grid of quarter hours, so that many fall on one instant or one edge."""
    rng = random.Random(seed)

    def instant() -> datetime:
        return T + timedelta(minutes=15 * rng.randrange(4 * 24 * 7))

    def place() -> str | None:
        return rng.choice(["jfk", "lga", "ewr", None])

    return (
        [Ask(f"r{number}", instant(), place(), rng.uniform(0, 3000)) for number in range(asks)],
        [
            Row(
                number,
                instant(),
                place(),
                rng.choice([None, rng.gauss(7, 40)]),
                rng.choice([None, True, False]),
                instant(),
            )
            for number in range(flights)
        ],
    )


def test_a_busy_week_says_what_its_definition_says(con: duckdb.DuckDBPyConnection):
    asks, table = a_busy_week(1, asks=150, flights=400)
    found = computed(con, asks, table)
    for ask in asks:
        assert_same(found[ask.request_id], expected_features(ask, table))


# --- nothing from the future ----------------------------------------------------------------------


def test_the_newest_row_that_was_there_is_the_one(con: duckdb.DuckDBPyConnection):
    """Two hours early, a minute early, a minute late."""
    minute = timedelta(minutes=1)
    table = [Row(1, T - 2 * HOUR, delay=1), Row(2, T - minute, delay=2), Row(3, T + minute, delay=3)]

    assert computed(con, [Ask("r", T)], table, the_latest())["r"]["newest"] == 2


def test_a_stale_value_is_null_but_the_request_keeps_its_row(con: duckdb.DuckDBPyConnection):
    table = [Row(1, T - 3 * HOUR - MICROSECOND)]

    assert computed(con, [Ask("r", T)], table, the_latest())["r"] == {"newest": None, "newest_id": None}
    assert computed(con, [Ask("r", T - MICROSECOND)], table, the_latest())["r"]["newest"] == 1


def test_an_unknown_key_keeps_the_row_and_counts_zero(con: duckdb.DuckDBPyConnection):
    table = [Row(1, T), Row(2, T, place=None)]
    found = computed(con, [Ask("far", T, "hnl"), Ask("none", T, None)], table)

    for request_id in ("far", "none"):
        assert found[request_id]["place_rows_2h"] == 0
        assert found[request_id]["place_total_2h"] is None
        assert found[request_id]["place_least_2h"] is None
        assert found[request_id]["ever"] is None
        assert found[request_id]["all_rows_2h"] == 2


def test_a_window_is_open_at_its_start_and_closed_at_its_end(con: duckdb.DuckDBPyConnection):
    edges = [T - 2 * HOUR, T - 2 * HOUR + MICROSECOND, T, T + MICROSECOND]
    table = [Row(number, instant, delay=10.0**number) for number, instant in enumerate(edges)]
    found = computed(con, [Ask("r", T)], table, a_window("w", BY_PLACE))["r"]

    assert (found["w_rows_2h"], found["w_total_2h"]) == (2, 110)
    assert (found["w_least_2h"], found["w_most_2h"]) == (10, 100)


def test_of_rows_of_one_instant_the_newest_event_wins_then_the_largest_key(con: duckdb.DuckDBPyConnection):
    first, second = T - 5 * HOUR, T - 4 * HOUR
    table = [Row(9, T, event_at=first), Row(1, T, event_at=second), Row(2, T, event_at=second)]
    for order in (table, table[::-1]):
        assert computed(con, [Ask("r", T)], order, the_latest())["r"]["newest_id"] == "2"


def test_where_drops_rows_before_they_are_counted(con: duckdb.DuckDBPyConnection):
    early = a_window("early", BY_PLACE, where="delay < 0")
    table = [Row(1, T, delay=-4.0), Row(2, T, delay=4.0), Row(3, T, delay=None)]

    assert computed(con, [Ask("r", T)], table, early)["r"]["early_rows_2h"] == 1


def test_numbers_are_stored_with_nine_decimals_and_only_if_finite(con: duckdb.DuckDBPyConnection):
    view = RequestView(name="asked", features={"third": "miles / 3", "nothing": "miles / 0", "no": "0 / 0"})

    assert computed(con, [Ask("r", T, miles=1.0)], [], view)["r"] == {
        "third": 0.333333333,
        "nothing": None,
        "no": None,
    }


def test_a_repeated_request_keeps_both_rows(con: duckdb.DuckDBPyConnection):
    computed(con, [Ask("r", T), Ask("r", T + HOUR)], [Row(1, T)])

    assert rows(con, "select predicted_at from answers order by all") == [(T,), (T + HOUR,)]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asks=questions, table=tables, later=st.randoms(use_true_random=False))
def test_what_becomes_available_later_changes_nothing(
    con: duckdb.DuckDBPyConnection, asks: list[Ask], table: list[Row], later: random.Random
):
    """Rows after the request are removed, changed and added; everything before stays."""
    before = computed(con, asks, table)
    for ask in asks:
        past = [row for row in table if row.available_at <= ask.predicted_at]
        future = [row for row in table if row.available_at > ask.predicted_at and later.random() < 0.7]
        changed = [replace(row, delay=999.0, late=True, place="jfk", event_at=T + HOUR) for row in future]
        added = [Row(5000 + n, ask.predicted_at + MICROSECOND, place, -5.0) for n, place in enumerate(["jfk", "lga"])]
        assert computed(con, [ask], past + changed + added)[ask.request_id] == before[ask.request_id]


def test_a_request_that_could_not_be_read_in_time_is_left_out(con: duckdb.DuckDBPyConnection):
    con.execute(
        "create or replace temp table asks (request_id int, predicted_at timestamp, place varchar, "
        "miles double, available_at timestamp)"
    )
    for number, available_at in enumerate([T - HOUR, T, T + MICROSECOND]):
        con.execute("insert into asks values (?, ?, 'jfk', 1, ?)", [number, T, available_at])

    found = rows(con, spine_sql(a_feature_set(the_latest()), "asks") + " order by request_id")
    assert found == [("0", T, "jfk", 1.0), ("1", T, "jfk", 1.0)]


# --- the same bits, whatever is computed together -------------------------------------------------


def test_a_week_is_the_same_as_each_day_alone_to_the_bit(con: duckdb.DuckDBPyConnection):
    """Each day sees only the rows of its look-back, so its running sums begin elsewhere."""
    asks, table = a_busy_week(2, asks=200, flights=1500)
    table = [replace(row, delay=None if row.delay is None else round(row.delay, 1)) for row in table]
    views = (the_latest(), a_window("place", BY_PLACE), a_window("all", BY_NOTHING))
    lookback = a_feature_set(*views).lookback
    week = computed(con, asks, table, *views)

    alone: dict[str, dict[str, Any]] = {}
    for start in (T + timedelta(days=number) for number in range(7)):
        todays = [ask for ask in asks if start <= ask.predicted_at < start + timedelta(days=1)]
        seen = [row for row in table if start - lookback <= row.available_at < start + timedelta(days=1)]
        alone |= computed(con, todays, seen, *views)
    assert alone == week


def test_running_sums_of_doubles_would_not_pass_that_test():
    """Why values become integers first: the same ten rows, summed from here and from a day earlier."""
    delays = np.round(np.random.default_rng(2).normal(7, 40, 1500), 1)
    differences = [
        (
            delays.cumsum()[end] - delays.cumsum()[end - 10],
            delays[500:].cumsum()[end - 500] - delays[500:].cumsum()[end - 510],
        )
        for end in range(520, 1500)
    ]
    assert any(whole != part for whole, part in differences)


def test_a_large_mean_does_not_eat_the_digits_of_a_spread(con: duckdb.DuckDBPyConnection):
    table = [Row(number, T, delay=1e12 + number / 10) for number in range(3)]

    assert computed(con, [Ask("r", T)], table, a_window("w", BY_PLACE))["r"]["w_spread_2h"] == 0.1


def test_no_scratch_table_is_left(con: duckdb.DuckDBPyConnection):
    computed(con, [Ask("r", T)], [Row(1, T)])

    assert rows(con, "select table_name from duckdb_tables() where table_name like 'answers%'") == [("answers",)]


def test_no_rows_and_no_requests_are_an_ordinary_day(con: duckdb.DuckDBPyConnection):
    assert computed(con, [], []) == {}
    assert computed(con, [Ask("r", T)], [])["r"]["all_rows_6h"] == 0
