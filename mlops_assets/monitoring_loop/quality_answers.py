"""Measure: the answers to the questions of ``quality``: every declared metric, corrected and raw."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame, literal, rows
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.label_noise import Audited, Wrong
from mlops_assets.monitoring_loop.metrics import Z95, Array, Completeness, Estimate, KnownDays, Noise
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import BINS, HISTOGRAM_FROM
from mlops_assets.monitoring_loop.quality_curves import curve_estimates
from mlops_assets.monitoring_loop.questions import Questions, taken
from mlops_assets.service.service import MLService

MIN_COMPLETENESS = 0.02
"""Below this share of known labels a labelled row would stand for more than fifty."""
OUTCOMES = ("positive", "negative")
UNKNOWN = "the completeness of this day is not known"
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Known:
    """How much of the labels each question can rest on, and why it is not known where it is not.

    ``completeness`` and ``reasons`` have one entry per question; a longer window rests on ``daily``, one entry per day
    of every question, as ``Questions.daily``.
    """

    completeness: Completeness
    reasons: NDArray[np.object_]
    daily: KnownDays
    share: Array
    """Share of the labels that is known, where it is not counted: if only positives arrive."""

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, relation: str) -> "Known":
        """Read it from the rows of table ``completeness``; days that are mature are whole.

        A slice without rows of its own (a home that an older version of this package began) has those of all requests.
        """
        label, table = service.label, questions.table
        told = {row[:4]: row[4:] for row in rows(con, completeness_sql(relation, label.version))}
        unknown = (np.nan, np.nan, np.nan, np.nan, 0, UNKNOWN)
        question, ages = questions.spread(np.arange(len(table))), questions.ages
        is_open = (table["state"] == "provisional").to_numpy()[question] & (ages < ceil(label.window / ONE_DAY))
        numbers, reasons = np.ones((len(question), 5)), np.full(len(table), None, dtype=object)
        numbers[:, 2:] = 0.0
        errors, curves = np.zeros((2, len(question))), np.zeros(len(question), dtype=np.int64)
        needed = 1 if label.is_one_sided or label.splits_at is None else len(OUTCOMES)
        slices, of_day = table["slice"].to_numpy(object), table["day"].to_numpy(object)
        for place in np.flatnonzero(is_open):
            part, key = slices[question[place]], (of_day[question[place]], int(ages[place]))
            found = [told.get((*key, y, part)) or told.get((*key, y, ALL), unknown) for y in OUTCOMES]
            (positive, low_1, of_1, both, curves[place], _), (negative, low_0, of_0, *_) = found
            numbers[place] = positive, negative, of_1, of_0, both
            errors[:, place] = error_of(positive, low_1), error_of(negative, low_0)
            why = next((y[-1] for y in found[:needed] if not (y[0] or 0.0) >= MIN_COMPLETENESS), None)
            reasons[question[place]] = reasons[question[place]] or why
        daily = KnownDays(Completeness.of(numbers, is_one_sided=label.is_one_sided), errors[0], errors[1], curves)
        single = np.where(questions.is_single[:, None], numbers[questions.starts], [1.0, 1.0, 0.0, 0.0, 0.0])
        came, starts = questions.daily.positive.n, questions.starts
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.add.reduceat(came, starts) / np.add.reduceat(came / numbers[:, 0], starts) if len(came) else came
        share = np.where(questions.is_single | ~np.isfinite(share), single[:, 0], share)
        return cls(Completeness.of(single, is_one_sided=label.is_one_sided), reasons, daily, share)

    @classmethod
    def whole(cls, questions: Questions, *, is_one_sided: bool) -> "Known":
        """As if all labels were there."""
        size, days = len(questions.table), KnownDays.whole(len(questions.states), is_one_sided=is_one_sided)
        reasons = np.full(size, None, dtype=object)
        return cls(Completeness.whole(size, is_one_sided=is_one_sided), reasons, days, np.ones(size))

    def part(self, is_wanted: NDArray[np.bool_]) -> Completeness:
        """Of some questions."""
        return self.completeness.part(is_wanted)


def error_of(share: float | None, low: float | None) -> float:
    """Variance of the logarithm of a share as an average over days, from its lower 95 % bound."""
    return float((np.log(share / low) / Z95) ** 2) if share and low else 0.0


@dataclass(frozen=True)
class Answer:
    """One metric of every question: corrected for what is missing, and as if nothing were.

    ``reasons`` say why it is not defined where it is not, if that is known.
    """

    metric: str
    found: Estimate
    raw: Estimate
    reasons: NDArray[np.object_] | None = None


def answers(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    questions: Questions,
    known: Known,
    audits: Mapping[date, Audited],
) -> Iterator[Answer]:
    """Every declared metric of yes or no; and, if labels may be wrong, what right labels would give."""
    is_single, is_one_sided = questions.is_single, service.label.is_one_sided
    singles, (days, starts) = taken(questions.counts, is_single), questions.part(~is_single)
    whole = Known.whole(questions, is_one_sided=is_one_sided)
    baseline = np.nan if service.is_monitor_only else service.model.prior  # no prior, no lift over it
    wrong = None if service.label.noise is None else Wrong.of(service.label.noise, questions, audits)
    pooled = {id(known): np.empty(0), id(whole): np.empty(0)}
    if "auc" in service.quality.metrics:
        is_fresh = ~is_single & (questions.table["state"] == "provisional").to_numpy()
        raw = pooled_aucs(con, questions, whole, ~is_single)
        right = np.where(is_fresh, pooled_aucs(con, questions, known, is_fresh), raw)
        pooled = {id(known): right[~is_single], id(whole): raw[~is_single]}
    with np.errstate(divide="ignore", invalid="ignore"):

        def answer(metric: str, known: Known, noise: Noise | None) -> Estimate:
            of_single, of_days = known.part(is_single), known.daily.part(questions.spread(~is_single))
            on_day = noise and noise.at(is_single)
            if metric == "auc":
                daily = metrics.daily_auc(singles, of_single, noise=on_day)
                long = metrics.window_auc(
                    pooled[id(known)], days, starts, of_days, noise=noise and noise.at(~is_single)
                )
            else:
                each = noise and noise.at(np.repeat(*questions.lengths(~is_single)))
                daily = metrics.daily_ratio(metric, singles, of_single, noise=on_day, baseline=baseline)
                long = metrics.window_ratio(metric, days, starts, of_days, noise=each, baseline=baseline)
            return merged(is_single, daily, long)

        for metric in (metric for metric in service.quality.metrics if metric in (*metrics.RATIOS, "auc")):
            found = answer(metric, known, None)
            yield Answer(metric, found, answer(metric, whole, None))
            if wrong is not None:
                yield Answer(f"{metric}_denoised", answer(metric, known, wrong.noise), found, wrong.reasons)
        for name, found, raw in curve_estimates(con, service, questions, known.completeness, known.daily.shares):
            yield Answer(name, found, Estimate(raw, raw, raw))


def merged(is_single: NDArray[np.bool_], daily: Estimate, long: Estimate) -> Estimate:
    """Estimates of single days and of longer windows in the order of the questions."""

    def both(of_single: Array, of_long: Array) -> Array:
        found = np.empty(len(is_single))
        found[is_single], found[~is_single] = of_single, of_long
        return found

    return Estimate(both(daily.value, long.value), both(daily.low, long.low), both(daily.high, long.high))


WEIGHT_UNIT = 1_000_000
"""What a label stands for is counted in 1e-6."""


def pooled_aucs(
    con: duckdb.DuckDBPyConnection, questions: Questions, known: Known, is_wanted: NDArray[np.bool_]
) -> Array:
    """AUC over all rows of the wanted questions: exact below ``HISTOGRAM_FROM`` labels, from histograms above.

    A positive that came stands for 1 / G positives and, where the others hide among the negatives, for 1 - 1 / G
    negatives; a negative that came for 1 / G negatives.
    """
    found = np.full(len(questions.table), np.nan)
    counts, shares = questions.counts, known.daily.shares
    is_asked = is_wanted & (counts.positive.n > 0) & (counts.negative.n > 0)
    is_asked &= known.reasons == None  # noqa: E711  element by element
    is_large = counts.counted >= HISTOGRAM_FROM
    positive, negative = (
        np.round(WEIGHT_UNIT / np.where(share > 0, share, 1.0)).astype(np.int64)
        for share in (shares.positive, shares.negative)
    )
    members = pd.DataFrame(
        {
            "question": questions.spread(np.arange(len(questions.table))),
            "state": questions.states,
            "group_id": questions.spread(questions.table["group_id"].to_numpy()),
            "positive_weight": positive,
            "hidden_weight": WEIGHT_UNIT - positive if shares.is_one_sided else np.zeros_like(positive),
            "negative_weight": np.full_like(positive, WEIGHT_UNIT) if shares.is_one_sided else negative,
        }
    )
    for is_theirs, aucs_of in ((is_asked & ~is_large, exact_aucs), (is_asked & is_large, histogram_aucs)):
        if is_theirs.any():
            wanted = members[questions.spread(is_theirs)]
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
    cells = frame(con, quality_counts.histograms_sql())
    keys = pd.MultiIndex.from_frame(cells[["state", "group_id"]])
    distinct = keys.unique()
    bins = np.zeros((2, len(distinct), BINS))
    at = (distinct.get_indexer(keys), cells["bin"].to_numpy())
    bins[0][at], bins[1][at] = cells["negatives"], cells["positives"]
    place = distinct.get_indexer(pd.MultiIndex.from_frame(members[["state", "group_id"]]))
    asked = members["question"].to_numpy(np.int64)
    weights = members[["positive_weight", "hidden_weight", "negative_weight"]].to_numpy(np.float64).T / WEIGHT_UNIT
    for question in np.unique(asked):
        mine = np.flatnonzero((asked == question) & (place >= 0))
        day, (positive, hidden, negative) = place[mine], weights[:, mine]
        if (positive == 1).all() and (negative == 1).all():
            negatives, positives = bins[:, day].sum(axis=1)
        else:
            came = bins[1, day]
            positives, negatives = positive @ came, negative @ bins[0, day] + hidden @ came
        lower = np.cumsum(negatives) - negatives
        below = float((positives * (2 * lower + negatives)).sum())
        yield int(question), below / float(2 * positives.sum() * negatives.sum())


def completeness_sql(relation: str, version: str) -> str:
    """SQL of ``(day, age_days, outcome, slice, value, low, variance, covariance, weekday, reason)`` of a version."""
    return f"""
        select day, age_days, outcome, coalesce(slice, {literal(ALL)}), value, low, variance, covariance, weekday,
               reason
        from {relation} where label_version = {literal(version)}
    """
