"""Measure: how good the predictions were, as known at the end of a day.

A row under day D says what was known at the end of D and is never rewritten. ``quality_counts.py`` counts,
``metrics.py`` divides; this file asks the questions of a block of days and writes down the answers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from math import ceil

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import quote, rows, run
from mlops_assets.monitoring_loop import quality_counts
from mlops_assets.monitoring_loop.label_noise import audit_rows, read_audits
from mlops_assets.monitoring_loop.profiles import ALL, create_if_absent_sql
from mlops_assets.monitoring_loop.quality_answers import Answer, Known, answers
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.monitoring_loop.quality_estimates import ESTIMATED, MIN_DAYS, UNDEFINED, expectations
from mlops_assets.monitoring_loop.quality_lift import lift_answers
from mlops_assets.monitoring_loop.quality_rows import has_worth, kept_columns, row_answers
from mlops_assets.monitoring_loop.quality_sums import count_groups
from mlops_assets.monitoring_loop.questions import Questions, Window
from mlops_assets.service.service import MLService
from mlops_assets.service.tasks import METRICS
from mlops_assets.tables import BY_NAME

ONE_DAY = timedelta(days=1)


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
    completeness: str,
    days: Sequence[date],
    into: str,
    blocked: Collection[date] = (),
) -> None:
    """Insert the ``quality`` rows of each day into ``into``.

    Day D has rows with ``window_days`` 1 for every prediction day that was not mature at the end of D - 1 or
    that a label event of D is about, and rows of the longer windows that end on a day that became mature on D
    (state final), that hold a corrected day (state restated; PROTOCOL.md 10 and 13), or that end on D itself (state
    provisional).

    Args:
        predictions: relation of that table's shape, from ``history_days(service)`` before the first day on.
        labels: relation of that table's shape, likewise.
        completeness: relation of that table's shape, with the rows of ``days``.
        days: days to measure; the engine's table ``days`` must cover them and the history.
        into: temp table of the shape of ``quality``; created if it is not there.
        blocked: prediction days without predictions because a file was missing or bad: *not measured*.
    """
    run(con, create_if_absent_sql("quality", into))
    if not days:
        return
    windows = count(con, service, predictions, labels, sorted(days))
    questions = Questions.read(con, windows)
    known = Known.read(con, service, questions, completeness)
    audits = read_audits(con, service, labels, days)
    counted = answers(con, service, questions, known, audits) if service.task == "binary" else ()
    others = (*lift_answers(service, questions, known), *row_answers(con, service, questions, known))
    answered = {answer.metric: answer for answer in (*counted, *others)}
    found = [measured(service, questions, known, answer) for answer in answered.values()]
    found += expected_rows(con, service, questions, known, answered)
    found += audit_rows(service, audits, days)
    found.append(blocked_rows(service, questions, windows, blocked))
    insert_rows(con, pd.concat(found, ignore_index=True), into)
    run(con, quality_counts.drop_rows_sql())
    for name in ("flat", "hits", "counts"):
        con.unregister(f"quality_{name}")
    for table in ("scored", "who", "parts", "truth", "asked", "cells"):
        run(con, quality_counts.drop_sql(f"quality_{table}"))


def count(
    con: duckdb.DuckDBPyConnection, service: MLService, predictions: str, labels: str, days: Sequence[date]
) -> list[Window]:
    """Count in the engine what the questions of these days need; returns the questions."""
    first, last = days[0] - timedelta(days=history_days(service)), days[-1]
    kept, is_binary, slices = kept_columns(service), service.task == "binary", service.quality.slices
    run(con, quality_counts.scored_sql(predictions, first, last, slices, is_chance=is_binary, kept=kept))
    run(con, quality_counts.who_names_sql(predictions))
    run(con, quality_counts.part_names_sql(predictions, slices))
    run(con, quality_counts.truth_sql(labels, service.label, last, has_worth=has_worth(service)))
    calendar = {day: (start, end) for day, start, end in rows(con, quality_counts.calendar_sql())}
    corrected: dict[date, set[date]] = {}
    for day, prediction_day in rows(con, quality_counts.corrected_sql()):
        corrected.setdefault(day, set()).add(prediction_day)
    windows = [w for day in days for w in windows_of(service, calendar, corrected.get(day, set()), day)]
    asked = pd.DataFrame({"day": [w.day for w in windows], "last": [w.last for w in windows]}, dtype="datetime64[us]")
    asked["is_sliced"] = [w.length in service.quality.sliced_windows for w in windows]
    asked["length"], asked["number"] = np.array([w.length for w in windows], dtype=np.int32), np.arange(len(windows))
    con.register("given_questions", asked)
    run(con, quality_counts.asked_sql("given_questions"))
    con.unregister("given_questions")
    run(con, quality_counts.cells_sql())
    named = [*kept, *(("kpi",) if has_worth(service) else ())]
    flat = con.sql(quality_counts.flat_sql(len(slices), service.label, has_rows=bool(named))).to_arrow_table()
    con.register("quality_flat", flat)
    run(con, quality_counts.rows_sql(len(slices), kept=named))
    if is_binary:
        is_crossed = service.label.is_one_sided or service.label.noise is not None
        count_groups(con, flat, len(slices), is_crossed=is_crossed)
    else:
        con.register("quality_counts", con.sql(quality_counts.tallied_sql()).to_arrow_table())
    return windows


def windows_of(
    service: MLService, calendar: Mapping[date, tuple[datetime, datetime]], corrected: set[date], day: date
) -> Iterator[Window]:
    """What is measured at the end of ``day``: single days first, oldest first."""
    oldest = day - timedelta(days=history_days(service))
    window, reach = service.label.window, list(days_between(oldest, day))
    is_mature = {p: calendar[p][1] + window <= calendar[day][1] for p in reach}
    was_mature = {p: calendar[p][1] + window <= calendar[day][0] for p in reach}
    for last in reach:
        if not was_mature[last]:
            yield Window(day, last, 1, "final" if is_mature[last] else "provisional")
        elif last in corrected:
            yield Window(day, last, 1, "restated")
    for last in (last for last in reach if is_mature[last] or last == day):
        for length in (length for length in service.quality.windows_days if length > 1):
            covered = {last - timedelta(days=back) for back in range(length)}
            if min(covered) < oldest:
                continue
            if not is_mature[last]:
                yield Window(day, last, length, "provisional")
            elif not was_mature[last]:
                yield Window(day, last, length, "final")
            elif covered & corrected:
                yield Window(day, last, length, "restated")


def why_not(service: MLService, answer: Answer, questions: Questions, known: Known) -> NDArray[np.object_]:
    """The reason why a metric cannot be computed, or none, per question."""
    metric = answer.metric
    counts, least = questions.counts, service.quality.min_labels
    labelled = (counts.counted if service.label.is_one_sided else counts.n_labelled).astype(np.int64)
    # Weights of one outcome cancel in the AUC of a day, and approvals are not about its labels: no curve is needed.
    is_free = metric == "auc" and not service.label.is_one_sided
    reasons = known.reasons.copy()
    reasons[questions.is_single & is_free | metric.startswith("approval")] = None
    if metric.startswith("calibration_ratio"):
        reasons[counts.positive.p1 + counts.negative.p1 == 0] = "every score is zero"
    if metric.startswith("auc"):
        for place in np.flatnonzero((counts.positive.n == 0) | (counts.negative.n == 0)):
            reasons[place] = f"only one outcome among {labelled[place]} labels"
    for place in np.flatnonzero(labelled < least):
        reasons[place] = f"{labelled[place]} labels, below min_labels={least}"
    is_undefined = ~np.isfinite(answer.found.value) & (reasons == None)  # noqa: E711  element by element
    general = "not defined for these labels"
    if metric.startswith("approval"):
        general = "asked of everybody on one day, by versions with mature days"
    own = np.full_like(reasons, None) if answer.reasons is None else answer.reasons
    reasons[is_undefined] = np.where(own == None, general, own)[is_undefined]  # noqa: E711  element by element
    return reasons


def measured(service: MLService, questions: Questions, known: Known, answer: Answer) -> pd.DataFrame:
    """The rows of table ``quality`` of one metric; stored numbers have nine decimals."""
    table, counts, found = questions.table, questions.counts, answer.found
    reasons = why_not(service, answer, questions, known)
    is_missing = np.array([reason is not None for reason in reasons], dtype=bool)
    is_open = is_missing & (table["state"] == "provisional").to_numpy() & (counts.n > 0) & (counts.n_labelled == 0)
    reasons[is_open] = "no label yet"
    states = table["state"].to_numpy(object)
    states = np.where(is_open, "open", np.where(is_missing, "not_measured", states))
    numbers = {"value": found.value, "low": found.low, "high": found.high}
    share = known.share if service.label.is_one_sided else counts.n_labelled / np.maximum(counts.n, 1)
    return pd.DataFrame(
        {
            **{name: table[name] for name in ("day", "prediction_day", "window_days", "version", "role", "slice")},
            "metric": answer.metric,
            "label_version": service.label.version,
            **{name: np.where(is_missing, np.nan, np.round(array, 9)) for name, array in numbers.items()},
            "raw_value": np.round(answer.raw.value, 9),
            "n": counts.n,
            "n_labelled": counts.n_labelled,
            "completeness": np.where(counts.n > 0, np.round(share, 9), np.nan),
            "state": states,
            "reason": reasons,
        }
    )


def expected_rows(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    questions: Questions,
    known: Known,
    answered: Mapping[str, Answer],
) -> Iterator[pd.DataFrame]:
    """The rows of what was to be expected before any label, and of what came instead."""
    realised = {metric: answered[metric].found for metric in ESTIMATED[service.task] if metric in answered}
    table, whole = questions.table, questions.is_single & (questions.table["slice"] == ALL).to_numpy()
    is_own = whole & (table["day"] == table["prediction_day"]).to_numpy()
    is_asked = bool(service.quality.estimates and realised)
    core = [metric for metric in service.quality.core_metrics if metric in METRICS[service.task]]
    for metric in core if not ESTIMATED[service.task] else ():
        yield undefined_rows(service, questions, known, answered[metric], is_own)
    for name, (found, days) in expectations(con, service, table, realised).items() if is_asked else ():
        metric, _, kind = name.rpartition("_")
        is_there = is_own if kind == "estimated" else whole & np.isfinite(realised[metric].value)
        rows = measured(service, questions, known, Answer(name, found, found))[is_there].assign(raw_value=np.nan)
        is_missing, support = np.isnan(found.value[is_there]), days[is_there].astype(int)
        reasons = np.array([f"{n} mature days of this version, below {MIN_DAYS}" for n in support], dtype=object)
        reasons[~is_missing] = None
        state = kind if kind == "estimated" else table["state"][is_there]
        bounds = {bound: np.round(getattr(found, bound)[is_there], 9) for bound in ("value", "low", "high")}
        yield rows.assign(state=np.where(is_missing, "not_measured", state), reason=reasons, **bounds)


def undefined_rows(
    service: MLService, questions: Questions, known: Known, answer: Answer, is_own: NDArray[np.bool_]
) -> pd.DataFrame:
    """Rows that say that a metric of this task has no estimate before its labels."""
    rows = measured(service, questions, known, replace(answer, metric=f"{answer.metric}_estimated"))[is_own]
    nothing = dict.fromkeys(("value", "low", "high", "raw_value"), np.nan)
    return rows.assign(**nothing, state="not_measured", reason=UNDEFINED.format(task=service.task))


def blocked_rows(
    service: MLService, questions: Questions, windows: Sequence[Window], blocked: Collection[date]
) -> pd.DataFrame:
    """Rows that say that a blocked prediction day is not measured, so that the gap is visible."""
    single = questions.table[questions.is_single]
    answered = set(zip(single["day"], single["prediction_day"], strict=True))
    missing = [w for w in windows if w.length == 1 and w.last in blocked and (w.day, w.last) not in answered]
    return pd.DataFrame(
        [
            {
                "day": w.day, "prediction_day": w.last, "window_days": 1, "version": SERVED, "role": SERVED,
                "slice": ALL, "metric": metric, "label_version": service.label.version, "n": 0.0,
                "n_labelled": 0.0, "state": "not_measured", "reason": "blocked",
            }
            for w in missing
            for metric in service.quality.measured
        ]
    )  # fmt: skip


def insert_rows(con: duckdb.DuckDBPyConnection, found: pd.DataFrame, into: str) -> None:
    """Insert rows in the column order of the table."""
    if len(found):
        kinds = {"DATE": "datetime64[us]", "DOUBLE": "float64", "INTEGER": "int32", "BIGINT": "int64"}
        columns = {column.name: kinds.get(column.type, "str") for column in BY_NAME["quality"].columns}
        con.register("quality_found", found.reindex(columns=list(columns)).astype(columns))
        run(con, insert_rows_sql(into))
        con.unregister("quality_found")


def insert_rows_sql(into: str) -> str:
    """SQL that appends the registered rows, in the order of the table's columns."""
    return f"insert into {quote(into)} select * from quality_found"
