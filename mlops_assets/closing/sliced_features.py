"""Third step, features of slices: a part of the traffic whose feature alone parts from all others is noted.

Only profiles are read, of today and four weeks. A slice stays a note: the whole has to move before a person is asked.
"""

from collections.abc import Collection, Mapping
from datetime import date, timedelta
from typing import Any

import pandas as pd

from mlops_assets.adapters.engine import frame, literal, rows
from mlops_assets.closing.block import Block
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.drift import FEATURES
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.slice_shifts import USUAL_DAYS, parted_slices


def sliced_profiles_sql(columns: Collection[str], slices: Collection[str], first: date) -> str:
    """SQL of ``(day, slice, column_name, n_0, total_0, total_1)``: values, their sum and that of their squares.

    Reads ``all_profiles`` and ``roles``: of the feature version that stands for a day.
    """
    named = ", ".join(literal(name) for name in sorted(columns))
    parts = " or ".join([f"slice = {literal(ALL)}", *(f"starts_with(slice, {literal(name + '=')})" for name in slices)])
    return f"""
        select p.day, slice, column_name, n - nulls as n_0, total as total_0, squares as total_1
        from all_profiles p join roles r on p.day = r.day and p.subject = r.feature_version
        where p.day >= {literal(first)} and column_name in ({named}) and total is not null and ({parts})
        order by column_name, p.day, slice
    """


def versions_sql(first: date) -> str:
    """SQL of the feature version that stands for each day."""
    return f"select day, feature_version from roles where day >= {literal(first)} and feature_version is not null"


def parted_features(world: World, block: Block) -> list[dict[str, Any]]:
    """Rows of ``drift`` about slices whose feature parts from all others: recorded, and noted."""
    service = world.service
    columns = set(service.profiled_features) - set(service.feature_set.categorical)
    if not columns or not service.profiled_slices:
        return []
    first = min(block.days) - timedelta(days=USUAL_DAYS)
    table = frame(block.con, sliced_profiles_sql(columns, service.profiled_slices, first))
    versions: Mapping[date, str] = dict(rows(block.con, versions_sql(first)))
    return [
        row for column, some in table.groupby("column_name") for row in _noted(str(column), some, block, versions)
    ]  # fmt: skip


def _noted(column: str, table: pd.DataFrame, block: Block, versions: Mapping[date, str]) -> list[dict[str, Any]]:
    return [
        {
            "day": one.day, "subject": FEATURES, "slice": one.slice, "column_name": column, "statistic": "mean",
            "baseline": "trailing", "value": one.value, "expected": one.expected, "scale": one.scale,
            "surprise": one.z, "size": one.size, "tier": "expected", "reason": one.in_words(column),
        }
        for one in parted_slices(table, block.days, versions)
    ]  # fmt: skip
