"""What a feature version reads of its sources, and why it cannot be computed any more (PROTOCOL.md 6).

An old champion is fed by the declaration that it was trained on. If a source no longer declares a column which that
declaration reads, there is no honest value: null is not what the model learned from.
"""

from collections.abc import Iterable, Mapping

from mlops_assets.service.expressions import columns_named
from mlops_assets.service.features import FeatureSet, RequestView, View, WindowView
from mlops_assets.service.sources import Source


def columns_read(features: FeatureSet) -> dict[str, set[str]]:
    """Source -> the columns of it that the feature set cannot do without."""
    read = {source.name: {source.event_at, source.available_at, *source.key} for source in features.sources}
    request = features.request
    for expression in (request.request_id, request.predicted_at):
        read[request.source] |= columns_named(expression)
    read[request.source] |= set(request.columns)
    for view in features.views:
        if not isinstance(view, RequestView):
            read[view.source] |= {*view.keys, *_named_by(view)}
    return read


def _named_by(view: View) -> set[str]:
    """Source columns that the expressions of a view name."""
    if isinstance(view, WindowView):
        expressions = [aggregate.expression for aggregate in view.aggregates.values()] + [view.where or "true"]
    else:
        expressions = list(view.features.values())
    return set().union(*(columns_named(expression) for expression in expressions))


def lost_columns(features: FeatureSet, sources: Iterable[Source]) -> Mapping[str, tuple[str, ...]]:
    """Source -> the columns that the feature set reads and that the source no longer declares; like DuckDB, without
    regard to case. A source that is gone has lost all of them."""
    declared = {source.name: {column.lower() for column in source.columns} for source in sources}
    lost = {
        source: tuple(sorted(column for column in columns if column.lower() not in declared.get(source, set())))
        for source, columns in columns_read(features).items()
    }
    return {source: columns for source, columns in sorted(lost.items()) if columns}


def why_not_rolled_back(model_version: str, features: FeatureSet, sources: Iterable[Source]) -> str | None:
    """Why a version must not answer again, with the fix; None: its features can still be computed.

    Args:
        model_version: the version that would be rolled back to.
        features: the declaration that it was trained on, from the ledger.
        sources: what the service declares today.
    """
    lost = lost_columns(features, sources)
    if not lost:
        return None
    named = ", ".join(f"{source}.{column}" for source, columns in lost.items() for column in columns)
    return (
        f"{model_version} cannot answer: its feature version {features.version} reads {named}, no longer declared. "
        f"Declare that again, or choose a version that does not read it."
    )
