"""What kind of answer a service gives, and what can be measured of it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from mlops_assets.service.policy import Identifier, Policy

Task = Literal["binary", "regression", "multiclass", "ranking"]
"""Yes or no, a number, one class out of several, an order of rows."""

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": (
        "brier", "log_loss", "auc", "calibration_ratio", "positive_share", "lift", "lift_over_fallback",
        "average_precision", "precision_at_recall", "recall_at_precision", "calibration_error", "approval_at_risk",
        "approval_uplift",
    ),
    "regression": ("mae", "rmse", "bias", "wape"),
    "multiclass": ("log_loss", "accuracy", "macro_f1"),
    "ranking": ("ndcg", "ctr", "revenue_per_impression"),
}  # fmt: skip
"""What can be measured of each task; docs/monitoring-loop.md has the formulas."""

DEFAULT_METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("brier", "log_loss", "auc", "calibration_ratio", "positive_share"),
    "regression": METRICS["regression"],
    "multiclass": METRICS["multiclass"],
    "ranking": ("ndcg", "ctr"),
}
"""What is measured unless it is declared."""

CORE_METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("brier", "auc", "calibration_ratio"),
    "regression": ("mae", "bias"),
    "multiclass": ("log_loss", "accuracy"),
    "ranking": ("ndcg", "ctr"),
}
"""What people look at unless it is declared."""

HIGHER_IS_BETTER = frozenset(
    {
        *("auc", "lift", "lift_over_fallback", "average_precision", "precision_at_recall", "recall_at_precision"),
        *("approval_at_risk", "approval_uplift", "accuracy", "macro_f1", "ndcg", "ctr", "revenue_per_impression"),
    }
)
"""Metrics of which more is better; of all others less is."""

SPLITS_AT: Mapping[str, float | None] = {"binary": 0.5, "regression": None, "multiclass": None, "ranking": 0.0}
"""Labels above this and the others arrive at speeds of their own; None: all labels share one curve."""


class OwnMetric(Policy):
    """A metric that the package does not have: a function ``package.module:function`` of rows to a number.

    It is given a data frame with one row per answer with an outcome, in the order of the requests: ``request_id``,
    ``prediction_day``, ``score``, ``value`` (of the label), ``decision``, ``weight`` and the kept context (slices),
    and is asked per version, slice and window like any metric. ``unit`` is text for people. ``is_weighted``: it lets
    every row count ``weight`` times, so it may also be asked while labels are still coming in.

    It must be a pure function of its rows. Whatever it raises is the reason of a row without a value, and a finding.
    """

    name: Identifier
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    unit: str
    lower_is_better: bool
    is_weighted: bool = False


class RankingPolicy(Policy):
    """What one list is: rows with the same ``query`` (a column of the request: a query, a session) were shown together.

    A row of the prediction log is one row shown, its score what ranked it; ``label.value`` is its gain (1 for a
    click, or a grade). ``at_k``: how many rows of a list count for ``ndcg``.
    """

    query: Identifier
    at_k: int = 10
