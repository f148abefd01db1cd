"""Measure: the declared metrics that need the whole order of the scores, for the questions of ``quality``."""

from collections.abc import Iterator, Mapping

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, rows
from mlops_assets.monitoring_loop.metrics import Array, Completeness, Estimate, around, student, wilson
from mlops_assets.monitoring_loop.metrics_curves import (
    CURVES,
    ScoreCurve,
    Weights,
    daily_curve_metric,
    threshold_at_risk,
    together,
)
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.questions import Questions, places_of
from mlops_assets.service.monitoring import QualityPolicy
from mlops_assets.service.service import MLService

APPROVAL = ("approval_at_risk", "approval_uplift")
Curves = Mapping[tuple[int, int], ScoreCurve]
"""The curve of each state and group."""


def curve_estimates(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    questions: Questions,
    completeness: Completeness,
    of_days: Completeness,
) -> Iterator[tuple[str, Estimate, Array]]:
    """Every declared metric of this file: name, estimates per question, and raw values.

    Over several days the curve of a day whose labels are still coming is weighed before the days are added; what the
    weights owe to their own error is not in the interval.

    Args:
        completeness: of every question about a single day.
        of_days: of every day of every question.
    """
    declared = service.quality.metrics
    if not set(declared) & {*CURVES, *APPROVAL}:
        return
    curves = read_curves(con)
    days, weighed = days_of(questions, curves), days_of(questions, curves, of_days)
    is_one_sided = completeness.is_one_sided
    for metric in (metric for metric in declared if metric in CURVES):
        level = level_of(service.quality, metric)
        found, raw = np.full((3, len(days)), np.nan), np.full(len(days), np.nan)
        for place, daily in enumerate(days):
            usable = [curve for curve in daily if curve.positives.sum() and curve.negatives.sum()]
            if not usable:
                continue
            whole = together(usable)
            raw[place] = CURVES[metric](whole, Weights(is_one_sided=is_one_sided), level)
            if questions.is_single[place]:
                found[:, place] = daily_curve_metric(metric, whole, weights_of(completeness, place), level)
            else:
                right = [curve for curve in weighed[place] if curve.positives.sum() and curve.negatives.sum()]
                each = np.array([CURVES[metric](day, Weights(is_one_sided=is_one_sided), level) for day in right])
                value = CURVES[metric](together(right), Weights(is_one_sided=is_one_sided), level)
                found[:, place] = pooled(value, each)
        yield metric, Estimate(*found), raw
    if set(declared) & set(APPROVAL):
        yield from approval_estimates(con, service, questions, days)


def level_of(policy: QualityPolicy, metric: str) -> float:
    """What a metric is fixed at: a recall, a precision, a number of bands."""
    levels = {
        "precision_at_recall": policy.at_recall, "recall_at_precision": policy.at_precision,
        "calibration_error": float(policy.calibration_bands),
    }  # fmt: skip
    return levels.get(metric, 0.0)


def weights_of(completeness: Completeness, place: int) -> Weights:
    """The completeness of one question."""
    every = completeness
    return Weights(
        float(every.positive[place]), float(every.negative[place]), float(every.variance_positive[place]),
        float(every.variance_negative[place]), float(every.covariance[place]), every.is_one_sided,
    )  # fmt: skip


def pooled(value: float, daily: Array) -> tuple[float, float, float]:
    """A pooled value with a t interval from the spread of the daily ones, within 0 and 1; none below two days."""
    if len(daily) < 2:
        return value, np.nan, np.nan
    half = float(student(np.array([len(daily) - 1.0]))[0]) * float(daily.std(ddof=1)) / np.sqrt(len(daily))
    return value, max(0.0, value - half), min(1.0, value + half)


def read_curves(con: duckdb.DuckDBPyConnection) -> Curves:
    """The curves that the engine counted."""
    cells = frame(con, curves_sql())
    score = cells["score"].to_numpy(np.float64) / 1e9
    positives, negatives = (cells[name].to_numpy(np.float64) for name in ("positives", "negatives"))
    return {
        key: ScoreCurve(score[place], positives[place], negatives[place]) for key, place in places_of(cells).items()
    }


