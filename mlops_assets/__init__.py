"""The four loops of production machine learning as Dagster assets: the names a service owner needs.

Importing this package never imports Dagster, MLflow or Great Expectations; they cost seconds.
"""

import os
from typing import TYPE_CHECKING, Any

# One thread per OpenMP region (a busy 2-core machine spins five times longer otherwise), and no telemetry.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

from mlops_assets.errors import DeclarationError, MlopsError, UnknownNameError
from mlops_assets.service.degradation import CalibrationMonitor, DegradationRule, HarmMonitor
from mlops_assets.service.drifting import AlarmBudget, DriftRule, KnownEvent
from mlops_assets.service.features import (
    Aggregate,
    LatestView,
    Request,
    RequestView,
    StaticView,
    WindowView,
)
from mlops_assets.service.kpi import KpiPolicy, KpiSource
from mlops_assets.service.labels import LabelDefinition, LabelNoise
from mlops_assets.service.monitoring import DriftPolicy, IncidentPolicy, QualityPolicy
from mlops_assets.service.operations import (
    DailyBill,
    ErrorObjective,
    FreshnessObjective,
    LabelDelayObjective,
    LatencyObjective,
    OperationsPolicy,
    QualityObjective,
    SwitchedOff,
)
from mlops_assets.service.ownership import Duty, Owner, Raci
from mlops_assets.service.prediction_log import PredictionLog
from mlops_assets.service.rollback import RollbackPolicy
from mlops_assets.service.rollout import RolloutPolicy
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Expected, Source, SqlTable
from mlops_assets.service.tasks import OwnMetric, RankingPolicy
from mlops_assets.service.training import GatePolicy, ModelPolicy, ModelTier

if TYPE_CHECKING:
    from mlops_assets.component import MLServiceComponent

__all__ = [
    "Aggregate",
    "AlarmBudget",
    "CalibrationMonitor",
    "DailyBill",
    "DeclarationError",
    "DegradationRule",
    "DriftPolicy",
    "DriftRule",
    "Duty",
    "ErrorObjective",
    "Expected",
    "FreshnessObjective",
    "HarmMonitor",
    "GatePolicy",
    "IncidentPolicy",
    "KnownEvent",
    "KpiPolicy",
    "KpiSource",
    "LabelDefinition",
    "LabelDelayObjective",
    "LatencyObjective",
    "LabelNoise",
    "LatestView",
    "MLService",
    "MLServiceComponent",
    "MlopsError",
    "ModelPolicy",
    "ModelTier",
    "OperationsPolicy",
    "OwnMetric",
    "Owner",
    "PredictionLog",
    "QualityObjective",
    "QualityPolicy",
    "Raci",
    "RankingPolicy",
    "Request",
    "RequestView",
    "RolloutPolicy",
    "RollbackPolicy",
    "Source",
    "SqlTable",
    "StaticView",
    "SwitchedOff",
    "UnknownNameError",
    "WindowView",
]


def __getattr__(name: str) -> Any:
    """``MLServiceComponent``, the one name here that needs Dagster, when somebody asks for it."""
    if name == "MLServiceComponent":
        from mlops_assets.component import MLServiceComponent

        return MLServiceComponent
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
