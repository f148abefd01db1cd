"""Decide: what follows from a verdict. Pure: decisions are rows, somebody else acts on them, once."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta
from typing import Literal

from mlops_assets.decisions import Decision, Kind
from mlops_assets.monitoring_loop.verdict import Finding, Verdict

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
    is_cadence_day: bool,
) -> list[Decision]:
    """Decisions of a day, in the order in which they are carried out: freeze, incidents, retraining.

    Args:
        day: the day that was judged.
        verdict: its verdict.
        findings: the grounds of the verdict, gravest first (``verdict.findings``).
        is_frozen: retraining was already frozen when the day began.
        open_causes: causes with an open incident; they get no second one.
        is_cadence_day: a retraining is due. A freeze, an old one or today's, holds it back.
    """
    grave = [finding for finding in findings if Kind.FREEZE in DECISIONS_FOR_TIER[finding.tier]]
    decisions = []
    if grave and not is_frozen:
        evidence = {"day": day.isoformat(), "causes": sorted({finding.cause for finding in grave})}
        decisions.append(Decision(Kind.FREEZE, RETRAINING, grave[0].reason, evidence))
    decisions += incidents(day, findings, open_causes)
    if is_cadence_day and (grave or is_frozen):
        because = grave[0].reason if grave else "retraining is frozen until the incident behind it is closed"
        evidence = {"day": day.isoformat(), "verdict": verdict.verdict, "tier": verdict.tier}
        decisions.append(Decision(Kind.HOLD_RETRAINING, RETRAINING, because, evidence))
    elif is_cadence_day:
        evidence = {"day": day.isoformat(), "verdict": verdict.verdict, "tier": verdict.tier}
        decisions.append(Decision(Kind.RETRAIN, RETRAINING, f"retraining is due on {day}", evidence))
    return decisions


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
