"""What several stories about the parcel service share: a service that does not train, and its tables as frames."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from toy_world import a_service, a_world

from mlops_assets import MLService
from mlops_assets.adapters.engine import open_engine, quote
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.world import SHARED, World, source_columns
from mlops_assets.day_loop import DayReport, run_days
from mlops_assets.tables import BY_NAME


def untrained(**changes: Any) -> MLService:
    """The parcel service with the prior for ever: most stories about time need no model, and are told faster."""
    model = a_service().model.model_copy(update={"cadence": "never"})
    return a_service(**{"model": model, **changes})


def copy_of(world: World, folder: Path, service: MLService | None = None) -> World:
    """The same history in another folder, to go on differently."""
    shutil.copytree(world.home.path, folder)
    return a_world(folder, service or world.service)


def stored(world: World, name: str) -> pd.DataFrame:
    """All rows of a table as last written, day by day, closed or not; source tables too."""
    sources = {source.name: source_columns(source) for source in world.service.sources}
    lake = world.shared if name in sources or BY_NAME[name].is_shared else world.lake
    is_open = name not in sources and BY_NAME[name].is_open
    columns = sources.get(name) or (feature_columns([world.service.feature_set]) if is_open else BY_NAME[name].columns)
    with open_engine() as con:
        lake.view(con, name, columns, is_open=is_open)
        found = con.sql(f"select * from {quote(name)} order by all").df()
    texts = {column.name: "str" for column in columns if column.type == "VARCHAR"}  # a column of nulls has no type
    return found.astype(texts).assign(day=found["day"].dt.date)


def on(rows: pd.DataFrame, *days: date) -> pd.DataFrame:
    """The rows of some days."""
    return rows[rows["day"].isin(days)].reset_index(drop=True)


def states(world: World) -> dict[date, str]:
    """Closed day -> its state."""
    return {day: row["state"] for day, row in world.ledger.closings(world.name).items()}


def looked_at(world: World, source: str, day: date) -> list[tuple[str, int, str]]:
    """Outcome, generation and reason of every delivery of one file."""
    rows = world.ledger.rows("deliveries", SHARED)
    found = [row for row in rows if (row["source"], row["arrival_day"]) == (source, day)]
    return [(row["outcome"], row["generation"], row["reason"]) for row in found]


def run(world: World, days: Sequence[date]) -> list[DayReport]:
    """The day loop alone, as a replay runs it."""
    return run_days(world, days, acts=True, by="test", on_day=lambda report: None)


def moved_with(world: World, cause: str) -> dict[str, date]:
    """Column -> the first day on which it moved with the only incident of a cause."""
    (opened,) = [row["incident_id"] for row in world.ledger.rows("incidents", world.name) if row["cause"] == cause]
    found: dict[str, date] = {}
    for row in world.ledger.effective("incident_events", world.name):
        if row["incident_id"] == opened and row["event"] == "seen":
            for column in row["evidence"]["children"]:
                found.setdefault(column, row["day"])
    return found
