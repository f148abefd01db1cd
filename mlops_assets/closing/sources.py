"""First step: sources with contracts. Every delivery that was not looked at yet becomes a generation, or not."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import columns_of, copy_sql, open_engine, put, quote, register_days, rows, run
from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.adapters.landing import Delivery, deliveries, read_deliveries
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.extracting import extract_tables
from mlops_assets.closing.known import CONFLICTING, SourceState, newest_deliveries
from mlops_assets.closing.world import SHARED, World, arrow, source_columns
from mlops_assets.feature_loop.contracts import Inspection, inspect, load_suite, numbered_copies_sql
from mlops_assets.feature_loop.ingest import conflict_result, missing_results, new_generation_sql, quarantined_sql
from mlops_assets.feature_loop.pseudonyms import pseudonymise
from mlops_assets.service.sources import Source
from mlops_assets.tables import BY_NAME, Table


@dataclass(frozen=True)
class Ingested:
    """What the source step did with one source."""

    source: str
    accepted: tuple[date, ...]
    rejected: tuple[date, ...]
    missing: tuple[date, ...]


def ingest_sources(world: World, days: Sequence[date]) -> list[Ingested]:
    """Read every new, changed or repaired file up to the last of ``days``; the caller holds the lease.

    Files of other services' sources are left alone. Days on which a due file is absent get a row in
    ``contracts``; a later delivery counts from the first unclosed day on. Tables land as files first.
    """
    with world.ledger.lease(SHARED, f"sources of {world.name}"):
        extract_tables(world, days, again=True)
        return [_ingest(world, source, days) for source in world.service.sources]


def _ingest(world: World, source: Source, days: Sequence[date]) -> Ingested:
    log = world.service.prediction_log
    if log is not None and source.name == log.source:  # its repeats are counted where answers are (feedback loop)
        source = source.model_copy(update={"rows_may_repeat": True})
    seen = newest_deliveries(world)
    lying = deliveries(world.home.landing, source.name, max(days))
    new = [(file, fp) for file in lying if (fp := _new_fingerprint(file, seen.get((source.name, file.day))))]
    missing = _missing(source, days, {file.day for file in lying})
    if not new:
        _write_contracts(world, source, [], missing_results(source, missing))
        return Ingested(source.name, (), (), tuple(missing))
    with open_engine() as con:
        files = [file for file, _fingerprint in new]
        register_days(con, world.calendar, files[0].day, files[-1].day)
        unreadable = read_deliveries(con, source, files, "arrived")
        hidden = {file.day: file.hidden_columns() for file in files} if source.pseudonymise else {}
        pseudonymise(con, source, service=world.name, arrived="arrived", hidden=hidden)
        if source.rows_may_repeat:
            run(con, copy_sql("arrived", numbered_copies_sql(source, "arrived")))
        suite = load_suite(world.contracts / f"{source.contract}.json")
        names = {file.day: file.path.name for file in files}
        found = inspect(con, source, suite, arrived="arrived", delivered=names, unreadable=unreadable)
        records = _records(world, new, found)
        _store(world, con, source, records, found, missing)
    fault_point("after-source-tables")
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "deliveries", records)
    rejected = tuple(sorted(found.rejected))
    accepted = tuple(day for day in names if day not in found.rejected)
    return Ingested(source.name, accepted, rejected, tuple(missing))


def _new_fingerprint(file: Delivery, seen: Any) -> str | None:
    """The file's fingerprint if nobody looked at these bytes yet; the same size and time means the same bytes.

    A rejected file that is delivered once more is looked at again: its contract may have been put right meanwhile.
    """
    if seen and (seen["bytes"], seen["modified_ns"]) == (file.bytes, file.modified_ns):
        return None
    fingerprint = file.fingerprint()
    is_known = seen and seen["outcome"] == "accepted" and seen["fingerprint"] == fingerprint
    return None if is_known else fingerprint


def _missing(source: Source, days: Sequence[date], delivered: set[date]) -> list[date]:
    due = (day for day in days_between(min(days), max(days)) if source.expected.covers(day))
    return [day for day in due if day not in delivered]


def _records(world: World, new: Sequence[tuple[Delivery, str]], found: Inspection) -> list[Row]:
    """One ``deliveries`` event per looked-at file, with the generation that an accepted one gets."""
    count: dict[tuple[str, date], int] = defaultdict(int)
    generations: dict[tuple[str, date], int] = defaultdict(int)
    for row in world.ledger.rows("deliveries", SHARED):
        key = (row["source"], row["arrival_day"])
        count[key] = max(count[key], row["delivery"])
        generations[key] = max(generations[key], row["generation"])
    return [
        {
            "service": SHARED,
            "source": file.source,
            "arrival_day": file.day,
            "delivery": count[(file.source, file.day)] + 1,
            "fingerprint": fingerprint,
            "outcome": "rejected" if file.day in found.rejected else "accepted",
            "generation": generations[(file.source, file.day)] + (file.day not in found.rejected),
            "reason": _reason(file, found),
            "bytes": file.bytes,
            "modified_ns": file.modified_ns,
            "recorded_at": world.clock(),
        }
        for file, fingerprint in new
    ]


def _reason(file: Delivery, found: Inspection) -> str:
    """Why a file was rejected, or which of its rows were left out; empty if all is well."""
    where = f"source '{file.source}', day {file.day}"
    if file.day in found.rejected:
        return f"{where}, {found.rejected[file.day]}"
    broken = [text for (day, _key), text in found.bad_keys.items() if day == file.day]
    return f"{where}: {len(broken)} row(s) quarantined, first for '{broken[0]}'" if broken else ""


def stored_before_sql(stored: str, numbers: str) -> str:
    """SQL of the stored generations of the accepted days, without what a killed run left behind."""
    return f"""
        select s.* from {quote(stored)} s join {quote(numbers)} n using (day) where s.generation < n.generation
    """


def appended_sql(known: str, added: str, columns: Sequence[str]) -> str:
    """SQL of the stored generations with a new one behind them, in a fixed order and with these columns."""
    named = ", ".join(quote(column) for column in columns)
    return f"""
        select {named} from (select * from {quote(known)} union all by name ({added}))
        order by day, generation, source_key
    """


def _store(
    world: World,
    con: duckdb.DuckDBPyConnection,
    source: Source,
    records: list[Row],
    found: Inspection,
    missing: list[date],
) -> None:
    """Add the accepted generations to the source table, then say in ``contracts`` and ``quarantine`` what was found."""
    accepted = [record for record in records if record["outcome"] == "accepted"]
    generation = {record["arrival_day"]: record["generation"] for record in records}
    results = [{**row, **_outcome(row, found, generation)} for row in found.results]
    if accepted:
        days = [record["arrival_day"] for record in accepted]
        _register(con, "numbers", [{"day": r["arrival_day"], "generation": r["generation"]} for r in accepted])
        left_out = [
            {"day": day, "source_key": key, "expectation": text}
            for (day, key), text in found.bad_keys.items()
            if day not in found.rejected
        ]
        _register(con, "left_out", left_out)
        declared = source_columns(source)
        world.shared.view(con, source.name, declared, name="stored", first=min(days), last=max(days), is_open=True)
        run(con, copy_sql("known", stored_before_sql("stored", "numbers")))
        added = new_generation_sql(source, arrived="arrived", known="known", numbers="numbers", left_out="left_out")
        # All columns that were ever declared: nothing delivered is lost because a declaration forgets a column.
        rewritten = con.sql(appended_sql("known", added, columns_of(con, "known")))
        world.shared.replace_days(source.name, days, rewritten.to_arrow_table(), {"writer": "feature_loop/ingest.py"})
        if left_out:
            quarantined = quarantined_sql(source, arrived="arrived", left_out="left_out", numbers="numbers")
            _merge_shared(world, BY_NAME["quarantine"], source, con.sql(quarantined).to_arrow_table())
    _write_contracts(world, source, results, missing_results(source, missing))


def _outcome(row: Row, found: Inspection, generation: dict[date, int]) -> Row:
    day = row["day"]
    quarantined = any(bad_day == day for bad_day, _key in found.bad_keys)
    outcome = "rejected" if day in found.rejected else ("quarantined" if quarantined else "accepted")
    return {"generation": generation[day], "outcome": outcome}


def _register(con: duckdb.DuckDBPyConnection, name: str, items: list[Row]) -> None:
    kinds = {
        "day": pa.date32(),
        "generation": pa.int32(),
        "source_key": pa.string(),
        "expectation": pa.string(),
    }
    names = list(items[0]) if items else ["day", "source_key", "expectation"]
    arrays = {column: pa.array([item[column] for item in items], type=kinds[column]) for column in names}
    put(con, name, pa.table(arrays))


def _write_contracts(world: World, source: Source, results: list[Row], missing: list[Row]) -> None:
    found = [*results, *missing]
    if found:
        _merge_shared(world, BY_NAME["contracts"], source, arrow(found, BY_NAME["contracts"].columns))


def write_conflicts(world: World, found: Mapping[date, Sequence[SourceState]]) -> None:
    """Say in ``contracts`` which days brought a log that contradicts itself; the other promises on its file stay."""
    told = [(day, state) for day, states in found.items() for state in states if state.state == CONFLICTING]
    if not told:
        return
    table, newest = BY_NAME["contracts"], newest_deliveries(world)
    results = [
        conflict_result(
            world.service.source(state.source), day, reason=state.reason,
            generation=int(newest.get((state.source, day), {}).get("generation", 0)),
        )
        for day, state in told
    ]  # fmt: skip
    with world.ledger.lease(SHARED, f"conflicts of {world.name}"):
        source = world.service.source(told[0][1].source)
        _merge_shared(world, table, source, arrow(results, table.columns), by=table.key)


def merged_sql(table: Table, by: Sequence[str]) -> str:
    """SQL of a shared table's days with ``added`` in place of the rows that agree with it in the columns ``by``."""
    names = ", ".join(quote(column.name) for column in table.columns)
    return f"""
        select {names} from stored s anti join added a using ({", ".join(by)})
        where s.day in (select day from added)
        union all by name select {names} from added
        order by {", ".join(quote(column) for column in table.key)}
    """


OF_A_FILE = ("day", "source", "generation")


def _merge_shared(world: World, table: Table, source: Source, added: pa.Table, by: Sequence[str] = OF_A_FILE) -> None:
    """Replace the rows of these files; other sources share the partition and stay."""
    with open_engine() as con:
        con.register("added", added)
        days = [row[0] for row in rows(con, distinct_days_sql("added"))]
        world.shared.view(con, table.name, table.columns, name="stored", first=min(days), last=max(days))
        merged = con.sql(merged_sql(table, by)).to_arrow_table()
        world.shared.replace_days(table.name, days, merged, {"writer": table.writer, "source": source.name})


def distinct_days_sql(relation: str) -> str:
    """SQL of the days that a relation has rows of."""
    return f"select distinct day from {quote(relation)} order by day"
