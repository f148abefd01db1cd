"""Judge: every rule over quality, on every day: rows of table ``rules``, findings, and reasons to retrain."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date

import duckdb
import pandas as pd

from mlops_assets.monitoring_loop.calibration import CALIBRATION, watch_calibration
from mlops_assets.monitoring_loop.degradation import INCIDENT, RETRAINING, Evaluation, evaluate
from mlops_assets.monitoring_loop.evidence import Evidence, loss_of
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.harm import watch_harm
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.slices import where_it_sits
from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME

WEIGHT = 200.0
"""Harm that was seen stands before what may lead to some: shifts weigh at most 99, files 100."""


@dataclass(frozen=True)
class QualityJudgement:
    """What the rules say about one day."""

    day: date
    evaluations: tuple[Evaluation, ...]

    def findings(self, label_source: str) -> list[Finding]:
        """What asks for attention; ``label_source`` is where to look when labels are missing."""
        return [
            Finding(found.tier, cause_of(found, label_source), found.reason, WEIGHT + abs(found.change or 0.0))
            for found in self.evaluations
            if found.leads_to == INCIDENT and found.tier != "stable"
        ]

    @property
    def reasons_to_retrain(self) -> list[str]:
        """The broken rules whose consequence is a retraining, in words."""
        broken = (e for e in self.evaluations if e.leads_to == RETRAINING and e.state == "broken")
        return [found.reason for found in broken]


def judge_quality(
    service: MLService, evidence: Sequence[Evidence], *, con: duckdb.DuckDBPyConnection
) -> list[QualityJudgement]:
    """Every declared rule and the calibration monitor, on every day.

    Args:
        con: engine with ``all_quality``; asked only when something was found, for the slices it sits in.
    """
    return [
        QualityJudgement(known.day, tuple(_located(con, found) for found in _evaluations(service, known)))
        for known in evidence
    ]


def _located(con: duckdb.DuckDBPyConnection, found: Evaluation) -> Evaluation:
    """A broken calibration with the slices that explain most of it."""
    if found.state != "broken" or found.metric != "calibration_ratio" or found.slice != ALL:
        return found
    return replace(found, reason=found.reason + where_it_sits(con, found.day, found.prediction_day, found.window_days))


def _evaluations(service: MLService, evidence: Evidence) -> Iterator[Evaluation]:
    for rule in service.quality.degradation:
        yield evaluate(rule, evidence, leads_to=INCIDENT)
    if service.quality.calibration:
        yield from watch_calibration(service.quality.calibration, evidence)
    loss = loss_of(service)
    if service.quality.harm and loss:
        yield from watch_harm(service.quality.harm, loss, evidence)
    for rule in service.retrain_when:
        yield evaluate(rule, evidence, leads_to=RETRAINING)


def cause_of(found: Evaluation, label_source: str) -> str:
    """The upstream-most name: missing labels are their source's matter; both faces of calibration are one."""
    if found.gap == "labels":
        return label_source
    return quality_cause(found.metric, found.slice)


def quality_cause(metric: str, slice_name: str) -> str:
    """The cause of the incident that a broken rule over a metric of a slice opens."""
    named = CALIBRATION if metric == "calibration_ratio" else metric
    return f"quality:{named}" + ("" if slice_name == ALL else f":{slice_name}")


def rules_frame(judged: Sequence[QualityJudgement]) -> pd.DataFrame:
    """Rows of table ``rules``."""
    names = [column.name for column in BY_NAME["rules"].columns]
    stored = [field.name for field in fields(Evaluation) if field.name in names]
    found = [[getattr(e, name) for name in stored] for judgement in judged for e in judgement.evaluations]
    types = {c.name: "float64" for c in BY_NAME["rules"].columns if c.type == "DOUBLE"}
    return pd.DataFrame(found, columns=stored).astype(types)
