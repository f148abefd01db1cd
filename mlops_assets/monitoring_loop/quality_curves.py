"""Measure: the declared metrics that need the whole order of the scores, for the questions of ``quality``."""

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, rows
from mlops_assets.monitoring_loop.metrics import Array, Completeness, Estimate, around, wilson
from mlops_assets.monitoring_loop.metrics_curves import (
    CURVES,
    ScoreCurve,
    Weights,
    daily_curve_metric,
    slopes_of,
    threshold_at_risk,
    together,
)
from mlops_assets.monitoring_loop.metrics_windows import KnownDays, window_mean_of_shares
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.questions import Questions, places_of
from mlops_assets.service.monitoring import QualityPolicy
from mlops_assets.service.service import MLService

APPROVAL = ("approval_at_risk", "approval_uplift")
Curves = Mapping[tuple[int, int], ScoreCurve]
"""The curve of each state and group."""
DayCurve = tuple[int, ScoreCurve]
"""The curve of one day of a question, and where that day stands in ``Questions.daily``."""


def curve_estimates(
    con: duckdb.DuckDBPyConnection,
    service: MLService,
    questions: Questions,
    completeness: Completeness,
    of_days: KnownDays,
) -> Iterator[tuple[str, Estimate, Array]]:
    """Every declared metric of this file: name, estimates per question, and raw values.

    Args:
        completeness: of every question about a single day.
        of_days: of every day of every question.
    """
    declared = service.quality.metrics
    if not set(declared) & {*CURVES, *APPROVAL}:
        return
    days = days_of(questions, read_curves(con))
    for metric in (metric for metric in declared if metric in CURVES):
        level = level_of(service.quality, metric)
        single, raw = daily_estimates(metric, level, questions, days, completeness)
        long = window_estimates(metric, level, questions, days, of_days, raw)
        found = (np.where(questions.is_single, *bounds) for bounds in zip(single, long, strict=True))
        yield metric, Estimate(*found), raw
    if set(declared) & set(APPROVAL):
        yield from approval_estimates(con, service, questions, days)


def daily_estimates(
    metric: str, level: float, questions: Questions, days: Sequence[Sequence[DayCurve]], completeness: Completeness
) -> tuple[Array, Array]:
    """Value and bounds of every question about a single day, and the raw value of every question."""
    found, raw = np.full((3, len(days)), np.nan), np.full(len(days), np.nan)
    plain = Weights(is_one_sided=completeness.is_one_sided)
    for place, daily in enumerate(days):
        if daily:
            whole = together([curve for _, curve in daily])
            raw[place] = CURVES[metric](whole, plain, level)
            if questions.is_single[place]:
                found[:, place] = daily_curve_metric(metric, whole, weights_of(completeness, place), level)
    return found, raw


def window_estimates(
    metric: str, level: float, questions: Questions, days: Sequence[Sequence[DayCurve]], known: KnownDays, raw: Array
) -> Array:
    """Value and bounds of every question about several days; the day is the unit of the t interval.

    The curve of a day whose labels are still coming is weighed before the days are added. What the weights owe to
    their own error is added with the slopes of the daily values, as for an AUC (``metrics_windows.window_auc``).
    """
    value, each = np.full(len(days), np.nan), np.full(len(questions.states), np.nan)
    slopes, plain = np.zeros((2, len(each))), Weights(is_one_sided=known.shares.is_one_sided)
    answered: dict[tuple[int, float, float], tuple[float, float, float]] = {}
    is_whole = known.shares.is_whole
    for place in np.flatnonzero(~questions.is_single).tolist():
        weighed = []
        for at, curve in days[place]:
            weights = known_weights(known, at)
            if (key := (id(curve), weights.positive, weights.negative)) not in answered:
                answered[key] = (CURVES[metric](curve, weights, level), *slopes_of(metric, curve, weights, level))
            each[at], slopes[0, at], slopes[1, at] = answered[key]
            weighed.append(ScoreCurve(curve.score, *curve.weighed(weights)))
        if weighed and is_whole[[at for at, _ in days[place]]].all():
            value[place] = raw[place]
        elif weighed:
            value[place] = CURVES[metric](together(weighed), plain, level)
    is_long = ~questions.is_single
    _, starts = questions.part(is_long)
    of_days = questions.spread(is_long)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = window_mean_of_shares(value[is_long], each[of_days], starts, known.part(of_days), slopes[:, of_days])
    bounds = np.full((3, len(days)), np.nan)
    bounds[:, is_long] = found.value, found.low, found.high
    return bounds


def known_weights(known: KnownDays, at: int) -> Weights:
    """The shares known of one day of a window, and how sure they are as averages."""
    shares = known.shares
    return Weights(
        float(shares.positive[at]), float(shares.negative[at]), float(known.error_positive[at]),
        float(known.error_negative[at]), 0.0, shares.is_one_sided,
    )  # fmt: skip


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


def read_curves(con: duckdb.DuckDBPyConnection) -> Curves:
    """The curves that the engine counted."""
    cells = frame(con, curves_sql())
    score = cells["score"].to_numpy(np.float64) / 1e9
    positives, negatives = (cells[name].to_numpy(np.float64) for name in ("positives", "negatives"))
    return {
        key: ScoreCurve(score[place], positives[place], negatives[place]) for key, place in places_of(cells).items()
    }


def days_of(questions: Questions, curves: Curves) -> list[list[DayCurve]]:
    """The curves of the days of every question, oldest first, without days that have one outcome only."""
    ends = np.append(questions.starts[1:], len(questions.states))
    groups = questions.table["group_id"].to_numpy(np.uint64)
    usable = {key: curve for key, curve in curves.items() if curve.positives.any() and curve.negatives.any()}
    return [
        [(place, usable[key]) for place in range(a, b) if (key := (int(questions.states[place]), int(group))) in usable]
        for a, b, group in zip(questions.starts, ends, groups, strict=True)
    ]


def approval_estimates(
    con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, days: Sequence[Sequence[DayCurve]]
) -> Iterator[tuple[str, Estimate, Array]]:
    """The share that each version approves at the declared risk, and how much more that is than the champion's.

    Approved is a score up to a threshold. Every version has its own, re-fitted on its longest window of mature days:
    the highest one up to which at most ``max_risk_share`` of the outcomes are positive. So versions are compared at
    equal risk and not at equal threshold. Wilson's interval over the predictions of the day; a difference has both
    errors added, which is too wide where versions agree on most requests. The threshold is taken as given.
    """
    table = questions.table
    longest = int(table["window_days"].max()) if len(table) else 1
    is_whole = np.asarray(table["slice"] == ALL)
    is_mature = np.asarray(is_whole & (table["window_days"] == longest) & (table["state"] == "final") & (longest > 1))
    thresholds = {
        (table.at[place, "day"], table.at[place, "group_id"]): threshold_at_risk(
            together([curve for _, curve in days[place]]), service.quality.max_risk_share
        )
        for place in np.flatnonzero(is_mature).tolist()
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
