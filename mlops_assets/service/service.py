"""MLService: one service, declared once; everything else follows from it."""

from collections.abc import Collection
from datetime import date
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.degradation import CHAMPION, UNSERVED, DegradationRule
from mlops_assets.service.expressions import check_column, check_expression
from mlops_assets.service.features import SPINE_COLUMNS, FeatureSet, Request, RequestView, View, check_names
from mlops_assets.service.kpi import KPI_COLUMNS, KpiSource
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.monitoring import DriftPolicy, IncidentPolicy, QualityPolicy
from mlops_assets.service.operations import OperationsPolicy
from mlops_assets.service.ownership import Owner, Raci
from mlops_assets.service.policy import Identifier, Policy
from mlops_assets.service.prediction_log import PredictionLog
from mlops_assets.service.rollback import RollbackPolicy
from mlops_assets.service.sources import Source
from mlops_assets.service.task_checks import check_task
from mlops_assets.service.tasks import RankingPolicy, Task
from mlops_assets.service.training import ModelPolicy


class MLService(Policy):
    """A model in production with everything promised about it; the unit of ownership.

    ``first_day`` and ``last_day`` are business days in ``timezone``; ``close_after_hours`` is how long after
    the end of a day a missing file is waited for; ``contracts`` is the folder of the source contracts.

    A service has a ``model`` that is trained and scored here, or a ``prediction_log`` of one that runs elsewhere
    (monitor-only: no model loop, everything else; ``request`` and ``views`` then follow from the log).

    ``task`` says what is answered: yes or no (*binary*), a number (*regression*), one of ``label.classes``
    (*multiclass*), or an order of rows (*ranking*, which needs ``ranking``). Models are trained here for yes or no.
    """

    # What is written down can be read again: by the names that people declare (``label``, ``model``).
    model_config = ConfigDict(serialize_by_alias=True)

    name: Identifier
    purpose: str
    kpi: str
    task: Task = "binary"
    ranking: RankingPolicy | None = None
    criticality: Literal["low", "medium", "high"] = "medium"
    owner: Owner
    raci: Raci
    runs_at: tuple[str, ...] = Field(default=(), description="Where it runs: services, endpoints, jobs.")
    timezone: str
    first_day: date
    last_day: date | None = None
    close_after_hours: float = Field(default=6, ge=0)
    schedule_cron: str = "*/15 * * * *"
    clock: Literal["wall", "demo"] = Field(
        default="wall", description="demo: past data whose days pass every two minutes."
    )
    demo_day_seconds: float = Field(default=120, gt=0, description="How long a day of the demo clock takes.")
    contracts: str = "expectations"
    sources: tuple[Source, ...] = Field(min_length=1)
    request: Request
    views: tuple[View, ...] = Field(min_length=1)
    labels: tuple[LabelDefinition, ...] = Field(alias="label", min_length=1)
    declared_model: ModelPolicy | None = Field(default=None, alias="model")
    prediction_log: PredictionLog | None = None
    quality: QualityPolicy = Field(default=QualityPolicy(), validate_default=True)
    drift: DriftPolicy = DriftPolicy()
    operations: OperationsPolicy = OperationsPolicy()
    incidents: IncidentPolicy = IncidentPolicy()
    rollback: RollbackPolicy = RollbackPolicy()

    @property
    def feature_set(self) -> FeatureSet:
        """What computes the features; its fingerprint is the newest ``feature_version``.

        Asked for many times a day, and checked once, when the service loads.
        """
        return FeatureSet.model_construct(request=self.request, views=self.views, sources=self._feature_sources)

    @property
    def _feature_sources(self) -> tuple[Source, ...]:
        used = {self.request.source} | {v.source for v in self.views if not isinstance(v, RequestView)}
        return tuple(source for source in self.sources if source.name in used)

    @property
    def slices(self) -> dict[str, str]:
        """Every slice that is kept with a prediction: name -> expression over the request."""
        return {**self.operations.slices, **self.quality.slices}

    @property
    def profiled_slices(self) -> tuple[str, ...]:
        """Names of the slices by which features and the score are profiled."""
        declared = self.drift.feature_slices
        return tuple(sorted(self.quality.slices if declared is None else declared))

    @property
    def profiled_features(self) -> tuple[str, ...]:
        """Features that are profiled by slice."""
        return self.drift.critical_features if self.drift.sliced_features == "critical" else self.feature_set.names

    @property
    def model(self) -> ModelPolicy:
        """How models of this service come to be.

        Raises:
            DeclarationError: its models are none of ours (``is_monitor_only``).
        """
        if self.declared_model is None:
            raise DeclarationError(
                f"service '{self.name}' > model", "only its prediction log is known here.", "Declare a ModelPolicy."
            )
        return self.declared_model

    @property
    def retrain_when(self) -> tuple[DegradationRule, ...]:
        """Rules that retrain; a service whose model runs elsewhere retrains nothing."""
        return () if self.declared_model is None else self.declared_model.retrain_when

    @property
    def watched_loss(self) -> str:
        """The loss that is looked at first where answers are yes or no: the model's primary metric; of a log Brier."""
        return "brier" if self.is_monitor_only else self.model.primary_metric

    @property
    def is_monitor_only(self) -> bool:
        """Whether the model runs elsewhere and only its log is read: no model loop, everything else."""
        return self.declared_model is None

    @property
    def label(self) -> LabelDefinition:
        """The definition in force: training, gate and rules read it."""
        return self.labels[0]

    def reading(self, label: LabelDefinition) -> "MLService":
        """The same service with one of its definitions in force, alone."""
        return self.model_copy(update={"labels": (label,)})

    @property
    def context(self) -> dict[str, str]:
        """What is kept of a request beside its features: its slices, the entity that labels are attributed by, and
        the list that it was shown in."""
        kept = {label.request_entity for label in self.labels if label.request_entity is not None}
        kept |= {self.ranking.query} if self.ranking else set()
        return {**self.slices, **{name: name for name in sorted(kept)}}

    def source(self, name: str) -> Source:
        """The declared source of this name."""
        return next(source for source in self.sources if source.name == name)

    @model_validator(mode="before")
    @classmethod
    def _log_stands_for_the_request(cls, given: Any) -> Any:
        """Where only a log is declared, its rows are the requests, its features the one view, its context slices."""
        if not isinstance(given, dict) or given.get("prediction_log") is None or "request" in given:
            return given
        log = PredictionLog.model_validate(given["prediction_log"])
        sources = [Source.model_validate(source) for source in given.get("sources", ())]
        source = next((source for source in sources if source.name == log.source), None)
        if source is None:
            where = f"service '{given.get('name')}' > prediction_log > source"
            raise UnknownNameError(where=where, kind="source", name=log.source, known=[s.name for s in sources])
        quality = QualityPolicy.model_validate(given.get("quality", {}))
        sliced = quality.model_copy(update={"slices": {**log.context, **quality.slices}})
        return {**given, "request": log.request(source), "views": (log.view(),), "quality": sliced}

    @model_validator(mode="after")
    def _scores_come_from_somewhere(self) -> "MLService":
        if self.declared_model is None and self.prediction_log is None:
            raise ValueError("declare a model that is trained here, or the prediction_log of one that runs elsewhere")
        return self

    @model_validator(mode="after")
    def _log_reads_its_source(self) -> "MLService":
        log = self.prediction_log
        if log is not None:
            where, columns = f"service '{self.name}' > prediction_log", self.source(log.source).columns
            for field, expression in log.expressions.items():
                check_expression(expression, where=f"{where} > {field}", columns=columns)
        return self

    @field_validator("labels", mode="before")
    @classmethod
    def _one_label_stands_alone(cls, given: Any) -> Any:
        return given if isinstance(given, list | tuple) else (given,)

    @field_validator("labels")
    @classmethod
    def _labels_suit_the_task(
        cls, labels: tuple[LabelDefinition, ...], info: ValidationInfo
    ) -> tuple[LabelDefinition, ...]:
        return tuple(label.suiting(info.data.get("task", "binary")) for label in labels)

    @field_validator("quality")
    @classmethod
    def _quality_suits_the_task(cls, quality: QualityPolicy, info: ValidationInfo) -> QualityPolicy:
        return quality.suiting(info.data.get("task", "binary"))

    @model_validator(mode="after")
    def _task_can_be_measured(self) -> "MLService":
        check_task(self)
        return self

    @field_validator("labels")
    @classmethod
    def _label_versions_differ(cls, labels: tuple[LabelDefinition, ...]) -> tuple[LabelDefinition, ...]:
        names = [label.version for label in labels]
        if len(set(names)) < len(names):
            raise ValueError(f"label versions {', '.join(names)}: two definitions cannot share a version")
        return labels

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            fix = "Write a name of the IANA database, for instance 'Europe/Vienna'."
            raise DeclarationError("service > timezone", f"there is no time zone '{name}'.", fix) from None
        return name

    @model_validator(mode="after")
    def _names_are_declared(self) -> "MLService":
        where = f"service '{self.name}'"
        check_names(self.request, self.views, self.sources, where=where)
        known = {source.name for source in self.sources}
        for label in self.labels:
            if label.source not in known:
                raise UnknownNameError(where=f"{where} > label", kind="source", name=label.source, known=known)
            for field, expression in label.expressions.items():
                check_expression(
                    expression, where=f"{where} > label > {field}", columns=self.source(label.source).columns
                )
            audited_by = label.noise.audited_by if label.noise else None
            versions = {other.version for other in self.labels if other is not label}
            if audited_by is not None and audited_by not in versions:
                raise UnknownNameError(
                    where=f"{where} > label > noise > audited_by", kind="label version", name=audited_by, known=versions
                )
            if label.request_entity is not None:
                check_column(
                    label.request_entity, where=f"{where} > label > request_entity", columns=self.request.columns
                )
        features = FeatureSet(request=self.request, views=self.views, sources=self._feature_sources).names
        for feature in self.drift.critical_features:
            if feature not in features:
                raise UnknownNameError(
                    where=f"{where} > drift > critical_features", kind="feature", name=feature, known=features
                )
        if taken := sorted({"day", "feature_version", "context", "filled_on", *SPINE_COLUMNS} & set(features)):
            raise DeclarationError(
                f"{where} > features", f"'{taken[0]}' is a column that every feature row has.", "Give it another name."
            )
        for name in self.drift.feature_slices or ():
            if name not in self.slices:
                place = f"{where} > drift > feature_slices"
                raise UnknownNameError(where=place, kind="slice", name=name, known=self.slices)
        for source in [name for pair in self.incidents.follows.items() for name in (pair[0], *pair[1])]:
            if source not in known:
                raise UnknownNameError(where=f"{where} > incidents > follows", kind="source", name=source, known=known)
        self._kpi_can_be_valued(where)
        self._check_bill(where, known)
        self._rules_can_be_judged(where)
        asked = (*SPINE_COLUMNS, *self.request.columns)
        for part, slices in (("quality", self.quality.slices), ("operations", self.operations.slices)):
            for name, expression in slices.items():
                check_expression(expression, where=f"{where} > {part} > slices > '{name}'", columns=asked)
        return self

    def _kpi_can_be_valued(self, where: str) -> None:
        kpi = self.quality.kpi
        if kpi is None:
            return
        if kpi.source is not None:
            self._check_kpi_source(f"{where} > quality > kpi > source", kpi.name, kpi.source)
            return
        check_expression(kpi.value, where=f"{where} > quality > kpi > expression", columns=(*KPI_COLUMNS, *self.slices))
        if self.declared_model is not None and self.declared_model.threshold is None:
            raise DeclarationError(
                f"{where} > quality > kpi",
                f"'{kpi.name}' values decisions, and no threshold says when a score is one.",
                "Declare model.threshold, 0 to 1.",
            )

    def _check_kpi_source(self, where: str, name: str, own: KpiSource) -> None:
        """The source is declared and has what is read; a rule does not look at days before they are settled."""
        known = {source.name for source in self.sources}
        if own.source not in known:
            raise UnknownNameError(where=where, kind="source", name=own.source, known=known)
        for field, expression in own.expressions.items():
            check_expression(expression, where=f"{where} > {field}", columns=self.source(own.source).columns)
        for part in own.slices:
            if part not in self.slices:
                raise UnknownNameError(where=f"{where} > slices", kind="slice", name=part, known=self.slices)
        ruled = [rule for rule in (*self.quality.degradation, *self.retrain_when) if rule.metric == name]
        if ruled and own.settles_after_days > self.label.window_hours // 24:
            raise DeclarationError(
                f"{where} > settles_after_days",
                f"rule '{ruled[0].sentence}' looks at days whose labels are there, {self.label.window_hours:g} hours "
                f"later, and '{name}' is settled after {own.settles_after_days} days.",
                "Declare fewer days, or leave the rule out.",
            )

    def _check_bill(self, where: str, sources: Collection[str]) -> None:
        """The source of the bill is declared, and its amount is one value per row."""
        bill = self.operations.bill
        if bill is None:
            return
        if bill.source not in sources:
            raise UnknownNameError(where=f"{where} > operations > bill", kind="source", name=bill.source, known=sources)
        check_expression(
            bill.amount, where=f"{where} > operations > bill > amount", columns=self.source(bill.source).columns
        )

    def _rules_can_be_judged(self, where: str) -> None:
        """What a rule looks at is measured: its window, and its slice over that window."""
        windows = self.quality.windows_days
        for rule in (*self.quality.degradation, *self.retrain_when):
            named = f"{where} > rule '{rule.sentence}'"
            if rule.window_days not in windows:
                raise DeclarationError(
                    named,
                    f"quality is not measured over {rule.window_days} days.",
                    f"Use one of {', '.join(map(str, windows))}, or add {rule.window_days} to quality.windows_days.",
                )
            for part in (rule.slice, rule.control_slice):
                if part not in ("all", None):
                    self._slice_is_measured(named, str(part), rule.window_days)
            log = self.prediction_log
            if log and rule.compared_with in UNSERVED and log.role == f"'{CHAMPION}'":
                raise DeclarationError(
                    named, f"the log says of no answer that its role is '{rule.compared_with}'.",
                    "Declare prediction_log.role, or compare with version:NAME.",
                )  # fmt: skip

    def _slice_is_measured(self, where: str, part: str, window_days: int) -> None:
        """A slice of a rule has a declared name, and its window."""
        name = part.partition("=")[0]
        if name not in self.quality.slices:
            raise UnknownNameError(where=where, kind="slice", name=name, known=self.quality.slices)
        if window_days not in self.quality.sliced_windows:
            raise DeclarationError(
                where, f"slices are not measured over {window_days} days.",
                f"Add {window_days} to quality.slice_windows_days, or leave the slice out.",
            )  # fmt: skip
