"""The feature loop as Dagster sees it: sources held to their contracts, and features point in time."""

import dagster as dg

from mlops_assets.adapters.asset_specs import column_schema, daily, service_asset, source_key
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Source
from mlops_assets.tables import SOURCE_COLUMNS, Column

LOOP = "feature"


def source_asset(service: MLService, source: Source) -> dg.AssetSpec:
    """One delivered file a day, and what became of it."""
    delivered = tuple(Column(name, kind, "as delivered") for name, kind in source.columns.items())
    key = ("day", "generation", *source.key)
    read = f" Its files are read from table '{source.table.table}'." if source.table else ""
    return dg.AssetSpec(
        key=source_key(source.name),
        description=f"{source.description} One row is one delivered row of one generation of a day's file; "
        f"a missing file: {source.on_missing_day.replace('_', ' ')}, "
        f"a bad row: {source.on_bad_row.replace('_', ' ')}.{read}",
        group_name=f"{LOOP}_loop",
        owners=[service.owner.email],
        kinds={"deltalake", "greatexpectations"},
        tags={"mlops/loop": LOOP},
        partitions_def=daily(service),
        skippable=True,
        metadata={
            "dagster/table_name": f"sources.{source.name}",
            "dagster/storage_kind": "deltalake",
            "dagster/column_schema": column_schema((*SOURCE_COLUMNS, *delivered), key),
            "contract": source.contract,
        },
    )


def feature_assets(service: MLService) -> list[dg.AssetSpec]:
    """The features of the day's requests, from the sources that its views read."""
    features = service.feature_set
    named = tuple(
        Column(name, "VARCHAR" if name in features.categorical else "DOUBLE", f"feature of view '{view.name}'")
        for view in features.views
        for name in view.features
    )
    return [
        service_asset(
            service,
            "features",
            loop=LOOP,
            deps=[source_key(source.name) for source in features.sources],
            kinds={"deltalake", "duckdb"},
            description="Nothing available after predicted_at was used; beyond its max age a value is null.",
            more=named,
        )
    ]
