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
    ``who`` stands for version and role, ``code_<n>`` for *name=value* of each slice (0: none), ``flags`` are the marks
    *served* and *scored*; ``kept`` are further columns, by their expressions over a prediction. Hashes and not names,
    and made here: a file of the lake has a dictionary of its names, each of which is hashed once, and writing the
    names down costs five times as much.
    """
    score = "round(score * 1e9)::integer" if is_chance else "case when isfinite(score) then 1 end::integer"
    more = {f"code_{number}": code_sql(slice_sql(name)) for number, name in enumerate(slices)}
    more |= {name: text for name, text in kept.items() if name != "request_id"}
    return f"""
        create or replace temp table quality_scored as
        select prediction_day, day as logged_on, request_id, predicted_at, {who_sql("model_version", "role")} as who,
               {score} as score, {flags_sql("score")} as flags{named_sql(more)}
        from {predictions}
        where prediction_day between {literal(first)} and {literal(last)} and day <= {literal(last)}
    """


def who_sql(version: str, role: str) -> str:
    """SQL of what stands for the version and the role of who answered."""
    return f"hash({version}, {role})"


def flags_sql(score: str) -> str:
    """SQL of the marks that a prediction has in every state."""
    return f"({SERVED_MARK} * served::integer + {SCORED_MARK} * ({score} is not null)::integer)::utinyint"


def code_sql(part: str) -> str:
    """SQL of what stands for the name of a slice; 0 for null."""
    return f"case when ({part}) is null then 0 else hash({part}) end::ubigint"


def who_names_sql(predictions: str) -> str:
    """SQL of ``quality_who``: the version and the role of each ``who``; every version with every role.

    Distinct column by column: of one column that is a look at the dictionaries of the files.
    """
    return f"""
        create or replace temp table quality_who as
        select {who_sql("version", "role")} as who, version, role
        from (select distinct model_version as version from {predictions})
        cross join (select distinct role from {predictions})
        union all select {served_sql()}, {literal(SERVED)}, {literal(SERVED)}
    """


def served_sql() -> str:
    """SQL of the ``who`` of whatever answered."""
    return who_sql(literal(SERVED), literal(SERVED))


def part_names_sql(predictions: str, slices: Iterable[str]) -> str:
    """SQL of ``quality_parts``: the name of the slice of each ``code``; read from distinct contexts, which are few."""
    contexts = f"(select distinct context from {predictions})"
    named = "".join(f" union select {slice_sql(name)} from {contexts}" for name in slices)
    return f"""
        create or replace temp table quality_parts as
        select {code_sql("slice")} as code, slice
        from (select {literal(ALL)} as slice{named}) where slice is not null
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


def flat_sql(slices: int, label: LabelDefinition, *, has_rows: bool) -> str:
    """SQL of ``quality_flat``: one prediction in one state, with what is known of it then.

    ``source`` and ``truth`` are its rows in ``quality_scored`` and ``quality_truth``, if ``has_rows``. ``marks`` is
    a number of bits: two for the outcome (2: not known, which is so without a label unless such a request counts as
    negative), then *served*, *sliced* (slices of this state are asked for), *labelled*, *scored*.
    """
    source = "scored.rowid::uinteger as source, truth.rowid::uinteger as truth, " if has_rows else ""
    return f"""
        select state, {source}coalesce(score, 0) as score, who,
               {told_sql(label)} + flags + sliced as marks{"".join(f", code_{n}" for n in range(slices))}
        from (
            select prediction_day, as_of, state, ({SLICED_MARK} * bool_or(is_sliced)::integer)::utinyint as sliced
            from quality_cells group by all
        ) as states
        join quality_scored as scored using (prediction_day)
        left join quality_truth as truth on truth.request_id = scored.request_id
             and from_day <= as_of and as_of < until_day
        where logged_on <= as_of
    """


def told_sql(label: LabelDefinition) -> str:
    """SQL of the marks that a label makes: its outcome, and that there is one."""
    is_positive = "value is not null" if label.splits_at is None else f"value > {label.splits_at!r}"
    unknown = 0 if label.is_one_sided else 2
    return f"""case when {is_positive} then {1 + LABELLED_MARK}::utinyint
                    when value is not null then {LABELLED_MARK}::utinyint else {unknown}::utinyint end"""


