"""The two odd days of the year's weather: an absurd wind on 12 February, no weather at all on 31 December.

Both are handled as the source declares, and every flight of those days is predicted. Two days lead up to each of
them: the first has no timetable (its file came the day before) and is blocked.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from toy_stories import on, stored

from mlops_assets.adapters.home import Home
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.world import World
from mlops_assets.day_loop import run_days
from mlops_assets.examples.flight_delays.service import flight_delays

pytestmark = pytest.mark.slow

FEBRUARY_12, DECEMBER_31 = date(2013, 2, 12), date(2013, 12, 31)


def closed_until(last: date, landing: Path, folder: Path) -> World:
    """The flight service over the three days that end on ``last``, with their files alone."""
    days = [last - timedelta(days=back) for back in (2, 1, 0)]
    for source in flight_delays.sources:
        (folder / "landing" / source.name).mkdir(parents=True)
        for day in [flight_delays.first_day] if source.expected.cadence == "once" else days:
            name = f"{source.name}/{day}.parquet"
            if (landing / name).exists():
                (folder / "landing" / name).symlink_to(landing / name)
    stores = {name: f"sqlite:///{folder / name}.db" for name in ("ledger", "mlflow")}
    home = Home(folder, folder / "landing", stores["ledger"], stores["mlflow"])
    world = World(flight_delays.model_copy(update={"first_day": days[0]}), home)
    ingest_sources(world, days)
    run_days(world, days, acts=True, by="test", on_day=lambda report: None)
    return world


def flights_of(landing: Path, day: date) -> set[str]:
    """The flights that the timetable of the day before announces."""
    return set(pd.read_parquet(landing / "schedule" / f"{day - timedelta(days=1)}.parquet")["request_id"])


def test_a_wind_of_1048_mph_is_quarantined_and_every_flight_of_the_day_is_predicted(
    landing: Path, tmp_path: Path
) -> None:
    world = closed_until(FEBRUARY_12, landing, tmp_path)
    (left_out,) = on(stored(world, "quarantine"), FEBRUARY_12).to_dict("records")
    assert left_out["source"] == "weather" and "1048" in left_out["payload"] and "EWR" in left_out["source_key"]
    outcomes = on(stored(world, "contracts"), FEBRUARY_12).query("source == 'weather'")["outcome"]
    assert set(outcomes) == {"quarantined"}
    assert set(on(stored(world, "predictions"), FEBRUARY_12).query("served")["request_id"]) == flights_of(
        landing, FEBRUARY_12
    )
    assert on(stored(world, "features"), FEBRUARY_12)["wind_speed_mph"].max() < 100
    assert world.ledger.closings(world.name)[FEBRUARY_12]["state"] == "computed"


def test_a_day_without_weather_goes_stale_and_every_flight_of_it_is_predicted(landing: Path, tmp_path: Path) -> None:
    world = closed_until(DECEMBER_31, landing, tmp_path)
    missing = on(stored(world, "contracts"), DECEMBER_31).query("source == 'weather'")
    assert set(missing["outcome"]) == {"missing"} and "Deliver it" in missing["message"].iloc[0]
    verdict = on(stored(world, "verdicts"), DECEMBER_31).iloc[0]
    assert "weather missing" in verdict["reason"]
    assert set(on(stored(world, "predictions"), DECEMBER_31).query("served")["request_id"]) == flights_of(
        landing, DECEMBER_31
    )
    features = on(stored(world, "features"), DECEMBER_31)
    assert features["wind_speed_mph"].isna().mean() > 0.9, "too old a value is null, never a missing row"
    assert world.ledger.closings(world.name)[DECEMBER_31]["state"] == "computed"
