"""Measure: how much better an answer was than the cheap one, on the same requests.

``lift_over_fallback`` is one minus the Brier score of a version over that of the fallback, which scores every request
beside it: above 0 the dear model earns something, 0.1 is a tenth less loss. ``lift`` is the same over the prior.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop import metrics
from mlops_assets.monitoring_loop.metrics import Z95, Array, Completeness, Estimate
from mlops_assets.monitoring_loop.metrics_windows import student
from mlops_assets.monitoring_loop.quality_answers import Answer, Known
from mlops_assets.monitoring_loop.questions import Questions
from mlops_assets.service.service import MLService

LIFT = "lift_over_fallback"
OTHER_REQUESTS = "the fallback has no score for the same requests"
WAITS = "over several days it is measured when all labels are there"
FALLBACK = "fallback"


def lift_answers(service: MLService, questions: Questions, known: Known) -> Iterator[Answer]:
    """The metric of this file, if it is declared."""
    if LIFT in service.quality.metrics:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield lift_over_fallback(questions, known.completeness)


def lift_over_fallback(questions: Questions, known: Completeness) -> Answer:
    """One minus the ratio of two Brier scores over the same labelled requests; for every role but the fallback's.

    Over several days all labels are there, and the day is the unit: a ratio of sums of the day's losses, linearised (W.
    G. Cochran, *Sampling Techniques*, 3rd ed. 1977, ch. 6), so both versions' common days cancel. On one day the errors
    of both are added as if they were independent, which is too wide: they share their requests.
    """
    rival = fallbacks(questions)
    counts, reasons = questions.counts, np.full(len(rival), None, dtype=object)
    reasons[rival < 0] = OTHER_REQUESTS
    reasons[~questions.is_single & (questions.table["state"] == "provisional").to_numpy()] = WAITS
    size = len(rival)
    whole = Completeness.whole(size, is_one_sided=known.is_one_sided)
    found = on_single_days(metrics.daily_ratio("brier", counts, known), rival)
    raw = on_single_days(metrics.daily_ratio("brier", counts, whole), rival).value
    losses = questions.daily.positive.brier.own + questions.daily.negative.brier.own
    ends = np.append(questions.starts[1:], len(losses))
    is_long = ~questions.is_single & (rival >= 0) & (questions.table["state"] != "provisional").to_numpy()
    for place in np.flatnonzero(~questions.is_single):
        bounds = (np.nan, np.nan, np.nan)
        if is_long[place]:
            other = rival[place]
            own, theirs = (losses[questions.starts[at] : ends[at]] for at in (place, other))
            bounds = over_days(own, theirs) if len(own) == len(theirs) else bounds
        found.value[place], found.low[place], found.high[place] = bounds
        raw[place] = bounds[0]
    return Answer(LIFT, found, Estimate(raw, raw, raw), reasons)


def fallbacks(questions: Questions) -> NDArray[np.int64]:
    """Which question asks the same of the fallback; -1 if none does, or it is about other requests, or itself."""
    table, counts = questions.table, questions.counts
    keys = list(zip(table["number"], table["slice"], strict=True))
    of_fallback = {key: place for place, key in enumerate(keys) if table["role"].iat[place] == FALLBACK}
    rival = np.array([of_fallback.get(key, -1) for key in keys], dtype=np.int64)
    is_same = (counts.n == counts.n[rival]) & (counts.counted == counts.counted[rival]) if len(rival) else rival
    return np.where((table["role"] != FALLBACK).to_numpy() & is_same, rival, -1)


def on_single_days(brier: Estimate, rival: NDArray[np.int64]) -> Estimate:
    """One minus the ratio, by the delta method."""
    ratio: Array = np.where(rival >= 0, brier.value / brier.value[rival], np.nan)
    error = (brier.high - brier.low) / (2 * Z95) / brier.value
    half = Z95 * ratio * np.sqrt(error**2 + error[rival] ** 2)
    return Estimate(1 - ratio, 1 - ratio - half, 1 - ratio + half)


def over_days(own: Array, theirs: Array) -> tuple[float, float, float]:
    """One minus the ratio of two sums over days with its t interval; no bounds below two days.

    >>> over_days(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
    (0.5, 0.5, 0.5)
    """
    ratio, days = float(own.sum() / theirs.sum()), len(own)
    if days < 2:
        return 1 - ratio, np.nan, np.nan
    influence = (own - ratio * theirs) / theirs.sum()
    half = float(student(np.array([days - 1.0]))[0]) * float(np.sqrt(days / (days - 1) * (influence**2).sum()))
    return 1 - ratio, 1 - ratio - half, 1 - ratio + half
