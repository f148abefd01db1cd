"""Declared SQL expressions are read when a declaration loads: one value per row, from columns that exist."""

from collections.abc import Collection
from functools import cache

import sqlglot
from sqlglot import exp

from mlops_assets.errors import DeclarationError, UnknownNameError

TABLE_FUNCTIONS = frozenset({"unnest", "generate_series", "range", "glob", "query", "query_table", "columns"})
FILE_FUNCTIONS = ("read_", "parquet_", "sniff_", "copy_")
UNREPEATABLE = frozenset(
    {
        *("now", "today", "current_date", "current_time", "current_timestamp", "current_localtimestamp"),
        *(
            "localtime",
            "localtimestamp",
            "get_current_timestamp",
            "transaction_timestamp",
            "getenv",
            "getvariable",
        ),
        *("random", "uuid", "gen_random_uuid", "nextval", "setseed"),
    }
)
"""Functions whose answer depends on when and where they are asked; a rerun would not give the same row."""


def check_expression(expression: str, *, where: str, columns: Collection[str]) -> None:
    """Hold a declared DuckDB expression against the columns it may read.

    Args:
        expression: as declared, for example ``arr_delay >= 15``.
        where: path of the field, for the message.
        columns: every column of the row it is computed from.

    Raises:
        DeclarationError: it is not one expression over one row, or it calls what an expression may not call.
        UnknownNameError: it names a column that is not among ``columns``.

    >>> check_expression("temp * 2", where="here", columns=["temp"])
    """
    tree = _parsed(expression)
    if tree is None:
        raise DeclarationError(
            where,
            f"'{expression}' is not one SQL expression.",
            "Write one DuckDB expression over a row's columns.",
        )
    for node in tree.walk():
        if refusal := _refusal(node):
            raise DeclarationError(
                where,
                f"'{expression}' uses {refusal}.",
                "An expression computes one value from the columns of one row.",
            )
    for column in tree.find_all(exp.Column):
        check_column(column.sql(dialect="duckdb", identify=False), where=where, columns=columns)


def check_column(name: str, *, where: str, columns: Collection[str]) -> None:
    """Hold a column name against the columns that are declared; like DuckDB, without regard to case.

    Raises:
        UnknownNameError: no such column.
    """
    if name.strip('"').lower() not in {column.lower() for column in columns}:
        raise UnknownNameError(where=where, kind="column", name=name, known=columns)


def columns_named(expression: str) -> set[str]:
    """Names of the columns that a declared expression reads.

    >>> sorted(columns_named("dep_delay + taxi_out"))
    ['dep_delay', 'taxi_out']
    """
    tree = _parsed(expression)
    return {column.name for column in tree.find_all(exp.Column)} if tree is not None else set()


@cache
def _parsed(expression: str) -> exp.Expression | None:
    """The tree of an expression, or None if it is not exactly one (a list, a statement, an alias)."""
    try:
        statements = sqlglot.parse(_projection_sql(expression), dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return None
    query = statements[0] if len(statements) == 1 else None
    if not isinstance(query, exp.Select) or {name for name, part in query.args.items() if part} != {"expressions"}:
        return None
    (first, *others) = query.expressions
    if others or not isinstance(first, exp.Alias) or first.alias != "_value":
        return None
    tree: exp.Expression = first.this
    return tree


def _projection_sql(expression: str) -> str:
    return f"select {expression} as _value"


def _refusal(node: exp.Expr) -> str | None:
    """What of this part of an expression is refused, in words."""
    if isinstance(node, exp.Query | exp.Table):
        return "a subquery"
    if isinstance(node, exp.Star):
        return "a star"
    if isinstance(node, exp.Window):
        return "a window function"
    name = node.sql(dialect="duckdb").partition("(")[0].lower()
    if isinstance(node, exp.AggFunc):
        return f"the aggregate function {name}()"
    if not isinstance(node, exp.Func):
        return None
    if isinstance(node, exp.UDTF) or name in TABLE_FUNCTIONS or name.endswith("_scan"):
        return f"the table function {name}()"
    if name.startswith(FILE_FUNCTIONS):
        return f"the file function {name}()"
    return f"{name}(), which gives another answer at another time" if name in UNREPEATABLE else None