def days_of(questions: Questions, curves: Curves, daily: Completeness | None = None) -> list[list[ScoreCurve]]:
    """The curves of the days of every question, oldest first; of longer windows weighed by ``daily``, if given."""
    ends = np.append(questions.starts[1:], len(questions.states))
    groups = questions.table["group_id"].to_numpy(np.uint64)
    is_asked = np.zeros(len(questions.states), dtype=bool)
    if daily is not None:
        is_asked = questions.spread(~questions.is_single) & ~daily.is_whole

    def curve_of(place: int, key: tuple[int, int]) -> ScoreCurve:
        curve = curves[key]
        if daily is None or not is_asked[place]:
            return curve
        return ScoreCurve(curve.score, *curve.weighed(weights_of(daily, place)))

    return [
        [curve_of(place, key) for place in range(a, b) if (key := (int(questions.states[place]), int(group))) in curves]
        for a, b, group in zip(questions.starts, ends, groups, strict=True)
    ]


def approval_estimates(
    con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, days: list[list[ScoreCurve]]
) -> Iterator[tuple[str, Estimate, Array]]:
    """The share that each version approves at the declared risk, and how much more that is than the champion's.

    Approved is a score up to a threshold. Every version has its own, re-fitted on its longest window of mature days:
    the highest one up to which at most ``max_risk_share`` of the outcomes are positive. So versions are compared at
    equal risk and not at equal threshold. Wilson's interval over the predictions of the day; a difference has both
    errors added, which is too wide where versions agree on most requests. The threshold is taken as given.
    """
    table = questions.table
    longest = int(table["window_days"].max()) if len(table) else 1
    is_whole = table["slice"] == ALL
    is_mature = np.asarray(is_whole & (table["window_days"] == longest) & (table["state"] == "final") & (longest > 1))
    thresholds = {
        (table.at[place, "day"], table.at[place, "group_id"]): threshold_at_risk(
            together(days[place]), service.quality.max_risk_share
        )
        for place in np.flatnonzero(is_mature)
        if days[place]
    }
    keys = list(zip(table["day"], table["group_id"], strict=True))
    is_asked = np.asarray(questions.is_single & is_whole)
    asked = pd.DataFrame(
        [(place, table.at[place, "number"], keys[place][1], thresholds[keys[place]])
         for place in np.flatnonzero(is_asked) if keys[place] in thresholds],
        columns=["question", "number", "group_id", "threshold"],
    )  # fmt: skip
    approved, total = np.zeros(len(table)), np.full(len(table), np.nan)
    if len(asked):
        con.register("quality_members", asked)
        for question, below, n in rows(con, approved_sql()):
            approved[question], total[question] = below, n
        con.unregister("quality_members")
    with np.errstate(invalid="ignore"):
        share = wilson(approved / total, total)
    yield "approval_at_risk", share, share.value
    variance = share.value * (1 - share.value) / total
    of_champion = {
        n: place for place, n in enumerate(table["number"]) if is_asked[place] and table.at[place, "role"] == "champion"
    }
    rival = np.array([of_champion.get(number, -1) for number in table["number"]])
    has_rival = (rival >= 0) & (np.asarray(table["role"]) != "champion")
    difference = np.where(has_rival, share.value - share.value[rival], np.nan)
    uplift = around(difference, variance + variance[rival])
    yield "approval_uplift", uplift, uplift.value


def curves_sql() -> str:
    """SQL of ``(state, group_id, score, positives, negatives)``, from the highest score down."""
    return """
        select state, group_id, score, positives, negatives from quality_hits
        order by state, group_id, score desc
    """


def approved_sql() -> str:
    """SQL of ``(question, approved, n)`` over all predictions with a score.

    Reads   ``quality_members(question, number, group_id, threshold)``.
    """
    return """
        select question, count(*) filter (where score <= round(threshold * 1e9)), count(*)
        from quality_members join quality_cells using (number) join quality_rows using (state, group_id)
        where score is not null
        group by question
    """
