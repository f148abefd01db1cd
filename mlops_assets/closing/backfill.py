"""A new feature version is filled backwards over the training window, each row as known at its own as-of time.

Such rows carry ``filled_on``; they feed training sets, never a prediction (PROTOCOL.md 6).
"""

from collections.abc import Sequence
from datetime import date, timedelta

from mlops_assets.adapters.engine import copy_sql, literal, open_engine, register_days, rows, run
from mlops_assets.closing.features import (
    create_features_sql,
    day_features_sql,
    day_spine_sql,
    feature_columns,
    open_sources,
    ordered_sql,
)
from mlops_assets.closing.known import blocked_days, recorded, segments, source_states, visible
from mlops_assets.closing.world import World
from mlops_assets.feature_loop.point_in_time import compute_features, spine_sql
from mlops_assets.tables import BY_NAME

CHUNK_DAYS = 31


def days_lacking_sql(version: str) -> str:
    """SQL of the days whose stored features do not hold this version."""
    return f"""
        select day from features group by day
        having count(*) filter (where feature_version = {literal(version)}) = 0 order by day
    """


def fill_backwards(world: World, last: date) -> list[date]:
    """Compute the declared feature version for the days of the training window that lack it."""
    features = world.service.feature_set
    window = world.service.model.training_window_days
    first = world.service.first_day if window is None else last - timedelta(days=window + CHUNK_DAYS)
    with open_engine() as con:
        world.lake.view(con, "features", BY_NAME["features"].columns, first=first, last=last, is_open=True)
        lacking = [row[0] for row in rows(con, days_lacking_sql(features.version))]
    for segment in segments(recorded(world), lacking) if lacking else ():
        for start in range(0, len(segment), CHUNK_DAYS):
            _fill(world, segment[start : start + CHUNK_DAYS], last)
    return lacking


def filled_sql(filled_on: date) -> str:
    """SQL that stamps computed rows as filled backwards."""
    return f"update filled set filled_on = {literal(filled_on)}"


def merge_sql() -> str:
    """SQL of the stored rows of other versions with the filled ones."""
    return "select * from features union all by name select * from filled"


def _fill(world: World, days: Sequence[date], filled_on: date) -> None:
    features = world.service.feature_set
    known = recorded(world)
    blocked = blocked_days(world, source_states(world, known, days))
    open_days = [day for day in days if day not in blocked]
    with open_engine() as con:
        register_days(con, world.calendar, min(days), max(days))
        relations = open_sources(world, con, features, visible(known, max(days)), list(days))
        requests = spine_sql(features, relations[features.request.source])
        run(con, copy_sql("spine", day_spine_sql(requests, world.service.context, open_days)))
        compute_features(con, features, spine="spine", sources=relations, into="computed")
        run(con, create_features_sql(feature_columns([features]), "filled"))
        run(con, day_features_sql(features, "filled"))
        run(con, filled_sql(filled_on))
        table = BY_NAME["features"]
        versions = {row["feature_version"] for row in world.releases()} | {features.version}
        columns = feature_columns([world.feature_set(version) for version in sorted(versions)])
        world.lake.view(con, "features", columns, first=min(days), last=max(days), is_open=True)
        run(con, copy_sql("merged", merge_sql()))
        ordered = ordered_sql("merged", [column.name for column in columns], table.key)
        metadata = {"service": world.name, "filled": features.version}
        world.lake.replace_days("features", days, con.sql(ordered).to_arrow_table(), metadata)
