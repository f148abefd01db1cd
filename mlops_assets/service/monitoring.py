"""What is watched, and from which size on somebody is told."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlops_assets.service.degradation import CalibrationMonitor, DegradationRule, HarmMonitor
from mlops_assets.service.drifting import AlarmBudget, DriftRule
from mlops_assets.service.kpi import KpiPolicy
from mlops_assets.service.policy import Identifier, Policy, Share
from mlops_assets.service.tasks import CORE_METRICS, DEFAULT_METRICS, HIGHER_IS_BETTER, OwnMetric


class DriftPolicy(Policy):
    """Thresholds of the drift monitor; the defaults are measured ones (docs/monitoring-loop.md).

    A shift counts when its surprise ``z`` and its size both pass: tier 2 from ``moderate_z``, tier 3 from
    ``severe_z`` and three times the size gate on a critical feature or the score. Both follow from the number of
    series and the alarm budget unless they are declared.
    """

    critical_features: tuple[str, ...] = ()
    critical_confirmed_by: str | None = Field(
        default=None, description="The owner, by name, who has read what `mlops check` proposes and chosen these."
    )
    feature_slices: tuple[Identifier, ...] | None = Field(
        default=None, description="Slices by which features and the score are profiled too; None: those of quality."
    )
    sliced_features: Literal["critical", "all"] = Field(
        default="critical", description="Which features are: a row per feature and value of a slice, every day."
    )
    known_events: str | None = Field(default=None, description="YAML file of known events.")
    rules: tuple[DriftRule, ...] = ()
    alarm_budget: AlarmBudget = AlarmBudget()
    baseline_days: int = Field(default=30, ge=12)
    min_days: int = Field(default=12, ge=5)
    residual_days: int = Field(default=75, ge=30)
    moderate_z: float | None = Field(default=None, gt=0)
    severe_z: float | None = Field(default=None, gt=0)
    learning_z: float = Field(default=5.0, gt=0, description="moderate_z while fewer than baseline_days are known.")
    min_mean_shift_stds: float = Field(default=0.15, gt=0)
    min_spread_shift_log: float = Field(default=0.15, gt=0)
    min_null_shift_share: float = Field(default=0.01, gt=0)
    min_out_of_range_share: float = Field(
        default=0.05, gt=0, description="Beyond the range of the first two weeks, which is no promised one."
    )
    min_distance: float = Field(default=0.10, gt=0)
    min_volume_shift_share: float = Field(default=0.10, gt=0)
    max_constant_day_share: Share = 0.05
    training_mean_shift_stds: float = Field(
        default=1.0, gt=0, description="From here on the last week is recorded as far from the training window."
    )
    training_distance: float = Field(default=0.4, gt=0, description="The same for its distribution.")

    @field_validator("rules")
    @classmethod
    def _are_different(cls, rules: tuple[DriftRule, ...]) -> tuple[DriftRule, ...]:
        named = [rule.measure for rule in rules]
        if repeated := sorted({name for name in named if named.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} is declared twice; a measure has one threshold")
        return rules


class QualityPolicy(Policy):
    """Which metrics are computed, over which windows and slices.

    ``slices`` maps the name of a slice to an SQL expression over the request: ``{"carrier": "carrier"}`` is the
    column itself. The values are kept with every prediction. ``metrics`` are computed; ``core_metrics`` are the
    few that people look at. ``at_recall``, ``at_precision``, ``calibration_bands`` and ``max_risk_share`` are what
    ``precision_at_recall``, ``recall_at_precision``, ``calibration_error`` and ``approval_at_risk`` are fixed at.

    ``own_metrics`` are functions of yours, measured beside them. ``degradation`` are the sentences that open an
    incident when they come true; ``calibration`` and small lasting ``harm`` are watched without being asked (None
    switches it off). ``kpi`` says what an answer is worth.

    What is not declared follows from the task of the service: its metrics, and whether calibration is watched (yes or
    no only) and days are estimated before their labels (yes or no, and classes).
    """

    core_metrics: tuple[str, ...] = Field(default=CORE_METRICS["binary"], min_length=1)
    metrics: tuple[Identifier, ...] = Field(default=DEFAULT_METRICS["binary"], min_length=1)
    own_metrics: tuple[OwnMetric, ...] = ()
    estimates: bool = Field(default=True, description="Also what a day should give before it has labels.")
    at_recall: Share = Field(default=0.8, gt=0)
    at_precision: Share = Field(default=0.5, gt=0)
    calibration_bands: int = Field(default=10, ge=2)
    max_risk_share: Share = Field(default=0.1, description="Positives among the approved, 0.1 = 10 %.")
    windows_days: tuple[int, ...] = (1, 7, 14, 28)
    slice_windows_days: tuple[int, ...] | None = Field(
        default=None, description="Windows of slices, some of windows_days; by default all of them."
    )
    slices: dict[Identifier, str] = {}
    min_labels: int = Field(default=50, ge=1)
    degradation: tuple[DegradationRule, ...] = ()
    calibration: CalibrationMonitor | None = CalibrationMonitor()
    harm: HarmMonitor | None = HarmMonitor()
    kpi: KpiPolicy | None = None

    @property
    def sliced_windows(self) -> tuple[int, ...]:
        """Lengths in days of the windows that slices are measured over; a single day always is."""
        return (1, *(self.windows_days if self.slice_windows_days is None else self.slice_windows_days))

    @model_validator(mode="after")
    def _slices_have_windows_of_the_whole(self) -> "QualityPolicy":
        if strange := sorted(set(self.sliced_windows) - {1, *self.windows_days}):
            raise ValueError(f"slice_windows_days {strange} are no windows: name some of {list(self.windows_days)}")
        return self

    @field_validator("windows_days")
    @classmethod
    def _windows_are_lengths(cls, windows: tuple[int, ...]) -> tuple[int, ...]:
        if not windows or windows[0] < 1 or list(windows) != sorted(set(windows)):
            raise ValueError(f"windows_days {windows}: name lengths of 1 day and more, each once, the shortest first")
        return windows

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of all metrics that have rows in table ``quality``."""
        return (*self.metrics, *(metric.name for metric in self.own_metrics))

    @property
    def higher_is_better(self) -> frozenset[str]:
        """Metrics of which more is better; of all others less is."""
        return HIGHER_IS_BETTER | {metric.name for metric in self.own_metrics if not metric.lower_is_better}

    def suiting(self, task: str) -> "QualityPolicy":
        """The same promises, with what was not declared as the task has it."""
        defaults = {"metrics": DEFAULT_METRICS[task], "core_metrics": CORE_METRICS[task]}
        switched: dict[str, object] = {} if task == "binary" else {"calibration": None}
        switched |= {"estimates": False} if task in ("regression", "ranking") else {}
        asked = {name: value for name, value in {**defaults, **switched}.items() if name not in self.model_fields_set}
        return self.model_copy(update=asked)


