"""DuckDB as the engine: private to one step, in memory, never the shared truth."""

import itertools
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.adapters.calendar import Calendar, days_between

if TYPE_CHECKING:  # a second's work, and questions to the tables need neither
    import pandas as pd
    import pyarrow as pa

MEMORY_LIMIT = os.environ.get("MLOPS_DUCKDB_MEMORY", "1GB")


def _setting_sql(name: str, value: str) -> str:
    return f"set global {name} = '{value}'"


class _Instance:
    """The one DuckDB instance of a process, with a memory limit and a temp folder; UTC throughout.

    Making one costs 15 ms of CPU, a connection to it 1 ms (``benchmarks/engine_cost.py``), and a day of a service
    opens thirty. Every connection gets an in-memory database of its own, so nothing of one is seen by another.
    """

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="mlops-duckdb-")
        self.root = duckdb.connect(":memory:")
        self.lock = threading.Lock()
        self.numbers = itertools.count(1)
        settings = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": self.folder.name,
            "TimeZone": "UTC",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "false",
        }
        for name, value in settings.items():
            self.root.execute(_setting_sql(name, value))

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with an empty database of its own, gone afterwards."""
        with self.lock:
            name = f"private_{next(self.numbers)}"
            self.root.execute(_attach_sql(name))
            con = self.root.cursor()
        try:
            con.execute(_use_sql(name))
            yield con
        finally:
            con.close()
            with self.lock:
                self.root.execute(_detach_sql(name))


def _attach_sql(name: str) -> str:
    return f"attach ':memory:' as {name}"


def _use_sql(name: str) -> str:
    return f"use {name}"


def _detach_sql(name: str) -> str:
    return f"detach {name}"


@cache
def _instance(_process: int) -> _Instance:
    """One per process: a fork must not use its parent's threads."""
    return _Instance()


@contextmanager
def open_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A private in-memory DuckDB with a memory limit and a temp folder, closed whatever happens; UTC throughout.

    The limit is shared by everything that is open in the process.
    """
    with _instance(os.getpid()).connection() as con:
        yield con


@cache
def _counting(_process: int) -> _Instance:
    """One more instance per process, with one thread."""
    found = _Instance()
    found.root.execute(_setting_sql("threads", "1"))
    return found


@contextmanager
def counting_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A second engine, which may read what comes out of the first one while that is at work: with one instance, the
    threads of the reader and of what is read could wait for each other."""
    with _counting(os.getpid()).connection() as con:
        yield con


@contextmanager
def open_own_engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """An instance for one purpose: settings that shut it off hold for a whole instance, so would hold for every run."""
    own = _Instance()
    try:
        yield own.root
    finally:
        own.root.close()
        own.folder.cleanup()


def rows(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query; finishes the result, so that the connection is free again."""
    result: list[tuple[Any, ...]] = con.execute(sql, list(parameters)).fetchall()
    return result


def frame(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> "pd.DataFrame":
    """A query as a data frame."""
    return con.execute(sql, list(parameters)).df()


def run(con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] = ()) -> None:
    """A statement whose result nobody reads."""
    con.execute(sql, list(parameters))
    con.complete()


def quote(name: str) -> str:
    """An SQL identifier.

    >>> quote('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | date | datetime) -> str:
    """A text, day or instant as an SQL literal.

    >>> literal(date(2013, 1, 1))
    "DATE '2013-01-01'"
    """
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("'", "''") + "'"


def on_days_sql(days: Iterable[date], column: str = "day") -> str:
    """SQL predicate that names every day, never a range; no day at all: never true.

    >>> on_days_sql([date(2013, 1, 1)])
    "day in (DATE '2013-01-01')"
    """
    return f"{column} in ({', '.join(literal(day) for day in sorted(days)) or 'null'})"


def slice_sql(name: str) -> str:
    """SQL of ``name=value`` of a row that has this name in its ``context``, else null."""
    return (
        f"coalesce({literal(name + '=')} || json_extract_string(context, {literal('$.' + name)}), "
        f"case when json_exists(context, {literal('$.' + name)}) then {literal(name + '=null')} end)"
    )


def slices_sql(names: Iterable[str]) -> str:
    """SQL of the slices that a row counts in, as a list: *all*, and ``name=value`` per name that its ``context`` has.

    Reads ``context``, a JSON text. A name that was not declared when the row was written is no slice of it, or the days
    before a new slice would all be ``name=null``; that is what one without a value is called.
    """
    parts = [slice_sql(name) for name in names]
    return f"list_filter(['all', {', '.join(parts)}], lambda one: one is not null)" if parts else "['all']"


def register_days(con: duckdb.DuckDBPyConnection, calendar: Calendar, first: date, last: date) -> None:
    """Put ``days(day, start_at, end_at)`` into the engine, with 60 days of margin on both sides."""
    import pandas as pd

    margin = timedelta(days=60)
    listed = list(days_between(first - margin, last + margin))
    days_frame = pd.DataFrame(
        {
            "day": pd.to_datetime(pd.Series(listed)),
            "start_at": pd.to_datetime([calendar.start_of(day) for day in listed]),
            "end_at": pd.to_datetime([calendar.end_of(day) for day in listed]),
        }
    )
    put(con, "days", days_frame)


def columns_of(con: duckdb.DuckDBPyConnection, name: str) -> list[str]:
    """Column names of a relation in the engine."""
    return [row[0] for row in rows(con, describe_sql(name))]


def describe_sql(name: str) -> str:
    """SQL of the columns of a relation."""
    return f"select column_name from (describe {quote(name)})"


def fingerprint_sql(relation: str, columns: Sequence[str]) -> str:
    """SQL of ``(rows, fingerprint)`` of the named columns of a relation.

    Row order does not matter, duplicates do; ``hash`` is DuckDB's and is not promised stable across versions.
    """
    named = ", ".join(quote(column) for column in columns)
    return f"select {_hash_sql()} from (select hash(row({named})) as h from {relation})"


def daily_fingerprints_sql(relation: str, columns: Sequence[str]) -> str:
    """SQL of ``(day, rows, fingerprint)`` of the named columns of a relation, per day."""
    named = ", ".join(quote(column) for column in columns)
    return f"select day, {_hash_sql()} from (select day, hash(row({named})) as h from {relation}) group by day"


def _hash_sql() -> str:
    return """count(*), printf('%016x%016x', coalesce(bit_xor(h), 0),
              (coalesce(sum(h::hugeint), 0) % 18446744073709551616)::ubigint)"""


def given_sql(name: str, *, has_day: bool) -> str:
    """SQL of what was handed to the engine under a name; a column ``day`` becomes a DATE."""
    return f"select *{' replace (day::date as day)' if has_day else ''} from {quote(name)}"


def put(con: duckdb.DuckDBPyConnection, name: str, data: "pd.DataFrame | pa.Table") -> None:
    """Keep a data frame or an Arrow table as a temp table."""
    has_day = "day" in (data.column_names if hasattr(data, "column_names") else data.columns)
    con.register("given", data)
    run(con, copy_sql(name, given_sql("given", has_day=has_day)))
    con.unregister("given")


def append_sql(into: str, given: str) -> str:
    """SQL that adds the rows of one relation to a table, column by name."""
    return f"insert into {quote(into)} by name select * from {quote(given)}"


def copy_sql(name: str, query: str) -> str:
    """SQL that keeps a query's rows in a temp table."""
    return f"create or replace temp table {quote(name)} as {query}"
