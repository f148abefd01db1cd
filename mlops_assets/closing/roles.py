"""Whose features and whose score stand for a day, as the drift monitor looks back on it.

Of most closed days the ledger says it: one champion from start to end. Reading it from the answers themselves, 200
days of them, cost 25 ms a day in December and nothing in January; only days on which the role changed hands, or on
which the prior answered, are looked up there (measured with ``python benchmarks/replay_cost.py``).
"""

from collections.abc import Sequence
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import literal, put, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import PRIOR, Block
from mlops_assets.closing.world import World, arrow
from mlops_assets.tables import BY_NAME, Column

CHAMPION = "champion"
ROLE_COLUMNS = (
    Column("day", "DATE", ""), Column("feature_version", "VARCHAR", ""), Column("model_version", "VARCHAR", ""),
)  # fmt: skip


def open_roles(world: World, block: Block, first: date) -> None:
    """View ``roles(day, feature_version, model_version)`` of the closed days from ``first`` on and the block's own."""
    before = min(block.days)
    closed = list(days_between(max(first, world.service.first_day), before - timedelta(days=1)))
    told, asked = told_by_ledger(world, closed)
    put(block.con, "told_roles", arrow(told, ROLE_COLUMNS))
    edges = (min(asked), max(asked)) if asked else (date.min, date.min)
    columns = BY_NAME["predictions"].columns
    world.lake.view(block.con, "predictions", columns, name="closed_answers", first=edges[0], last=edges[1])
    run(block.con, roles_sql(before))


def told_by_ledger(world: World, days: Sequence[date]) -> tuple[list[Row], list[date]]:
    """The roles of the days that had one champion all day, and the days whose answers have to be looked at."""
    champions = [row for row in world.releases() if row["role"] == CHAMPION]
    told: list[Row] = []
    asked: list[date] = []
    for day in days:
        start, end = world.calendar.start_of(day), world.calendar.end_of(day)
        held = [row for row in champions if row["effective_at"] <= start]
        if not held or any(start < row["effective_at"] < end for row in champions):
            asked.append(day)
            continue
        names = ("feature_version", "model_version")
        told.append({"day": day, **{name: held[-1][name] for name in names}})
    return told, asked


def roles_sql(before: date) -> str:
    """SQL of a view ``roles``: what the ledger told, else the last answer of the day; the prior has no score worth
    watching."""
    columns = "day, feature_version, model_version, predicted_at, request_id"
    return f"""
        create or replace temp view roles as
        select * from told_roles union all by name
        select day, arg_max(feature_version, (predicted_at, request_id)) as feature_version,
               nullif(arg_max(model_version, (predicted_at, request_id)), {literal(PRIOR)}) as model_version
        from (
            select {columns} from closed_answers where served and day < {literal(before)}
            and day not in (select day from told_roles)
            union all
            select {columns} from predictions where served and day >= {literal(before)}
        ) group by day
    """
