"""Tables of other people's databases: the rows of one arrival day, as a Parquet file of the landing zone.

Nothing is written to the database. Rows are read in batches, so that memory does not grow with the day.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mlops_assets.adapters.engine import open_engine, quote
from mlops_assets.adapters.landing import hidden_metadata
from mlops_assets.adapters.sqlite_times import sqlite_reader
from mlops_assets.errors import DatabaseError, DeclarationError, UnknownNameError
from mlops_assets.service.sources import Source, SqlTable

if TYPE_CHECKING:
    import pyarrow as pa
    import sqlalchemy as sa

BATCH_ROWS = 50_000
Rows = Sequence[Sequence[Any]]
Hide = Callable[["pa.Table"], "pa.Table"]
"""Turns ids into pseudonyms; no file of ours holds them otherwise."""


class _UnfitError(Exception):
    """A column whose values are not of the declared type."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True)
class TableReader:
    """An open table; ``read(start, end)`` gives the rows that became available in between, in batches, by key."""

    source: Source
    read: Callable[[datetime, datetime], Iterator[Rows]]

    def land(self, landing: Path, day: date, start: datetime, end: datetime, hide: Hide | None = None) -> bool:
        """Put the rows of one arrival day into the landing zone, whole or not at all; true if its file has changed.

        No row, no file: what landed before stays. ``hide`` is applied to all rows before they are written, and the file
        says which columns are pseudonyms, so that nobody makes pseudonyms of them again.
        """
        path = landing / self.source.name / f"{day}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if not self._write(half, start, end, hide) or (path.exists() and path.read_bytes() == half.read_bytes()):
                return False
            half.replace(path)
            return True
        finally:
            half.unlink(missing_ok=True)

    def _write(self, path: Path, start: datetime, end: datetime, hide: Hide | None) -> bool:
        """Write a day with the declared types; false if it has no row.

        A column of another type is written as text, and the reader of the landing zone then says which one it is: it
        blocks one day and no other, as it would in anybody's file.
        """
        schema = _declared_schema(self.source)
        if hide is not None:
            schema = schema.with_metadata(hidden_metadata(self.source.pseudonymise))
        while True:
            try:
                return _write_batches(path, schema, self.read(start, end), hide)
            except _UnfitError as unfit:
                import pyarrow as pa

                schema = schema.set(schema.get_field_index(unfit.column), pa.field(unfit.column, pa.string()))


def empty_sql(source: Source) -> str:
    """SQL of no row with the declared columns and types."""
    columns = ", ".join(f"null::{kind} as {quote(name)}" for name, kind in source.columns.items())
    return f"select {columns} limit 0"


def _declared_schema(source: Source) -> "pa.Schema":
    with open_engine() as con:
        return con.sql(empty_sql(source)).to_arrow_table().schema


def _write_batches(path: Path, schema: "pa.Schema", batches: Iterator[Rows], hide: Hide | None) -> bool:
    """Write all rows; false if there is none.

    Raises:
        _UnfitError: a value cannot be read as its column's type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = next(batches, None)
    if not first:
        return False
    with pq.ParquetWriter(path, schema) as writer:
        path.chmod(0o600)  # rows of somebody's database: not for everybody who can read the landing zone
        for batch in chain([first], batches):
            arrays = [
                _array(list(values), field) for values, field in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            table = pa.table(arrays, schema=schema)
            writer.write_table(hide(table) if hide else table)
    return True


def _array(values: list[Any], field: "pa.Field[Any]") -> "pa.Array[Any]":
    """Values as a column of the declared type, without loss.

    Raises:
        _UnfitError: one of them is something else.
    """
    import pyarrow as pa

    try:
        if pa.types.is_string(field.type):
            return pa.array([None if value is None else str(value) for value in values], field.type)
        if pa.types.is_floating(field.type):  # a numeric of Postgres is a Decimal here
            values = [value if value is None or isinstance(value, int | str) else float(value) for value in values]
        return pa.array(values).cast(field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise _UnfitError(field.name) from None


@contextmanager
def open_table(source: Source, table: SqlTable) -> Iterator[TableReader]:
    """The table that a source is read from; closed whatever happens.

    Raises:
        DeclarationError: no URL is set, no such kind of database, no such table, or a column that is no time.
        UnknownNameError: the table lacks a column.
        DatabaseError: the database cannot be reached or refuses; its words, without any secret.
    """
    import sqlalchemy as sa

    url = _url(source, table)
    opened = _open_duckdb if url.get_backend_name() == "duckdb" else _open_by_sqlalchemy
    try:
        with opened(source, table, url) as reader:
            yield reader
    except (sa.exc.SQLAlchemyError, duckdb.Error) as error:
        told = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise DatabaseError(
            f"{_where(source, table)}: {_without_secrets(told, url)} "
            "Is the database up, and may this user read the table? Nothing was closed; run the same command again."
        ) from None


def _where(source: Source, table: SqlTable) -> str:
    return f"source '{source.name}' > table '{table.table}' of ${table.url_variable}"


def _url(source: Source, table: SqlTable) -> "sa.URL":
    import sqlalchemy as sa

    where = f"source '{source.name}' > table > url_variable"
    given = os.environ.get(table.url_variable, "")
    if not given:
        raise DeclarationError(
            where, f"the environment variable {table.url_variable} is not set.",
            "Set it to the SQLAlchemy URL of the database, for example sqlite:////path/to/file.db.",
        )  # fmt: skip
    try:
        return sa.make_url(given)
    except (sa.exc.ArgumentError, ValueError):
        raise DeclarationError(
            where, f"what {table.url_variable} holds is no URL.", "Write dialect+driver://user:password@host/database."
        ) from None


def _without_secrets(told: str, url: "sa.URL") -> str:
    """A database's words without the password and without what stands behind the question mark of the URL."""
    values = [value for some in url.query.values() for value in ([some] if isinstance(some, str) else some)]
    for secret in filter(None, [str(url.password or ""), *values]):
        told = told.replace(secret, "***")
    return told.rstrip(".") + "."


