"""People's SQL: every table of every service as a view in a private, read-only, in-memory DuckDB.

Nothing that a person opens can block a run: views read the files of one pinned version. Without ``is_open``
that is the version vector of the last closing, and only its closed days: an answer never changes meanwhile.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import sqlalchemy as sa

from mlops_assets.adapters.calendar import Calendar, days_between
from mlops_assets.adapters.engine import literal, open_own_engine, quote, run
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.lake import Lake, is_older, read_sql
from mlops_assets.adapters.ledger import Ledger, Row
from mlops_assets.adapters.ledger_tables import EVENTS
from mlops_assets.errors import MlopsError
from mlops_assets.feedback_loop.label_comparison import label_agreement_sql, label_quality_sql
from mlops_assets.feedback_loop.outcomes import outcomes_sql
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Source
from mlops_assets.tables import SOURCE_COLUMNS, TABLES, Column, Table

SHARED = "sources"
LEDGER_TABLES = (
    *("decisions", "actions", "incidents", "incident_events", "releases", "gates", "closings", "divergences"),
    *("recomputations", "changes", "alarm_budget", "proposals", "sign_offs", "trainings"),
)
"""Ledger tables that people see, each with a ``day``; only rows that count in the current epoch."""


FINDS_TABLES = frozenset({"query", "query_table"})
"""Functions that read tables whose names they are given: what they will name cannot be seen beforehand."""


class QueryError(MlopsError):
    """A query that cannot be answered: one line that says why, and the tables there are."""


@dataclass(frozen=True)
class Answer:
    """The rows of one query, with the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def objects(self) -> list[dict[str, Any]]:
        """One object per row, of values that JSON has: days and instants as ISO text, NaN as null."""
        return [{name: plain(value) for name, value in zip(self.columns, row, strict=True)} for row in self.rows]


def plain(value: Any) -> Any:
    """A value as JSON has it.

    >>> plain(date(2013, 7, 1)), plain(float("nan")), plain(Decimal("1.5"))
    ('2013-07-01', None, 1.5)
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return str(value)


def ask(services: Sequence[MLService], home: Home, query: str, *, is_open: bool = False) -> Answer:
    """Answer one reading statement over the tables of these services.

    Args:
        services: every service whose tables the query may name.
        query: one DuckDB statement that only reads.
        is_open: also what no closing has made a fact yet.

    Raises:
        QueryError: it is not one reading statement, or DuckDB refuses it.
    """
    with open_views(services, home, is_open=is_open, query=query) as con:
        try:
            statements = con.extract_statements(query)
        except duckdb.Error as error:
            raise QueryError(f"{_one_line(error)} {_known(con)}") from error
        if len(statements) != 1 or statements[0].type.name != "SELECT":
            raise QueryError("`mlops sql` takes one statement that reads: select, with, from, describe, show.")
        try:
            result = con.execute(statements[0])
            columns = tuple(column[0] for column in result.description)
            return Answer(columns, tuple(result.fetchall()))
        except duckdb.Error as error:
            raise QueryError(f"{_one_line(error)} {_known(con)}") from error


def _one_line(error: duckdb.Error) -> str:
    """The sentence of a DuckDB message, without the drawing of the query below it."""
    lines = [line.strip() for line in str(error).partition("\n\nLINE ")[0].splitlines()]
    return " ".join(line for line in lines if line)


def tables_sql() -> str:
    """SQL of every table that people can name."""
    return (
        "select schema_name || '.' || view_name as name from duckdb_views() where not internal "
        "and schema_name != 'main' union all "
        "select schema_name || '.' || table_name from duckdb_tables() where schema_name != 'main' order by 1"
    )


def _known(con: duckdb.DuckDBPyConnection) -> str:
    return "Tables: " + ", ".join(name for (name,) in con.execute(tables_sql()).fetchall()) + "."


@contextmanager
def open_views(
    services: Sequence[MLService], home: Home, *, is_open: bool, query: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine with a schema per service and ``sources``; it can read the lake's files and nothing else.

    With a query, only the tables that it names are opened; the others are there without rows.
    """
    ledger = Ledger(home.ledger_url)
    with open_own_engine() as con:
        closed = {service.name: ledger.closings(service.name) for service in services}
        run(con, create_schema_sql(SHARED))
        for source in {source.name: source for one in services for source in one.sources}.values():
            ends = [max(closed[s.name]) for s in services if closed[s.name] and source in s.sources]
            _open_source(con, home, source, query, last=None if is_open else max(ends, default=date.min))
        for service in services:
            _open_service(con, ledger, home, service, closed[service.name], query, is_open=is_open)
        for statement in sandbox_sql(str(home.tables)):
            run(con, statement)
        yield con


