"""What a table is: its columns with type and meaning, its grain, its key, its one writer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: DuckDB type, meaning, and whether a rerun reproduces it (content) or not (observed)."""

    name: str
    type: str
    meaning: str
    content: bool = True


@dataclass(frozen=True)
class Table:
    """One table. ``is_open``: declared features stand as further columns beside the ones named here."""

    name: str
    loop: str
    grain: str
    key: tuple[str, ...]
    writer: str
    columns: tuple[Column, ...]
    is_open: bool = False
    is_shared: bool = False

    @property
    def content(self) -> tuple[str, ...]:
        """Names of the named content columns."""
        return tuple(column.name for column in self.columns if column.content)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the columns that belong to one run."""
        return tuple(column.name for column in self.columns if not column.content)

    def create_sql(self, name: str | None = None) -> str:
        """SQL that creates an empty in-memory table of this shape."""
        columns = ", ".join(f'"{column.name}" {column.type}' for column in self.columns)
        return f'create or replace temp table "{name or self.name}" ({columns})'


def columns(*rows: tuple[str, str, str] | tuple[str, str, str, bool]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


DAY = ("day", "DATE", "business day the row belongs to; the partition")

SOURCE_COLUMNS = columns(
    ("day", "DATE", "arrival day A of the file"),
    ("generation", "INTEGER", "1 for the first delivery of the file, then counting"),
    ("source_key", "VARCHAR", "the declared key as one text"),
    ("withdrawn", "BOOLEAN", "true: this generation no longer has the row of this key"),
)
"""Columns that the landing zone adds in front of the declared columns of every source."""
