"""Measure: what the answers were worth, in the declared unit, as known at the end of a day.

The questions (days, windows, versions, slices) are those that ``quality`` answers, so the two tables stand side by
side. One day is counted from its requests; longer windows add up the days' newest counts (``kpi_windows.py``).
Values are counted in millionths: sums are exact in any order, so a block gives the same bits as its days one by one.
Days whose labels are still coming in are corrected as in ``metrics.py``: a valued answer stands for 1 / G of its
outcome.
"""

from collections.abc import Sequence
from datetime import date

import duckdb

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import copy_sql, literal, quote, run
from mlops_assets.monitoring_loop.kpi_windows import VALUE_UNIT, add_windows
from mlops_assets.monitoring_loop.metrics import Z95
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.kpi import KpiPolicy
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.service import MLService

BEFORE = "1970-01-01"


def measure_kpi(
    con: duckdb.DuckDBPyConnection, service: MLService, *, days: Sequence[date], history: str, completeness: str
) -> None:
    """Insert the ``kpi`` rows of each day into temp table ``kpi``; none unless a KPI is declared over outcomes.

    Reads ``quality`` (of these days), ``predictions``, ``labels``.

    Args:
        history: relation of table ``kpi``, from the longest window before the first day on; days before it only.
        completeness: relation of that table's shape, with the rows of ``days``.
    """
    kpi = service.quality.kpi
    if kpi is None or kpi.source is not None or not days:
        return
    label, task = service.label, service.task
    run(con, copy_sql("kpi_asked", kpi_asked_sql(asking_metric(service), label.version)))
    run(con, copy_sql("kpi_truth", kpi_truth_sql(label, task)))
    opposite = None if not label.is_one_sided else "not outcome" if task == "binary" else "0.0"
    run(con, copy_sql("kpi_counts", kpi_counts_sql(kpi, tuple(service.slices), opposite)))
    run(con, copy_sql("kpi_days", kpi_days_sql(is_one_sided=label.is_one_sided)))
    has_one = label.is_one_sided or label.splits_at is None
    run(con, copy_sql("kpi_known", known_share_sql(completeness, has_one=has_one)))
    run(con, single_days_sql(kpi.name, is_one_sided=label.is_one_sided))
    add_windows(con, kpi.name, history)


def asking_metric(service: MLService) -> str:
    """The metric of ``quality`` whose questions the KPI answers too: of a mean over requests, where one is measured."""
    measured = service.quality.metrics
    return next((name for name in ("positive_share", "mae", "accuracy", "ctr") if name in measured), measured[0])


def kpi_asked_sql(metric: str, label_version: str) -> str:
    """SQL of ``kpi_asked``: what ``quality`` was asked under one label definition, and why it had no answer."""
    return f"""
        select day, prediction_day, window_days, version, role, slice, label_version, n, completeness, state,
               case when state = 'open' then 'no label yet' else reason end as reason
        from quality
        where metric = {literal(metric)} and label_version = {literal(label_version)}
          and (slice = {literal(ALL)} or role = {literal(SERVED)})
    """


def outcome_sql(label: LabelDefinition, task: str, value: str) -> str:
    """SQL of what an expression calls ``outcome``: yes or no, a class by name (empty: none of them), a number."""
    if task == "binary":
        return f"{value} > 0.5"
    if task == "multiclass":
        classes = ", ".join(literal(name) for name in label.classes)
        return f"case when {value} is not null then coalesce([{classes}][{value}::integer + 1], '') end"
    return value


def kpi_truth_sql(label: LabelDefinition, task: str) -> str:
    """SQL of ``kpi_truth``: what was held true about a request of the asked days, from one day until another.

    Where silence counts as negative, it does so until the first label comes. ``is_positive``: by which of both curves
    a label arrives.
    """
    value = "coalesce(value, 0.0)" if label.is_one_sided else "value"
    silence = f"""
        union all select request_id, date '{BEFORE}', timestamp '{BEFORE}', 0.0 from requests"""
    return f"""
        with requests as (
            select request_id, min(predicted_at) as predicted_at from predictions
            where prediction_day in (select prediction_day from kpi_asked where window_days = 1) group by request_id
        ), told as (
            select request_id, l.day, known_at, value from labels as l join requests using (request_id)
            where label_version = {literal(label.version)}
              and (l.event_at is null or l.event_at <= predicted_at + to_microseconds({label.window // MICROSECOND}))
            {silence if label.is_one_sided else ""}
        )
        select request_id, day as from_day, {outcome_sql(label, task, value)} as outcome,
               {"true" if label.splits_at is None else f"{value} > {label.splits_at!r}"} as is_positive,
               coalesce(lead(day) over (partition by request_id order by known_at), date '9999-12-31') as until_day
        from told
    """


