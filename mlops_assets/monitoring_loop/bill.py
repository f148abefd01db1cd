"""Measure: a bill that comes by the day, shared by what was predicted on the day it is about.

A cloud bill knows days and no predictions; what a version and a slice used of a day is their share of its
predictions, whatever role they had. A bill stands under the day on which it arrived, for the usage of the day it is
about; a corrected delivery adds what it changes.
"""

from datetime import date

import duckdb

from mlops_assets.adapters.engine import literal, quote, run
from mlops_assets.monitoring_loop.operations import MONEY_UNIT
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.operations import DailyBill
from mlops_assets.service.sources import Source

USAGE_DAYS = 35
"""How old the usage of a bill may be; an older one is shared by nobody."""


def allocate_bill(
    con: duckdb.DuckDBPyConnection,
    bill: DailyBill,
    source: Source,
    *,
    stored: str,
    listed: str,
    history: str,
    before: date,
    operations: str,
) -> None:
    """Write ``billed``, ``billed_n`` and ``billed_per_1000`` into a temp table of the shape of ``operations``.

    Args:
        stored: the source's table with all generations of the files that the days list.
        listed: which generation which day's closing lists (see ``feedback_loop/labels.py``).
        history: relation of the shape of ``operations`` with ``USAGE_DAYS`` before the first day.
        before: the first day; later rows of the history are left out.
        operations: the table, already measured.
    """
    run(con, shares_sql(bill, source, stored, listed, history, before, operations))
    run(con, measured_sql(operations))
    run(con, emptied_sql(operations))
    run(con, billed_sql(operations))


def shares_sql(
    bill: DailyBill, source: Source, stored: str, listed: str, history: str, before: date, operations: str
) -> str:
    """SQL of ``operations_billed``: money and predictions per arrival day, version and slice."""
    amount = f"round(({bill.amount})::double * {MONEY_UNIT})::hugeint"
    return f"""
        create or replace temp table operations_billed as
        with delivered as (
            select s.day as file_day, s.generation, {quote(source.event_at)} as used_at,
                   amount - lag(amount, 1, 0) over (partition by s.day, source_key order by generation) as added
            from (select *, case when withdrawn then 0 else coalesce({amount}, 0) end as amount from {quote(stored)}) s
        ),
        bills as (
            select l.listed_on as day, d.day as usage_day, sum(added) as micros
            from delivered b
            join {quote(listed)} l on l.source = {literal(source.name)} and l.day = b.file_day
                                  and l.generation = b.generation
            join days d on b.used_at >= d.start_at and b.used_at < d.end_at
            group by all
        ),
        used as (
            select day, version, slice, n from {quote(history)} where day < {literal(before)} and n > 0
            union all select day, version, slice, n from {quote(operations)} where n > 0
        ),
        whole as (
            select day, sum(n) as n from used where slice = {literal(ALL)} and version <> {literal(SERVED)} group by day
        )
        select b.day, coalesce(u.version, {literal(SERVED)}) as version, coalesce(u.slice, {literal(ALL)}) as slice,
               list_aggregate(
                   list(b.micros::double / {MONEY_UNIT} * coalesce(u.n / w.n, 1) order by b.usage_day), 'fsum'
               ) as billed,
               coalesce(sum(u.n), 0)::bigint as billed_n
        from bills b left join used u on u.day = b.usage_day left join whole w on w.day = b.usage_day
        where b.micros <> 0
        group by all
    """


def measured_sql(operations: str) -> str:
    """SQL that keeps what was measured aside."""
    return f"create or replace temp table operations_measured as select * from {quote(operations)}"


def emptied_sql(operations: str) -> str:
    """SQL that empties the table."""
    return f"delete from {quote(operations)}"


def billed_sql(operations: str) -> str:
    """SQL that puts the rows back with what they were billed; who only gets a bill has a row of its own."""
    return f"""
        insert into {quote(operations)} by name
        select m.* exclude (n, errors, timeouts, fallbacks, peak_per_hour, n_costed, billed, billed_n, billed_per_1000)
               replace (coalesce(m.day, b.day) as day, coalesce(m.version, b.version) as version,
                        coalesce(m.slice, b.slice) as slice),
               coalesce(n, 0) as n, coalesce(errors, 0) as errors, coalesce(timeouts, 0) as timeouts,
               coalesce(fallbacks, 0) as fallbacks, coalesce(peak_per_hour, 0) as peak_per_hour,
               coalesce(n_costed, 0) as n_costed, round(b.billed, 9) as billed, b.billed_n,
               round(1000 * b.billed / nullif(b.billed_n, 0), 9) as billed_per_1000
        from operations_measured m
        full join operations_billed b on m.day = b.day and m.version = b.version and m.slice = b.slice
    """
