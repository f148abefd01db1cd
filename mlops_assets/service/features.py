"""Feature views: declarative, so that one definition serves training, batch scoring and online use.

Expressions are DuckDB SQL over the columns of one row (the request, or a source row).
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.expressions import check_column, check_expression
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


SPINE_COLUMNS = ("request_id", "predicted_at")
"""What every request has besides its declared columns."""


def check_names(request: Request, views: Sequence[View], sources: Iterable[Source], *, where: str) -> None:
    """Hold every name that request and views use against what is declared; ``where`` leads the messages.

    Raises:
        UnknownNameError: a source, column or feature that nothing declares.
        DeclarationError: an expression that is not one value over one row.
    """
    by_name = {source.name: source for source in sources}

    def columns_of(source: str, place: str) -> dict[str, str]:
        if source not in by_name:
            raise UnknownNameError(where=place, kind="source", name=source, known=by_name)
        return by_name[source].columns

    _check_request(request, columns_of(request.source, f"{where} > request"), where=f"{where} > request")
    for view in views:
        place = f"{where} > views > '{view.name}'"
        asked = (*SPINE_COLUMNS, *request.columns)
        read = asked if isinstance(view, RequestView) else tuple(columns_of(view.source, place))
        _check_view(view, read, asked, where=place)


def _check_request(request: Request, columns: Iterable[str], *, where: str) -> None:
    known = tuple(columns)
    check_expression(request.request_id, where=f"{where} > request_id", columns=known)
    check_expression(request.predicted_at, where=f"{where} > predicted_at", columns=known)
    for column in request.columns:
        if column in SPINE_COLUMNS:
            raise DeclarationError(
                f"{where} > columns", f"every request has '{column}' already.", "Leave it out of the list."
            )
        check_column(column, where=f"{where} > columns", columns=known)


def _check_view(view: View, read: Sequence[str], asked: Sequence[str], *, where: str) -> None:
    """``read`` are the columns its expressions may name, ``asked`` those of the request."""
    if not isinstance(view, RequestView):
        for column, request_column in view.keys.items():
            check_column(column, where=f"{where} > keys", columns=read)
            check_column(request_column, where=f"{where} > keys > '{column}'", columns=asked)
    if isinstance(view, WindowView):
        for name, aggregate in view.aggregates.items():
            check_expression(aggregate.expression, where=f"{where} > aggregate '{name}'", columns=read)
        if view.where is not None:
            check_expression(view.where, where=f"{where} > where", columns=read)
    else:
        for name, expression in view.features.items():
            check_expression(expression, where=f"{where} > feature '{name}'", columns=read)
    for name in view.categorical:
        if name not in view.features:
            raise UnknownNameError(where=f"{where} > categorical", kind="feature", name=name, known=view.features)


NO_VALUES = ("description", "owner", "contract", "expected", "pseudonymise", "rows_may_repeat", "table")
"""What of a source decides no feature value."""


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
        text = self.model_dump_json(exclude={"sources": {"__all__": set(NO_VALUES)}})
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @model_validator(mode="after")
    def _names_are_declared(self) -> "FeatureSet":
        check_names(self.request, self.views, self.sources, where="features")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeatureSet":
        names = list(self.names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"features declared twice: {', '.join(twice)}; give each its own name")
        return self