SUMS = {"total": ("value",), "squares": ("value", "value"), "other": ("other",), "others": ("other", "other"),
        "product": ("value", "other")}  # fmt: skip
"""Sums over the answers of one outcome: of the value, of what the other outcome would have given, and of products."""


def sums_of(*, is_one_sided: bool) -> Sequence[str]:
    """The ``SUMS`` that are needed: the other outcome matters only where positives hide among negatives."""
    return tuple(SUMS)[: None if is_one_sided else 2]


def kpi_counts_sql(kpi: KpiPolicy, slices: Sequence[str], opposite: str | None) -> str:
    """SQL of ``kpi_counts``: answers with a value of one outcome, by version, slice, and the days they are known on.

    Reads   ``predictions`` and ``kpi_truth``. Each answer is valued once, whatever the number of days that ask for it.
            Only what was served is split into slices.

    Args:
        opposite: SQL of the outcome that stands for silence, where positives hide among it.
    """
    named = "".join(f", json_extract_string(context, {literal('$.' + name)}) as {quote(name)}" for name in slices)
    parts = "".join(f", {literal(name + '=')} || coalesce({quote(name)}, 'null')" for name in slices)
    number = f"round(({kpi.value}) * {VALUE_UNIT})::bigint"
    sums = ", ".join(
        f"coalesce(sum({'::hugeint * '.join(terms)}) filter (where {test}), 0)::hugeint as {name}{suffix}"
        for suffix, test in (("1", "is_positive"), ("0", "not is_positive"))
        for name, terms in ((name, SUMS[name]) for name in sums_of(is_one_sided=opposite is not None))
    )
    other = "select *, null::bigint as other from valued"
    if opposite is not None:
        other = f"select *, {number} as other from (select * replace ({opposite} as outcome) from valued)"
    return f"""
        with own as (
            select p.*, outcome, is_positive, from_day, until_day{named}
            from predictions as p join kpi_truth using (request_id) where outcome is not null
        ), valued as (select *, {number} as value from own
        ), turned as ({other}
        ), split as (
            select day, prediction_day, from_day, until_day, decision, is_positive, value, other,
                   unnest([{{version: model_version, role: role, slice: {literal(ALL)}}}] || case when served then
                       list_transform([{literal(ALL)}{parts}], lambda part:
                           {{version: {literal(SERVED)}, role: {literal(SERVED)}, slice: part}}) else [] end,
                       max_depth := 2)
            from turned where value is not null
        )
        select day as logged_on, prediction_day, from_day, until_day, version, role, slice,
               count(*) filter (where decision) as alarms, count(*) filter (where is_positive) as n1,
               count(*) filter (where not is_positive) as n0, {sums}
        from split group by all
    """


def kpi_days_sql(*, is_one_sided: bool) -> str:
    """SQL of ``kpi_days``: one version in one role and one slice on one prediction day, as known on a day.

    Returns requests with a value (``counted``), how many of them were alarms, how many there are per outcome, and
            the sums of ``SUMS`` per outcome, in the unit of the KPI.
    """
    sums = ", ".join(
        f"sum({name}{suffix})::double / {VALUE_UNIT ** len(SUMS[name])} as {name}{suffix}"
        for suffix in ("1", "0")
        for name in sums_of(is_one_sided=is_one_sided)
    )
    return f"""
        select a.day, a.prediction_day, version, role, slice, sum(n1 + n0)::bigint as counted,
               sum(alarms)::bigint as alarms, sum(n1)::bigint as n1, sum(n0)::bigint as n0, {sums}
        from (select distinct day, prediction_day from kpi_asked where window_days = 1) as a
        join kpi_counts as c on c.prediction_day = a.prediction_day and c.logged_on <= a.day
                            and c.from_day <= a.day and a.day < c.until_day
        group by all
    """


