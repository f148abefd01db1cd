"""Measure: the rows under ``quality``. SQL brings them together, ``quality_sums.py`` adds up, ``metrics.py`` divides.

What is counted for a prediction day depends on the day of the question only through the label events and predictions
that came by then; each such *state* of a prediction day is counted once and shared by all questions that look at it.
Slices are counted only in the states that a question about slices asks for.
"""

from collections.abc import Iterable, Mapping
from datetime import date

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import literal, quote, slice_sql
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.labels import LabelDefinition

SERVED = "served"
"""Version and role of whatever answered."""
STATES_A_DAY = 100_000
"""A state is numbered by its prediction day, times this, and how many days later the last news of it came."""


def scored_sql(
    predictions: str, first: date, last: date, slices: Iterable[str], *, is_chance: bool, kept: Mapping[str, str]
) -> str:
    """SQL of ``quality_scored``: one prediction; its score in 1e-9 if it is a chance, else 1 if there is one.

    Reads   ``predictions`` with prediction days ``first`` to ``last`` that were logged by ``last``.
    ``slice_<n>`` is *name=value* of each slice or null, ``kept`` are further columns, by their expressions over a
    prediction.
    """
    score = "round(score * 1e9)::bigint" if is_chance else "case when isfinite(score) then 1 end::bigint"
    more = {f"slice_{number}": slice_sql(name) for number, name in enumerate(slices)}
    more |= {name: text for name, text in kept.items() if name != "request_id"}
    return f"""
        create or replace temp table quality_scored as
        select prediction_day, day as logged_on, request_id, predicted_at, model_version as version, role,
               served, {score} as score{named_sql(more)}
        from {predictions}
        where prediction_day between {literal(first)} and {literal(last)} and day <= {literal(last)}
    """


def named_sql(expressions: Mapping[str, str]) -> str:
    """SQL of further columns of a selection."""
    return "".join(f", {text} as {quote(name)}" for name, text in expressions.items())


def truth_sql(labels: str, label: LabelDefinition, last: date, *, has_worth: bool) -> str:
    """SQL of ``quality_truth``: what was held true about a request, from one day until another, and its worth if asked.

    Reads   the label events of one version known by ``last`` whose outcome lies within the label window.
    Returns one row per event: true on ``[from_day, until_day)``; a withdrawn outcome has value null. Of two
    events of one day the earlier one holds for no day at all.
    """
    return f"""
        create or replace temp table quality_truth as
        select request_id, prediction_day, events.day as from_day,
               coalesce(lead(events.day) over (partition by request_id order by known_at), date '9999-12-31')
                   as until_day,
               value{", kpi" if has_worth else ""}
        from {labels} as events
        join (
            select request_id, min(prediction_day) as prediction_day, min(predicted_at) as predicted_at
            from quality_scored group by request_id
        ) using (request_id)
        where label_version = {literal(label.version)} and events.day <= {literal(last)}
          and (event_at is null
               or event_at <= predicted_at + to_microseconds({label.window // MICROSECOND}))
    """


def corrected_sql() -> str:
    """SQL of ``(day, prediction_day)``: which prediction days the label events of which day are about."""
    return "select distinct from_day, prediction_day from quality_truth"


def calendar_sql() -> str:
    """SQL of the engine's calendar: ``(day, start_at, end_at)``."""
    return "select day, start_at, end_at from days"


def asked_sql(given: str) -> str:
    """SQL of ``quality_asked``: what is asked, numbered, and whether of slices too; days as dates."""
    return f"""
        create or replace temp table quality_asked as
        select number, day::date as day, last::date as last, length, is_sliced from {given}
    """


