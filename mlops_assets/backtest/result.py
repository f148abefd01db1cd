"""The answer of a policy backtest: what each policy would have said, decided and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pandas as pd

from mlops_assets.backtest.detectable import Smallest
from mlops_assets.backtest.injecting import ALARMS, Seen, alarms_of
from mlops_assets.backtest.policy import Change
from mlops_assets.backtest.realised import Estimate, Quality
from mlops_assets.backtest.replaying import Judged
from mlops_assets.decisions import Kind
from mlops_assets.service.drifting import AlarmBudget

QUARTER_DAYS = 91


@dataclass(frozen=True)
class Counts:
    """What one policy would have asked of people and of machines over some days.

    ``alarms`` are days and columns on which the drift monitor asks somebody to look, and rules over quality that ask;
    ``told_again`` are incidents that became graver or came back after quiet days. ``cost_seconds`` is trainings times
    the median CPU seconds that one took here; ``cost_minutes`` incidents times the declared minutes.
    """

    days: int
    drift_alarms: int
    rule_alarms: int
    alarmed_days: int
    severe_days: int
    incidents: int
    incidents_severe: int
    causes: tuple[tuple[str, int], ...]
    told_again: int
    retrainings: tuple[tuple[date, str], ...]
    held_back: int
    rollbacks: int
    budget: AlarmBudget
    cost_seconds: float | None
    cost_minutes: float | None

    @property
    def quarters(self) -> float:
        """Quarters of 91 days."""
        return self.days / QUARTER_DAYS


@dataclass(frozen=True)
class UnderPolicy:
    """Everything about one policy; ``estimate`` is about its trainings and was not trained."""

    counts: Counts
    seen: tuple[Seen, ...]
    smallest: tuple[Smallest, ...]
    estimate: Estimate | None
    trained: Quality | None = None


@dataclass(frozen=True)
class Backtest:
    """A policy beside the declared one, over the same closed days."""

    service: str
    first: date
    last: date
    changes: tuple[Change, ...]
    quality: Quality
    declared: UnderPolicy
    proposed: UnderPolicy


def counts_of(judged: Judged, seconds_a_training: float | None) -> Counts:
    """Count what a policy would have done."""
    decisions = [row for judgement in judged.judgements for row in judgement.decisions]
    kinds = Counter(row["kind"] for row in decisions)
    opened = [row for row in decisions if row["kind"] == Kind.OPEN_INCIDENT.value]
    verdicts = [judgement.verdict["tier"] for judgement in judged.judgements]
    trainings = tuple((row["day"], row["because"]) for row in decisions if row["kind"] == Kind.RETRAIN.value)
    minutes = judged.service.incidents.minutes_each
    return Counts(
        days=len(judged.days),
        drift_alarms=len(alarms_of(judged.drift)),
        rule_alarms=_rule_alarms(judged.rules),
        alarmed_days=sum(tier in ALARMS for tier in verdicts),
        severe_days=verdicts.count("severe"),
        incidents=len(opened),
        incidents_severe=sum(row["evidence"]["tier"] == "severe" for row in opened),
        causes=tuple(Counter(row["subject"] for row in opened).most_common()),
        told_again=kinds[Kind.RAISE_INCIDENT.value],
        retrainings=trainings,
        held_back=kinds[Kind.HOLD_RETRAINING.value],
        rollbacks=kinds[Kind.ROLLBACK.value],
        budget=judged.service.drift.alarm_budget,
        cost_seconds=None if seconds_a_training is None else round(len(trainings) * seconds_a_training, 1),
        cost_minutes=None if minutes is None else len(opened) * minutes,
    )


def _rule_alarms(rules: pd.DataFrame) -> int:
    return int((rules["tier"].isin(ALARMS) & (rules["leads_to"] == "incident")).sum())


def retrainings_of(judged: Judged) -> Sequence[date]:
    """The days that would have trained."""
    return [day for day, _ in counts_of(judged, None).retrainings]