def sandbox_sql(folder: str) -> list[str]:
    """SQL that leaves one readable folder, and cannot be switched back; the order matters."""
    return [
        f"set allowed_directories = [{literal(folder)}]",
        "set python_enable_replacements = false",
        "set enable_external_access = false",
        "set lock_configuration = true",
    ]


def create_schema_sql(name: str) -> str:
    """SQL of a schema."""
    return f"create schema if not exists {quote(name)}"


def view_sql(
    schema: str, name: str, files: Sequence[str], columns: Sequence[Column], *, where: str, is_open: bool
) -> str:
    """SQL of one table as a view, day first; without files a view without rows. ``where`` limits the rows.

    An open table (features), or one that an older version of this package began, shows whatever columns its files
    have.
    """
    listed = "day, * exclude (day)" if is_open else ", ".join(quote(column.name) for column in columns)
    rows = read_sql(files, columns, is_open)
    return f"create view {quote(schema)}.{quote(name)} as select {listed} from ({rows}) where {where}"


COMPARISONS = {"label_agreement": ("labels",), "label_quality": ("outcomes", "predictions")}
"""Views that compare label definitions, and the tables that each reads."""


def comparison_view_sql(service: MLService, name: str) -> str:
    """SQL of a view that compares label definitions."""
    read = [f"{quote(service.name)}.{quote(table)}" for table in COMPARISONS[name]]
    if name == "label_agreement":
        query = label_agreement_sql(*read, tolerance=service.label.tolerance)
    else:
        query = label_quality_sql(service, *read)
    return f"create view {quote(service.name)}.{quote(name)} as {query}"


def _is_named(table: str, query: str | None) -> bool:
    """Whether a query can mean a table: a word of it is its name, or it finds its tables in a way of its own."""
    words = set(re.findall(r"\w+", query.lower())) if query is not None else set()
    in_macro = "outcomes_as_of" in words and table in ("predictions", "labels")
    in_macro = in_macro or any(name in words and table in read for name, read in COMPARISONS.items())
    return query is None or table in words or in_macro or bool(words & FINDS_TABLES)


def _lake_of(home: Home, schema: str, table: str, query: str | None) -> Lake:
    """The lake of one table, or, if the query does not ask for it, one without any."""
    return Lake(home.tables if _is_named(table, query) else home.tables / "not asked for", schema)


def _open_source(
    con: duckdb.DuckDBPyConnection, home: Home, source: Source, query: str | None, *, last: date | None
) -> None:
    lake = _lake_of(home, SHARED, source.name, query)
    columns = SOURCE_COLUMNS + tuple(Column(name, kind, "") for name, kind in source.columns.items())
    files = lake.files(source.name, None, None, last)
    run(con, view_sql(SHARED, source.name, files, columns, where="true", is_open=is_older(con, files, columns)))


def _open_service(
    con: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    home: Home,
    service: MLService,
    closed: Mapping[date, Row],
    query: str | None,
    *,
    is_open: bool,
) -> None:
    run(con, create_schema_sql(service.name))
    last = None if is_open else max(closed, default=date.min)
    pinned = {} if is_open else ledger.pinned(service.name)
    for table in TABLES:
        lake = _lake_of(home, SHARED if table.is_shared else service.name, table.name, query)
        _open_table(con, lake, service, table, version=pinned.get(table.name), last=last)
    for name in LEDGER_TABLES:
        rows = [row for row in ledger.effective(name, service.name) if last is None or row["day"] <= last]
        _keep(con, service.name, name, ledger_types(name), rows)
    _open_outcomes_as_of(con, service, until=max(closed, default=service.first_day))
    for name in COMPARISONS:
        run(con, comparison_view_sql(service, name))


