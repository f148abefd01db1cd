"""Tables: Delta Lake through delta-rs, one folder per table, partitioned by ``day``.

A list of days is replaced in one atomic commit; a version number is a snapshot; readers never block. An empty
day leaves no file: the ``generations`` table says that it is empty on purpose.
"""

import random
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from mlops_assets.adapters.engine import literal, quote, run
from mlops_assets.tables import Column

if TYPE_CHECKING:
    import pyarrow as pa

COMMIT_ATTEMPTS = 6
CHECKPOINT_COMMITS = 20
"""After so many commits the log is summed up, so that opening a table costs the same in December as in January."""


def read_sql(name: str, files: Sequence[str], columns: Sequence[Column], is_open: bool) -> str:
    """SQL of a view over an explicit list of files; with none, over no rows of the declared shape.

    Open tables (features) may have files without a newer column: those columns read as null.
    """
    if not files:
        listed = ", ".join(f"null::{c.type} as {quote(c.name)}" for c in columns)
        return f"create or replace temp view {quote(name)} as select {listed} where false"
    paths = ", ".join(literal(file) for file in files)
    union = ", union_by_name = true" if is_open else ""
    return (
        f"create or replace temp view {quote(name)} as select * from "
        f"read_parquet([{paths}], hive_partitioning = true, hive_types = {{'day': DATE}}{union})"
    )


def days_predicate_sql(days: Collection[date]) -> str:
    """SQL predicate that names every day of the list; never a range, which would take days along."""
    return "day in (" + ", ".join(f"'{day.isoformat()}'" for day in sorted(days)) + ")"


@dataclass(frozen=True)
class Lake:
    """The tables of one schema: a service, or ``sources`` for what services share."""

    root: Path
    schema: str

    def path(self, table: str) -> Path:
        """Folder of a table."""
        return self.root / self.schema / table

    def version(self, table: str) -> int | None:
        """Newest version of a table; None before its first commit."""
        path = str(self.path(table))
        return DeltaTable(path, without_files=True).version() if DeltaTable.is_deltatable(path) else None

    def tables(self) -> list[str]:
        """Names of the tables that exist."""
        folder = self.root / self.schema
        return sorted(p.name for p in folder.iterdir() if (p / "_delta_log").is_dir()) if folder.is_dir() else []

    def versions(self) -> dict[str, int]:
        """The version vector: newest version of every table that exists."""
        return {name: DeltaTable(str(self.path(name)), without_files=True).version() for name in self.tables()}

    def files(self, table: str, version: int | None, first: date | None, last: date | None) -> list[str]:
        """Data files of one pinned version (None: the newest) for the days from first to last (both included).

        The addresses that delta-rs gives are escaped: a home with a space in its name would not be found.
        """
        path = str(self.path(table))
        if not DeltaTable.is_deltatable(path):
            return []
        uris = DeltaTable(path, version=version).file_uris()
        low, high = (first or date.min).isoformat(), (last or date.max).isoformat()
        dated = sorted(uri.rpartition("/day=")[2] for uri in uris)
        return [f"{self.path(table)}/day={file}" for file in dated if low <= file.partition("/")[0] <= high]

    def view(
        self,
        con: duckdb.DuckDBPyConnection,
        table: str,
        columns: Sequence[Column],
        *,
        name: str | None = None,
        version: int | None = None,
        first: date | None = None,
        last: date | None = None,
        is_open: bool = False,
    ) -> None:
        """Open one version (default: the newest) of a table as a view in the engine, limited to some days."""
        files = self.files(table, version, first, last)
        run(con, read_sql(name or table, files, columns, is_open))

    def replace_days(
        self,
        table: str,
        days: Collection[date],
        rows: "pa.Table",
        metadata: Mapping[str, str],
        *,
        is_open: bool = False,
    ) -> None:
        """Replace exactly these days by ``rows`` in one commit.

        Rows outside the listed days and changed types are refused by delta-rs. A conflicting writer makes
        us try again, a bounded number of times.
        """
        path = str(self.path(table))
        exists = DeltaTable.is_deltatable(path)
        if not exists and rows.num_rows == 0:
            return
        self.path(table).parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                write_deltalake(
                    path,
                    rows,
                    mode="overwrite",
                    predicate=days_predicate_sql(days) if exists else None,
                    partition_by=["day"],
                    schema_mode="merge" if is_open and exists else None,
                    commit_properties=CommitProperties(custom_metadata=dict(metadata)),
                )
                break
            except CommitFailedError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        if (self.version(table) or 0) % CHECKPOINT_COMMITS == 0:
            DeltaTable(path).create_checkpoint()
