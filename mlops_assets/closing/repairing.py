"""Features and freshness of closed days, computed again from the sources as the closings knew them.

Under the feature versions that were recorded for a day and the file generations that its closing lists, so a newer
declaration or a later file changes nothing. What lies in the tables and differs is put right, and it is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

import duckdb

from mlops_assets.adapters.engine import columns_of, copy_sql, literal, open_engine, quote, rows, run
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.features import compute_segment, feature_columns, generation_rows, ordered_sql
from mlops_assets.closing.known import KnownGeneration, blocked_days, inputs_fingerprints, segments, source_states
from mlops_assets.closing.world import World, arrow
from mlops_assets.tables import BY_NAME, FACTS

REPAIRED = ("features", "freshness")
"""Tables of the second step that are computed again; its profiles are a function of them and follow."""


@dataclass(frozen=True)
class Difference:
    """One day of one table: what its rows say, and the ``generations`` row that they should have."""

    table: str
    day: date
    lying: str
    now: Row


def repair_features(world: World, days: Sequence[date], known: list[KnownGeneration]) -> None:
    """Compute features and freshness of closed days again, and rewrite the days that differ."""
    stored = stored_generations(world, days)
    versions = {day: stored[("features", day)]["feature_versions"] for day in days if ("features", day) in stored}
    for named, some in groupby(sorted(versions), key=lambda day: versions[day]):
        for segment in segments(known, list(some)):
            _repair_segment(world, segment, known, named.split(","), stored)


def recall_context_sql() -> str:
    """SQL that gives features of closed days the context that was recorded with the answers to their requests."""
    return """
        update features set context = told.context from (
            select day, request_id, arg_min(context, model_version) as context from recorded group by all
        ) told where told.request_id = features.request_id and told.day = features.day
    """


def _recall_context(world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date]) -> None:
    """The slices of a closed day are those that were declared then; answers are facts, and have them."""
    columns = BY_NAME["predictions"].columns
    world.lake.view(con, "predictions", columns, name="recorded", first=min(days), last=max(days))
    run(con, recall_context_sql())


def stored_generations(world: World, days: Sequence[date]) -> dict[tuple[str, date], Row]:
    """What ``generations`` says of each table on each of these days."""
    table = BY_NAME["generations"]
    names = [column.name for column in table.columns]
    with open_engine() as con:
        world.lake.view(con, table.name, table.columns, first=min(days), last=max(days))
        found = [dict(zip(names, row, strict=True)) for row in rows(con, named_sql(table.name, names, days))]
    return {(row["table_name"], row["day"]): row for row in found}


def named_sql(relation: str, columns: Sequence[str], days: Sequence[date]) -> str:
    """SQL of some columns of a relation on some days."""
    listed = ", ".join(literal(day) for day in days)
    return f"select {', '.join(quote(column) for column in columns)} from {quote(relation)} where day in ({listed})"


def lying_features_sql(columns: Sequence[str]) -> str:
    """SQL of the stored features that were computed on their own day, in the columns that it had then."""
    return f"select {', '.join(quote(column) for column in columns)} from stored_features where filled_on is null"


def _repair_segment(
    world: World,
    segment: list[date],
    known: list[KnownGeneration],
    versions: Sequence[str],
    stored: dict[tuple[str, date], Row],
) -> None:
    with open_engine() as con:
        compute_segment(world, con, segment, known, versions, blocked_days(world, source_states(world, known, segment)))
        _recall_context(world, con, segment)
        columns = feature_columns([world.feature_set(version) for version in versions])
        first, last = min(segment), max(segment)
        world.lake.view(con, "features", columns, name="stored_features", first=first, last=last, is_open=True)
        run(con, copy_sql("lying_features", lying_features_sql([column.name for column in columns])))
        freshness = BY_NAME["freshness"].columns
        world.lake.view(con, "freshness", freshness, name="lying_freshness", first=first, last=last)
        found = _differences(world, con, segment, inputs_fingerprints(known, segment), ",".join(versions), stored)
        if found:
            say_divergences(world, [divergence(world, one.table, one.day, one.lying, one.now) for one in found])
            _rewrite(world, con, found, stored)


def _differences(
    world: World,
    con: duckdb.DuckDBPyConnection,
    days: list[date],
    inputs: dict[date, str],
    versions: str,
    stored: dict[tuple[str, date], Row],
) -> list[Difference]:
    """Days on which what lies there, or what ``generations`` says of it, is not what is computed now."""
    found = []
    for name in REPAIRED:
        computed = generation_rows(world, con, name, days, inputs, versions)
        lying = generation_rows(world, con, name, days, inputs, versions, relation=f"lying_{name}")
        for now, lies in zip(computed, lying, strict=True):
            recorded = stored.get((name, now["day"]), {}).get("fingerprint")
            if {lies["fingerprint"], recorded} != {now["fingerprint"]}:
                found.append(Difference(name, now["day"], lies["fingerprint"], now))
    return found


def repaired_features_sql(days: Sequence[date]) -> str:
    """SQL of the features of some days: computed now, beside those that were filled backwards later."""
    listed = ", ".join(literal(day) for day in days)
    return f"""
        select * from features where day in ({listed})
        union all by name select * from stored_features where filled_on is not null and day in ({listed})
    """


def _rewrite(
    world: World, con: duckdb.DuckDBPyConnection, found: Sequence[Difference], stored: dict[tuple[str, date], Row]
) -> None:
    metadata = {"service": world.name, "recomputed": "true"}
    for name in REPAIRED:
        days = [one.day for one in found if one.table == name]
        if days:
            query = repaired_features_sql(days) if name == "features" else named_sql(name, columns_of(con, name), days)
            run(con, copy_sql("repaired", query))
            ordered = ordered_sql("repaired", columns_of(con, "repaired"), BY_NAME[name].key)
            world.lake.replace_days(name, days, con.sql(ordered).to_arrow_table(), metadata)
    touched = {one.day for one in found}
    right = {(one.table, one.day): one.now for one in found}
    said = [
        {**row, **{column: right[key][column] for column in ("rows", "fingerprint")}} if key in right else row
        for key, row in stored.items()
        if key[1] in touched
    ]
    world.lake.replace_days("generations", touched, arrow(said, BY_NAME["generations"].columns), metadata)


def divergence(world: World, name: str, day: date, lying: str, now: Row) -> Row:
    """A ``divergences`` event: what lies in a table on a day, and what it would be now."""
    what = "a fact would differ; it was not rewritten" if name in FACTS else "a derived value differs; it was rewritten"
    return {
        "service": world.name, "epoch": world.ledger.epoch(world.name), "day": day, "table_name": name,
        "recorded": lying, "would_be": now["fingerprint"], "reason": what, "recorded_at": world.clock(),
    }  # fmt: skip


def say_divergences(world: World, found: Sequence[Row]) -> None:
    """Write divergences down, before anything is rewritten: what a killed run has put right was still said."""
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "divergences", found)


def show_repaired(world: World, names: Sequence[str], days: Sequence[date]) -> None:
    """Let readers see at once what was put right: the versions that these tables have now (PROTOCOL.md 4)."""
    pinned = world.ledger.pinned(world.name)
    newest = {name: world.lake.version(name) for name in names}
    shown = [
        {"service": world.name, "epoch": world.ledger.epoch(world.name), "day": max(days), "first_day": min(days),
         "table_name": name, "version": version, "recorded_at": world.clock()}
        for name, version in newest.items()
        if version is not None and version > pinned.get(name, -1)
    ]  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "recomputations", shown)
