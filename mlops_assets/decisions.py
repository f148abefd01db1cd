"""What a day may decide: written down before anything happens, carried out once, later, elsewhere."""

import re
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The few things the package may do on its own after a day is judged, or, the last two, when none is."""

    RETRAIN = "retrain"
    HOLD_RETRAINING = "hold_retraining"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    OPEN_INCIDENT = "open_incident"
    RAISE_INCIDENT = "raise_incident"
    ESCALATE = "escalate"
    DIGEST = "digest"
    ROLLBACK = "rollback"
    PROMOTE = "promote"
    STALLED = "stalled"
    FAILED_RUN = "failed_run"


TOLD = (Kind.OPEN_INCIDENT, Kind.RAISE_INCIDENT, Kind.ESCALATE, Kind.DIGEST, Kind.STALLED, Kind.FAILED_RUN)
"""Kinds that are messages to people."""

CHANGING = (Kind.RETRAIN, Kind.ROLLBACK, Kind.PROMOTE)
"""Kinds after which the next day is answered by somebody else."""


@dataclass(frozen=True)
class Decision:
    """One action and the evidence for it.

    Attributes:
        kind: what is to be done.
        subject: to whom or what: ``retraining``, or the cause of an incident.
        because: the reason, as a sentence for people.
        evidence: the numbers and names behind the reason; JSON.
    """

    kind: Kind
    subject: str
    because: str
    evidence: dict[str, Any] = field(default_factory=dict)


def decision_row(service: str, day: date, epoch: int, decision: Decision) -> dict[str, Any]:
    """Row of ledger table ``decisions``; its id says service, epoch, day, kind and subject."""
    subject = re.sub(r"[^a-z0-9_]+", "-", decision.subject.lower()).strip("-")
    parts = [service, f"e{epoch}", day.isoformat(), decision.kind.value, subject]
    return {
        "service": service, "epoch": epoch, "day": day, "decision_id": "-".join(part for part in parts if part),
        "kind": decision.kind.value, "subject": decision.subject, "because": decision.because,
        "evidence": dict(decision.evidence),
    }  # fmt: skip
