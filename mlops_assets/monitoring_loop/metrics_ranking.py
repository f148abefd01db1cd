"""Measure: metrics of ranked lists. The unit is the query (or session), never the row: rows of a query share it."""

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.clusters import Value, clusters_of, ratio
from mlops_assets.monitoring_loop.metrics import Array


def ranking_metric(
    metric: str,
    queries: NDArray[np.generic],
    days: NDArray[np.generic],
    *,
    gain: Array,
    score: Array | None = None,
    k: int = 10,
    weights: Array | None = None,
    between_days: float = 0.0,
) -> Value:
    """One metric over the rows shown; within a day the query is the unit of its interval, over several days the day.

    ``ndcg``: mean over queries of the discounted gain of the first ``k`` over the best possible (K. Jarvelin and
    J. Kekalainen, ACM TOIS 20 (2002)); queries without any gain say nothing about order and are left out. ``ctr``
    and ``revenue_per_impression``: sum of ``gain`` (clicks, money) per row shown.

    Args:
        weights: what a row shown stands for, if not for itself: 1 / completeness of its outcome.
        between_days: variance by which days have differed in the past. The interval of one day contains it, so that
            it can be held against another day.

    Raises:
        ValueError: no rows, or no query with a gain.
    """
    if not len(queries):
        raise ValueError(f"{metric}: nothing was shown")
    if metric != "ndcg":
        weight = np.ones_like(gain) if weights is None else weights
        return ratio(weight * gain, weight, clusters_of(days, queries), between=between_days)
    if score is None:
        raise ValueError("ndcg: the scores that ranked the rows are needed; pass score")
    _, query = np.unique(queries, return_inverse=True)
    best, reached = discounted(query, gain, gain, k), discounted(query, score, gain, k)
    has_gain = best > 0
    if not has_gain.any():
        raise ValueError("ndcg: no query has a row with a gain")
    first = np.unique(query, return_index=True)[1]
    days_of, names = days[first][has_gain], np.arange(len(best))[has_gain]
    shares = reached[has_gain] / best[has_gain]
    return ratio(shares, np.ones_like(shares), clusters_of(days_of, names), between=between_days)


def discounted(query: NDArray[np.int64], score: Array, gain: Array, k: int) -> Array:
    """Gain of the first ``k`` rows per query, each over log2(place + 1); equal scores share their mean gain."""
    order = np.lexsort((-score, query))
    query, score, gain = query[order], score[order], gain[order]
    starts = np.searchsorted(query, query)
    place = np.arange(len(query)) - starts
    tie = np.cumsum(np.append(False, (query[1:] != query[:-1]) | (score[1:] != score[:-1])))
    mean = np.bincount(tie, weights=gain) / np.bincount(tie)
    discount = np.where(place < k, 1 / np.log2(place + 2), 0.0)
    return np.bincount(query, weights=mean[tie] * discount).astype(np.float64)
