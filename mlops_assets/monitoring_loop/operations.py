"""Measure: what answering cost, how long it took, and what failed, per version and slice.

A row under day D counts the predictions logged on D, and what became of the requests whose label window ended on
D. Latencies are counted in logarithmic bins of fixed edges, so that days, versions and slices add up exactly and
a percentile of any sum of rows is off by at most 1 % of its value, whatever the distribution. Latencies are what
this run's clock said, or what the log says; everything else is content. What the numbers ask of people is judged
in ``objectives.py``.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from math import ceil, log

import duckdb
import pandas as pd

from mlops_assets.adapters.engine import frame, literal, quote, run, slices_sql
from mlops_assets.monitoring_loop.profiles import ALL, create_if_absent_sql
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.labels import LabelDefinition

OPERATIONS = "operations"
"""Subject of the series of drift that are about running the service."""

ACCURACY = 0.01
"""Largest relative error of a percentile."""
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
"""Ratio of neighbouring edges; bin i holds the latencies in (GAMMA ** (i - 1), GAMMA ** i] ms."""
SHORTEST_MS = 1e-6
"""Shorter latencies are counted as this one."""
MONEY_UNIT = 10**9
"""Money is added up in 1e-9 of the currency: exact whatever the order of the rows."""
PERCENTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}


def bin_of(latency_ms: float) -> int:
    """The bin that a latency is counted in.

    Source: C. Masson, J. E. Rim and H. K. Lee, DDSketch, PVLDB 12 (2019), 2195-2205.

    >>> bin_of(1.0), bin_of(10.0)
    (0, 116)
    """
    return ceil(log(max(latency_ms, SHORTEST_MS)) / log(GAMMA))


def measure_operations(
    con: duckdb.DuckDBPyConnection,
    *,
    predictions: str,
    labels: str,
    label: LabelDefinition,
    max_label_delay_hours: float | None,
    days: Sequence[date],
    slices: Iterable[str],
    into: str,
) -> None:
    """Insert one row per day, version and slice into ``into``.

    Args:
        predictions: relation of that table's shape: the days, and the label window before them.
        labels: relation of that table's shape: likewise.
        label: which labels count.
        max_label_delay_hours: a label that became known later than this after its request is counted as slow.
        days: days to measure; the engine's table ``days`` must cover them.
        slices: names in the JSON ``context`` of a prediction.
        into: temp table of the shape of ``operations``; created if it is not there.
    """
    run(con, create_if_absent_sql("operations", into))
    if days:
        names = sorted(slices)
        run(con, unanswered_sql(predictions, days))
        run(con, answered_sql(predictions, names, days))
        run(con, matured_sql(predictions, labels, label, max_label_delay_hours, names, days))
        run(con, insert_operations_sql(into))


def operations_series(con: duckdb.DuckDBPyConnection, *, operations: str, with_latency: bool) -> pd.DataFrame:
    """The series that ``find_drift`` reads: what answered, on slice *all*, one series per thing that can go missing."""
    return frame(con, operations_series_sql(operations, with_latency=with_latency))


SERIES = {
    "answers": ("n", "errors + timeouts", "null::double", "null::double"),
    "champion_answers": ("n", "fallbacks", "null::double", "null::double"),
    "labels": ("matured", "unlabelled", "null::double", "null::double"),
    "cost": ("n", "n - n_costed", "cost", "cost_squares"),
    "bill": ("billed_n", "0", "billed", "billed * billed / billed_n"),
    "latency_ms": ("n", "n - coalesce(list_sum(latency_counts), 0)", "sum_ms", "squares_ms"),
}
"""Series of the drift monitor -> rows, how many of them have no value, sum and squares of the values."""


def operations_series_sql(operations: str, *, with_latency: bool) -> str:
    """SQL of what answered as series of the drift monitor, under one subject.

    Reads   ``operations`` of that table's shape.
    What is missing counts as null: an answer that failed, an answer that the champion could not give, a label that
    never came, a cost that nobody knows. So a share is judged as a share and not as a mean of mostly zeros.
    """
    counted = {"labels": "matured > 0", "cost": "n_costed > 0", "bill": "billed_n > 0"}
    return " union all ".join(
        f"""
        select {n} as n, {nulls} as nulls, {total} as total, {squares} as squares, day,
               {literal(OPERATIONS)} as subject, {literal(name)} as column_name, '' as version
        from {quote(operations)} where version = {literal(SERVED)} and slice = {literal(ALL)}
          and {counted.get(name, "n > 0")}"""
        for name, (n, nulls, total, squares) in SERIES.items()
        if with_latency or name != "latency_ms"
    )


def sliced_operations_sql(operations: str, column: str, statistic: str, first: date, last: date) -> str | None:
    """SQL of ``(day, slice, requests, n_0, total_0)`` of one series per slice; None for what no slice adds up to.

    In the shape of ``slice_shifts.sliced_totals_sql``: the sum behind a share without a value, behind a mean, or behind
    a spread (squared distances from the mean of the days before the last).
    """
    n, nulls, total, squares = SERIES[column]
    valued = f"({n} - ({nulls}))"
    around = f"{squares} - 2 * usual * {total} + usual * usual * {valued}"
    sums = {"null_share": (n, nulls), "mean": (valued, total), "spread": (valued, around)}
    if statistic not in sums:
        return None
    counted, summed = sums[statistic]
    days = f"version = {literal(SERVED)} and {n} > 0 and day between {literal(first)} and {literal(last)}"
    return f"""
        with before as (
            select fsum({total}) / sum({valued}) as usual from {quote(operations)}
            where {days} and slice = {literal(ALL)} and day < {literal(last)}
        )
        select day, slice, {n} as requests, {counted} as n_0, coalesce({summed}, 0)::double as total_0
        from {quote(operations)}, before where {days} order by day, slice
    """


def slice_counts_sql(operations: str, missing: str, first: date) -> str:
    """SQL of ``(day, slice, n, bad)`` from a day on, of whatever answered: what could be missing, and what was.

    Args:
        missing: ``labels`` or ``answers``, as the series of the drift monitor are called.
    """
    n, bad = {"labels": ("matured", "unlabelled"), "answers": ("n", "errors + timeouts")}[missing]
    return f"""
        select day, slice, {n}::double as n, ({bad})::double as bad from {quote(operations)}
        where version = {literal(SERVED)} and {n} > 0 and day >= {literal(first)}
    """


def unanswered_sql(predictions: str, days: Sequence[date]) -> str:
    """SQL of ``operations_unanswered``: the failed answer of every request of a day that nobody else answered on it."""
    listed = ", ".join(map(literal, days))
    return f"""
        create or replace temp table operations_unanswered as
        select day, request_id, min(model_version) as model_version from {quote(predictions)} failed
        where day in ({listed}) and status in ('error', 'timeout') and role <> 'shadow' and not served
          and not exists (select 1 from {quote(predictions)} answered where answered.served
                          and answered.day = failed.day and answered.request_id = failed.request_id)
        group by day, request_id
    """


def answered_sql(predictions: str, names: Sequence[str], days: Sequence[date]) -> str:
    """SQL of ``operations_cells``: predictions of the days, counted per version, slice, hour and latency bin.

    A request that nobody answered counts for whatever answered all the same: as a failure.
    """
    bins = f"ceil(ln(greatest(latency_ms, {SHORTEST_MS})) / ln({GAMMA!r}::double))::integer"
    return f"""
        create or replace temp table operations_cells as
        select day, version, slice, hour, bin, count(*)::bigint as n, count_if(status = 'error')::bigint as errors,
               count_if(status = 'timeout')::bigint as timeouts, count_if(status = 'fallback')::bigint as fallbacks,
               count(micros)::bigint as n_costed, sum(micros)::hugeint as micros,
               sum(micros::hugeint * micros)::hugeint as squared_micros,
               sum(latency_ms) as latency_ms, sum(latency_ms * latency_ms) as latency_squares
        from (
            select day, status, latency_ms, hour, bin, micros, version, unnest(slices) as slice
            from (
                select day, status, latency_ms, extract(hour from predicted_at) as hour, {bins} as bin,
                       round(cost * {MONEY_UNIT})::bigint as micros, {slices_sql(names)} as slices,
                       unnest([model_version] || case when counts then [{literal(SERVED)}] else [] end) as version
                from (
                    select *, served or (day, request_id, model_version) in (from operations_unanswered) as counts
                    from {quote(predictions)}
                ) where day in ({", ".join(map(literal, days))})
            )
        )
        group by all
    """


def matured_sql(
    predictions: str,
    labels: str,
    label: LabelDefinition,
    max_delay_hours: float | None,
    names: Sequence[str],
    days: Sequence[date],
) -> str:
    """SQL of ``operations_matured``: served requests whose label window ended on a day, and their labels by then."""
    window = f"to_microseconds({round(label.window_hours * 3_600_000_000)})"
    late = "false"
    if max_delay_hours is not None:
        late = f"known_at > predicted_at + to_microseconds({round(max_delay_hours * 3_600_000_000)})"
    return f"""
        create or replace temp table operations_matured as
        select day, slice, count(*)::bigint as matured, count_if(known_at is null)::bigint as unlabelled,
               coalesce(count_if({late}), 0)::bigint as slow_labels
        from (
            select d.day, unnest(any_value({slices_sql(names)})) as slice, any_value(predicted_at) as predicted_at,
                   min(l.known_at) as known_at
            from {quote(predictions)} p
            join days d on p.predicted_at + {window} > d.start_at and p.predicted_at + {window} <= d.end_at
            left join {quote(labels)} l on l.request_id = p.request_id and l.value is not null
                 and l.label_version = {literal(label.version)} and l.event_at <= p.predicted_at + {window}
                 and l.day <= d.day
            where p.served and d.day in ({", ".join(map(literal, days))})
            group by d.day, p.request_id
        )
        group by all
    """


def insert_operations_sql(into: str) -> str:
    """SQL that inserts the rows of ``operations``: the cells added up, percentiles read from the bins."""
    stands_for = f"2 * pow({GAMMA!r}::double, min(bin) filter (where seen >= {{share}} * total)) / {GAMMA + 1!r}"
    percentiles = ", ".join(
        f"round({stands_for.format(share=share)}, 9) as {name}" for name, share in PERCENTILES.items()
    )
    return f"""
        insert into {quote(into)} by name
        with summed as (
            select day, version, slice, sum(n)::bigint as n, sum(errors)::bigint as errors,
                   sum(timeouts)::bigint as timeouts, sum(fallbacks)::bigint as fallbacks,
                   sum(n_costed)::bigint as n_costed, sum(micros) as micros, sum(squared_micros) as squared_micros,
                   round(sum(latency_ms), 9) as sum_ms, round(sum(latency_squares), 9) as squares_ms
            from operations_cells group by all
        ),
        peaks as (
            select day, version, slice, max(n)::bigint as peak_per_hour
            from (select day, version, slice, hour, sum(n) as n from operations_cells group by all) group by all
        ),
        bins as (
            select day, version, slice, bin, sum(n)::bigint as n,
                   sum(sum(n)) over (partition by day, version, slice order by bin) as seen,
                   sum(sum(n)) over (partition by day, version, slice) as total
            from operations_cells where bin is not null group by day, version, slice, bin
        ),
        latencies as (
            select day, version, slice, list(bin order by bin) as latency_bins, list(n order by bin) as latency_counts,
                   {percentiles}
            from bins group by day, version, slice
        )
        select day, version, slice, coalesce(n, 0) as n, coalesce(errors, 0) as errors,
               coalesce(timeouts, 0) as timeouts, coalesce(fallbacks, 0) as fallbacks,
               round((errors + timeouts) / n, 9) as error_share, round(fallbacks / n, 9) as fallback_share,
               coalesce(peak_per_hour, 0) as peak_per_hour, coalesce(n_costed, 0) as n_costed,
               round(micros::double / {MONEY_UNIT}, 9) as cost,
               round(squared_micros::double / {MONEY_UNIT}.0 / {MONEY_UNIT}, 9) as cost_squares,
               round(1000 * (micros::double / {MONEY_UNIT}) / nullif(n_costed, 0), 9) as cost_per_1000,
               matured, unlabelled, slow_labels, sum_ms, squares_ms,
               {", ".join(PERCENTILES)}, latency_bins, latency_counts
        from summed
        left join peaks using (day, version, slice)
        left join latencies using (day, version, slice)
        full join (select *, {literal(SERVED)} as version from operations_matured) using (day, version, slice)
    """
