"""A shut runway in San Francisco is a point of the whole and half of its own slice, as the flights of 2013 show."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.examples.flight_delays.prepare import opened_package
from mlops_assets.monitoring_loop.decomposition import unusual_slices

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Per day and destination: flights, and those that never got a label: cancelled or diverted."""
    folder: Path = tmp_path_factory.mktemp("flights")
    with opened_package(folder) as con:
        return con.sql(
            """
            select day, slice, count(*)::double as n, count_if(is_lost)::double as bad
            from (
                select make_date(year, month, day) as day, unnest(['all', 'dest=' || dest]) as slice,
                       arr_delay is null as is_lost
                from raw_flights where month between 5 and 12
            ) group by all
            """
        ).df()


def standing_out(unlabelled: pd.DataFrame, first: date, last: date) -> list[tuple[date, str, int, int]]:
    days = [day.date() for day in pd.date_range(first, last)]
    return [(one.day, one.slice, one.n, one.bad) for one in unusual_slices(unlabelled, days)]


def test_the_crash_landing_of_6_july_is_found_in_its_route_although_the_day_was_ordinary(unlabelled):
    assert standing_out(unlabelled, date(2013, 7, 1), date(2013, 7, 7)) == [(date(2013, 7, 6), "dest=SFO", 32, 21)]
    whole = unlabelled.query("slice == 'all'").assign(share=lambda t: t["bad"] / t["n"]).set_index("day")["share"]
    assert whole[pd.Timestamp(2013, 7, 6)] < 0.05


def test_the_shots_at_los_angeles_airport_of_1_november_are_found(unlabelled):
    found = standing_out(unlabelled, date(2013, 10, 28), date(2013, 11, 7))
    assert [(day, dest) for day, dest, _n, _bad in found] == [(date(2013, 11, 1), "dest=LAX")]


def test_few_days_of_the_second_half_of_the_year_have_an_unusual_route(unlabelled):
    days = {day for day, *_ in standing_out(unlabelled, date(2013, 7, 1), date(2013, 12, 31))}
    assert len(days) <= 12
