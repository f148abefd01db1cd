"""What was promised about running the service: levels with error budgets, cost, and how old a model may get."""

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Days, Hours, Identifier, Policy


class _Objective(Policy):
    """A promised level: at least ``good_share`` of the events of every day and window are good.

    What is left, 1 - ``good_share``, is the error budget. A day is broken if it spends more than its own share;
    ``broken_days`` of the last ``of_days`` days with events break the promise. ``max_burn`` is how many times
    faster than allowed one day may spend, ``min_events`` how many events a day needs before that is believed.
    ``tier`` is that of a broken promise: a severe one about latency, errors or quality rolls the champion back.
    """

    good_share: float = Field(gt=0, lt=1, description="0.95: for every twenty events one may be bad.")
    window_days: int = Field(default=28, ge=1)
    broken_days: int = Field(default=2, ge=1)
    of_days: int = Field(default=3, ge=1)
    max_burn: float = Field(default=14.0, gt=1)
    min_events: int = Field(default=20, ge=1)
    tier: Literal["moderate", "severe"] = "moderate"

    @model_validator(mode="after")
    def _can_be_broken(self) -> "_Objective":
        if self.broken_days > self.of_days:
            raise ValueError(f"{self.broken_days} broken days cannot lie within {self.of_days} days; raise of_days")
        return self


class LatencyObjective(_Objective):
    """Answers within ``limit_ms``. With ``good_share`` 0.95 this promises a 95th percentile."""

    of: Literal["latency"] = "latency"
    good_share: float = Field(default=0.95, gt=0, lt=1)
    limit_ms: float = Field(gt=0)


class ErrorObjective(_Objective):
    """Answers that neither failed nor timed out."""

    of: Literal["errors"] = "errors"


class FreshnessObjective(_Objective):
    """Feature views no older than they promise; the event is one view on one day."""

    of: Literal["freshness"] = "freshness"
    min_events: int = Field(default=1, ge=1)


class LabelDelayObjective(_Objective):
    """Labels known within ``limit_hours`` of their request; the event is a label whose window has ended."""

    of: Literal["label_delay"] = "label_delay"
    limit_hours: Hours


class QualityObjective(_Objective):
    """Days whose final metric is not worse than ``limit``; the event is one prediction day."""

    of: Literal["quality"] = "quality"
    metric: Identifier = "brier"
    limit: float
    min_events: int = Field(default=1, ge=1)


Objective = Annotated[
    LatencyObjective | ErrorObjective | FreshnessObjective | LabelDelayObjective | QualityObjective,
    Field(discriminator="of"),
]


class DailyBill(Policy):
    """A bill that comes as rows of a source: ``amount`` is an expression over a row, in the currency of the service.

    The business day of a row's ``event_at`` is the day it is about; its predictions share the amount.
    """

    source: Identifier
    amount: str


class SwitchedOff(Policy):
    """Something that would watch and does not: who decided it, why, and until when it is excused.

    ``name`` is that of a sensor or schedule; ``calibration``, ``harm``, ``digest``, ``rollback``, ``retraining``,
    ``training_growth`` or ``scoring_growth``; ``rule:<measure or sentence>`` of a rule that only records; or
    ``critical:<feature>`` of an important feature that is not declared critical on purpose.
    """

    name: str = Field(min_length=1)
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    until: date


class OperationsPolicy(Policy):
    """Objectives, cost, and how far the four loops may drift apart.

    ``slices`` are watched here beside those of ``quality``: names with SQL expressions over the request, also of
    many values (a destination, an endpoint), since a row of ``operations`` is cheap. ``watches_latency``: hand
    latencies to the drift monitor. Declare it where they come with the log; the scoring times of a batch are this
    machine's, and findings about them would differ from run to run. ``warn_days``: from how many days before a
    limit is crossed at the current growth somebody is told. ``max_training_growth``: from how many times the usual
    CPU seconds or memory on a training is a finding, ``max_scoring_growth`` from how many times the usual CPU seconds
    on a day of scoring; None: never.
    """

    objectives: tuple[Objective, ...] = ()
    slices: dict[Identifier, str] = {}
    max_cost_per_1000: float | None = Field(default=None, gt=0)
    bill: DailyBill | None = Field(default=None, description="Where costs come from, if not with each prediction.")
    cost_broken_days: int = Field(default=2, ge=1)
    cost_of_days: int = Field(default=3, ge=1)
    watches_latency: bool = False
    warn_days: Days = 14
    max_training_growth: float | None = Field(default=3.0, gt=1)
    max_scoring_growth: float | None = Field(default=3.0, gt=1)
    max_model_age_days: Days | None = Field(default=None, description="The retraining SLO; None: no limit.")
    switched_off: tuple[SwitchedOff, ...] = ()

    @model_validator(mode="after")
    def _one_of_each(self) -> "OperationsPolicy":
        names = [objective.of for objective in self.objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"objectives declared twice: {', '.join(twice)}; keep one of each")
        if self.cost_broken_days > self.cost_of_days:
            raise ValueError("cost_broken_days cannot exceed cost_of_days")
        return self

    def objective(self, of: str) -> Objective | None:
        """The objective of this kind, if one is declared."""
        return next((one for one in self.objectives if one.of == of), None)
