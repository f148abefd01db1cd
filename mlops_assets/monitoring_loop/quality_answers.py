"""Measure: the answers to the questions of ``quality``: every declared metric, corrected and raw."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import literal, rows
from mlops_assets.monitoring_loop import metrics, metrics_windows
from mlops_assets.monitoring_loop.label_noise import Audited, Wrong
from mlops_assets.monitoring_loop.metrics import Z95, Array, Completeness, Estimate, Noise
from mlops_assets.monitoring_loop.metrics_windows import KnownDays
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_aucs import Ranked, pooled_aucs
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
        for (youth, day, part), places in alike(table, question, -ages, is_open).items():
            found = [told.get((day, -youth, y, part)) or told.get((day, -youth, y, ALL), unknown) for y in OUTCOMES]
            (positive, low_1, of_1, both, curve, _), (negative, low_0, of_0, *_) = found
            numbers[places], curves[places] = (positive, negative, of_1, of_0, both), curve
            errors[:, places] = [[error_of(positive, low_1)], [error_of(negative, low_0)]]
            why = next((y[-1] for y in found[:needed] if not (y[0] or 0.0) >= MIN_COMPLETENESS), None)
            for place in question[places] if why else ():
                reasons[place] = reasons[place] or why
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


def alike(
    table: pd.DataFrame, question: NDArray[np.int64], youth: NDArray[np.int64], is_open: NDArray[np.bool_]
) -> dict[Any, NDArray[np.int64]]:
    """The open days of questions that rest on the same share: by minus their age (so oldest first), day and slice."""
    places = np.flatnonzero(is_open)
    asked = pd.DataFrame({"youth": youth[places], "day": table["day"].to_numpy()[question[places]]})
    asked["slice"] = table["slice"].to_numpy()[question[places]]
    return {key: places[at] for key, at in asked.groupby(["youth", "day", "slice"]).indices.items()}


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
        is_known = known.reasons == None  # noqa: E711  element by element
        ranked = Ranked.read(con)
        raw = pooled_aucs(ranked, questions, whole.daily.shares, ~is_single)
        right = np.where(is_fresh, pooled_aucs(ranked, questions, known.daily.shares, is_fresh & is_known), raw)
        pooled = {id(known): right[~is_single], id(whole): raw[~is_single]}
    with np.errstate(divide="ignore", invalid="ignore"):

        def answer(metric: str, known: Known, noise: Noise | None) -> Estimate:
            of_single, of_days = known.part(is_single), known.daily.part(questions.spread(~is_single))
            on_day = noise and noise.at(is_single)
            if metric == "auc":
                daily = metrics.daily_auc(singles, of_single, noise=on_day)
                long = metrics_windows.window_auc(
                    pooled[id(known)], days, starts, of_days, noise=noise and noise.at(~is_single)
                )
            else:
                each = noise and noise.at(np.repeat(*questions.lengths(~is_single)))
                daily = metrics.daily_ratio(metric, singles, of_single, noise=on_day, baseline=baseline)
                long = metrics_windows.window_ratio(metric, days, starts, of_days, noise=each, baseline=baseline)
            return merged(is_single, daily, long)

        truly_positive = None if wrong is None else answer("positive_share", known, wrong.noise)
        for metric in (metric for metric in service.quality.metrics if metric in (*metrics.RATIOS, "auc")):
            found = answer(metric, known, None)
            yield Answer(metric, found, answer(metric, whole, None))
            if wrong is not None and truly_positive is not None:
                denoised = answer(metric, known, wrong.noise)
                yield without_impossible(Answer(f"{metric}_denoised", denoised, found, wrong.reasons), truly_positive)
        for name, found, raw in curve_estimates(con, service, questions, known.completeness, known.daily):
            yield Answer(name, found, Estimate(raw, raw, raw))


IMPOSSIBLE = "with the shares of wrong labels that are declared or audited there would be other labels than these"


def without_impossible(told: Answer, right: Estimate) -> Answer:
    """The same where right labels can have been such; elsewhere not a number, and why.

    ``right``: the share of positives that right labels would give. By chance it falls outside of 0 to 1 in small
    slices, and means over them stay unbiased; if its whole interval does, the noise is not the one of these labels.
    The AUC has no meaning for any share outside.
    """
    is_impossible = (right.high < 0) | (right.low > 1)
    if told.metric == "auc_denoised":
        is_impossible |= (right.value <= 0) | (right.value >= 1)
    if told.reasons is None or not is_impossible.any():
        return told
    found = told.found
    kept = Estimate(*(np.where(is_impossible, np.nan, one) for one in (found.value, found.low, found.high)))
    reasons = np.where(is_impossible & (told.reasons == None), IMPOSSIBLE, told.reasons)  # noqa: E711  by element
    return Answer(told.metric, kept, told.raw, reasons)


def merged(is_single: NDArray[np.bool_], daily: Estimate, long: Estimate) -> Estimate:
    """Estimates of single days and of longer windows in the order of the questions."""

    def both(of_single: Array, of_long: Array) -> Array:
        found = np.empty(len(is_single))
        found[is_single], found[~is_single] = of_single, of_long
        return found

    return Estimate(both(daily.value, long.value), both(daily.low, long.low), both(daily.high, long.high))


def completeness_sql(relation: str, version: str) -> str:
    """SQL of ``(day, age_days, outcome, slice, value, low, variance, covariance, weekday, reason)`` of a version."""
    return f"""
        select day, age_days, outcome, coalesce(slice, {literal(ALL)}), value, low, variance, covariance, weekday,
               reason
        from {relation} where label_version = {literal(version)}
    """