def _check_columns(source: Source, table: SqlTable, found: dict[str, bool]) -> None:
    """``found``: column of the table -> whether it is a time."""
    for declared in source.columns:
        if table.column(declared) not in found:
            raise UnknownNameError(
                where=f"{_where(source, table)} > columns > '{declared}'", kind="column", name=table.column(declared),
                known=found,
            )  # fmt: skip
    if not found[table.column(source.available_at)]:
        raise DeclarationError(
            f"{_where(source, table)} > '{table.column(source.available_at)}'",
            "is no timestamp, so the rows of a day cannot be told from others.",
            "Name a column that is one, or a view that casts it.",
        )


@contextmanager
def _open_by_sqlalchemy(source: Source, table: SqlTable, url: "sa.URL") -> Iterator[TableReader]:
    import sqlalchemy as sa

    schema, _, name = table.table.rpartition(".")
    file = url.database if url.get_backend_name() == "sqlite" else None
    if file and file != ":memory:" and not file.startswith("file:") and not Path(file).exists():
        raise DeclarationError(  # SQLite would make an empty one
            f"source '{source.name}' > table > url_variable",
            f"${table.url_variable} names {file}, and there is no such file.",
            "Name the file of the database; a path from the root begins with sqlite:////.",
        )  # fmt: skip
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise DeclarationError(_where(source, table), f"{error}.", f"Install the driver of {url.drivername}.") from None
    with engine.connect() as con:
        try:
            found = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=con)
        except sa.exc.NoSuchTableError:
            names = [*sa.inspect(con).get_table_names(schema or None), *sa.inspect(con).get_view_names(schema or None)]
            where = f"source '{source.name}' > table of ${table.url_variable}"
            raise UnknownNameError(where=where, kind="table", name=table.table, known=names) from None
        times = (sa.DateTime, sa.Date)
        _check_columns(source, table, {column.name: isinstance(column.type, times) for column in found.columns})
        columns = [found.columns[table.column(declared)] for declared in source.columns]
        available = found.columns[table.column(source.available_at)]
        key = [found.columns[table.column(declared)] for declared in source.key]
        is_aware = bool(getattr(available.type, "timezone", False))

        def read(start: datetime, end: datetime) -> Iterator[Rows]:
            first, last = (at.replace(tzinfo=UTC) if is_aware else at for at in (start, end))
            asked = sa.select(*columns).where(available >= first, available < last).order_by(available, *key)
            streaming = con.execution_options(stream_results=True, yield_per=BATCH_ROWS)
            yield from streaming.execute(asked).partitions(BATCH_ROWS)

        is_text = engine.dialect.name == "sqlite"
        of_text = sqlite_reader(con, found, source, table, where=_where(source, table)) if is_text else None
        yield TableReader(source, of_text or read)
    engine.dispose()


def rows_of_day_sql(source: Source, table: SqlTable) -> str:
    """SQL of the rows that became available between two instants, in the order of the declared columns."""
    columns = ", ".join(quote(table.column(name)) for name in source.columns)
    available = quote(table.column(source.available_at))
    key = ", ".join(quote(table.column(name)) for name in source.key)
    name = ".".join(quote(part) for part in table.table.split("."))
    return f"select {columns} from {name} where {available} >= ? and {available} < ? order by {available}, {key}"


def all_columns_sql(table: SqlTable) -> str:
    """SQL of a table's columns and no row."""
    return f"select * from {'.'.join(quote(part) for part in table.table.split('.'))} limit 0"


@contextmanager
def _open_duckdb(source: Source, table: SqlTable, url: "sa.URL") -> Iterator[TableReader]:
    """A DuckDB file, read by itself: its dialect for SQLAlchemy is one more thing to install."""
    with duckdb.connect(url.database or ":memory:", read_only=True) as con:
        found = {name: str(kind) for name, kind, *_ in con.execute(all_columns_sql(table)).description or ()}
        times = {name: kind.upper().startswith(("TIMESTAMP", "DATE")) for name, kind in found.items()}
        _check_columns(source, table, times)
        is_aware = "TIME ZONE" in found[table.column(source.available_at)].upper()

        def read(start: datetime, end: datetime) -> Iterator[Rows]:
            bounds = [at.replace(tzinfo=UTC) if is_aware else at for at in (start, end)]
            asked = con.execute(rows_of_day_sql(source, table), bounds)
            while batch := asked.fetchmany(BATCH_ROWS):
                yield batch

        yield TableReader(source, read)