def known_share_sql(completeness: str, *, has_one: bool) -> str:
    """SQL of ``kpi_known``: the share of each outcome's labels that is known (``g1``, ``g0``), with its variances.

    ``has_one``: only positives arrive, or all labels share one curve.
    """
    negative = "1.0 as g0, 0.0 as v0, 0.0 as c" if has_one else "n.value as g0, n.variance as v0, p.covariance as c"
    both = "" if has_one else "join shares as n using (day, label_version, age_days, slice)"
    return f"""
        with shares as (select * replace (coalesce(slice, {literal(ALL)}) as slice) from {completeness})
        select p.day, p.label_version, p.age_days, p.slice, p.value as g1, p.variance as v1, {negative}
        from shares as p {both}
        where p.outcome = 'positive'{"" if has_one else " and n.outcome = 'negative'"}
    """


def single_days_sql(name: str, *, is_one_sided: bool) -> str:
    """SQL that adds one day's rows: the mean over requests; the request is the unit of its interval.

    Linearised ratio of weighted sums (W. G. Cochran, *Sampling Techniques*, 3rd ed. 1977, ch. 6) plus what the
    estimated completeness adds (delta method), as ``metrics.daily_ratio``. A positive among requests that count as
    negative until a label comes counts 1 / G as itself and 1 - 1 / G as a negative.
    """
    if is_one_sided:
        total, below = "total0 + total1 / g1 + (1 - 1 / g1) * other1", "counted::double"
        squares = "squares0 + squares1 / g1 / g1 + 2 / g1 * (1 - 1 / g1) * product1 + (1 - 1 / g1) ** 2 * others1"
        spread, s1, s0 = "squares - total * total / counted", "-(total1 - other1) / g1 / below", "0.0"
    else:
        total, below = "total1 / g1 + total0 / g0", "n1 / g1 + n0 / g0"
        squares = "0.0"
        spread = """(squares1 - 2 * value * total1 + value * value * n1) / g1 / g1
                    + (squares0 - 2 * value * total0 + value * value * n0) / g0 / g0"""
        s1, s0 = "-(total1 - value * n1) / g1 / below", "-(total0 - value * n0) / g0 / below"
    return f"""
        insert into kpi by name
        with asked as (
            select a.*, d.* exclude (day, prediction_day, version, role, slice),
                   case when a.state = 'provisional' then k.g1 else 1.0 end as g1,
                   case when a.state = 'provisional' then k.g0 else 1.0 end as g0,
                   case when a.state = 'provisional' then k.v1 else 0.0 end as v1,
                   case when a.state = 'provisional' then k.v0 else 0.0 end as v0,
                   case when a.state = 'provisional' then k.c else 0.0 end as c
            from kpi_asked as a left join kpi_days as d using (day, prediction_day, version, role, slice)
            left join kpi_known as k on k.day = a.day and k.label_version = a.label_version
                                    and k.age_days = a.day - a.prediction_day and k.slice = a.slice
            where window_days = 1
        ), summed as (
            select *, case when reason is null and counted > 1 then {total} end as total, {below} as below,
                   {squares} as squares from asked
        ), valued as (select *, total / below as value from summed),
        spread as (
            select *, {Z95!r} * sqrt(counted / (counted - 1) * greatest({spread}, 0) / below / below
                                     + ({s1}) ** 2 * v1 + 2 * ({s1}) * ({s0}) * c + ({s0}) ** 2 * v0) as half
            from valued
        )
        select day, prediction_day, window_days, version, role, slice, {literal(name)} as kpi, label_version,
               round(value, 9) as value, round(value - half, 9) as low, round(value + half, 9) as high,
               round(total, 9) as total, case when value is not null then round(below, 9) end as expected,
               coalesce(alarms, 0) as alarms, n, coalesce(counted, 0) as n_labelled, completeness,
               case when value is null then 'not_measured' else state end as state,
               case when value is null then coalesce(reason, coalesce(counted, 0) || ' answers with a value, below 2')
                    end as reason
        from spread
    """
