"""Third step, what was announced: how much of a new text or a strange number a known event had named beforehand.

Profiles count what is unknown, and not what it is. Rows are read only on the day, and of the columns, where a finding
asks and an event of the day has announced something: hardly ever.
"""

from collections.abc import Sequence

import pandas as pd

from mlops_assets.adapters.engine import literal, quote, rows
from mlops_assets.closing.block import Block
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.slicing import feature_version_sql, of_version_sql
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.events import Announced, Asked, asked_of_events
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.drifting import KnownEvent


def announced_shares(
    world: World, block: Block, drift: pd.DataFrame, events: Sequence[KnownEvent], *, lag_days: int = 0
) -> Announced:
    """Share of the day's rows that each event had announced, for every finding that it may have announced."""
    shares: dict[Asked, float] = {}
    for asked, event in asked_of_events(drift, events, lag_days=lag_days):
        version = next((version for (version,) in rows(block.con, feature_version_sql(asked.day))), None)
        if version is None:
            continue
        columns = feature_columns([world.feature_set(version)])
        lying = "announced_features"
        world.lake.view(block.con, "features", columns, name=lying, first=asked.day, last=asked.day, is_open=True)
        ((announced, n),) = rows(block.con, announced_sql(of_version_sql(lying, version), asked, event, version))
        shares[asked] = announced / n if n else 0.0
    return shares


def announced_sql(features: str, asked: Asked, event: KnownEvent, version: str) -> str:
    """SQL of one row: rows with a text or number that is unknown to the frozen bins and announced, and all rows.

    Reads   ``all_profiles`` for the bins of the day, and the query ``features`` for its values.
    """
    column = quote(asked.column)
    if asked.statistic == "new_category":
        named = ", ".join(literal(value) for value in event.new_categories[asked.column])
        is_announced = f"not list_contains(texts, {column}) and {column} in ({named})"
    else:
        low, high = event.ranges[asked.column]
        is_strange = f"({column} <= edges[1] or {column} > edges[-1])"
        is_announced = f"isfinite({column}) and {is_strange} and {column} between {float(low)} and {float(high)}"
    return f"""
        select count(*) filter (where {is_announced}), count(*)
        from ({features}) as f join (
            select texts, edges from all_profiles where day = {literal(asked.day)} and slice = {literal(ALL)}
            and subject = {literal(version)} and column_name = {literal(asked.column)}
        ) as binned on true where f.day = {literal(asked.day)}
    """
