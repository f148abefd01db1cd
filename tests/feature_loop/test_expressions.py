"""A declared expression that cannot be computed fails when it loads, and the message says where and why."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.expressions import check_expression
from mlops_assets.service.features import (
    Aggregate,
    FeatureSet,
    LatestView,
    Request,
    RequestView,
    WindowView,
    check_names,
)
from mlops_assets.service.sources import Expected, Source

COLUMNS = ("temp", "wind_mph")

FINE = (
    "temp",
    "TEMP * 2",
    '"temp" + wind_mph // 2',
    "case when temp > 0 and wind_mph is null then 1 end",
    "temp::double / nullif(wind_mph, 0)",
    "try_cast(temp as integer)",
    "extract(hour from temp)",
    "timezone('America/New_York', temp)",
    "temp - interval 2 hours",
    "coalesce(temp, greatest(wind_mph, 0))",
    "'-- no comment' || temp",
    "true",
)


@pytest.mark.parametrize("expression", FINE)
def test_one_value_from_declared_columns_is_fine(expression: str):
    check_expression(expression, where="here", columns=COLUMNS)


def refused(expression: str) -> str:
    with pytest.raises(DeclarationError) as caught:
        check_expression(expression, where="here", columns=COLUMNS)
    return str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "temp +",
        "temp, wind_mph",
        "temp as t",
        "temp; drop table x",
        "temp -- why",
        "1 from t",
        "1 where true",
    ],
)
def test_anything_but_one_expression_is_refused(expression: str):
    assert refused(expression) == (
        f"here: '{expression}' is not one SQL expression. Write one DuckDB expression over a row's columns."
    )


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("(select 1)", "a subquery"),
        ("temp in (select 1)", "a subquery"),
        ("exists (from t)", "a subquery"),
        ("*", "a star"),
        ("columns('t.*')", "the table function columns()"),
        ("sum(temp)", "the aggregate function sum()"),
        ("max(temp) - 1", "the aggregate function max()"),
        ("row_number() over ()", "a window function"),
        ("unnest([temp])", "the table function unnest()"),
        ("parquet_scan('x')", "the table function parquet_scan()"),
        ("read_csv('x')", "the file function read_csv()"),
        ("read_text('x')", "the file function read_text()"),
        ("1 + length(read_parquet('x'))", "the file function read_parquet()"),
        ("now() - temp", "now(), which gives another answer at another time"),
        ("current_date", "current_date(), which gives another answer at another time"),
        ("random()", "random(), which gives another answer at another time"),
        ("getenv('HOME')", "getenv(), which gives another answer at another time"),
    ],
)
def test_what_an_expression_may_not_use_is_named(expression: str, what: str):
    assert refused(expression) == (
        f"here: '{expression}' uses {what}. An expression computes one value from the columns of one row."
    )


def test_an_unknown_column_is_named_with_the_nearest_one():
    assert refused("temp + wind_mhp") == (
        "here: no column is named 'wind_mhp'. Did you mean 'wind_mph'? Declared: temp, wind_mph."
    )


# --- in a declaration -----------------------------------------------------------------------------


def a_source(name: str, **columns: str) -> Source:
    return Source(
        name=name,
        description="",
        columns={"row_id": "BIGINT", "event_at": "TIMESTAMP", "available_at": "TIMESTAMP", **columns},
        key=("row_id",),
        expected=Expected(first=date(2013, 1, 1)),
        on_missing_day="go_stale",
        contract=name,
    )


SOURCES = (a_source("asks", airport="VARCHAR"), a_source("weather", station="VARCHAR", temp="DOUBLE"))


def a_request(**changed: Any) -> Request:
    declared = {"source": "asks", "request_id": "row_id", "predicted_at": "event_at", "columns": ("airport",)}
    return Request(**{**declared, **changed})


def a_latest(**changed: Any) -> LatestView:
    declared = {
        "name": "now",
        "source": "weather",
        "keys": {"station": "airport"},
        "features": {"temp_c": "temp"},
        "max_age_hours": 3,
    }
    return LatestView(**{**declared, **changed})


def a_window(aggregate: Aggregate, **changed: Any) -> WindowView:
    declared = {"name": "day", "source": "weather", "keys": {}, "windows_hours": (24,)}
    return WindowView(aggregates={"cold": aggregate}, **{**declared, **changed})


ASKS, WEATHER = (
    "Declared: airport, available_at, event_at, row_id.",
    "Declared: available_at, event_at, row_id, station, temp.",
)
WRONG: list[tuple[Callable[[], tuple[Any, ...]], str]] = [
    (
        lambda: (a_request(source="ask"),),
        " > request: no source is named 'ask'. Did you mean 'asks'? Declared: asks, weather.",
    ),
    (
        lambda: (a_request(predicted_at="event - interval 2 hours"),),
        f" > request > predicted_at: no column is named 'event'. Did you mean 'event_at'? {ASKS}",
    ),
    (
        lambda: (a_request(request_id="rowid"),),
        f" > request > request_id: no column is named 'rowid'. Did you mean 'row_id'? {ASKS}",
    ),
    (lambda: (a_request(columns=("gate",)),), f" > request > columns: no column is named 'gate'. {ASKS}"),
    (
        lambda: (a_request(columns=("predicted_at",)),),
        " > request > columns: every request has 'predicted_at' already. Leave it out of the list.",
    ),
    (
        lambda: (a_request(), RequestView(name="when", features={"day": "event_at"})),
        " > views > 'when' > feature 'day': no column is named 'event_at'. "
        "Declared: airport, predicted_at, request_id.",
    ),
    (
        lambda: (a_request(), a_latest(source="whether")),
        " > views > 'now': no source is named 'whether'. Did you mean 'weather'? Declared: asks, weather.",
    ),
    (
        lambda: (a_request(), a_latest(features={"temp_c": "(tmp - 32) / 1.8"})),
        f" > views > 'now' > feature 'temp_c': no column is named 'tmp'. Did you mean 'temp'? {WEATHER}",
    ),
    (
        lambda: (a_request(), a_latest(keys={"airport": "airport"})),
        f" > views > 'now' > keys: no column is named 'airport'. {WEATHER}",
    ),
    (
        lambda: (a_request(), a_latest(keys={"station": "station"})),
        " > views > 'now' > keys > 'station': no column is named 'station'. "
        "Declared: airport, predicted_at, request_id.",
    ),
    (
        lambda: (a_request(), a_latest(categorical=("temp",))),
        " > views > 'now' > categorical: no feature is named 'temp'. Did you mean 'temp_c'? Declared: temp_c.",
    ),
    (
        lambda: (a_request(), a_window(Aggregate(function="rate", expression="temps < 0"))),
        f" > views > 'day' > aggregate 'cold': no column is named 'temps'. Did you mean 'temp'? {WEATHER}",
    ),
    (
        lambda: (a_request(), a_window(Aggregate(function="count"), where="gusts > 3")),
        f" > views > 'day' > where: no column is named 'gusts'. {WEATHER}",
    ),
]


@pytest.mark.parametrize(("declare", "message"), WRONG, ids=[message[:60] for _, message in WRONG])
def test_a_wrong_name_is_reported_where_it_stands(declare: Callable[[], tuple[Any, ...]], message: str):
    request, *views = declare()
    with pytest.raises(DeclarationError) as caught:
        check_names(request, views, SOURCES, where="service 'shop'")
    assert str(caught.value) == f"service 'shop'{message}"


def test_a_feature_set_does_not_load_with_a_wrong_name():
    """Pydantic lets our error through whole."""
    with pytest.raises(UnknownNameError, match="^features > views > 'now' > feature 'temp_c': no column"):
        FeatureSet(request=a_request(), views=(a_latest(features={"temp_c": "x"}),), sources=SOURCES)
