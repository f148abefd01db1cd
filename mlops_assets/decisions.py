"""What a day may decide: written down before anything happens, carried out once, later, elsewhere."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """The few things the package may do on its own after a day is judged."""

    RETRAIN = "retrain"
    HOLD_RETRAINING = "hold_retraining"
    FREEZE = "freeze"
    OPEN_INCIDENT = "open_incident"
    RAISE_INCIDENT = "raise_incident"
    ESCALATE = "escalate"
    DIGEST = "digest"


TOLD = (Kind.OPEN_INCIDENT, Kind.RAISE_INCIDENT, Kind.ESCALATE, Kind.DIGEST)
"""Kinds that are messages to people."""


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
