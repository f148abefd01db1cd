"""MLService: one service, declared once; everything else follows from it."""

from datetime import date
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.expressions import check_expression
from mlops_assets.service.features import SPINE_COLUMNS, FeatureSet, Request, RequestView, View, check_names
from mlops_assets.service.kpi import KPI_COLUMNS
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.monitoring import DriftPolicy, IncidentPolicy, QualityPolicy
from mlops_assets.service.operations import OperationsPolicy
from mlops_assets.service.ownership import Owner, Raci
from mlops_assets.service.policy import Identifier, Policy
from mlops_assets.service.sources import Source
from mlops_assets.service.training import ModelPolicy


class MLService(Policy):
    """A model in production with everything promised about it; the unit of ownership.

    ``first_day`` and ``last_day`` are business days in ``timezone``; ``close_after_hours`` is how long after
    the end of a day a missing file is waited for; ``contracts`` is the folder of the source contracts.
    """

    name: Identifier
    purpose: str
    kpi: str
    task: Literal["binary"] = "binary"
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
    contracts: str = "expectations"
    sources: tuple[Source, ...] = Field(min_length=1)
    request: Request
    views: tuple[View, ...] = Field(min_length=1)
    label: LabelDefinition
    model: ModelPolicy
    quality: QualityPolicy = QualityPolicy()
    drift: DriftPolicy = DriftPolicy()
    operations: OperationsPolicy = OperationsPolicy()
    incidents: IncidentPolicy = IncidentPolicy()

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

    def source(self, name: str) -> Source:
        """The declared source of this name."""
        return next(source for source in self.sources if source.name == name)

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        ZoneInfo(name)
        return name

    @model_validator(mode="after")
    def _names_are_declared(self) -> "MLService":
        where = f"service '{self.name}'"
        check_names(self.request, self.views, self.sources, where=where)
        known = {source.name for source in self.sources}
        if self.label.source not in known:
            raise UnknownNameError(where=f"{where} > label", kind="source", name=self.label.source, known=known)
        for field in ("request_id", "value"):
            check_expression(
                getattr(self.label, field),
                where=f"{where} > label > {field}",
                columns=self.source(self.label.source).columns,
            )
        features = FeatureSet(request=self.request, views=self.views, sources=self._feature_sources).names
        for feature in self.drift.critical_features:
            if feature not in features:
                raise UnknownNameError(
                    where=f"{where} > drift > critical_features", kind="feature", name=feature, known=features
                )
        self._kpi_can_be_valued(where)
        asked = (*SPINE_COLUMNS, *self.request.columns)
        for part, slices in (("quality", self.quality.slices), ("operations", self.operations.slices)):
            for name, expression in slices.items():
                check_expression(expression, where=f"{where} > {part} > slices > '{name}'", columns=asked)
        return self

    def _kpi_can_be_valued(self, where: str) -> None:
        kpi = self.quality.kpi
        if kpi is None:
            return
        check_expression(kpi.value, where=f"{where} > quality > kpi > expression", columns=(*KPI_COLUMNS, *self.slices))
        if self.model.threshold is None:
            raise DeclarationError(
                f"{where} > quality > kpi",
                f"'{kpi.name}' values decisions, and no threshold says when a score is one.",
                "Declare model.threshold, 0 to 1.",
            )
