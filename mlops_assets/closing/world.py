"""One service with everything around it: its tables, its ledger, its calendar, its models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.adapters.calendar import Calendar, demo_now, wall_clock
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.lake import Lake
from mlops_assets.adapters.ledger import Ledger, Row
from mlops_assets.service.feature_versions import lost_columns
from mlops_assets.service.features import FeatureSet
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Source
from mlops_assets.tables import SOURCE_COLUMNS, Column

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.adapters.registry import Registry

SHARED = "sources"
"""Schema, and lease, of what services share: source tables, contracts, quarantine."""


@dataclass(frozen=True)
class World:
    """A declared service and the stores that hold its state; cheap to make, nothing is opened before use.

    ``clock`` tells the wall's time; all of the package's time comes in through this door, but for the lease's signs
    of life, which are about processes. ``beside`` are the other services of the same deployment.
    """

    service: MLService
    home: Home
    clock: Callable[[], datetime] = wall_clock
    beside: tuple[MLService, ...] = ()

    @property
    def name(self) -> str:
        """Name of the service."""
        return self.service.name

    @cached_property
    def ledger(self) -> Ledger:
        """The events of all services."""
        return Ledger(self.home.ledger_url)

    @cached_property
    def calendar(self) -> Calendar:
        """The service's business days."""
        return Calendar(self.service.timezone)

    @cached_property
    def lake(self) -> Lake:
        """The service's own tables."""
        return Lake(self.home.tables, self.name)

    @cached_property
    def shared(self) -> Lake:
        """Source tables, contracts and quarantine, shared by services."""
        return Lake(self.home.tables, SHARED)

    @cached_property
    def registry(self) -> "Registry":
        """The service's models in MLflow."""
        from mlops_assets.adapters.registry import Registry

        registry = Registry(self.home.mlflow_uri, self.home.artifacts)
        registry.prepare(self.name, self.registered_name)
        return registry

    @property
    def registered_name(self) -> str:
        """Name of the registered model."""
        return self.service.model.registered_name or self.name

    @property
    def contracts(self) -> Path:
        """Folder of the contract suites; a relative one is looked for here, then beside the package."""
        named = Path(self.service.contracts)
        beside = Path(__file__).parent.parent.parent / named
        return named if named.is_absolute() or named.is_dir() else beside

    def first_unclosed(self) -> date:
        """The day that closes next."""
        closed = self.ledger.closings(self.name)
        return max(closed) + timedelta(days=1) if closed else self.service.first_day

    def closed_through(self) -> date | None:
        """The last closed day; None before the first closing."""
        return max(self.ledger.closings(self.name), default=None)

    def now(self) -> datetime:
        """The service's time outside of a replay: the wall clock, or the demo's (PROTOCOL.md 7)."""
        wall = self.clock()
        if self.service.clock == "wall":
            return wall
        closings = self.ledger.closings(self.name)
        if not closings:
            return self.calendar.end_of(self.service.first_day)
        closed_at, demo_day = closings[max(closings)]["closed_at"], timedelta(seconds=self.service.demo_day_seconds)
        return demo_now(self.calendar, self.first_unclosed(), closed_at, wall, demo_day)

    def releases(self) -> list[Row]:
        """Role changes that count, oldest first."""
        return sorted(self.ledger.effective("releases", self.name), key=lambda r: (r["effective_at"], r["day"]))

    def trained_on(self, model_version: str) -> date:
        """The day whose decision trained a released version; a rollback or promotion releases it again later."""
        rows = [*self.releases(), *self.ledger.effective("proposals", self.name)]
        days: list[date] = [row["day"] for row in rows if row["model_version"] == model_version]
        return min(days)

    def holders(self, at: datetime) -> dict[str, Row]:
        """Role -> the release that holds it at an instant."""
        return {row["role"]: row for row in self.releases() if row["effective_at"] <= at}

    def feature_set(self, version: str) -> FeatureSet:
        """The declaration of a feature version, from the ledger's text (PROTOCOL.md 6)."""
        if version not in self._feature_sets:
            texts = {row["feature_version"]: row["text"] for row in self.ledger.rows("declarations", self.name)}
            self._feature_sets[version] = FeatureSet.model_validate_json(texts[version])
        return self._feature_sets[version]

    @cached_property
    def _feature_sets(self) -> dict[str, FeatureSet]:
        """Feature sets by version, each checked once: that takes 8 ms, and a version never changes."""
        declared = self.service.feature_set
        return {declared.version: declared}

    @cached_property
    def feature_version(self) -> str:
        """The declared, newest feature version."""
        return next(iter(self._feature_sets))

    def lost_columns(self, version: str) -> Mapping[str, tuple[str, ...]]:
        """Source -> the columns that a feature version reads and that the source no longer declares."""
        return {} if version == self.feature_version else lost_columns(self.feature_set(version), self.service.sources)


def source_columns(source: Source) -> tuple[Column, ...]:
    """Columns of a stored source table."""
    return SOURCE_COLUMNS + tuple(Column(name, kind, "as delivered") for name, kind in source.columns.items())


def arrow(rows: Sequence[Mapping[str, object]], columns: tuple[Column, ...]) -> "pa.Table":
    """Rows as an Arrow table of the declared shape; what a row lacks is null."""
    import pyarrow as pa

    kinds = {
        "DATE": pa.date32(), "VARCHAR": pa.string(), "INTEGER": pa.int32(), "BIGINT": pa.int64(),
        "BOOLEAN": pa.bool_(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us"),
    }  # fmt: skip
    return pa.table(
        {c.name: pa.array([row.get(c.name) for row in rows], type=kinds[c.type]) for c in columns},
    )
