"""The commit protocol of a block of days (PROTOCOL.md 4): tables, ``generations`` last, then one ledger transaction.

The transaction is the point of no return: before it everything is provisional and is overwritten by day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from mlops_assets.adapters.engine import copy_sql, literal, quote, run
from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.adapters.ledger import Lease, Row
from mlops_assets.closing.block import Block, compute_outcomes
from mlops_assets.closing.features import STEP_TABLES, generation_rows, ordered_sql
from mlops_assets.closing.sources import write_conflicts
from mlops_assets.closing.world import World, arrow
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.tables import BY_NAME, TABLES

LOOP_TABLES = ("predictions", "conflicts", "labels", "outcomes", "completeness", "profiles", "quality", "kpi", "rules",
               "operations",
               "objectives", "drift", "loop_sync", "verdicts")  # fmt: skip
"""Tables that the day loop writes, in commit order."""


@dataclass(frozen=True)
class DayJudgement:
    """What was judged and decided about one day, not yet written; ``open_incidents`` as they stand at its end."""

    day: date
    verdict: Row
    decisions: Sequence[Row]
    incidents: Sequence[Row]
    incident_events: Sequence[Row] = ()
    open_incidents: Sequence[Incident] = ()
    changes: Sequence[Row] = ()
    alarm_budget: Sequence[Row] = ()


def commit_block(
    world: World, lease: Lease, block: Block, kept: list[date], judged: Sequence[DayJudgement]
) -> Mapping[date, dict[str, int]]:
    """Write the kept days of a block and close them; returns the rows of each table per day."""
    epoch = world.ledger.epoch(world.name)
    metadata = {"service": world.name, "epoch": str(epoch), "days": f"{kept[0]}..{kept[-1]}",
                "inputs": block.inputs[kept[-1]]}  # fmt: skip
    write_conflicts(world, {day: block.states[day] for day in kept})
    outcome_days = compute_outcomes(world, block, kept)
    for name in (table.name for table in TABLES if table.name in LOOP_TABLES):
        days = outcome_days if name == "outcomes" else kept
        table = BY_NAME[name]
        listed = ", ".join(literal(day) for day in days)
        names = [column.name for column in table.columns]
        rows = block.con.sql(ordered_sql(name, names, table.key, f"day in ({listed})")).to_arrow_table()
        world.lake.replace_days(name, days, rows, metadata)
        fault_point(f"after-{name}")
    listed_generations = _generations(world, block, kept)
    world.lake.replace_days("generations", kept, arrow(listed_generations, BY_NAME["generations"].columns), metadata)
    fault_point("after-generations")
    versions = world.lake.versions()
    consumed = _consumed(world, kept, epoch)
    with world.ledger.transaction(lease) as transaction:
        world.ledger.append(transaction, "consumed_inputs", consumed)
        for judgement in judged:
            world.ledger.append(transaction, "decisions", judgement.decisions)
            world.ledger.append(transaction, "incidents", judgement.incidents)
            world.ledger.append(transaction, "changes", judgement.changes)
            world.ledger.append(transaction, "alarm_budget", judgement.alarm_budget)
            world.ledger.append(transaction, "incident_events", judgement.incident_events)
        world.ledger.append(transaction, "known_generations", _listed(world, block, kept, epoch))
        world.ledger.append(transaction, "closings", _closings(world, block, kept, epoch, versions))
        fault_point("inside-transaction")
    fault_point("after-closing")
    counts: dict[date, dict[str, int]] = {day: {} for day in kept}
    for row in listed_generations:
        counts[row["day"]][row["table_name"]] = row["rows"]
    return counts


def stored_generations_sql(days: Sequence[date]) -> str:
    """SQL of the ``generations`` rows that the second step wrote for these days."""
    listed = ", ".join(literal(day) for day in days)
    return f"select * from stored_generations where day in ({listed})"


def _generations(world: World, block: Block, kept: list[date]) -> list[Row]:
    """The second step's rows (features, freshness) and one row per day and table of the day loop."""
    con, table = block.con, BY_NAME["generations"]
    world.lake.view(con, table.name, table.columns, name="stored_generations", first=min(kept), last=max(kept))
    steps = con.sql(stored_generations_sql(kept)).to_arrow_table().to_pylist()
    found: list[Row] = [row for row in steps if row["table_name"] in STEP_TABLES and row["table_name"] != "profiles"]
    for name in LOOP_TABLES:
        run(con, copy_sql("kept_rows", known_outcomes_sql(kept) if name == "outcomes" else kept_rows_sql(name, kept)))
        found += generation_rows(world, con, name, kept, block.inputs, relation="kept_rows")
    for row in found:
        if row["table_name"] == "outcomes":  # a projection that later days rewrite: what it says now is not lasting
            row["fingerprint"] = ""
        if row["day"] in block.blocked and not row["rows"]:
            row["state"], row["reason"] = "blocked", block.blocked[row["day"]]
    return found


def kept_rows_sql(name: str, days: Sequence[date]) -> str:
    """SQL of a table's rows of some days."""
    return f"select * from {quote(name)} where day in ({', '.join(literal(day) for day in days)})"


def known_outcomes_sql(days: Sequence[date]) -> str:
    """SQL of the outcomes of predictions that were there when their own day closed: later ones rewrite the day."""
    return f"""
        select * from ({kept_rows_sql("outcomes", days)}) semi join
        (select request_id, model_version from predictions where day <= prediction_day)
        using (request_id, model_version)
    """


def _consumed(world: World, kept: Sequence[date], epoch: int) -> list[Row]:
    """What people said that counts from these days on: this closing is the one that took it into account."""
    said = [row for row in world.ledger.rows("inputs", world.name) if row["effective_day"] in set(kept)]
    return [
        {"service": world.name, "epoch": epoch, "day": row["effective_day"], "input_id": row["input_id"]}
        for row in said
    ]  # fmt: skip


def _listed(world: World, block: Block, kept: Sequence[date], epoch: int) -> list[Row]:
    days = set(kept)
    return [
        {
            "service": world.name, "epoch": epoch, "day": k.listed_on, "source": k.source,
            "arrival_day": k.arrival_day, "generation": k.generation, "fingerprint": k.fingerprint,
            "known_at": k.known_at,
        }
        for k in block.known
        if k.listed_on in days
    ]  # fmt: skip


def _closings(world: World, block: Block, kept: Sequence[date], epoch: int, versions: Mapping[str, int]) -> list[Row]:
    at: datetime = world.clock()
    return [
        {
            "service": world.name, "epoch": epoch, "day": day,
            "state": "blocked" if day in block.blocked else "computed", "reason": block.blocked.get(day, ""),
            "inputs": block.inputs[day], "versions": dict(versions), "closed_at": at,
        }
        for day in kept
    ]  # fmt: skip
