"""Report: what the last 91 days asked of people beside what was declared, and what might be changed. It never does.

Incidents are what people were asked; whether one was a false alarm only the person says who closes it. So the number
of false alarms is known between bounds: those that were answered so, and those beside the unanswered ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from mlops_assets.monitoring_loop.metrics import wilson
from mlops_assets.service.drifting import AlarmBudget

QUARTER_DAYS = 91
EVERYTHING = "all"
MIN_ANSWERED = 2
"""Fewer answers about a cause are no reason to change anything."""
MIN_SHARE = 0.5
"""A cause is named from this share of the quarter's incidents on."""


@dataclass(frozen=True)
class Asked:
    """One incident of the quarter: its cause, the gravest tier, on how many days it showed, and what it was.

    ``answer`` is a person's: bad_data, new_normal or false_alarm; None: nobody has answered yet.
    """

    cause: str
    tier: str
    alarms: int
    answer: str | None


@dataclass(frozen=True)
class BudgetRow:
    """One row of ledger table ``alarm_budget``: everything, or one cause, over the 91 days that end on ``day``.

    ``low`` and ``high`` are the 95 % interval (Wilson) of the share of answered incidents that were real.
    """

    day: date
    scope: str
    days: int
    alarms: int
    incidents: int
    severe: int
    answered: int
    false_alarms: int
    budget: float | None
    real_share: float | None
    low: float | None
    high: float | None
    state: str
    suggestion: str


def budget_rows(day: date, days: int, asked: Sequence[Asked], budget: AlarmBudget, service: str) -> list[BudgetRow]:
    """The report of a week: one row of everything, then one per cause, the loudest first.

    Args:
        days: how many of the 91 days were closed.
    """
    causes = sorted({one.cause for one in asked})
    parts = {cause: [one for one in asked if one.cause == cause] for cause in causes}
    whole = _row(day, EVERYTHING, days, asked, budget.tier2_a_quarter + budget.tier3_a_quarter)
    rows = [_row(day, cause, days, some, None) for cause, some in parts.items()]
    rows.sort(key=lambda row: (-row.incidents, -row.alarms, row.scope))
    told = [_suggested(row, whole, service) for row in rows]
    return [_with_words(whole, overall(whole, service)), *told]


def _row(day: date, scope: str, days: int, asked: Sequence[Asked], limit: float | None) -> BudgetRow:
    answered = [one for one in asked if one.answer is not None]
    false = sum(one.answer == "false_alarm" for one in answered)
    precision = low = high = None
    if answered:
        found = wilson(np.array([1 - false / len(answered)]), np.array([float(len(answered))]))
        precision, low, high = (round(float(part[0]), 9) for part in (found.value, found.low, found.high))
    return BudgetRow(
        day, scope, days, sum(one.alarms for one in asked), len(asked), sum(one.tier == "severe" for one in asked),
        len(answered), false, limit, precision, low, high, state_of(false, len(asked) - len(answered), limit), "",
    )  # fmt: skip


def state_of(false: int, unanswered: int, budget: float | None) -> str:
    """Whether the budget of false alarms is kept.

    >>> state_of(1, 3, 7.0), state_of(1, 9, 7.0), state_of(8, 0, 7.0)
    ('within', 'not known', 'over')
    """
    if budget is None:
        return ""
    if false > budget:
        return "over"
    return "within" if false + unanswered <= budget else "not known"


def overall(row: BudgetRow, service: str) -> str:
    """What might be done about the whole."""
    try_it = f"mlops backtest-policy {service} --policy FILE shows what another policy would have done"
    if row.state == "over":
        return f"more false alarms than declared: consider a smaller drift.alarm_budget; {try_it}"
    if row.state == "not known":
        open_ones = row.incidents - row.answered
        return f"{open_ones} of {row.incidents} incidents have no answer, so nobody knows: mlops close, with --as"
    if not row.incidents and row.days == QUARTER_DAYS:
        return f"a quarter without any incident: consider whether it would see one; {try_it}"
    return ""


def _suggested(row: BudgetRow, whole: BudgetRow, service: str) -> BudgetRow:
    """A cause that made most of the incidents, and was wrong whenever somebody answered."""
    is_loud = row.incidents >= MIN_SHARE * whole.incidents
    is_wrong = row.answered >= MIN_ANSWERED and row.false_alarms > row.answered / 2
    if not (is_loud or is_wrong):
        return row
    made = f"{row.scope} made {row.incidents} of {whole.incidents} incidents ({row.alarms} of {whole.alarms} alarms)"
    if is_wrong:
        answers = f"{row.false_alarms} of {row.answered} answered were false alarms"
        return _with_words(row, f"{made}, {answers}: consider {knob_of(row.scope)}")
    if row.incidents >= 2 and not row.answered:
        return _with_words(row, f"{made}, none is answered: mlops close says whether they were real")
    return row


def knob_of(cause: str) -> str:
    """What makes a cause quieter, in the words of the declaration."""
    kind, _, name = cause.partition(":")
    if kind == "quality":
        return f"a wider limit or more days in the rule on {name} (quality.degradation), or quality.calibration"
    if kind == "objective":
        return f"another level or more days of the promise on {name} (operations.objectives)"
    if kind == "loop_sync":
        return "another promise (operations.max_model_age_days), or the cadence"
    if cause == "drift:rows":
        return "a larger drift.min_volume_shift_share, or a known event"
    return "a known event, or larger size gates (drift.min_mean_shift_stds, min_distance, min_null_shift_share)"


def _with_words(row: BudgetRow, words: str) -> BudgetRow:
    return BudgetRow(**{**vars(row), "suggestion": words})


def in_words(row: BudgetRow) -> str:
    """One row for people."""
    precision = "nothing answered yet"
    if row.real_share is not None:
        precision = f"{row.real_share:.0%} of {row.answered} answered were real ({row.low:.0%} to {row.high:.0%})"
    beside = "" if row.budget is None else f"; budget {row.budget:g} false alarms a quarter: {row.state}"
    what = "" if row.scope == EVERYTHING else f"{row.scope}: "
    said = f"; {row.suggestion}" if row.suggestion else ""
    return f"{what}{row.incidents} incidents, {row.alarms} alarms in {row.days} days; {precision}{beside}{said}"