def cells_sql() -> str:
    """SQL of ``quality_cells``: per question and prediction day the state that answers it.

    Reads   ``quality_asked(number, day, last, length, is_sliced)``.
    A state is a prediction day with the last day that brought news of it; one without news has no state.
    """
    return f"""
        create or replace temp table quality_cells as
        select *, (prediction_day - date '1970-01-01') * {STATES_A_DAY} + (as_of - prediction_day) as state
        from (
            select number, length, last, is_sliced, prediction_day, max(news.day) as as_of
            from quality_asked as asked
            join (
                select prediction_day, logged_on as day from quality_scored
                union
                select prediction_day, from_day from quality_truth
            ) as news on news.day <= asked.day
                     and prediction_day between asked.last - (asked.length - 1)::integer and asked.last
            group by all
        )
    """


def flat_sql(slices: int, label: LabelDefinition) -> str:
    """SQL of ``quality_flat``: one prediction in one state, with what is known of it then; hashes stand for names.

    ``source`` and ``truth`` are its rows in ``quality_scored`` and ``quality_truth``. ``is_positive`` is null without
    a score, and without a label unless such a request counts as negative. ``is_sliced``: its slices are asked for.
    """
    is_positive = f"value > {label.splits_at!r}" if label.splits_at is not None else "if(value is null, null, true)"
    if label.is_one_sided:
        is_positive = f"coalesce({is_positive}, false)"
    return f"""
        create or replace temp table quality_flat as
        select state, is_sliced, served, score, value,
               case when score is not null then {is_positive} end as is_positive,
               scored.rowid as source, truth.rowid as truth{hashes_sql(slices)}
        from (
            select prediction_day, as_of, state, bool_or(is_sliced) as is_sliced
            from quality_cells group by all
        ) as states
        join quality_scored as scored using (prediction_day)
        left join quality_truth as truth on truth.request_id = scored.request_id
             and from_day <= as_of and as_of < until_day
        where logged_on <= as_of
    """


def hashes_sql(slices: int) -> str:
    """SQL of what stands for the names of who answered and of its slices."""
    return ", hash(version, role) as who" + "".join(f", hash(slice_{n}) as hash_{n}" for n in range(slices))


def rows_sql(slices: int, *, kept: Iterable[str]) -> str:
    """SQL of view ``quality_rows``: one prediction in one state and one group, with what is known of it then.

    Each counts for its version, and for *served* if it was the answer; in slice *all* and, where slices are asked
    for, in one slice per declared name. ``kept`` are further columns of ``quality_scored`` and
    ``quality_truth``.
    """
    kept = list(kept)
    more = "".join(f", {quote(name)}" for name in kept)
    of_both = "".join(f", {'truth' if name == 'kpi' else 'scored'}.{quote(name)}" for name in kept)
    joined = "left join quality_truth as truth on truth.rowid = flat.truth" if "kpi" in kept else ""
    parts = ", ".join([literal(ALL), *(f"slice_{number}" for number in range(slices))])
    in_slices = f"list_filter([{parts}], lambda one: one is not null)" if slices else f"[{parts}]"
    return f"""
        create or replace temp view quality_rows as
        select state, hash(version, role, slice) as group_id, version, role, slice, value, score, is_positive{more}
        from (
            select state, unnest(who, max_depth := 2), slice, value, score, is_positive{more}
            from (
                select state, flat.score, flat.value, is_positive{of_both},
                       unnest(case when is_sliced then {in_slices} else [{literal(ALL)}] end) as slice,
                       [{{version: version, role: role}}] || case when flat.served
                           then [{{version: '{SERVED}', role: '{SERVED}'}}] else [] end as who
                from quality_flat as flat join quality_scored as scored on scored.rowid = flat.source {joined}
            )
        )
    """


def marked_rows_sql(slices: int) -> str:
    """SQL of the rows of ``quality_flat`` as small numbers; ``marks``: the outcome (2: not known), and three flags."""
    hashes = "".join(f", hash_{number}" for number in range(slices))
    return f"""
        select source, state, who, coalesce(score, 0)::integer as score,
               (case when is_positive is null then 2 when is_positive then 1 else 0 end + 4 * served::integer
                + 8 * is_sliced::integer + 16 * (value is not null and score is not null)::integer)::utinyint as marks
               {hashes}
        from quality_flat
    """