def rows_sql(slices: int, *, kept: Iterable[str]) -> str:
    """SQL of view ``quality_rows``: one prediction in one state and one group, with what is known of it then.

    Each counts for its version, and for *served* if it was the answer; in slice *all* and, where slices are asked
    for, in one slice per declared name. ``kept`` are further columns of ``quality_scored`` and
    ``quality_truth``; with them comes the label's ``value``.
    """
    kept = [*kept, "value"] if (kept := list(kept)) else []
    more = "".join(f", {quote(name)}" for name in kept)
    of_both = "".join(f", {'truth' if name in ('kpi', 'value') else 'scored'}.{quote(name)}" for name in kept)
    joined = """join quality_scored as scored on scored.rowid = source
                left join quality_truth as truth on truth.rowid = flat.truth"""
    everywhere = code_sql(literal(ALL))
    parts = ", ".join([everywhere, *(f"flat.code_{number}" for number in range(slices))])
    in_slices = f"list_filter([{parts}], lambda one: one <> 0)" if slices else f"[{parts}]"
    return f"""
        create or replace temp view quality_rows as
        select state, hash(who, code) as group_id, who, code, score, is_positive{more}
        from (
            select state, unnest(who) as who, code, score, is_positive{more}
            from (
                select state, case when marks & {SCORED_MARK} <> 0 then flat.score end as score,
                       case marks & {3 + SCORED_MARK} when {1 + SCORED_MARK} then true
                            when {SCORED_MARK} then false end as is_positive{of_both},
                       unnest(case when marks & {SLICED_MARK} <> 0 then {in_slices} else [{everywhere}] end) as code,
                       [flat.who] || case when marks & {SERVED_MARK} <> 0 then [{served_sql()}] else [] end as who
                from quality_flat as flat {joined if kept else ""}
            )
        )
    """


def named_groups_sql() -> str:
    """SQL of ``(number, state, group_id, version, role, slice)`` of the groups that were counted.

    Reads   ``quality_groups(number, state, who, code, facet, is_served)``; facet -1 is slice *all*. Rows that have no
    slice of a name, because it was not declared yet, are no group.
    """
    return f"""
        select number, state, hash(who, code) as group_id, version, role, slice
        from (
            select number, state, case when is_served then {served_sql()} else who end as who,
                   case facet when -1 then {code_sql(literal(ALL))} else code end as code
            from quality_groups
        ) join quality_who using (who) join quality_parts using (code)
        order by number
    """


def tallied_sql() -> str:
    """SQL of ``quality_counts`` where nothing is a sum over scores: predictions, labels, and labels by outcome."""
    return """
        select * exclude (who, code)
        from (
            select state, group_id, any_value(who) as who, any_value(code) as code, count(*) as n,
                   count(value) filter (where score is not null) as n_labelled,
                   count(*) filter (where is_positive) as positives,
                   count(*) filter (where not is_positive) as negatives
            from quality_rows group by state, group_id
        ) join quality_who using (who) join quality_parts using (code)
    """


SERVED_MARK, SLICED_MARK, LABELLED_MARK, SCORED_MARK = 4, 8, 16, 32
POWERS = ("p1", "p2", "p3", "p4")
LOSSES = ("own", "own_squares", "other", "other_squares", "product")
SUMS = POWERS + LOSSES
"""Sums per outcome: powers of the score; the log loss, its square, the log loss had the outcome been the other
one, its square, and the product of the two."""
BINS = 4096
"""Bins of a score histogram, equal steps of asin(sqrt(score)): narrow where scores are rare, near 0 and 1."""
HISTOGRAM_FROM = 2000
"""From this many rows with an outcome on, scores are counted in bins: the error of an AUC is below 1e-4."""


def bin_sql(bins: int, chance: str = "score / 1e9") -> str:
    """SQL of the bin of a chance."""
    return f"least(floor({bins} * 2 / pi() * asin(sqrt({chance}))), {bins - 1})::bigint"


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
