"""Measure: how good the predictions were, as known at the end of a day.

A row under day D says what was known at the end of D and is never rewritten. ``quality_counts.py`` counts,
``metrics.py`` divides; this file asks the questions of a block of days and writes down the answers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import ceil
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame, quote, rows, run
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.metrics import Array, Completeness, Counts, Estimate, Loss, Outcome
from mlops_assets.monitoring_loop.profiles import ALL, create_if_absent_sql
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

METRICS = ("brier", "log_loss", "auc", "calibration_ratio", "positive_share")
BINS = 4096
"""Bins of a score histogram, equal steps of asin(sqrt(score)): narrow where scores are rare, near 0 and 1."""
HISTOGRAM_FROM = 2000
"""From this many labelled rows on, the AUC of a window is read from merged histograms (error below 1e-4)."""
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Window:
    """One question: predictions of the ``length`` days ending ``last``, as known at the end of ``day``."""

    day: date
    last: date
    length: int
    state: str


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
    windows = count(con, service, predictions, labels, sorted(days))
    questions = Questions.read(con, windows)
    found = [measured(service, questions, metric, estimates) for metric, estimates in answers(con, service, questions)]
    found.append(blocked_rows(service, questions, windows, blocked))
    insert_rows(con, pd.concat(found, ignore_index=True), into)
    for table in ("scored", "truth", "asked", "cells", "rows", "hits", "counts"):
        run(con, quality_counts.drop_sql(f"quality_{table}"))


def count(
    con: duckdb.DuckDBPyConnection, service: MLService, predictions: str, labels: str, days: Sequence[date]
) -> list[Window]:
    """Count in the engine what the questions of these days need; returns the questions."""
    first, last = days[0] - timedelta(days=history_days(service)), days[-1]
    run(con, quality_counts.scored_sql(predictions, first, last))
    run(con, quality_counts.truth_sql(labels, service.label, last))
    calendar = {day: (start, end) for day, start, end in rows(con, quality_counts.calendar_sql())}
    corrected: dict[date, set[date]] = {}
    for day, prediction_day in rows(con, quality_counts.corrected_sql()):
        corrected.setdefault(day, set()).add(prediction_day)
    windows = [w for day in days for w in windows_of(service, calendar, corrected.get(day, set()), day)]
    asked = pd.DataFrame({"day": [w.day for w in windows], "last": [w.last for w in windows]}, dtype="datetime64[us]")
    asked["length"], asked["number"] = np.array([w.length for w in windows], dtype=np.int32), np.arange(len(windows))
    con.register("given_questions", asked)
    run(con, quality_counts.asked_sql("given_questions"))
    con.unregister("given_questions")
    run(con, quality_counts.cells_sql())
    run(con, quality_counts.rows_sql(service.quality.slices, "value > 0.5"))
    run(con, quality_counts.hits_sql())
    run(con, quality_counts.counts_sql(is_crossed=False))
    return windows


def windows_of(
    service: MLService, calendar: Mapping[date, tuple[datetime, datetime]], corrected: set[date], day: date
) -> Iterator[Window]:
    """What is measured at the end of ``day``: single days first, oldest first."""
    oldest = day - timedelta(days=history_days(service))
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
class Questions:
    """Every question about every group that it concerns, with the counts of its days.

    ``table`` has one row per question and group: number, group_id, version, role, slice, and what the window
    says. ``daily`` counts one row per question, group and prediction day, question after question; ``starts``
    is where each begins and ``states`` names the state of each day. ``counts`` are the days added.
    """

    table: pd.DataFrame
    daily: Counts
    states: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: Counts

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, windows: Sequence[Window]) -> "Questions":
        """Read it from the engine, where the counting was done."""
        cells = frame(con, quality_counts.answers_sql())
        number, group = cells["number"].to_numpy(np.int64), cells["group_id"].to_numpy(np.uint64)
        is_new = np.append(True, (number[1:] != number[:-1]) | (group[1:] != group[:-1]))
        starts = np.flatnonzero(is_new) if len(cells) else np.empty(0, dtype=np.int64)
        table = cells[["number", "group_id", "version", "role", "slice"]].iloc[starts].reset_index(drop=True)
        asked = [windows[n] for n in table["number"].astype(int)]
        table["day"], table["prediction_day"] = [w.day for w in asked], [w.last for w in asked]
        table["window_days"], table["state"] = [w.length for w in asked], [w.state for w in asked]
        daily = counts_of(cells)
        return cls(table, daily, cells["state"].to_numpy(np.int64), starts, added(daily, starts))

    @property
    def is_single(self) -> NDArray[np.bool_]:
        """Which questions are about one day."""
        return np.asarray(self.table["window_days"] == 1, dtype=bool)

    def spread(self, of_questions: NDArray[Any]) -> NDArray[Any]:
        """A value per question as a value per day of it."""
        return np.repeat(of_questions, np.diff(np.append(self.starts, len(self.states))))

    def part(self, is_wanted: NDArray[np.bool_]) -> tuple[Counts, NDArray[np.int64]]:
        """The days of some questions, and where each of those begins among them."""
        lengths = np.diff(np.append(self.starts, len(self.states)))[is_wanted]
        return taken(self.daily, self.spread(is_wanted)), np.cumsum(lengths) - lengths


def counts_of(cells: pd.DataFrame) -> Counts:
    """Counts from their columns; sums come back from integers to the units of a score and a loss."""

    def column(name: str) -> Array:
        return np.asarray(np.nan_to_num(cells[name].to_numpy(np.float64)), dtype=np.float64)

    def outcome(suffix: str, n: Array, *, is_positive: bool) -> Outcome:
        sums = {name: column(f"{name}_{suffix}") / metrics.LOSS_UNIT for name in quality_counts.SUMS}
        loss = Loss(*(sums[name] for name in quality_counts.LOSSES))
        return Outcome(n, sums["p1"], sums["p2"], sums["p3"], sums["p4"], loss, is_positive)

    return Counts(
        n=column("n"),
        n_labelled=column("n_labelled"),
        positive=outcome("1", column("positives"), is_positive=True),
        negative=outcome("0", column("negatives"), is_positive=False),
        below=column("below"),
        below_squares=column("below_squares"),
        above_squares=column("above_squares"),
    )


def mapped(counts: Counts, change: Any) -> Counts:
    """Counts with every array put through a function."""

    def of(part: Any) -> Any:
        if isinstance(part, Loss | Outcome):
            return type(part)(*(of(getattr(part, name)) for name in part.__dataclass_fields__))
        return change(part) if isinstance(part, np.ndarray) else part

    return Counts(*(of(getattr(counts, name)) for name in Counts.__dataclass_fields__))


def added(daily: Counts, starts: NDArray[np.int64]) -> Counts:
    """Counts of several days together; the placements of AUC do not add up and come out meaningless."""
    return mapped(daily, lambda array: np.add.reduceat(array, starts) if len(starts) else array)


def taken(counts: Counts, which: NDArray[np.bool_]) -> Counts:
    """Some of the counts."""
    return mapped(counts, lambda array: array[which])


def answers(con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions) -> Iterator[tuple[str, Estimate]]:
    """Every metric with its estimates, one per question."""
    is_single = questions.is_single
    singles, (days, starts) = taken(questions.counts, is_single), questions.part(~is_single)
    known = Completeness.whole(int(is_single.sum()))
    with np.errstate(divide="ignore", invalid="ignore"):
        for metric in METRICS:
            if metric == "auc":
                daily = metrics.daily_auc(singles, known)
                pooled = pooled_aucs(con, questions)[~is_single]
                long = metrics.window_mean(pooled, metrics.delong(days).value, starts)
            else:
                daily = metrics.daily_ratio(metric, singles, known)
                long = metrics.window_ratio(metric, days, starts)
            yield metric, merged(is_single, daily, long)


def merged(is_single: NDArray[np.bool_], daily: Estimate, long: Estimate) -> Estimate:
    """Estimates of single days and of longer windows in the order of the questions."""

    def both(of_single: Array, of_long: Array) -> Array:
        found = np.empty(len(is_single))
        found[is_single], found[~is_single] = of_single, of_long
        return found

    return Estimate(both(daily.value, long.value), both(daily.low, long.low), both(daily.high, long.high))


def pooled_aucs(con: duckdb.DuckDBPyConnection, questions: Questions) -> Array:
    """AUC over all rows of every longer window: exact below ``HISTOGRAM_FROM`` labels, from histograms above."""
    found = np.full(len(questions.table), np.nan)
    counts = questions.counts
    is_asked = ~questions.is_single & (counts.positive.n > 0) & (counts.negative.n > 0)
    is_large = counts.n_labelled >= HISTOGRAM_FROM
    members = pd.DataFrame(
        {
            "question": questions.spread(np.arange(len(questions.table))),
            "state": questions.states,
            "group_id": questions.spread(questions.table["group_id"].to_numpy()),
        }
    )
    for is_wanted, aucs_of in ((is_asked & ~is_large, exact_aucs), (is_asked & is_large, histogram_aucs)):
        if is_wanted.any():
            wanted = members[questions.spread(is_wanted)]
            con.register("quality_members", wanted)
            for question, value in aucs_of(con, wanted):
                found[question] = value
            con.unregister("quality_members")
    return found


def exact_aucs(con: duckdb.DuckDBPyConnection, members: pd.DataFrame) -> Iterator[tuple[int, float]]:
    """AUC over the rows themselves, of all small windows in one query."""
    for question, below, pairs in rows(con, quality_counts.exact_aucs_sql()):
        yield question, below / pairs


def histogram_aucs(con: duckdb.DuckDBPyConnection, members: pd.DataFrame) -> Iterator[tuple[int, float]]:
    """AUC from the score histograms of the days of a window, as if scores within a bin were ties.

    The error is at most half the chance that a positive and a negative share a bin, and in practice far
    less, since within a bin they hardly differ: 5e-6 on 2,000 rows, 1e-6 on 25,000.
    """
    cells = frame(con, quality_counts.histograms_sql(BINS))
    keys = pd.MultiIndex.from_frame(cells[["state", "group_id"]])
    distinct = keys.unique()
    bins = np.zeros((2, len(distinct), BINS))
    at = (distinct.get_indexer(keys), cells["bin"].to_numpy())
    bins[0][at], bins[1][at] = cells["negatives"], cells["positives"]
    place = distinct.get_indexer(pd.MultiIndex.from_frame(members[["state", "group_id"]]))
    asked = members["question"].to_numpy(np.int64)
    for question in np.unique(asked):
        days = place[asked == question]
        negatives, positives = bins[:, days[days >= 0]].sum(axis=1)
        lower = np.cumsum(negatives) - negatives
        below = float((positives * (2 * lower + negatives)).sum())
        yield int(question), below / float(2 * positives.sum() * negatives.sum())


def why_not(metric: str, counts: Counts, min_labels: int) -> NDArray[np.object_]:
    """The reason why a metric cannot be computed, or none, per question."""
    reasons = np.full(len(counts.n), None, dtype=object)
    labelled = counts.n_labelled.astype(np.int64)
    if metric == "calibration_ratio":
        reasons[counts.positive.p1 + counts.negative.p1 == 0] = "every score is zero"
    if metric == "auc":
        for place in np.flatnonzero((counts.positive.n == 0) | (counts.negative.n == 0)):
            reasons[place] = f"only one outcome among {labelled[place]} labels"
    for place in np.flatnonzero(labelled < min_labels):
        reasons[place] = f"{labelled[place]} labels, below min_labels={min_labels}"
    return reasons


def measured(service: MLService, questions: Questions, metric: str, found: Estimate) -> pd.DataFrame:
    """The rows of table ``quality`` of one metric; stored numbers have nine decimals."""
    table, counts = questions.table, questions.counts
    reasons = why_not(metric, counts, service.quality.min_labels)
    is_missing = np.array([reason is not None for reason in reasons], dtype=bool)
    is_open = is_missing & (table["state"] == "provisional").to_numpy() & (counts.n > 0) & (counts.n_labelled == 0)
    reasons[is_open] = "no label yet"
    states = table["state"].to_numpy(object)
    states = np.where(is_open, "open", np.where(is_missing, "not_measured", states))
    return pd.DataFrame(
        {
            **{name: table[name] for name in ("day", "prediction_day", "window_days", "version", "role", "slice")},
            "metric": metric,
            "label_version": service.label.version,
            **{
                name: np.where(is_missing, np.nan, np.round(getattr(found, name), 9))
                for name in ("value", "low", "high")
            },
            "n": counts.n,
            "n_labelled": counts.n_labelled,
            "completeness": np.where(counts.n > 0, np.round(counts.n_labelled / np.maximum(counts.n, 1), 9), np.nan),
            "state": states,
            "reason": reasons,
        }
    )


def blocked_rows(
    service: MLService, questions: Questions, windows: Sequence[Window], blocked: Collection[date]
) -> pd.DataFrame:
    """Rows that say that a blocked prediction day is not measured, so that the gap is visible."""
    answered = set(zip(questions.table["day"], questions.table["prediction_day"], strict=True))
    missing = [w for w in windows if w.length == 1 and w.last in blocked and (w.day, w.last) not in answered]
    return pd.DataFrame(
        [
            {
                "day": w.day, "prediction_day": w.last, "window_days": 1, "version": SERVED, "role": SERVED,
                "slice": ALL, "metric": metric, "label_version": service.label.version, "n": 0.0,
                "n_labelled": 0.0, "state": "not_measured", "reason": "blocked",
            }
            for w in missing
            for metric in METRICS
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
