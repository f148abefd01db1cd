"""Tables: Delta Lake through delta-rs, one folder per table, partitioned by ``day``.

A list of days is replaced in one atomic commit; a version number is a snapshot; readers never block. An empty
day leaves no file: the ``generations`` table says that it is empty on purpose.
"""

import random
import time
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from mlops_assets.adapters.engine import literal, quote, rows, run
from mlops_assets.tables import Column

if TYPE_CHECKING:
    import pyarrow as pa

COMMIT_ATTEMPTS = 6
CHECKPOINT_COMMITS = 20
"""After so many commits the log is summed up, so that opening a table costs the same in December as in January."""


def read_sql(files: Sequence[str], columns: Sequence[Column], is_open: bool) -> str:
    """SQL of the rows of an explicit list of files; with none, of no rows of the declared shape.

    Open tables (features), and tables that an older version of this package began, may have files without a
    newer column: those columns read as null.
    """
    listed = ", ".join(f"null::{c.type} as {quote(c.name)}" for c in columns)
    no_rows = f"select {listed} where false"
    if not files:
        return no_rows
    paths = ", ".join(literal(file) for file in files)
    union = ", union_by_name = true" if is_open else ""
    read = f"select * from read_parquet([{paths}], hive_partitioning = true, hive_types = {{'day': DATE}}{union})"
    return f"{no_rows} union all by name {read}" if is_open else read


def view_sql(name: str, query: str) -> str:
    """SQL that names a query."""
    return f"create or replace temp view {quote(name)} as {query}"


def parquet_columns_sql() -> str:
    """SQL of the column names of a Parquet file."""
    return "select name from parquet_schema(?)"


def is_older(con: duckdb.DuckDBPyConnection, files: Sequence[str], columns: Sequence[Column]) -> bool:
    """Whether the first or the last of some data files was written before one of the columns was declared."""
    declared = {column.name for column in columns} - {"day"}
    return any(not declared <= {row[0] for row in rows(con, parquet_columns_sql(), [file])} for file in ends(files))


def ends(files: Sequence[str]) -> set[str]:
    """The first and the last of some files, if there are any."""
    return {*files[:1], *files[-1:]}


def days_predicate_sql(days: Collection[date]) -> str:
    """SQL predicate that names every day of the list; never a range, which would take days along."""
    return "day in (" + ", ".join(f"'{day.isoformat()}'" for day in sorted(days)) + ")"


@dataclass(frozen=True)
class Lake:
    """The tables of one schema: a service, or ``sources`` for what services share.

    A table is opened once; afterwards only what was committed since is read, by whoever it was: opening costs 6 to
    26 ms and grows with the log, catching up .3 to .7 ms.
    """

    root: Path
    schema: str
    _opened: dict[str, DeltaTable] = field(default_factory=dict, init=False, compare=False, repr=False)
    _listed: dict[str, tuple[int, list[str]]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def path(self, table: str) -> Path:
        """Folder of a table."""
        return self.root / self.schema / table

    def newest(self, table: str) -> DeltaTable | None:
        """A table at its newest version; None before its first commit.

        The log entry of the version we stand at must still be there: it is not if the table was replaced by another
        one, or if its log was cleaned up while we looked away, and then only opening it anew finds the newest.
        """
        kept = self._opened.get(table)
        if kept is not None and self._log_entry(table, kept.version()).exists():
            kept.update_incremental()
            return kept
        self._opened.pop(table, None)
        self._listed.pop(table, None)
        path = str(self.path(table))
        if DeltaTable.is_deltatable(path):
            self._opened[table] = DeltaTable(path)
        return self._opened.get(table)

    def _log_entry(self, table: str, version: int) -> Path:
        return self.path(table) / "_delta_log" / f"{version:020}.json"

    def version(self, table: str) -> int | None:
        """Newest version of a table; None before its first commit."""
        newest = self.newest(table)
        return None if newest is None else newest.version()

    def tables(self) -> list[str]:
        """Names of the tables that exist."""
        folder = self.root / self.schema
        return sorted(p.name for p in folder.iterdir() if (p / "_delta_log").is_dir()) if folder.is_dir() else []

    def versions(self) -> dict[str, int]:
        """The version vector: newest version of every table that exists."""
        found = {name: self.version(name) for name in self.tables()}
        return {name: version for name, version in found.items() if version is not None}

    def files(self, table: str, version: int | None, first: date | None, last: date | None) -> list[str]:
        """Data files of one pinned version (None: the newest) for the days from first to last (both included).

        The addresses that delta-rs gives are escaped: a home with a space in its name would not be found.
        """
        opened = self.newest(table)
        if opened is None:
            return []
        if version is not None and version != opened.version():
            opened = DeltaTable(str(self.path(table)), version=version)
        dated = self._dated(table, opened)
        low, high = (first or date.min).isoformat(), (last or date.max).isoformat()
        found = dated[bisect_left(dated, low) : bisect_left(dated, f"{high}0")]  # "0" sorts behind every "/"
        return [f"{self.path(table)}/day={file}" for file in found]

    def _dated(self, table: str, opened: DeltaTable) -> list[str]:
        """``<day>/<file>`` of every data file, oldest day first; listed once per version, for they are hundreds."""
        kept = self._listed.get(table)
        if kept is None or kept[0] != opened.version():
            dated = sorted(uri.rpartition("/day=")[2] for uri in opened.file_uris())
            kept = self._listed[table] = (opened.version(), dated)
        return kept[1]

    def newest_day(self, table: str, *, before: date) -> date | None:
        """The newest day before a day of which a table has rows; None if there is none."""
        found = self.files(table, None, None, before - timedelta(days=1))
        return date.fromisoformat(found[-1].rpartition("/day=")[2].partition("/")[0]) if found else None

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
        run(con, view_sql(name or table, read_sql(files, columns, is_open or is_older(con, files, columns))))

    def replace_days(
        self,
        table: str,
        days: Collection[date],
        rows: "pa.Table",
        metadata: Mapping[str, str],
    ) -> None:
        """Replace exactly these days by ``rows`` in one commit.

        Rows outside the listed days and changed types are refused by delta-rs; a table may grow columns. A
        conflicting writer makes us try again, a bounded number of times.
        """
        if rows.num_rows == 0 and self.newest(table) is None:
            return
        self.path(table).parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(COMMIT_ATTEMPTS):
            try:
                self._overwrite(table, days, rows, metadata)
                break
            except CommitFailedError:
                if attempt == COMMIT_ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0.05, 0.2) * 2**attempt)
        written = self.newest(table)
        if written is not None and written.version() % CHECKPOINT_COMMITS == 0:
            written.create_checkpoint()

    def _overwrite(self, table: str, days: Collection[date], rows: "pa.Table", metadata: Mapping[str, str]) -> None:
        newest = self.newest(table)
        write_deltalake(
            str(self.path(table)) if newest is None else newest,
            rows,
            mode="overwrite",
            predicate=None if newest is None else days_predicate_sql(days),
            partition_by=["day"],
            schema_mode=None if newest is None else "merge",
            commit_properties=CommitProperties(custom_metadata=dict(metadata)),
        )