def _open_table(
    con: duckdb.DuckDBPyConnection,
    lake: Lake,
    service: MLService,
    table: Table,
    *,
    version: int | None,
    last: date | None,
) -> None:
    # Snapshots and evaluations are written by the actions after a closing, which its vector cannot know yet.
    is_pinned = version is not None and not table.is_shared and table.loop != "model"
    files = lake.files(table.name, version if is_pinned else None, None, last)
    where = "true"
    if table.is_shared:
        where = f"source in ({', '.join(literal(source.name) for source in service.sources)})"
    is_mixed = table.is_open or is_older(con, files, table.columns)
    run(con, view_sql(service.name, table.name, files, table.columns, where=where, is_open=is_mixed))


def ledger_types(name: str) -> dict[str, str]:
    """DuckDB type of every column of a ledger table; what is nested is JSON text."""
    kinds: dict[type, str] = {
        sa.Date: "DATE", sa.DateTime: "TIMESTAMP", sa.Integer: "BIGINT", sa.BigInteger: "BIGINT", sa.Float: "DOUBLE",
    }  # fmt: skip
    return {column.name: kinds.get(type(column.type), "VARCHAR") for column in EVENTS[name].columns}


def _keep(
    con: duckdb.DuckDBPyConnection, schema: str, name: str, types: Mapping[str, str], rows: Sequence[Row]
) -> None:
    """Keep rows as a table. They travel as one JSON text: Arrow or a frame would import pandas, a second's work."""
    run(con, create_table_sql(schema, name, types))
    if rows:
        run(con, insert_json_sql(schema, name, types), [json.dumps([_told(row) for row in rows], default=str)])


def _told(row: Row) -> Row:
    return {key: json.dumps(v, sort_keys=True) if isinstance(v, dict | list) else v for key, v in row.items()}


def create_table_sql(schema: str, name: str, types: Mapping[str, str]) -> str:
    """SQL of an empty table."""
    columns = ", ".join(f"{quote(column)} {kind}" for column, kind in types.items())
    return f"create table {quote(schema)}.{quote(name)} ({columns})"


def insert_json_sql(schema: str, name: str, types: Mapping[str, str]) -> str:
    """SQL that adds the rows of its one parameter, a JSON list of objects, to a table."""
    shape = literal(json.dumps([types]))
    return (
        f"insert into {quote(schema)}.{quote(name)} by name select unnest(from_json(?::json, {shape}), max_depth := 2)"
    )


def _open_outcomes_as_of(con: duckdb.DuckDBPyConnection, service: MLService, until: date) -> None:
    """Macro ``<service>.outcomes_as_of(DATE)``: what was known of every prediction at the end of that day."""
    calendar = Calendar(service.timezone)
    listed = list(days_between(service.first_day, until + timedelta(days=366)))
    days = [{"day": d, "start_at": calendar.start_of(d), "end_at": calendar.end_of(d)} for d in listed]
    types = {"day": "DATE", "start_at": "TIMESTAMP", "end_at": "TIMESTAMP"}
    _keep(con, "main", f"{service.name}.days", types, days)
    for name in ("predictions", "labels"):
        run(con, alias_sql(service.name, name))
    run(con, outcomes_as_of_sql(service))


def alias_sql(schema: str, name: str) -> str:
    """SQL that gives a table a name without a schema, for SQL that quotes names as one piece."""
    return f"create view {quote(f'{schema}.{name}')} as select * from {quote(schema)}.{quote(name)}"


def outcomes_as_of_sql(service: MLService) -> str:
    """SQL of the table macro: the outcomes of all predictions as of the end of ``as_of_day``."""
    body = outcomes_sql(
        service.label,
        predictions=f"{service.name}.predictions",
        labels=f"{service.name}.labels",
        days=f"{service.name}.days",
        as_of="as_of_day::date",
    )
    return f"create macro {quote(service.name)}.outcomes_as_of(as_of_day) as table {body}"
