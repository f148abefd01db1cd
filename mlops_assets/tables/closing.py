"""The one table of closing itself: what was last written of every table and day."""

from mlops_assets.tables.table import DAY, Table, columns

GENERATIONS = Table(
    "generations",
    "all",
    "one day of one table as last written",
    ("table_name", "day"),
    "day_loop.py",
    columns(
        DAY,
        ("table_name", "VARCHAR", "which table"),
        ("rows", "BIGINT", "rows of that day"),
        ("fingerprint", "VARCHAR", "hash of the content columns of that day"),
        ("inputs", "VARCHAR", "fingerprint of the file generations known to the day"),
        ("feature_versions", "VARCHAR", "feature versions computed, comma separated"),
        ("state", "VARCHAR", "computed, empty or blocked"),
        ("reason", "VARCHAR", "why empty or blocked"),
        ("epoch", "INTEGER", "epoch that wrote it", False),
    ),
)
