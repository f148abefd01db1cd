"""Judge: has quality fallen as far as the owner said it must not? Declared sentences, evaluated day by day.

Every evaluation is a row with the numbers it used, broken or not (table ``rules``). Pure.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import hypot
from typing import Literal

from mlops_assets.monitoring_loop.baseline import WEEK
from mlops_assets.monitoring_loop.evidence import (
    MIN_COMPLETENESS,
    SERVED,
    WEEKS,
    Asked,
    Evidence,
    Known,
    Series,
    Usual,
    control_of,
)
from mlops_assets.service.degradation import DegradationRule

INCIDENT, RETRAINING = "incident", "retraining"
MIN_SAME_WEEKDAYS = 4
"""Fewer days of the same weekday than this are no history to compare with."""
State = Literal["ok", "broken", "unknown", "learning"]


@dataclass(frozen=True)
class Evaluation:
    """One rule on one day, with the numbers it used: a row of table ``rules``.

    ``value`` is the newest window's, ``compared`` what it stands beside and ``change`` the distance in the
    unit of the limit; ``days_broken`` of ``days_judged`` days (declared: ``of_days``) lie beyond it.
    """

    day: date
    rule: str
    prediction_day: date
    window_days: int
    role: str
    slice: str
    metric: str
    leads_to: str
    value: float | None = None
    compared: float | None = None
    change: float | None = None
    scale: float | None = None
    days_broken: int = 0
    days_judged: int = 0
    of_days: int = 1
    n_labelled: int = 0
    completeness: float | None = None
    known_as: str = ""
    state: State = "ok"
    tier: str = "stable"
    reason: str = ""
    gap: str = ""
    """Why it cannot be judged: ``blocked``, ``labels``, or nothing. Not stored."""


@dataclass(frozen=True)
class DayOfRule:
    """One prediction day of a rule: the distance from what it is compared with, or why there is none."""

    change: float | None = None
    compared: float | None = None
    is_broken: bool = False
    gap: str = ""


def evaluate(rule: DegradationRule, evidence: Evidence, *, leads_to: str) -> Evaluation:
    """One rule at the end of one day."""
    served = evidence.of(Asked(SERVED, rule.slice, rule.metric, rule.window_days))
    control = evidence.of(control_of(rule)) if rule.has_control else {}
    last = newest_day(rule, served, evidence)
    days = [last - timedelta(days=back) for back in range(rule.of_days)]
    judged = [day_of_rule(rule, day, served, control, evidence) for day in days]
    broken = sum(day.is_broken for day in judged)
    missing = [day for day in judged if day.change is None]
    newest, known = judged[0], served.get(last, Known(None))
    found = Evaluation(
        evidence.day, rule.sentence, last, rule.window_days, SERVED, rule.slice, rule.metric, leads_to,
        value=known.value, compared=newest.compared, change=newest.change, days_broken=broken,
        days_judged=len(judged) - len(missing), of_days=rule.of_days, n_labelled=known.n_labelled,
        completeness=known.completeness, known_as=known.state if known.value is not None else "not_measured",
    )  # fmt: skip
    if broken >= rule.broken_days:
        tier = rule.tier if leads_to == INCIDENT else "stable"
        return replace(found, state="broken", tier=tier, reason=in_words(rule, found))
    if newest.gap == "learning" or (len(missing) == len(judged) and is_new(served, last)):
        return replace(found, state="learning", reason="learning")
    if broken + len(missing) >= rule.broken_days:
        gap = "blocked" if all(day.gap == "blocked" for day in missing) else "labels"
        asks_nobody = leads_to == RETRAINING or gap == "blocked" or is_still_learning(missing)
        return replace(
            found, state="unknown", tier="stable" if asks_nobody else "unknown", gap=gap,
            reason=unknown_in_words(rule, missing, broken),
        )  # fmt: skip
    return replace(found, reason=f"{broken} of {len(judged)} days beyond the limit")


def newest_day(rule: DegradationRule, served: Series, evidence: Evidence) -> date:
    """The newest prediction day a rule looks at: the mature one, or a later one that is known well enough."""
    if rule.min_state == "final":
        return evidence.mature
    enough = [
        day
        for day, known in served.items()
        if day > evidence.mature and known.value is not None and known.completeness >= MIN_COMPLETENESS
    ]
    return max(enough, default=evidence.mature)


def day_of_rule(rule: DegradationRule, day: date, served: Series, control: Series, evidence: Evidence) -> DayOfRule:
    """How far one prediction day is from what it is compared with."""
    known = served.get(day)
    if day in evidence.blocked:
        return DayOfRule(gap="blocked")
    if known is None or known.value is None:
        return DayOfRule(gap="blocked" if known and known.reason == "blocked" else "labels")
    if evidence.is_unmodelled(day, rule.window_days):
        return DayOfRule(gap="learning")
    if known.n_labelled < rule.min_labels:
        return DayOfRule(gap="labels")
    compared = compared_value(rule, day, served, control, evidence.usual)
    change = None if compared is None or compared.value is None else change_of(rule, known.value, compared.value)
    if compared is None or change is None or (known.is_final and not compared.is_final):
        return DayOfRule(gap="learning")
    limit = rule.limit[1] if rule.compared_with else 0.0
    is_broken = change > limit if rule.is_rise else change < -limit
    if is_broken and not known.is_final:
        is_broken = is_beyond(rule, known, compared)
    return DayOfRule(change, compared.value, is_broken)


def compared_value(rule: DegradationRule, day: date, served: Series, control: Series, usual: Usual) -> Known | None:
    """What a day stands beside: the level, the control of the same day, or the same weekday of eight weeks."""
    if rule.compared_with is None:
        return Known(rule.limit[1])
    if rule.has_control:
        known = control.get(day)
        return known if known and known.n_labelled >= rule.min_labels else None
    before = (day - timedelta(days=WEEK * week) for week in range(1, WEEKS + 1))
    past = (served.get(one) for one in before if usual.holds(one))
    values = sorted(known.value for known in past if known and known.is_final and known.value is not None)
    if len(values) < MIN_SAME_WEEKDAYS:
        return None
    middle = len(values) // 2
    return Known(values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2)


def change_of(rule: DegradationRule, value: float, compared: float) -> float | None:
    """The distance of a value in the unit of the limit, 9 decimals; None where a share of nothing was asked."""
    if not rule.limit[0].endswith("_share"):
        return round(value - compared, 9)
    return round((value - compared) / abs(compared), 9) if compared else None


def is_beyond(rule: DegradationRule, known: Known, compared: Known) -> bool:
    """Whether the whole interval of a provisional distance lies beyond the limit, with half the labels there.

    Both errors are added as if independent: too wide for two versions that answered the same requests.
    """
    sign = 1.0 if rule.is_rise else -1.0
    near, far = (known.low, compared.high) if rule.is_rise else (known.high, compared.low)
    if near is None or known.value is None or compared.value is None or known.completeness < MIN_COMPLETENESS:
        return False
    limit = rule.limit[1] if rule.compared_with else 0.0
    of_share = rule.limit[0].endswith("_share")
    edge = compared.value + sign * limit * (abs(compared.value) if of_share else 1.0)
    slope = 1.0 + sign * limit * (1.0 if compared.value > 0 else -1.0) if of_share else 1.0
    theirs = 0.0 if far is None else slope * (far - compared.value)
    return sign * (known.value - edge) > hypot(known.value - near, theirs)


def is_new(served: Series, last: date) -> bool:
    """Whether there never was anything to judge."""
    return not any(day < last and known.is_final for day, known in served.items())


def is_still_learning(missing: list[DayOfRule]) -> bool:
    """Whether what is missing is only something to compare with (no control or history yet)."""
    return all(day.gap in ("learning", "blocked") for day in missing)


def in_words(rule: DegradationRule, found: Evaluation) -> str:
    """A broken rule with its numbers."""
    beside = f", {rule.control}" + ("'s" if rule.compared_with and not rule.control_slice else "")
    value = "not measured" if found.value is None else f"{found.value:.4g}"
    compared = "" if found.compared is None else f"{beside} {found.compared:.4g}"
    days = f"; {found.days_broken} of {found.of_days} days" if found.of_days > 1 else ""
    return f"{rule.sentence}: {value} on {found.prediction_day} ({found.known_as}){compared}{days}"


def unknown_in_words(rule: DegradationRule, missing: list[DayOfRule], broken: int) -> str:
    """Why a rule cannot be judged."""
    why = ", ".join(sorted({day.gap for day in missing}))
    words = {"labels": "too few labels", "learning": "nothing to compare with yet"}
    told = ", ".join(words.get(gap, gap) for gap in why.split(", "))
    return f"{rule.sentence}: cannot be judged, {len(missing)} of {rule.of_days} days not measured ({told})" + (
        f", {broken} beyond the limit" if broken else ""
    )
