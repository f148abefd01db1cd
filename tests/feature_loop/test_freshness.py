"""A view knows at the end of each day how old its newest row is, and nothing that came later."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pytest

from mlops_assets.adapters.calendar import Calendar
from mlops_assets.adapters.engine import open_engine, register_days, rows
from mlops_assets.feature_loop.freshness import measure_freshness
from mlops_assets.service.features import (
    Aggregate,
    FeatureSet,
    LatestView,
    Request,
    RequestView,
    StaticView,
    WindowView,
)
from mlops_assets.service.sources import Expected, Source
from mlops_assets.tables import BY_NAME

FIRST, LAST = date(2013, 3, 8), date(2013, 3, 12)
DAYS = [FIRST + timedelta(days=number) for number in range(5)]
NEW_YORK = Calendar("America/New_York")
HOUR = timedelta(hours=1)


def a_source(name: str, expected: Expected) -> Source:
    columns = {"row_id": "BIGINT", "place": "VARCHAR", "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}
    return Source(
        name=name,
        description="",
        columns=columns,
        key=("row_id",),
        expected=expected,
        on_missing_day="go_stale",
        contract=name,
    )


FEATURES = FeatureSet(
    request=Request(source="asks", request_id="row_id", predicted_at="event_at", columns=("place",)),
    views=(
        RequestView(name="asked", features={"where_to": "place"}),
        LatestView(
            name="now",
            source="weather",
            keys={"place": "place"},
            features={"temp": "row_id"},
            max_age_hours=3,
        ),
        WindowView(
            name="day",
            source="weather",
            keys={},
            windows_hours=(30, 60),
            aggregates={"reports": Aggregate(function="count")},
        ),
        StaticView(name="lookup", source="planes", keys={"place": "place"}, features={"seats": "row_id"}),
    ),
    sources=(
        a_source("asks", Expected(first=FIRST)),
        a_source("weather", Expected(first=DAYS[0], last=DAYS[3])),
        a_source("planes", Expected(cadence="once", first=DAYS[1])),
    ),
)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine() as connection:
        register_days(connection, NEW_YORK, FIRST, LAST)
        connection.execute(
            "create temp table answers (predicted_at timestamp, temp double, reports_30h double, "
            "reports_60h double, seats double)"
        )
        for name in ("weather", "planes"):
            connection.execute(f"create temp table {name} (available_at timestamp)")
        yield connection


def deliver(con: duckdb.DuckDBPyConnection, source: str, *instants: datetime) -> None:
    for instant in instants:
        con.execute(f"insert into {source} values (?)", [instant])


def measured(con: duckdb.DuckDBPyConnection, days: Sequence[date] = DAYS) -> list[tuple[Any, ...]]:
    sources = {"weather": "weather", "planes": "planes"}
    measure_freshness(con, FEATURES, sources=sources, days=days, features_table="answers", into="measured")
    return rows(con, "select * from measured order by day, view")


def states(con: duckdb.DuckDBPyConnection, view: str) -> list[str]:
    return [row[-1] for row in measured(con) if row[1] == view]


def test_the_states_of_a_latest_view(con: duckdb.DuckDBPyConnection):
    """Nothing yet; a row just in time; a row a microsecond too old; at the last instant; not due any more."""
    ends = [NEW_YORK.end_of(day) for day in DAYS]
    late = timedelta(microseconds=1)
    deliver(con, "weather", ends[0], ends[1] - 3 * HOUR, ends[2] - 3 * HOUR - late, ends[3] - late)

    assert states(con, "now") == ["missing", "fresh", "stale", "fresh", "not_expected"]


def test_a_window_view_is_stale_when_its_shortest_window_is_empty(con: duckdb.DuckDBPyConnection):
    deliver(con, "weather", NEW_YORK.start_of(FIRST))

    assert states(con, "day") == ["fresh", "stale", "stale", "stale", "not_expected"]


def test_a_lookup_is_due_from_its_first_day_and_never_stale(con: duckdb.DuckDBPyConnection):
    assert states(con, "lookup") == ["not_expected", "missing", "missing", "missing", "missing"]
    deliver(con, "planes", NEW_YORK.start_of(DAYS[2]))
    assert states(con, "lookup") == ["not_expected", "missing", "fresh", "fresh", "fresh"]


def test_ages_are_hours_before_the_end_of_the_day_and_shares_are_of_its_requests(
    con: duckdb.DuckDBPyConnection,
):
    """March 10 has 23 hours. Of its two requests one got no temperature; counts are never missing."""
    day = date(2013, 3, 10)
    noon = NEW_YORK.start_of(day) + 12 * HOUR
    deliver(con, "weather", NEW_YORK.start_of(day))
    for temp in (None, 3.0):
        con.execute("insert into answers values (?, ?, 0, 0, null)", [noon, temp])

    found = measured(con, [day])
    start = NEW_YORK.start_of(day)
    assert [column[0] for column in con.execute("describe measured").fetchall()] == [
        column.name for column in BY_NAME["freshness"].columns
    ]
    assert found == [
        (day, "day", "weather", start, 23.0, 30.0, None, "fresh"),
        (day, "lookup", "planes", None, None, None, 1.0, "missing"),
        (day, "now", "weather", start, 23.0, 3.0, 0.5, "stale"),
    ]


def test_a_block_of_days_equals_its_days_one_by_one(con: duckdb.DuckDBPyConnection):
    """Alone, a day is measured before any later row has come."""
    instants = [NEW_YORK.start_of(FIRST) + number * 7 * HOUR for number in range(16)]
    alone = []
    for day in DAYS:
        known = [instant for instant in instants if NEW_YORK.start_of(day) <= instant < NEW_YORK.end_of(day)]
        deliver(con, "weather", *known)
        deliver(con, "planes", *known[:1])
        con.executemany("insert into answers values (?, 1, 1, 1, null)", [[instant] for instant in known])
        alone += measured(con, [day])

    assert measured(con) == alone


def test_no_days_are_no_rows(con: duckdb.DuckDBPyConnection):
    assert measured(con, []) == []
