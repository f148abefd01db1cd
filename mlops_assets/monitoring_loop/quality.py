"""Measure: how good the predictions were, as known at the end of a day.

A row under day D says what was known at the end of D and is never rewritten. SQL counts, ``metrics.py``
divides: every sum is a sum of integers (scores in 1e-9, losses in 1e-12), exact whatever the order of the
rows, so a block of days gives the same bits as its days one by one. What is counted for a prediction day
depends on D only through the label events and predictions that came by then; each such *state* of a
prediction day is counted once and shared by all days and windows that look at it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import literal, quote, rows, run
from mlops_assets.monitoring_loop import metrics
from mlops_assets.monitoring_loop.metrics import METRICS, Counts, Histogram, Measured, NotMeasured
from mlops_assets.monitoring_loop.profiles import ALL, create_if_absent_sql
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

SERVED = "served"
"""Version and role of whatever answered."""

ONE_DAY = timedelta(days=1)
State = int
"""Names what is known about a prediction day until the next news: of the day and of its newest news."""


@dataclass(frozen=True)
class Group:
    """Predictions that are measured together: one version in one role, one slice."""

    version: str
    role: str
    slice: str = ALL


SERVED_GROUP = Group(SERVED, SERVED)


@dataclass(frozen=True)
class Window:
    """One question: predictions of the ``length`` days ending ``last``, as known at the end of ``day``."""

    day: date
    last: date
    length: int
    state: str

    @property
    def prediction_days(self) -> list[date]:
        """Its days, oldest first."""
        return [self.last - timedelta(days=back) for back in reversed(range(self.length))]


def history_days(service: MLService) -> int:
    """Days before the first measured day whose predictions and labels must be at hand.

    The longest window that ends on the newest mature day, and one day more for the days of 23 hours. What
    reaches further back is not measured: a correction restates the windows that begin within these days.
    """
    return max(1, *service.quality.windows_days) + ceil(service.label.window / ONE_DAY) + 1


def measure_quality(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    *,
    predictions: str,
    labels: str,
    days: Sequence[date],
    into: str,
    blocked: Collection[date] = (),
) -> None:
    """Insert the ``quality`` rows of each day into ``into``.

    Day D has rows with ``window_days`` 1 for every prediction day that was not mature at the end of D - 1 or
    that a label event of D is about, and rows of the longer windows that end on a day that became mature on D
    (state final) or that hold a corrected day (state restated; PROTOCOL.md 10 and 13).

    Args:
        predictions: relation of that table's shape, from ``history_days(service)`` before the first day on.
        labels: relation of that table's shape, likewise.
        days: days to measure; the engine's table ``days`` must cover them and the history.
        into: temp table of the shape of ``quality``; created if it is not there.
        blocked: prediction days without predictions because a file was missing or bad: *not measured*.
    """
    run(con, create_if_absent_sql("quality", into))
    if not days:
        return
    reach = history_days(service)
    first, last = min(days) - timedelta(days=reach), max(days)
    run(con, quality_scored_sql(predictions, service.quality.slices, first, last))
    run(con, quality_truth_sql(labels, service.label, last))
    run(con, quality_states_sql(days, reach))
    run(con, quality_hits_sql())
    calendar = {day: (start, end) for day, start, end in rows(con, calendar_sql())}
    asked = [window for day in sorted(days) for window in windows_of(con, service, calendar, day)]
    known = Known.read(con)
    pooled = pooled_aucs(con, known, [window for window in asked if window.length > 1])
    found = [row for window in asked for row in window_rows(service, known, pooled, window)]
    found += [row for window in asked for row in blocked_rows(service, known, window, blocked)]
    insert_rows(con, found, into)
    for table in ("scored", "truth", "states", "hits"):
        run(con, drop_sql(f"quality_{table}"))


def windows_of(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    calendar: Mapping[date, tuple[datetime, datetime]],
    day: date,
) -> Iterator[Window]:
    """What is measured at the end of ``day``: single days first, oldest first."""
    oldest = day - timedelta(days=history_days(service))
    corrected = {row[0] for row in rows(con, corrected_sql(), [day, oldest])}
    window, reach = service.label.window, [oldest + timedelta(days=n) for n in range((day - oldest).days + 1)]
    is_mature = {p: calendar[p][1] + window <= calendar[day][1] for p in reach}
    was_mature = {p: calendar[p][1] + window <= calendar[day][0] for p in reach}
    for last in reach:
        if not was_mature[last]:
            yield Window(day, last, 1, "final" if is_mature[last] else "provisional")
        elif last in corrected:
            yield Window(day, last, 1, "restated")
    for last in (last for last in reach if is_mature[last]):
        for length in (length for length in service.quality.windows_days if length > 1):
            covered = {last - timedelta(days=back) for back in range(length)}
            if min(covered) < oldest:
                continue
            if not was_mature[last]:
                yield Window(day, last, length, "final")
            elif covered & corrected:
                yield Window(day, last, length, "restated")


@dataclass(frozen=True)
class Known:
    """What a block counted: the state of a prediction day as seen from a day, and the counts of it."""

    states: Mapping[tuple[date, date], State]
    counts: Mapping[State, Mapping[Group, Counts]]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> "Known":
        """Read it from the engine, where the counting was done."""
        states = {(day, last): state for day, last, state in rows(con, asked_states_sql())}
        counts: dict[State, dict[Group, Counts]] = defaultdict(dict)
        for state, version, role, part, *numbers in rows(con, counts_sql()):
            counts[state][Group(version, role, part)] = Counts(*(int(number) for number in numbers))
        return cls(states, counts)

    def of(self, day: date, prediction_day: date) -> Mapping[Group, Counts]:
        """Counts of one prediction day as known at the end of ``day``, by group."""
        state = self.states.get((day, prediction_day))
        return self.counts.get(state, {}) if state else {}

    def states_of(self, window: Window) -> list[State]:
        """States of the days of a window, oldest first; days without predictions have none."""
        asked = ((window.day, p) for p in window.prediction_days)
        return [self.states[key] for key in asked if key in self.states]

    def groups_of(self, window: Window) -> list[Group]:
        """Who is measured over a window: every version of its last day, and whatever answered.

        Slices are measured over single days only.
        """
        groups = set(self.of(window.day, window.last))
        if window.length > 1:
            groups = {group for group in groups if group.slice == ALL}
            if any(SERVED_GROUP in self.of(window.day, p) for p in window.prediction_days):
                groups.add(SERVED_GROUP)
        return sorted(groups, key=lambda group: (group.version, group.role, group.slice))

    def daily(self, window: Window, group: Group) -> list[Counts]:
        """Counts of one group on each day of a window that has predictions of it, oldest first."""
        found = (self.of(window.day, p).get(group) for p in window.prediction_days)
        return [counts for counts in found if counts is not None]


Pooled = Mapping[tuple[Window, Group], float]
"""AUC over all rows of a window that has both outcomes."""


def pooled_aucs(con: duckdb.DuckDBPyConnection, known: Known, windows: Sequence[Window]) -> Pooled:
    """AUC of every window and group: exact below ``HISTOGRAM_FROM`` labels, from merged histograms above."""
    small: list[tuple[Window, Group]] = []
    large: list[tuple[Window, Group]] = []
    for window in windows:
        for group in known.groups_of(window):
            counts = metrics.added(known.daily(window, group))
            if counts.positives and counts.negatives:
                (large if counts.n_labelled >= metrics.HISTOGRAM_FROM else small).append((window, group))
    pooled = exact_aucs(con, known, small)
    if large:
        histograms = read_histograms(con)
        for window, group in large:
            keys = ((state, group) for state in known.states_of(window))
            pooled[window, group] = metrics.merged_auc([histograms[key] for key in keys if key in histograms])
    return pooled


def exact_aucs(
    con: duckdb.DuckDBPyConnection, known: Known, asked: Sequence[tuple[Window, Group]]
) -> dict[tuple[Window, Group], float]:
    """AUC over the rows themselves, of all small windows in one query."""
    if not asked:
        return {}
    members = [
        (number, state, group.version, group.role)
        for number, (window, group) in enumerate(asked)
        for state in known.states_of(window)
    ]
    columns = ["number", "state", "version", "role"]
    con.register("quality_members", pd.DataFrame(members, columns=columns))
    pooled = {asked[number]: below / pairs for number, below, pairs in rows(con, exact_aucs_sql())}
    con.unregister("quality_members")
    return pooled


def read_histograms(con: duckdb.DuckDBPyConnection) -> dict[tuple[State, Group], Histogram]:
    """The score histogram of every state and group, both outcomes apart."""
    found = rows(con, histograms_sql(metrics.BINS))
    histograms: dict[tuple[State, Group], Histogram] = {}
    for state, version, role, bins, negatives, positives in found:
        histogram = np.zeros((2, metrics.BINS), dtype=np.int64)
        histogram[:, bins] = negatives, positives
        histograms[state, Group(version, role)] = histogram
    return histograms


def window_rows(service: MLService, known: Known, pooled: Pooled, window: Window) -> Iterator[tuple[Any, ...]]:
    """The rows of table ``quality`` that answer one question."""
    for group in known.groups_of(window):
        daily = known.daily(window, group)
        counts = metrics.added(daily) if window.length > 1 else daily[0]
        for metric in METRICS:
            result: Measured | NotMeasured | None
            result = metrics.why_not_measured(metric, counts, min_labels=service.quality.min_labels)
            if result is None and window.length == 1:
                result = metrics.daily_metric(metric, counts)
            elif result is None and metric == "auc":
                result = metrics.window_auc(pooled[window, group], daily)
            elif result is None:
                result = metrics.window_metric(metric, daily)
            yield quality_row(service, window, group, metric, counts, result)


def blocked_rows(
    service: MLService, known: Known, window: Window, blocked: Collection[date]
) -> Iterator[tuple[Any, ...]]:
    """Rows that say that a blocked prediction day is not measured, so that the gap is visible."""
    if window.length == 1 and window.last in blocked and not known.of(window.day, window.last):
        for metric in METRICS:
            yield quality_row(service, window, SERVED_GROUP, metric, Counts(n=0), NotMeasured("blocked"))


def quality_row(
    service: MLService,
    window: Window,
    group: Group,
    metric: str,
    counts: Counts,
    result: Measured | NotMeasured,
) -> tuple[Any, ...]:
    """One row of table ``quality``; stored numbers have nine decimals."""
    value = low = high = reason = None
    state = window.state
    if isinstance(result, Measured):
        value, low, high = (None if x is None else round(x, 9) for x in (result.value, result.low, result.high))
    elif window.state == "provisional" and counts.n and not counts.n_labelled:
        state, reason = "open", "no label yet"
    else:
        state, reason = "not_measured", result.reason
    completeness = round(counts.n_labelled / counts.n, 9) if counts.n else None
    return (
        *(window.day, window.last, window.length, group.version, group.role, group.slice, metric),
        *(service.label.version, value, low, high, counts.n, counts.n_labelled, completeness, state, reason),
    )


def insert_rows(con: duckdb.DuckDBPyConnection, found: Sequence[tuple[Any, ...]], into: str) -> None:
    """Insert rows in the column order of the table."""
    if found:
        columns = [column.name for column in BY_NAME["quality"].columns]
        numbers = dict.fromkeys(("value", "low", "high", "completeness"), "float64")
        con.register("quality_rows", pd.DataFrame(found, columns=columns).astype(numbers | {"reason": "str"}))
        run(con, insert_rows_sql(into))
        con.unregister("quality_rows")


def quality_scored_sql(predictions: str, slices: Iterable[str], first: date, last: date) -> str:
    """SQL of ``quality_scored``: one prediction in one group; scores in 1e-9.

    Reads   ``predictions`` with prediction days ``first`` to ``last`` that were logged by ``last``.
    Returns every prediction once per group it counts in: its version, and *served* if it was the answer;
    each in slice *all* and in one slice per declared slice name.
    """
    parts = [literal(ALL)] + [
        f"{literal(name + '=')} || coalesce(json_extract_string(context, {literal('$.' + name)}), 'null')"
        for name in slices
    ]
    return f"""
        create or replace temp table quality_scored as
        select *, hash(version, role, slice) as group_id
        from (
            select prediction_day, logged_on, request_id, predicted_at, score,
                   unnest(who, max_depth := 2), unnest(slices) as slice
            from (
                select prediction_day, day as logged_on, request_id, predicted_at,
                       round(score * 1e9)::bigint as score, [{", ".join(parts)}] as slices,
                       unnest([{{version: model_version, role: role}}] || case when served
                              then [{{version: '{SERVED}', role: '{SERVED}'}}] else [] end) as who
                from {predictions}
                where prediction_day between {literal(first)} and {literal(last)} and day <= {literal(last)}
            )
        )
    """


def quality_truth_sql(labels: str, label: LabelDefinition, last: date) -> str:
    """SQL of ``quality_truth``: what was held true about a request, from one day until another.

    Reads   the label events of one version known by ``last`` whose outcome lies within the label window.
    Returns one row per event: true on ``[from_day, until_day)``; a withdrawn outcome has value null. Of two
    events of one day the earlier one holds for no day at all.
    """
    return f"""
        create or replace temp table quality_truth as
        select request_id, prediction_day, events.day as from_day,
               coalesce(lead(events.day) over (partition by request_id order by known_at), date '9999-12-31')
                   as until_day,
               value > 0.5 as is_positive
        from {labels} as events
        join (
            select request_id, min(prediction_day) as prediction_day, min(predicted_at) as predicted_at
            from quality_scored group by request_id
        ) using (request_id)
        where label_version = {literal(label.version)} and events.day <= {literal(last)}
          and (event_at is null
               or event_at <= predicted_at + to_microseconds({label.window // MICROSECOND}))
    """


def quality_states_sql(days: Sequence[date], reach: int) -> str:
    """SQL of ``quality_states``: per measured day and prediction day, the last day that brought news of it.

    ``state`` numbers the pairs (prediction day, last news); days that share a state share its counts.
    """
    asked = ", ".join(f"({literal(day)})" for day in days)
    return f"""
        create or replace temp table quality_states as
        select *, (prediction_day - date '1970-01-01') * 100000 + (as_of - prediction_day) as state
        from (
            select asked.day as day, prediction_day, max(news.day) as as_of
            from (values {asked}) as asked(day)
            join (
                select prediction_day, logged_on as day from quality_scored
                union
                select prediction_day, from_day from quality_truth
            ) as news on news.day <= asked.day and prediction_day between asked.day - {reach} and asked.day
            group by all
        )
    """


def states_sql() -> str:
    """SQL of a relation: every state once."""
    return "(select distinct prediction_day, as_of, state from quality_states)"


def quality_hits_sql() -> str:
    """SQL of ``quality_hits``: one score of one group in one state, with its labelled rows by outcome."""
    return f"""
        create or replace temp table quality_hits as
        select state, group_id, score, count(*) filter (where is_positive) as positives,
               count(*) filter (where not is_positive) as negatives
        from quality_scored
        join quality_truth using (request_id, prediction_day)
        join {states_sql()} using (prediction_day)
        where from_day <= as_of and as_of < until_day and logged_on <= as_of
          and score is not null and is_positive is not null
        group by all
    """


def ranked_hits_sql() -> str:
    """SQL of a relation: hits with twice the negatives below and the positives above, ties counting half."""
    return """(
        select *, (2 * sum(negatives) over upward - negatives)::bigint as below,
               (2 * (sum(positives) over whole - sum(positives) over upward) + positives)::bigint as above
        from quality_hits
        window upward as (partition by state, group_id order by score),
               whole as (partition by state, group_id)
    )"""


def loss_sql(loss: str, *, is_positive: bool, power: int) -> str:
    """SQL of the loss of one score (or its square) in 1e-12; log loss is cut off where scikit-learn does."""
    chance = "(score / 1e9)" if is_positive else "((1000000000 - score) / 1e9)"
    losses = {
        "brier": f"(1 - {chance}) * (1 - {chance})",
        "log": f"-ln(greatest({chance}, 2.220446049250313e-16))",
    }
    return f"round({' * '.join([f'({losses[loss]})'] * power)} * 1e12)::bigint"


def counts_sql() -> str:
    """SQL of ``Counts``: one row per state and group; all sums are sums of integers."""
    losses = ", ".join(
        f"{loss_sql(loss, is_positive=outcome, power=power)} as {loss}_{power}_{int(outcome)}"
        for loss in ("brier", "log")
        for power in (1, 2)
        for outcome in (True, False)
    )
    return f"""
        select state, version, role, slice, n,
               coalesce(columns(* exclude (state, group_id, version, role, slice, n)), 0)
        from (
            select state, group_id, any_value(version) as version, any_value(role) as role,
                   any_value(slice) as slice, count(*) as n
            from quality_scored join {states_sql()} using (prediction_day)
            where logged_on <= as_of
            group by all
        )
        left join (
            select state, group_id, sum(positives + negatives) as n_labelled, sum(positives) as positives,
                   sum(score * (positives + negatives)) as predicted,
                   sum(round(score / 1e9 * (score / 1e9) * 1e12)::bigint * (positives + negatives))
                       as predicted_squares,
                   sum(score * positives) as predicted_hits,
                   sum(brier_1_1 * positives + brier_1_0 * negatives) as brier,
                   sum(brier_2_1 * positives + brier_2_0 * negatives) as brier_squares,
                   sum(log_1_1 * positives + log_1_0 * negatives) as log_loss,
                   sum(log_2_1 * positives + log_2_0 * negatives) as log_loss_squares,
                   sum(below * positives) as below, sum(below * below * positives) as below_squares,
                   sum(above * above * negatives) as above_squares
            from (select *, {losses} from {ranked_hits_sql()})
            group by all
        ) using (state, group_id)
    """


def exact_aucs_sql() -> str:
    """SQL of ``(number, below, pairs)``: the AUC of each numbered window is below / pairs.

    Reads   ``quality_members(number, state, version, role)``: the states and the group of each window.
    """
    return f"""
        select number, sum(positives * below), 2 * sum(positives) * sum(negatives)
        from (
            select number, positives, negatives,
                   2 * sum(negatives) over (partition by number order by score) - negatives as below
            from (
                select number, score, sum(positives) as positives, sum(negatives) as negatives
                from quality_hits
                join (select *, hash(version, role, {literal(ALL)}) as group_id from quality_members)
                    using (state, group_id)
                group by all
            )
        )
        group by number
    """


def histograms_sql(bins: int) -> str:
    """SQL of ``(state, version, role, bins, negatives, positives)``: non-empty score bins as lists."""
    return f"""
        select state, version, role, list(bin), list(negatives), list(positives)
        from (
            select state, group_id,
                   least(floor({bins} * 2 / pi() * asin(sqrt(score / 1e9))), {bins - 1})::bigint as bin,
                   sum(positives)::bigint as positives, sum(negatives)::bigint as negatives
            from quality_hits
            group by all
        )
        join (select distinct group_id, version, role, slice from quality_scored where slice = {literal(ALL)})
            using (group_id)
        group by state, version, role
    """


def asked_states_sql() -> str:
    """SQL of ``(day, prediction_day, state)``."""
    return "select day, prediction_day, state from quality_states"


def corrected_sql() -> str:
    """SQL of the prediction days, from one day on, that the label events of another day are about."""
    return "select distinct prediction_day from quality_truth where from_day = ? and prediction_day >= ?"


def calendar_sql() -> str:
    """SQL of the engine's calendar: ``(day, start_at, end_at)``."""
    return "select day, start_at, end_at from days"


def insert_rows_sql(into: str) -> str:
    """SQL that appends the registered rows, in the order of the table's columns."""
    return f"insert into {quote(into)} select * from quality_rows"


def drop_sql(table: str) -> str:
    """SQL that drops a temp table."""
    return f"drop table {quote(table)}"