class IncidentPolicy(Policy):
    """What happens around an incident; only a named person closes one.

    ``playbooks`` is a folder of Markdown templates that replace the shipped ones of the same name. ``digest``
    sends the owner a page every week about all of their services, also when there is nothing to do. ``minutes_each`` is
    what an incident costs a person, for policy backtests.

    ``follows`` maps a source to those whose events come before its own: ``{"arrivals": ("departures",)}``. What moves
    in arrivals on a day on which departures moved too is a consequence and belongs to that incident; so it does while
    that incident goes on. A file that is missing or rejected keeps an incident of its own.
    """

    follows: dict[Identifier, tuple[Identifier, ...]] = {}
    quiet_days: int = Field(default=3, ge=1, description="Days without a finding until it is quiet; it stays open.")
    digest: Literal["weekly", "never"] = "weekly"
    late_closing_hours: float = Field(
        default=6, gt=0, description="So long after a day could have closed and has not, somebody is paged."
    )
    playbooks: str | None = None
    minutes_each: float | None = Field(default=None, ge=0)

    @field_validator("follows")
    @classmethod
    def _has_a_beginning(cls, follows: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        before = {name: set(named) for name, named in follows.items()}
        while free := [name for name, named in before.items() if not named & before.keys()]:
            for name in free:
                del before[name]
        if before:
            raise ValueError(f"{', '.join(sorted(before))} follow each other in a circle; leave one of them out")
        return follows
