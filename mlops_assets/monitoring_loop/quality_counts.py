"""Measure: the counting under ``quality``. SQL counts, exactly; ``metrics.py`` divides.

Every sum is a sum of integers (scores in 1e-9, powers and losses in 1e-12), exact whatever the order of the
rows, so a block of days gives the same bits as its days one by one. What is counted for a prediction day
depends on the day of the question only through the label events and predictions that came by then; each such
*state* of a prediction day is counted once and shared by all questions that look at it. Slices are counted
only in the states that a single day asks for.
"""

from collections.abc import Iterable, Mapping
from datetime import date

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import literal, quote, slices_sql
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.labels import LabelDefinition

SERVED = "served"
"""Version and role of whatever answered."""
STATES_A_DAY = 100_000
"""A state is numbered by its prediction day, times this, and how many days later the last news of it came."""


def scored_sql(predictions: str, first: date, last: date, *, is_chance: bool, kept: Mapping[str, str]) -> str:
    """SQL of ``quality_scored``: one prediction; its score in 1e-9 if it is a chance, else 1 if there is one.

    Reads   ``predictions`` with prediction days ``first`` to ``last`` that were logged by ``last``.
    ``kept`` are further columns, by their expressions over a prediction.
    """
    score = "round(score * 1e9)::bigint" if is_chance else "case when isfinite(score) then 1 end::bigint"
    return f"""
        create or replace temp table quality_scored as
        select prediction_day, day as logged_on, request_id, predicted_at, model_version as version, role,
               served, context, {score} as score{named_sql({n: e for n, e in kept.items() if n != "request_id"})}
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
    """SQL of ``quality_asked``: what is asked, numbered; days as dates."""
    return f"""
        create or replace temp table quality_asked as
        select number, day::date as day, last::date as last, length from {given}
    """


def cells_sql() -> str:
    """SQL of ``quality_cells``: per question and prediction day the state that answers it.

    Reads   ``quality_asked(number, day, last, length)``.
    A state is a prediction day with the last day that brought news of it; one without news has no state.
    """
    return f"""
        create or replace temp table quality_cells as
        select *, (prediction_day - date '1970-01-01') * {STATES_A_DAY} + (as_of - prediction_day) as state
        from (
            select number, length, last, prediction_day, max(news.day) as as_of
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


def rows_sql(slices: Iterable[str], label: LabelDefinition, *, kept: Iterable[str]) -> str:
    """SQL of ``quality_rows``: one prediction in one state and one group, with what is known of it then.

    Each counts for its version, and for *served* if it was the answer; in slice *all* and, where single days
    are asked for, in one slice per declared name. ``is_positive`` is null without a score, and without a label
    unless such a request counts as negative. ``kept`` are further columns of ``quality_scored`` and ``quality_truth``.
    """
    is_positive = f"value > {label.splits_at!r}" if label.splits_at is not None else "if(value is null, null, true)"
    if label.is_one_sided:
        is_positive = f"coalesce({is_positive}, false)"
    more = "".join(f", {quote(name)}" for name in kept)
    of_scored = "".join(f", {'truth' if name == 'kpi' else 'scored'}.{quote(name)}" for name in kept)
    split = f"case when is_sliced then {slices_sql(slices)} else [{literal(ALL)}] end"
    return f"""
        create or replace temp table quality_rows as
        select state, hash(version, role, slice) as group_id, version, role, slice, value, score, is_positive{more}
        from (
            select state, unnest(who, max_depth := 2), slice, value, score, is_positive{more}
            from (
                select state, score, value{of_scored},
                       case when score is not null then {is_positive} end as is_positive, unnest({split}) as slice,
                       [{{version: version, role: role}}] || case when served
                           then [{{version: '{SERVED}', role: '{SERVED}'}}] else [] end as who
                from (
                    select prediction_day, as_of, state, bool_or(length = 1) as is_sliced
                    from quality_cells group by all
                ) as states
                join quality_scored as scored using (prediction_day)
                left join quality_truth as truth on truth.request_id = scored.request_id
                     and from_day <= as_of and as_of < until_day
                where logged_on <= as_of
            )
        )
    """


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


def sums_sql(*, is_crossed: bool) -> str:
    """SQL of ``quality_sums``: one row per state and group; all sums are sums of integers.

    Log loss is cut off where scikit-learn does. ``is_crossed``: also the losses that the other outcome would have
    given.
    """
    chance, lost = "(score / 1e9)", "((1000000000 - score) / 1e9)"
    own, other = (f"-ln(greatest(case when {test} then {chance} else {lost} end, 2.220446049250313e-16))"
                  for test in ("is_positive", "not is_positive"))  # fmt: skip
    products = {name: (chance,) * power for power, name in enumerate(POWERS, start=1)}
    products |= {"own": (own,), "own_squares": (own, own)}
    if is_crossed:
        products |= {"other": (other,), "other_squares": (other, other), "product": (own, other)}
    terms = ", ".join(
        f"sum(round({' * '.join(f'({factor})' for factor in factors)} * 1e12)::bigint) as {name}"
        for name, factors in products.items()
    )
    wide = ", ".join(
        (f"max({name}) filter (where {test})" if name in products else "0") + f" as {name}_{suffix}"
        for suffix, test in (("1", "is_positive"), ("0", "not is_positive"))
        for name in SUMS
    )
    return f"""
        create or replace temp table quality_sums as
        select state, group_id, any_value(version) as version, any_value(role) as role, any_value(slice) as slice,
               sum(n)::bigint as n, sum(n_labelled)::bigint as n_labelled,
               coalesce(max(n) filter (where is_positive), 0) as positives,
               coalesce(max(n) filter (where not is_positive), 0) as negatives, {wide}
        from (
            select state, group_id, is_positive, any_value(version) as version, any_value(role) as role,
                   any_value(slice) as slice, count(*) as n,
                   count(value) filter (where score is not null) as n_labelled, {terms}
            from quality_rows group by state, group_id, is_positive
        )
        group by state, group_id
    """


def bin_sql(bins: int) -> str:
    """SQL of the bin of a score."""
    return f"least(floor({bins} * 2 / pi() * asin(sqrt(score / 1e9))), {bins - 1})::bigint"


def hits_sql() -> str:
    """SQL of ``quality_hits``: one score of one group in one state, with its rows by outcome.

    From ``HISTOGRAM_FROM`` rows with an outcome on, the scores of a bin are all taken for its middle.
    """
    middle = f"round(1e9 * pow(sin(({bin_sql(BINS)} + 0.5) * pi() / {2 * BINS}), 2))::bigint"
    return f"""
        create or replace temp table quality_hits as
        select state, group_id, case when is_large then {middle} else score end as score,
               count(*) filter (where is_positive) as positives, count(*) filter (where not is_positive) as negatives
        from (
            select state, group_id, score, is_positive from quality_rows where is_positive is not null
        ) join (
            select state, group_id, positives + negatives >= {HISTOGRAM_FROM} as is_large from quality_sums
        ) using (state, group_id)
        group by all
    """


def counts_sql() -> str:
    """SQL of ``quality_counts``: ``quality_sums`` with the placements that an AUC needs.

    Of a hit, ``below`` is twice the negatives below and ``above`` twice the positives above, ties counting half.
    """
    return """
        create or replace temp table quality_counts as
        select * from quality_sums left join (
            select state, group_id, sum(below * positives) as below,
                   sum(below * below::hugeint * positives) as below_squares,
                   sum(above * above::hugeint * negatives) as above_squares
            from (
                select state, group_id, positives, negatives,
                       (2 * sum(negatives) over upward - negatives)::bigint as below,
                       (2 * (sum(positives) over whole - sum(positives) over upward) + positives)::bigint as above
                from quality_hits
                window upward as (partition by state, group_id order by score),
                       whole as (partition by state, group_id)
            )
            group by all
        ) using (state, group_id)
    """


def answers_sql() -> str:
    """SQL of the counts of every question: one row per question, group and prediction day, oldest first.

    Over several days: every version of the last day, and whatever answered; slices over single days only.
    """
    return f"""
        select number, group_id, version, role, slice, prediction_day, state,
               columns(* exclude (number, length, last, prediction_day, as_of, state, group_id, version, role, slice,
                                  is_asked))::double
        from (
            select *, bool_or(prediction_day = last or version = '{SERVED}')
                          over (partition by number, group_id) as is_asked
            from quality_cells join quality_counts using (state)
            where length = 1 or slice = {literal(ALL)}
        ) where is_asked
        order by number, version, role, slice, prediction_day
    """


def exact_aucs_sql() -> str:
    """SQL of ``(question, below, pairs)``: the AUC of each question is below / pairs.

    Reads   ``quality_members(question, state, group_id, positive_weight, hidden_weight, negative_weight)``: the states
            and the group of each, and what a positive (as itself, and as a negative) and a negative stand for.
    """
    return """
        select question, sum(positives * below)::double, (2 * sum(positives) * sum(negatives))::double
        from (
            select question, positives, negatives,
                   2 * sum(negatives) over (partition by question order by score) - negatives as below
            from (
                select question, score, sum(positives::hugeint * positive_weight) as positives,
                       sum(negatives::hugeint * negative_weight + positives::hugeint * hidden_weight) as negatives
                from quality_hits join quality_members using (state, group_id)
                group by all
            )
        )
        group by question
    """


def histograms_sql() -> str:
    """SQL of ``(state, group_id, bin, negatives, positives)``: non-empty score bins of what members name."""
    return f"""
        select state, group_id, {bin_sql(BINS)} as bin,
               sum(negatives)::bigint as negatives, sum(positives)::bigint as positives
        from quality_hits semi join quality_members using (state, group_id)
        group by all order by all
    """


def drop_sql(table: str) -> str:
    """SQL that drops a temp table, if it was made."""
    return f"drop table if exists {quote(table)}"
