"""Feature views: declarative, so that one definition serves training, batch scoring and online use.

Expressions are DuckDB SQL over the columns of one row (the request, or a source row).
"""

import hashlib
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Hours, Identifier, Policy
from mlops_assets.service.sources import Source


class Request(Policy):
    """What a prediction is asked for: one row of ``source`` is one request.

    ``predicted_at`` is an SQL expression over the source row that gives the as-of instant (UTC).
    ``columns`` are the source columns that views and slices may use.
    """

    source: Identifier
    request_id: str
    predicted_at: str
    columns: tuple[Identifier, ...]


class RequestView(Policy):
    """Features that are expressions over the request itself."""

    kind: Literal["request"] = "request"
    name: Identifier
    features: dict[Identifier, str]
    categorical: tuple[str, ...] = ()


class LatestView(Policy):
    """The newest source row that was available at the as-of time; null beyond ``max_age_hours``.

    ``keys`` maps source columns to the request columns that they must equal.
    """

    kind: Literal["latest"] = "latest"
    name: Identifier
    source: Identifier
    keys: dict[str, str]
    features: dict[Identifier, str]
    max_age_hours: Hours
    categorical: tuple[str, ...] = ()


class StaticView(Policy):
    """A lookup: the newest available row of a table that hardly changes, of any age."""

    kind: Literal["static"] = "static"
    name: Identifier
    source: Identifier
    keys: dict[str, str]
    features: dict[Identifier, str]
    categorical: tuple[str, ...] = ()


class Aggregate(Policy):
    """One statistic over a trailing window.

    ``rate`` is the share of rows for which a boolean expression holds; the others take a number, which is
    read with ``decimals`` decimal places so that sums are exact whatever row they start from.
    """

    function: Literal["count", "sum", "mean", "rate", "min", "max", "std"]
    expression: str = "1"
    decimals: int = Field(default=0, ge=0, le=9)


class WindowView(Policy):
    """Statistics over the source rows that became available in ``(as_of - hours, as_of]``, per key.

    Each aggregate becomes one feature per window: ``late_rate`` over 6 h is ``late_rate_6h``. ``keys`` maps
    source columns to request columns; empty keys mean all rows. ``where`` drops source rows beforehand.
    """

    kind: Literal["window"] = "window"
    name: Identifier
    source: Identifier
    keys: dict[str, str]
    windows_hours: tuple[int, ...] = Field(min_length=1)
    aggregates: dict[Identifier, Aggregate]
    where: str | None = None
    categorical: tuple[str, ...] = ()

    @property
    def features(self) -> dict[str, tuple[Aggregate, int]]:
        """Feature name -> (aggregate, window in hours)."""
        return {
            f"{name}_{hours}h": (aggregate, hours)
            for name, aggregate in self.aggregates.items()
            for hours in self.windows_hours
        }


View = Annotated[RequestView | LatestView | StaticView | WindowView, Field(discriminator="kind")]


class FeatureSet(Policy):
    """Everything that decides a feature value: the request, the views, and the sources they read.

    Its fingerprint is the ``feature_version``; the ledger keeps its JSON so that an old model is always fed
    by the text it was trained on.
    """

    request: Request
    views: tuple[View, ...]
    sources: tuple[Source, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All feature names, in declared order."""
        return tuple(name for view in self.views for name in view.features)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Features stored as text; all others are doubles."""
        return tuple(name for view in self.views for name in view.categorical)

    def source(self, name: str) -> Source:
        """The declared source of this name."""
        return next(source for source in self.sources if source.name == name)

    @property
    def lookback(self) -> timedelta:
        """How far before an as-of time a source row can still matter (static lookups aside)."""
        hours = [24.0]
        for view in self.views:
            if isinstance(view, WindowView):
                hours.append(max(view.windows_hours))
            elif isinstance(view, LatestView):
                hours.append(view.max_age_hours)
        return timedelta(hours=max(hours))

    @property
    def version(self) -> str:
        """``feature_version``: the first 12 hex characters of the SHA-256 of what computes the values."""
        text = self.model_dump_json(exclude={"sources": {"__all__": {"description", "contract", "expected"}}})
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeatureSet":
        names = list(self.names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features declared twice: {', '.join(twice)}; give each its own name")
        return self
