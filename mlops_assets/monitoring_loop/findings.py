"""What is worth knowing about a day, and how grave it is; imports nothing that costs time."""

from dataclasses import dataclass

RANK = {"stable": 0, "expected": 1, "unknown": 2, "moderate": 3, "severe": 4}
"""Tiers from harmless to grave; a known fault outranks not knowing, though both ask for a look."""


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a day; ``cause`` is its upstream-most name: one incident per cause.

    ``subject`` is the column that moved, if it is one.
    """

    tier: str
    cause: str
    reason: str
    weight: float = 0.0
    subject: str = ""
