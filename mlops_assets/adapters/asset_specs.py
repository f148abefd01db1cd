"""How a table, an owner and a calendar look in Dagster: the one place that turns a declaration into asset specs."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

import dagster as dg

from mlops_assets.service.service import MLService
from mlops_assets.tables import BY_NAME, Column, Table

SOURCES = "sources"
"""Key prefix of what services share."""


def daily(service: MLService) -> dg.DailyPartitionsDefinition:
    """The service's business days, from its first to its last one; without a last one, up to yesterday."""
    end = service.last_day + timedelta(days=1) if service.last_day else None
    return dg.DailyPartitionsDefinition(
        start_date=service.first_day.isoformat(),
        end_date=end.isoformat() if end else None,
        timezone=service.timezone,
    )


def key_of(service: MLService, name: str) -> dg.AssetKey:
    """Key of one of the service's own assets."""
    return dg.AssetKey([service.name, name])


def source_key(name: str) -> dg.AssetKey:
    """Key of a source."""
    return dg.AssetKey([SOURCES, name])


def service_asset(
    service: MLService,
    name: str,
    *,
    loop: str,
    deps: Iterable[dg.AssetKey],
    kinds: set[str],
    is_daily: bool = True,
    description: str = "",
    more: Sequence[Column] = (),
) -> dg.AssetSpec:
    """The spec of one asset; its description and column schema come from ``tables`` if it is a table.

    Args:
        loop: one of the four words; the Dagster group.
        description: for an asset that is no table, or what a reader of the table should know besides.
        more: columns of an open table beside the ones that ``tables`` names.
    """
    table = BY_NAME.get(name)
    words = [f"One row is {table.grain}."] if table else []
    return dg.AssetSpec(
        key=key_of(service, name),
        deps=list(deps),
        description=" ".join([*words, description]).strip(),
        group_name=f"{loop}_loop",
        owners=[service.owner.email],
        kinds=kinds,
        tags={"mlops/service": service.name, "mlops/loop": loop},
        partitions_def=daily(service) if is_daily else None,
        skippable=True,
        metadata=table_metadata(f"{service.name}.{name}", table, more) if table else {},
    )


def table_metadata(name: str, table: Table, more: Sequence[Column] = ()) -> dict[str, object]:
    """Where the rows lie and what every column means, as the asset page shows it."""
    return {
        "dagster/table_name": name,
        "dagster/storage_kind": "deltalake",
        "dagster/column_schema": column_schema((*table.columns, *more), table.key),
    }


def column_schema(columns: Iterable[Column], key: Sequence[str]) -> dg.TableSchema:
    """Columns with their meaning; the key stands as a constraint of the table."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                column.type,
                description=column.meaning,
                constraints=dg.TableColumnConstraints(nullable=column.name not in key),
                tags={} if column.content else {"observed": ""},
            )
            for column in columns
        ],
        constraints=dg.TableConstraints(other=[f"one row per ({', '.join(key)})"]),
    )