def named_groups_sql(slices: int) -> str:
    """SQL of ``quality_named``: the groups that were counted, named by a prediction of each.

    Reads   ``quality_counted_found(number, source, state, facet, is_served, ...)``; facet -1 is slice *all*. Rows that
    have no slice of a name, because it was not declared yet, are no group.
    """
    of_facet = "".join(f" when {number} then slice_{number}" for number in range(slices))
    return f"""
        create or replace temp table quality_named as
        select *, hash(version, role, slice) as group_id
        from (
            select found.* exclude (source, facet, is_served) replace (found.state::bigint as state),
                   case when is_served then '{SERVED}' else version end as version,
                   case when is_served then '{SERVED}' else role end as role,
                   case facet when -1 then {literal(ALL)}{of_facet} end as slice
            from quality_counted_found as found join quality_scored as scored on scored.rowid = found.source
        ) where slice is not null
    """


def hits_sql() -> str:
    """SQL of ``quality_hits``: one score of one group in one state, with its rows by outcome."""
    return """
        create or replace temp table quality_hits as
        select state, group_id, score::bigint as score, hits.positives::bigint as positives,
               hits.negatives::bigint as negatives
        from quality_hits_found as hits join quality_named using (number)
    """


def counts_sql() -> str:
    """SQL of ``quality_counts``: the groups without their numbers."""
    return "create or replace temp table quality_counts as select * exclude (number) from quality_named"


def tallied_sql() -> str:
    """SQL of ``quality_counts`` where nothing is a sum over scores: predictions, labels, and labels by outcome."""
    return """
        create or replace temp table quality_counts as
        select state, group_id, any_value(version) as version, any_value(role) as role, any_value(slice) as slice,
               count(*) as n, count(value) filter (where score is not null) as n_labelled,
               count(*) filter (where is_positive) as positives, count(*) filter (where not is_positive) as negatives
        from quality_rows group by state, group_id
    """


POWERS = ("p1", "p2", "p3", "p4")
LOSSES = ("own", "own_squares", "other", "other_squares", "product")
SUMS = POWERS + LOSSES
"""Sums per outcome: powers of the score; the log loss, its square, the log loss had the outcome been the other
one, its square, and the product of the two."""
BINS = 4096
"""Bins of a score histogram, equal steps of asin(sqrt(score)): narrow where scores are rare, near 0 and 1."""
HISTOGRAM_FROM = 2000
"""From this many rows with an outcome on, scores are counted in bins: the error of an AUC is below 1e-4."""


def bin_sql(bins: int) -> str:
    """SQL of the bin of a score."""
    return f"least(floor({bins} * 2 / pi() * asin(sqrt(score / 1e9))), {bins - 1})::bigint"


def answers_sql() -> str:
    """SQL of the counts of every question: one row per question, group and prediction day, oldest first.

    Over several days: every version of the last day, and whatever answered.
    """
    return f"""
        select number, group_id, state,
               columns(* exclude (number, length, last, is_sliced, prediction_day, as_of, state, group_id, version,
                                  role, slice, is_asked))::double
        from (
            select *, bool_or(prediction_day = last or version = '{SERVED}')
                          over (partition by number, group_id) as is_asked
            from quality_cells join quality_counts using (state)
            where is_sliced or slice = {literal(ALL)}
        ) where is_asked
        order by number, group_id, prediction_day
    """


def names_sql() -> str:
    """SQL of ``(group_id, version, role, slice)``: what groups are called."""
    return """
        select group_id, any_value(version) as version, any_value(role) as role, any_value(slice) as slice
        from quality_counts group by group_id
    """


def drop_sql(table: str) -> str:
    """SQL that drops a temp table, if it was made."""
    return f"drop table if exists {quote(table)}"


def drop_rows_sql() -> str:
    """SQL that drops the view of rows."""
    return "drop view quality_rows"
