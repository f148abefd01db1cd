"""Measure: the answers to the questions of ``quality``: every declared metric, corrected and raw."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame, literal, rows
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.metrics import Array, Completeness, Estimate, Noise
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
    daily: Completeness

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, relation: str) -> "Known":
        """Read it from the rows of table ``completeness``; days that are mature are whole.

        A slice without rows of its own (a home that an older version of this package began) has those of all requests.
        """
        label, table = service.label, questions.table
        told = {tuple(key): numbers for *key, numbers in rows(con, completeness_sql(relation, label.version))}
        unknown = {"value": np.nan, "variance": np.nan, "covariance": np.nan, "reason": UNKNOWN}
        question, ages = questions.spread(np.arange(len(table))), questions.ages
        is_open = (table["state"] == "provisional").to_numpy()[question] & (ages < ceil(label.window / ONE_DAY))
        numbers, reasons = np.ones((len(question), 5)), np.full(len(table), None, dtype=object)
        numbers[:, 2:] = 0.0
        needed = OUTCOMES[:1] if label.is_one_sided or label.splits_at is None else OUTCOMES
        slices, of_day = table["slice"].to_numpy(object), table["day"].to_numpy(object)
        for place in np.flatnonzero(is_open):
            part, key = slices[question[place]], (of_day[question[place]], int(ages[place]))
            found = {y: told.get((*key, y, part)) or told.get((*key, y, ALL), unknown) for y in OUTCOMES}
            positive, negative = (found[y] for y in OUTCOMES)
            numbers[place] = (
                positive["value"], negative["value"], positive["variance"], negative["variance"], positive["covariance"]
            )  # fmt: skip
            why = next((found[y]["reason"] for y in needed if not (found[y]["value"] or 0.0) >= MIN_COMPLETENESS), None)
            reasons[question[place]] = reasons[question[place]] or why
        daily = Completeness.of(numbers, is_one_sided=label.is_one_sided)
        is_single = questions.is_single
        single = np.where(is_single[:, None], numbers[questions.starts], [1.0, 1.0, 0.0, 0.0, 0.0])
        return cls(Completeness.of(single, is_one_sided=label.is_one_sided), reasons, daily)

    def part(self, is_wanted: NDArray[np.bool_]) -> Completeness:
        """Of some questions."""
        return self.completeness.part(is_wanted)


@dataclass(frozen=True)
class Answer:
    """One metric of every question: corrected for what is missing, and as if nothing were.

    ``reasons`` say why it is not defined where it is not, if that is known.
    """

    metric: str
    found: Estimate
    raw: Estimate
    reasons: NDArray[np.object_] | None = None


def answers(con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, known: Known) -> Iterator[Answer]:
    """Every declared metric of yes or no; and, if labels may be wrong, what right labels would give."""
    is_single, is_one_sided = questions.is_single, service.label.is_one_sided
    singles, (days, starts) = taken(questions.counts, is_single), questions.part(~is_single)
    whole = Completeness.whole(int(is_single.sum()), is_one_sided=is_one_sided)
    baseline = np.nan if service.is_monitor_only else service.model.prior  # no prior, no lift over it
    noise = noise_of(service)
    pooled = pooled_aucs(con, questions)[~is_single] if "auc" in service.quality.metrics else np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):

        def answer(metric: str, known: Completeness, noise: Noise | None) -> Estimate:
            if metric == "auc":
                daily = metrics.daily_auc(singles, known, noise=noise)
                long = metrics.window_auc(pooled, days, starts, noise=noise)
            else:
                daily = metrics.daily_ratio(metric, singles, known, noise=noise, baseline=baseline)
                long = metrics.window_ratio(
                    metric, days, starts, noise=noise, baseline=baseline, is_one_sided=is_one_sided
                )
            return merged(is_single, daily, long)

        for metric in (metric for metric in service.quality.metrics if metric in (*metrics.RATIOS, "auc")):
            found = answer(metric, known.part(is_single), None)
            yield Answer(metric, found, answer(metric, whole, None))
            if noise is not None:
                yield Answer(f"{metric}_denoised", answer(metric, known.part(is_single), noise), found)
        for name, found, raw in curve_estimates(con, service, questions, known.completeness):
            yield Answer(name, found, Estimate(raw, raw, raw))


def noise_of(service: MLService) -> Noise | None:
    """The declared noise of the labels."""
    declared = service.label.noise
    return None if declared is None else Noise(declared.wrong_positive_share, declared.wrong_negative_share)


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
    is_large = counts.counted >= HISTOGRAM_FROM
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
    cells = frame(con, quality_counts.histograms_sql())
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


def completeness_sql(relation: str, version: str) -> str:
    """SQL of ``(day, age_days, outcome, slice, {value, variance, covariance, reason})`` of one label version."""
    numbers = "value: value, variance: variance, covariance: covariance, reason: reason"
    return f"""
        select day, age_days, outcome, coalesce(slice, {literal(ALL)}), {{{numbers}}} from {relation}
        where label_version = {literal(version)}
    """
