"""Measure: metrics that a service brings itself, as functions of rows.

What a stranger's function does is not known, so nothing is derived from it: its interval comes from calling it again
without a part of the rows (jackknife), and whatever it raises is a reason why there is no number.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.errors import DeclarationError
from mlops_assets.monitoring_loop.clusters import Value
from mlops_assets.monitoring_loop.metrics_windows import student
from mlops_assets.monitoring_loop.quality_counts import STATES_A_DAY
from mlops_assets.service.tasks import OwnMetric

GROUPS = 20
"""Parts into which the rows of one day fall by the hash of their request, or of the list they were shown in."""
FAILED = "own metric"
"""How the reason of a failure begins."""
MAX_TEXT = 200

OwnFunction = Callable[[pd.DataFrame], float]


def load_metric(metric: OwnMetric, *, where: str) -> OwnFunction:
    """The declared function.

    Raises:
        DeclarationError: its module, or it, does not exist.
    """
    module, _, attribute = metric.function.partition(":")
    try:
        function: OwnFunction = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise DeclarationError(f"{where} > function", f"{error}.", "Write package.module:function.") from error
    return function


@dataclass(frozen=True)
class Outcome:
    """What a call came to: a value with its bounds, or the reason why there is none."""

    value: Value | None
    reason: str | None = None


def own_value(metric: OwnMetric, rows: pd.DataFrame, group: NDArray[np.int64]) -> Outcome:
    """The metric over some rows with a jackknife interval that leaves out one group after the other.

    Over several days a group is a day, else a twentieth of the requests. Variance (g - 1) / g times the sum of
    squared distances from their mean, t with g - 1 degrees of freedom (B. Efron and R. J. Tibshirani, *An Introduction
    to the Bootstrap*, 1993, ch. 11; random groups: P. S. Kott, *Journal of Official Statistics* 17 (2001), 521-526).
    Nothing is drawn, so the same rows give the same bounds. Not for medians and other jumps: there it is too wide.
    """
    try:
        function = load_metric(metric, where=f"quality > own_metrics > {metric.name}")
        value = float(function(rows.copy()))
        names = np.unique(group) if isfinite(value) else np.empty(0, dtype=np.int64)
        without = np.array([float(function(rows[group != name].copy())) for name in names if len(names) > 1])
    except Exception as error:  # a stranger's function may raise anything, and the day goes on without its number
        text = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_TEXT]
        return Outcome(None, f"{FAILED} '{metric.name}' failed: {text}")
    if not isfinite(value):
        return Outcome(None, f"'{metric.name}' returned {value}")
    n = len(without)
    if n < 2 or not np.isfinite(without).all():
        return Outcome(Value(value, float("nan"), float("nan"), n))
    error_of = sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    half = float(student(np.array([n - 1.0]))[0]) * error_of
    return Outcome(Value(value, value - half, value + half, n))


def own_rows(cells: pd.DataFrame, context: Mapping[str, str]) -> pd.DataFrame:
    """What a function is given: one row per answer with an outcome.

    ``request_id, prediction_day, score, value, decision, weight`` and one column per slice or other kept context.
    ``weight`` is what a row stands for while labels are still coming in, and 1 when all are there.
    """
    days = pd.to_datetime(cells["state"].to_numpy(np.int64) // STATES_A_DAY, unit="D")
    found = {
        "request_id": cells["request_id"], "prediction_day": days, "score": cells["given"], "value": cells["value"],
        "decision": cells["decision"], "weight": np.ones(len(cells)),
    }  # fmt: skip
    return pd.DataFrame(found | {name: cells[f"context_{name}"] for name in context})
