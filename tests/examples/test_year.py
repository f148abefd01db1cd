"""The flights' year through the command line, to its end, once: what the demo promises of it, as it came out.

``benchmarks/model_quality.py`` and ``benchmarks/provisional_metrics.py`` print the numbers that are held here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from flight_stories import home_at, mlops
from model_quality import ALL_MONTHS, APRIL_DECEMBER, Quality, served_once_sql, served_sql
from provisional_metrics import at_midnight_sql

from mlops_assets.adapters.dagster_home import instance
from mlops_assets.adapters.engine import frame, rows
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.notifier import Channel
from mlops_assets.adapters.people_sql import open_views
from mlops_assets.closing.telling import message
from mlops_assets.closing.world import World
from mlops_assets.decisions import TOLD, Kind
from mlops_assets.examples.flight_delays.service import flight_delays
from mlops_assets.monitoring_loop.events import known_events

pytestmark = pytest.mark.slow

LAST = date(2014, 1, 2)
FURLOUGH, SEEN_BY = date(2013, 4, 21), date(2013, 4, 25)
"""Controllers stayed at home from this day on; it shows in labels alone."""
STRUCTURE = "file has the declared structure"
NO_WEATHER = ("weather", date(2013, 12, 31))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory, landing: Path) -> Home:
    """The year, replayed by one command: minutes, so every test of this file reads it and none writes."""
    folder = tmp_path_factory.mktemp("year") / "home"
    folder.mkdir()
    (folder / "landing").symlink_to(landing)
    said = mlops(folder, "replay", "flight_delays", "--to", str(LAST), seconds=3600)
    assert f"closed through {LAST}" in said
    return home_at(folder)


@pytest.fixture(scope="module")
def views(year: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """Everything that is a fact at the end of the year, as ``mlops sql`` shows it."""
    with open_views([flight_delays], year, is_open=False) as con:
        yield con


@pytest.fixture(scope="module")
def answers(views: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Every matured answer, with its label if it got one."""
    return frame(views, served_sql("flight_delays"))


def test_every_day_of_the_year_is_closed_and_none_is_blocked(views: duckdb.DuckDBPyConnection) -> None:
    states = rows(views, "select state, count(*) from flight_delays.closings group by state")
    assert states == [("computed", (LAST - flight_delays.first_day).days + 1)]


def test_the_answers_are_as_good_as_promised(answers: pd.DataFrame) -> None:
    served = Quality.of(answers, *APRIL_DECEMBER)
    assert served.predictions > 250_000
    assert served.brier <= 0.157 and served.auc >= 0.744, served


def test_every_scheduled_flight_is_answered_exactly_once(views: duckdb.DuckDBPyConnection) -> None:
    ((flights, once),) = rows(views, served_once_sql("flight_delays"))
    assert flights == once == 336_776


def test_all_but_cancelled_and_diverted_flights_get_a_label(answers: pd.DataFrame) -> None:
    assert round(Quality.of(answers, *ALL_MONTHS).labelled, 3) == 0.972


def test_the_rates_of_midnight_hold_the_final_ones_in_their_intervals(views: duckdb.DuckDBPyConnection) -> None:
    """95 % of days, give or take three standard errors of a share of about 350 days."""
    found = pd.DataFrame(
        rows(views, at_midnight_sql("flight_delays")), columns=["raw", "value", "low", "high", "final"]
    )
    assert len(found) > 300
    held = found["final"].between(found["low"], found["high"]).mean()
    assert 0.915 <= held <= 0.985
    corrected, raw = (found[name].sub(found["final"]).mean() for name in ("value", "raw"))
    assert abs(corrected) < 0.005 < -raw, "late flights are known late: without a correction the rate is too low"


def test_the_furlough_of_the_controllers_is_seen_in_the_labels_within_four_days(
    views: duckdb.DuckDBPyConnection,
) -> None:
    week = {FURLOUGH + timedelta(days=n) for n in range(7)}
    assert not [one.id for one in known_events(flight_delays.drift) if any(one.start <= day <= one.end for day in week)]
    asked = f"""
        select reason from flight_delays.verdicts
        where day > '{FURLOUGH}' and day <= '{SEEN_BY}' and tier in ('moderate', 'severe')
    """
    reasons = [reason for (reason,) in rows(views, asked)]
    assert any(reason.startswith("calibration: observed/predicted") and "labels" in reason for reason in reasons)


def test_the_closed_runways_of_san_francisco_on_6_july_surface_as_that_route_alone(
    views: duckdb.DuckDBPyConnection,
) -> None:
    """Flight 214: a third of one route's flights get no label; of all flights too few to show."""
    asked = """
        select slice, tier, reason from flight_delays.drift
        where day between '2013-07-06' and '2013-07-09' and slice <> 'all' and tier <> 'stable'
    """
    [(where, tier, reason)] = rows(views, asked)
    assert (where, tier) == ("dest=SFO", "expected") and reason.startswith("labels: 66% of dest=SFO without a value")


@pytest.mark.parametrize(
    ("first", "last"),
    [(date(2013, 7, 3), date(2013, 7, 7)), (date(2013, 11, 26), date(2013, 12, 2))],
    ids=["Fourth of July", "Thanksgiving"],
)
def test_nobody_is_paged_on_a_holiday(year: Home, first: date, last: date) -> None:
    """Tickets may come: rain at Thanksgiving is no part of the holiday. What would have been told is asked for here."""
    world = World(flight_delays, year)
    told = [row for row in world.ledger.effective("decisions", world.name) if Kind(row["kind"]) in TOLD]
    messages = [message(world, row) for row in told if first <= row["day"] <= last]
    assert [one.title for one in messages if one.channel is Channel.PAGE] == []


def test_the_history_of_a_year_stays_small(year: Home) -> None:
    with instance(year) as history:
        partitioned = [key for key in history.all_asset_keys() if history.get_materialized_partitions(key)]
        assert len(partitioned) <= 16
        assert 10 < len(history.get_runs()) < 100
    assert sum(path.stat().st_size for path in year.path.rglob("*") if path.is_file()) < 1.5e9


def promised(source: str) -> int:
    """How many expectations the suite of a source holds."""
    suite: dict[str, Any] = json.loads((Path(flight_delays.contracts) / f"{source}.json").read_text())
    return len(suite["expectations"])


def test_every_expectation_ran_on_every_file_of_every_day(views: duckdb.DuckDBPyConnection, landing: Path) -> None:
    asked = f"""
        select source, day, count(*) from flight_delays.contracts
        where expectation != '{STRUCTURE}' and outcome != 'missing' group by all
    """
    ran = {(source, day): n for source, day, n in rows(views, asked)}
    files = {(path.parent.name, date.fromisoformat(path.stem)) for path in landing.glob("*/*.parquet")}
    delivered = {(source, day) for source, day in files if day <= LAST}
    assert len(delivered) > 1_400 and NO_WEATHER not in delivered
    assert ran == {(source, day): promised(source) for source, day in delivered}
