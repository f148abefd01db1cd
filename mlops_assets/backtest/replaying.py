"""Closed days judged again from what is stored, block by block, by the functions that judged them the first time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import pandas as pd

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import frame, open_engine, put, quote, register_days
from mlops_assets.backtest.shadow import shadow_of
from mlops_assets.closing.block import Block, first_needed
from mlops_assets.closing.commit import DayJudgement
from mlops_assets.closing.feedback import with_conflicts
from mlops_assets.closing.judging import judge_block, series
from mlops_assets.closing.known import blocked_days, inputs_fingerprints, recorded, source_states
from mlops_assets.closing.world import World
from mlops_assets.errors import RangeError
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

BLOCK_DAYS = 28
ONE_DAY = timedelta(days=1)
MEASURED = ("profiles", "operations", "completeness", "quality", "kpi", "conflicts")
"""Tables that are read for the days of a block; everything else is judged anew."""
Told = Callable[[int], None]
"""Called with the number of days that are done."""


@dataclass(frozen=True)
class Judged:
    """Some days under one policy: what was found (rows of ``drift`` and ``rules``) and what would have been decided."""

    service: MLService
    days: Sequence[date]
    judgements: Sequence[DayJudgement]
    drift: pd.DataFrame
    rules: pd.DataFrame


def closed_range(world: World, first: date | None, last: date | None) -> list[date]:
    """The closed days from ``first`` to ``last``; by default all of them.

    Raises:
        RangeError: no day of the range is closed.
    """
    closed = sorted(world.ledger.closings(world.name))
    days = [day for day in closed if (first or day) <= day <= (last or day)]
    if not days:
        there = f"Closed: {closed[0]} to {closed[-1]}." if closed else "No day is closed yet: mlops replay."
        raise RangeError(
            f"service '{world.name}': no closed day from {first or 'the start'} to {last or 'now'}. {there}"
        )
    return days


def judge_again(world: World, service: MLService, days: Sequence[date], told: Told) -> Judged:
    """Judge closed, consecutive days under another policy; nothing in the home changes."""
    judgements: list[DayJudgement] = []
    found: dict[str, list[pd.DataFrame]] = {"drift": [], "rules": []}
    with shadow_of(world, service, min(days)) as shadow:
        for start in range(0, len(days), BLOCK_DAYS):
            with open_engine() as con:
                block = stored_block(shadow, con, days[start : start + BLOCK_DAYS])
                judged = judge_block(shadow, block, stops=False)
                for name, parts in found.items():
                    parts.append(frame(con, all_rows_sql(name)))
            _remember(shadow, judged)
            judgements += judged
            told(len(judgements))
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    return Judged(service, list(days), judgements, tables["drift"], tables["rules"])


def all_rows_sql(table: str) -> str:
    """SQL of a whole table."""
    return f"select * from {quote(table)}"


def _remember(shadow: World, judged: Sequence[DayJudgement]) -> None:
    """Write what was decided into the shadow's own ledger, where the next block looks for it."""
    with shadow.ledger.transaction() as transaction:
        for judgement in judged:
            shadow.ledger.append(transaction, "decisions", judgement.decisions)
            shadow.ledger.append(transaction, "incidents", judgement.incidents)
            shadow.ledger.append(transaction, "incident_events", judgement.incident_events)


def stored_block(world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date]) -> Block:
    """A block of closed days whose measured tables are views of what is stored; ready to be judged."""
    known = [generation for generation in recorded(world) if generation.listed_on <= max(days)]
    states = source_states(world, known, days)
    block = Block(
        con, list(days), known, inputs_fingerprints(known, days), states, blocked_days(world, states),
        world.lake.versions(),
    )  # fmt: skip
    first = first_needed(world.service, min(days))
    register_days(con, world.calendar, first, max(days))
    put(con, "block_days", pd.DataFrame({"day": pd.to_datetime(pd.Series(list(days)))}))
    for name in MEASURED:
        world.lake.view(con, name, BY_NAME[name].columns, first=min(days), last=max(days))
    for name in ("predictions", "labels"):
        world.lake.view(con, name, BY_NAME[name].columns, first=first, last=max(days))
    if world.service.prediction_log is not None:
        block.states = with_conflicts(world, con, states)
    return block


def series_before(world: World, days: Sequence[date]) -> pd.DataFrame:
    """The series that the drift monitor reads to judge these days."""
    with open_engine() as con:
        return series(world, stored_block(world, con, list(days_between(min(days), max(days)))))
