"""Decide: what follows from a verdict. Pure: decisions are rows, somebody else acts on them, once."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from typing import Literal

from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.verdict import Verdict
from mlops_assets.service.training import ModelPolicy

RETRAINING = "retraining"

DECISIONS_FOR_TIER: dict[str, tuple[Kind, ...]] = {
    "stable": (),
    "expected": (),
    "unknown": (Kind.OPEN_INCIDENT,),
    "moderate": (Kind.OPEN_INCIDENT,),
    "severe": (Kind.FREEZE, Kind.OPEN_INCIDENT),
}
"""The whole policy: what a finding of each tier leads to."""


def decide(
    day: date,
    verdict: Verdict,
    findings: Sequence[Finding],
    *,
    is_frozen: bool,
    open_causes: Collection[str],
    reasons_to_retrain: Sequence[str],
) -> list[Decision]:
    """Decisions of a day, in the order in which they are carried out: freeze, incidents, retraining.

    Args:
        day: the day that was judged.
        verdict: its verdict.
        findings: the grounds of the verdict, gravest first (``verdict.findings``).
        is_frozen: retraining was already frozen when the day began.
        open_causes: causes with an open incident; they get no second one.
        reasons_to_retrain: why a retraining is due, if it is. A freeze, an old one or today's, holds it back.
    """
    grave = [finding for finding in findings if Kind.FREEZE in DECISIONS_FOR_TIER[finding.tier]]
    decisions = []
    if grave and not is_frozen:
        evidence = {"day": day.isoformat(), "causes": sorted({finding.cause for finding in grave})}
        decisions.append(Decision(Kind.FREEZE, RETRAINING, grave[0].reason, evidence))
    decisions += incidents(day, findings, open_causes)
    if reasons_to_retrain:
        decisions.append(retraining(day, verdict, reasons_to_retrain, grave, is_frozen=is_frozen))
    return decisions


def retraining(
    day: date, verdict: Verdict, reasons: Sequence[str], grave: Sequence[Finding], *, is_frozen: bool
) -> Decision:
    """Train, or hold it back because of a freeze; the reason says why it was due."""
    evidence = {"day": day.isoformat(), "verdict": verdict.verdict, "tier": verdict.tier, "due": list(reasons)}
    if grave or is_frozen:
        because = grave[0].reason if grave else "retraining is frozen until the incident behind it is closed"
        return Decision(Kind.HOLD_RETRAINING, RETRAINING, because, evidence)
    return Decision(Kind.RETRAIN, RETRAINING, "; ".join(reasons), evidence)


def reasons_to_retrain(
    model: ModelPolicy,
    day: date,
    broken: Sequence[str],
    *,
    last_training: date | None,
    last_hold: date | None,
    is_frozen: bool,
) -> list[str]:
    """Why a retraining is due on a day: the calendar, the performance, or both; empty if it is not.

    Args:
        model: cadence, cool-down, and the first day that may train.
        day: the day that was judged.
        broken: rules of ``retrain_when`` that are broken, in words.
        last_training: newest day on which a training was decided on, for whatever reason. Until
            ``cool_down_days`` after it performance gives no reason: it is still the old version's.
        last_hold: newest day on which one was held back; while frozen, this is not said every day either.
        is_frozen: whether retraining was frozen when the day began.
    """
    if model.first_training is not None and day < model.first_training:
        return []
    reasons = [f"cadence: {model.cadence}, due on {day}"] if is_cadence_day(day, model.cadence) else []
    said = max((d for d in (last_training, last_hold if is_frozen else None) if d is not None), default=None)
    has_cooled = said is None or (day - said).days > model.cool_down_days
    if broken and (has_cooled or reasons):
        reasons += [f"performance: {reason}" for reason in broken]
    return reasons


def incidents(day: date, findings: Sequence[Finding], open_causes: Collection[str]) -> Iterator[Decision]:
    """One incident per cause that has none open; its reason is the gravest finding, the rest is evidence."""
    causes: dict[str, list[Finding]] = {}
    for finding in findings:
        if Kind.OPEN_INCIDENT in DECISIONS_FOR_TIER[finding.tier] and finding.cause not in open_causes:
            causes.setdefault(finding.cause, []).append(finding)
    for cause, grounds in causes.items():
        evidence = {
            "day": day.isoformat(),
            "tier": grounds[0].tier,
            "findings": [finding.reason for finding in grounds],
        }
        yield Decision(Kind.OPEN_INCIDENT, cause, grounds[0].reason, evidence)


def is_cadence_day(day: date, cadence: Literal["monthly", "weekly", "never"]) -> bool:
    """Whether a retraining is due: on the last day of the month, on Sundays, or never.

    >>> is_cadence_day(date(2013, 1, 31), "monthly"), is_cadence_day(date(2013, 2, 3), "weekly")
    (True, True)
    """
    if cadence == "monthly":
        return (day + timedelta(days=1)).month != day.month
    return cadence == "weekly" and day.isoweekday() == 7
