"""Every table the loops exchange: grain, key, columns, and its one writer.

``docs/tables.md`` is generated from this package, one file a loop (``python -m mlops_assets.tables``). A column
is *content* if a rerun must reproduce it, *observed* if it belongs to one run (durations, run ids, wall clock).
All tables are Delta tables partitioned by ``day``; instants are UTC. TABLES stands in commit order,
``generations`` last.
"""

from collections.abc import Iterable

from mlops_assets.tables.closing import GENERATIONS
from mlops_assets.tables.feature import CONTRACTS, FEATURES, FRESHNESS, QUARANTINE
from mlops_assets.tables.feedback import COMPLETENESS, CONFLICTS, LABELS, OUTCOMES, PREDICTIONS
from mlops_assets.tables.model import EVALUATION, TRAINING_SET
from mlops_assets.tables.monitoring import (
    DRIFT,
    KPI,
    LOOP_SYNC,
    OBJECTIVES,
    OPERATIONS,
    PROFILES,
    QUALITY,
    RULES,
    VERDICTS,
)
from mlops_assets.tables.table import SOURCE_COLUMNS, Column, Table

__all__ = ["BY_NAME", "FACTS", "SOURCE_COLUMNS", "TABLES", "TIERS", "Column", "Table", "tables_page"]

TABLES: tuple[Table, ...] = (
    CONTRACTS,
    QUARANTINE,
    FEATURES,
    FRESHNESS,
    PREDICTIONS,
    CONFLICTS,
    LABELS,
    OUTCOMES,
    TRAINING_SET,
    EVALUATION,
    COMPLETENESS,
    PROFILES,
    QUALITY,
    KPI,
    RULES,
    OPERATIONS,
    OBJECTIVES,
    DRIFT,
    LOOP_SYNC,
    VERDICTS,
    GENERATIONS,
)

BY_NAME = {table.name: table for table in TABLES}
FACTS = ("predictions", "conflicts", "labels")
"""Written at the closing of their day and never again."""

TIERS = ("stable", "expected", "moderate", "severe", "unknown")


def tables_page(tables: Iterable[Table] = TABLES) -> str:
    """The Markdown page ``docs/tables.md``."""
    parts = ["# Tables\n\nGenerated from `mlops_assets/tables/`; do not edit.\n"]
    for table in tables:
        parts.append(
            f"\n## `{table.name}`\n\nOne row is {table.grain}. Key: {', '.join(table.key)}. "
            f"Loop: {table.loop}. Written by `{table.writer}`."
            + (" Declared features stand beside the columns named here." if table.is_open else "")
            + (" Shared by all services." if table.is_shared else "")
            + "\n\n| column | type | meaning | |\n| --- | --- | --- | --- |\n"
        )
        parts += [
            f"| `{c.name}` | {c.type} | {c.meaning} | {'' if c.content else 'observed'} |\n" for c in table.columns
        ]
    return "".join(parts)
