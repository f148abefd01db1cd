"""Judge: one day, one verdict, one reason.

The verdict is the highest tier of what was found that day; what follows from it is decided in ``actions.py``.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd

from mlops_assets.monitoring_loop.drift import ROWS
from mlops_assets.monitoring_loop.findings import RANK, Finding
from mlops_assets.monitoring_loop.operations import OPERATIONS
from mlops_assets.monitoring_loop.profiles import SCORE

VERDICTS = {
    "stable": "quiet",
    "expected": "note",
    "unknown": "investigate",
    "moderate": "investigate",
    "severe": "break glass",
}

TIER_OF_SOURCE = {
    "quarantined": "expected",
    "missing": "moderate",
    "stale": "moderate",
    "rejected": "moderate",
    "column_gone": "moderate",
    "conflicting": "moderate",
}
"""What the state of a source's file asks of people; every other state asks nothing."""

NAMED_FINDINGS = 3
"""How many findings a reason spells out."""


@dataclass(frozen=True)
class Verdict:
    """One day; five fields go into table ``verdicts``, ``findings`` are its grounds, gravest first."""

    day: date
    verdict: str
    tier: str
    reason: str
    state: str
    findings: tuple[Finding, ...] = ()


def judge_day(
    day: date,
    drift: pd.DataFrame,
    source_states: Mapping[str, tuple[str, str]],
    is_blocked: bool,
    *,
    source_of: Mapping[str, str] | None = None,
    quality: Sequence[Finding] = (),
    others: Sequence[Finding] = (),
) -> Verdict:
    """The verdict on a day: quiet, note, investigate or break glass, for the highest tier of its findings.

    Args:
        day: the day to judge.
        drift: rows of table ``drift``; those of other days are ignored.
        source_states: state and reason per source, for the files that feed this day: ``quarantined`` is a
            note, ``missing``, ``stale``, ``rejected`` and ``conflicting`` ask for a look, anything else is fine.
        is_blocked: no features and no predictions that day: tier unknown, whatever else is known.
        source_of: source of a feature. Features of one source then share its name as their cause, so that a
            broken source is one incident and not one per column.
        quality: what the rules over quality found; they are about the days that matured, so a blocked day
            leaves them to the next one.
        others: what the other monitors found that day.
    """
    of_sources = list(source_findings(day, source_states))
    if is_blocked:
        causes = [finding for finding in of_sources if RANK[finding.tier] >= RANK["unknown"]]
        blocking = [Finding("unknown", finding.cause, f"blocked: {finding.reason}") for finding in causes]
        findings = blocking or [Finding("unknown", "blocked", f"{day} is blocked")]
    else:
        findings = [*of_sources, *quality, *drift_findings(day, drift, source_of or {}), *others]
    findings.sort(key=lambda finding: (-RANK[finding.tier], -finding.weight, finding.cause, finding.reason))
    tier = findings[0].tier if findings else "stable"
    state = "blocked" if is_blocked else "computed"
    return Verdict(day, VERDICTS[tier], tier, in_words(findings), state, tuple(findings))


def source_findings(day: date, source_states: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    """What the delivered files say: the reason names source and day."""
    for source, (state, reason) in sorted(source_states.items()):
        tier = TIER_OF_SOURCE.get(state)
        if tier:
            yield Finding(tier, source, f"{source} {state} on {day}" + (f": {reason}" if reason else ""), 100.0)


def drift_findings(day: date, drift: pd.DataFrame, source_of: Mapping[str, str]) -> Iterator[Finding]:
    """Rows of ``drift`` that are not stable; on a day without any rows, that is the one cause of them all."""
    is_today = pd.to_datetime(drift["day"]) == pd.Timestamp(day)
    rows: list[dict[Hashable, Any]] = drift[is_today & (drift["tier"] != "stable")].to_dict("records")
    is_empty = any(row["column_name"] == ROWS and pd.isna(row["value"]) for row in rows)
    for row in rows:
        column = str(row["column_name"])
        if is_empty and column == ROWS:
            yield Finding(str(row["tier"]), f"drift:{ROWS}", f"{row['reason']} on {day}")
            continue
        if is_empty and row["tier"] == "unknown":
            continue
        own = f"{OPERATIONS}:{column}" if row["subject"] == OPERATIONS else f"drift:{column}"
        cause = own if column in (SCORE, ROWS) else source_of.get(column, own)
        weight = 0.0 if pd.isna(row["surprise"]) else float(row["surprise"])
        yield Finding(str(row["tier"]), cause, str(row["reason"]), weight, column)


def in_words(findings: list[Finding]) -> str:
    """The gravest findings as one line.

    >>> in_words([Finding("moderate", "drift:a", "a: high"), Finding("moderate", "drift:b", "b: low")])
    'a: high; b: low'
    """
    if not findings:
        return "nothing unusual"
    named = "; ".join(finding.reason for finding in findings[:NAMED_FINDINGS])
    more = len(findings) - NAMED_FINDINGS
    return f"{named}; and {more} more" if more > 0 else named
