"""Source rows: a delivery becomes a generation, or is rejected with a reason; nothing delivered is ever lost.

A generation holds what changed against the rows known before: new and changed rows, and the keys it no longer
has (``withdrawn``). Rows repeated unchanged are not new (PROTOCOL.md 1).
"""

from collections.abc import Sequence
from datetime import date

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.feature_loop.contracts import source_key_sql
from mlops_assets.service.sources import Source


def current_rows_sql(source: Source, generations: str) -> str:
    """SQL of the rows of each arrival day as its newest generation leaves them.

    Reads a relation of ``(day, generation, source_key, withdrawn, <declared columns>)``.
    """
    return f"""
        select * from {quote(generations)}
        qualify row_number() over (partition by day, source_key order by generation desc) = 1 and not withdrawn
    """


def new_generation_sql(source: Source, *, arrived: str, known: str, numbers: str, left_out: str) -> str:
    """SQL of the rows that a delivery adds: new, changed, and withdrawn ones.

    Reads ``arrived(day, <declared columns>)``; ``known`` = the stored generations of those days;
    ``numbers(day, generation)`` = the number that each accepted day's delivery gets;
    ``left_out(day, source_key)`` = quarantined rows. Returns the stored shape of the source table.
    """
    declared = ", ".join(quote(column) for column in source.columns)
    now = ", ".join(f"now.{quote(column)}" for column in source.columns)
    old = ", ".join(f"old.{quote(column)}" for column in source.columns)
    return f"""
        with now as (
            select a.day, n.generation, {source_key_sql(source)} as source_key, {declared}
            from {quote(arrived)} a join {quote(numbers)} n using (day)
        ), kept as (
            select * from now anti join {quote(left_out)} l using (day, source_key)
        ), old as (
            select k.* from ({current_rows_sql(source, known)}) k join {quote(numbers)} n using (day)
        )
        select now.day, now.generation, now.source_key, false as withdrawn, {now}
        from kept now left join old using (day, source_key)
        where old.source_key is null or row({now}) is distinct from row({old})
        union all by name
        select old.day, n.generation, old.source_key, true as withdrawn, {old}
        from old join {quote(numbers)} n using (day) anti join kept now using (day, source_key)
    """


def quarantined_sql(source: Source, *, arrived: str, left_out: str, numbers: str) -> str:
    """SQL of the quarantined rows, whole, as JSON (columns of table ``quarantine``)."""
    key = source_key_sql(source)
    return f"""
        select a.day, {literal(source.name)} as source, n.generation, l.source_key, l.expectation,
               to_json(a)::varchar as payload
        from {quote(arrived)} a
        join {quote(left_out)} l on l.day = a.day and l.source_key = {key}
        join {quote(numbers)} n on n.day = a.day
    """


def effective_rows_sql(source: Source, stored: str, known: str, name: str) -> str:
    """SQL of a temp table with the rows of a source that one set of generations leaves.

    Reads ``stored`` (the source table) and ``known(source, day, generation)``. Within one set, a row is visible to
    a question as of t if and only if its ``available_at <= t``.
    """
    declared = ", ".join(f"s.{quote(column)}" for column in source.columns)
    return f"""
        create or replace temp table {quote(name)} as
        select s.day, {declared} from (
            select s.* from {quote(stored)} s
            join {quote(known)} k on k.source = {literal(source.name)} and k.day = s.day
                                  and k.generation = s.generation
            qualify s.generation = max(s.generation) over (partition by s.day, s.source_key)
        ) s where not s.withdrawn
    """


def missing_results(source: Source, days: Sequence[date]) -> list[dict[str, object]]:
    """One row of table ``contracts`` per day on which a due file is not there."""
    return [
        {
            "day": day,
            "source": source.name,
            "generation": 0,
            "expectation": "a file is delivered",
            "column_name": None,
            "severity": "critical" if source.on_missing_day == "block" else "warning",
            "success": False,
            "observed": "no file",
            "message": f"source '{source.name}', day {day}: {_absent(source, day)}; it counts from the first unclosed "
            "day on.",
            "outcome": "missing",
        }
        for day in days
    ]


def _absent(source: Source, day: date) -> str:
    if source.table is not None:
        return (
            f"table '{source.table.table}' has no row whose {source.table.column(source.available_at)} lies in that day"
            ". Load it"
        )
    return f"no file {source.name}/{day}.* lies in the landing zone. Deliver it"


def conflict_result(source: Source, day: date, *, generation: int, reason: str) -> dict[str, object]:
    """The row of table ``contracts`` of a log that contradicted itself on a day; the first row of a key counts."""
    return {
        "day": day,
        "source": source.name,
        "generation": generation,
        "expectation": "an answer is logged once, or says the same again",
        "column_name": None,
        "severity": "critical",
        "success": False,
        "observed": reason.partition(",")[0],
        "message": f"source '{source.name}', day {day}: {reason}.",
        "outcome": "conflicting",
    }
