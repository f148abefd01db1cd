"""Instants in SQLite, which has no type for them: texts, with a space or a T, with and without fraction or offset.

Compared as texts, midnight without a fraction lies before midnight, and a T after every hour of its day.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import DeclarationError
from mlops_assets.service.sources import Source, SqlTable

if TYPE_CHECKING:
    import sqlalchemy as sa

BATCH_ROWS = 50_000
Read = Callable[[datetime, datetime], Iterator[Sequence[Sequence[Any]]]]
SECOND = "%Y-%m-%d %H:%M:%S"
NEAR = timedelta(seconds=2)
"""More than SQLite rounds by."""


def instant_of(text: object) -> object:
    """The instant that a text names, in UTC and without a zone; anything else stays what it is.

    >>> instant_of("2024-03-05T01:00:00+01:00")
    datetime.datetime(2024, 3, 5, 0, 0)
    >>> instant_of("soon")
    'soon'
    """
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else text
    except ValueError:
        return text
    return found.astimezone(UTC).replace(tzinfo=None) if isinstance(found, datetime) and found.tzinfo else found


def sqlite_reader(con: "sa.Connection", found: "sa.Table", source: Source, table: SqlTable, *, where: str) -> Read:
    """``read(start, end)``: the rows that became available in between, in batches.

    The database leaves out other days by the first letters of the text (an index helps) and other hours to the
    second; the rest is told from the instant itself.

    Raises:
        DeclarationError: a row whose ``available_at`` is no instant would belong to no day.
    """
    import sqlalchemy as sa

    kept = [found.columns[table.column(declared)] for declared in source.columns]
    times = [place for place, column in enumerate(kept) if isinstance(column.type, sa.DateTime)]
    columns = [sa.type_coerce(column, sa.Text) if place in times else column for place, column in enumerate(kept)]
    named = table.column(source.available_at)
    at = sa.type_coerce(found.columns[named], sa.Text)
    second = sa.func.strftime(SECOND, at)
    key = [found.columns[table.column(declared)] for declared in source.key]
    place = list(source.columns).index(source.available_at)
    is_no_instant = at.is_not(None) & ((sa.func.typeof(at) != "text") | second.is_(None))
    if odd := con.execute(sa.select(at).where(is_no_instant).limit(1)).first():
        raise DeclarationError(
            f"{where} > '{named}'", f"one row says {odd[0]!r}, which is no instant, so it belongs to no day.",
            "Write 2024-03-05 12:00:00, in UTC or with an offset, or name a view that does.",
        )  # fmt: skip

    def read(start: datetime, end: datetime) -> Iterator[Sequence[Sequence[Any]]]:
        days = [(start - timedelta(days=1)).date().isoformat(), (end + timedelta(days=2)).date().isoformat()]
        first, last = (start - NEAR).strftime(SECOND), (end + NEAR).strftime(SECOND)
        asked = sa.select(*columns).where(at >= days[0], at < days[1], second.between(first, last)).order_by(at, *key)
        streaming = con.execution_options(stream_results=True, yield_per=BATCH_ROWS)
        for batch in streaming.execute(asked).partitions(BATCH_ROWS):
            told = [[instant_of(v) if n in times else v for n, v in enumerate(row)] for row in batch]
            if inside := [row for row in told if start <= midnight_of(row[place]) < end]:
                yield inside

    return read


def midnight_of(day: Any) -> datetime:
    """The instant itself; of a mere date its first one."""
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)
