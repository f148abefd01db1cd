"""Measure: the profiles of columns with numbers, in one pass over their rows.

Rows come from the engine in batches and go through in pieces of one subject and day that stay in the processor's cache:
a third of the CPU of aggregates in SQL (``benchmarks/profiles.py``). The engine only counts distinct values, from the
same batches. Sums are sums of whole numbers, exact in any order and in any company.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlops_assets.adapters.engine import counting_engine, literal, on_days_sql, quote, run, slices_sql
from mlops_assets.monitoring_loop.bins import Bins

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
LARGE = 1e9
"""From here on the square of a value is summed in whole units, not in trillionths."""
LARGEST = 1e15
"""A value beyond counts as this one."""
BATCH = 16_384
PIECE = 8192
PART = 40
"""Sums of whole numbers that a double may not hold are taken apart every so many bits."""
CELLS = 4096
SEVERAL = 1 << 20
"""Added to the bin of a cell that has several edges."""


class Histogram:
    """Counts values between edges, each edge included in the bin below it.

    A value is looked up in a table of equal cells and compared with the edge in its cell; only where a cell has
    several edges it is searched for.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = np.array(edges)
        self.low = self.edges[0]
        self.per_unit = CELLS / ((self.edges[-1] - self.low) or 1.0)
        cell = self.cells(self.edges)
        first = np.searchsorted(cell, np.arange(CELLS + 1))
        self.edge = np.append(self.edges, np.inf)[first]
        self.first = first + SEVERAL * (np.bincount(cell, minlength=CELLS + 1) > 1)

    def cells(self, values: Array) -> Ints:
        """The cell of each value; the first and the last one are open."""
        place = values - self.low
        place *= self.per_unit
        np.clip(place, 0, CELLS, out=place)
        cells: Ints = place.astype(np.int64)
        return cells

    def counts(self, values: Array) -> Ints:
        """Values in each bin, the open end last."""
        cell = self.cells(values)
        bins = self.first[cell]
        bins += values > self.edge[cell]
        if bins.max() >= SEVERAL:
            searched = np.flatnonzero(bins >= SEVERAL)
            bins[searched] = np.searchsorted(self.edges, values[searched])
        counts: Ints = np.bincount(bins, minlength=len(self.edges) + 1).astype(np.int64)
        return counts


@dataclass
class Sums:
    """What is known of one column on one day: exact sums in billionths, trillionths and, of large values, in units."""

    n: int = 0
    total: int = 0
    squares: int = 0
    large_squares: int = 0
    low: float = np.inf
    high: float = -np.inf
    counts: Ints | None = None

    def add(self, values: Array, histogram: Histogram | None) -> None:
        """Add some values."""
        self.n += len(values)
        low, high = float(values.min()), float(values.max())
        self.low, self.high, largest = min(self.low, low), max(self.high, high), max(-low, high)
        self.total += whole_sum(np.rint(values * 1e9), largest * 1e9)
        if largest >= LARGE:
            is_large = np.abs(values) >= LARGE
            self.large_squares += whole_sum(np.rint(values[is_large] ** 2), largest * largest)
            values_squared = values[~is_large] * values[~is_large]
        else:
            values_squared = values * values
        values_squared *= 1e12
        self.squares += whole_sum(np.rint(values_squared, out=values_squared), min(largest, LARGE) ** 2 * 1e12)
        if histogram is not None:
            found = histogram.counts(values)
            self.counts = found if self.counts is None else self.counts + found


def whole_sum(values: Array, largest: float) -> int:
    """The exact sum of whole numbers, none of which is further from zero than ``largest``.

    >>> whole_sum(np.array([1e24, 3.0, -1e24]), 1e24)
    3
    """
    if (largest + 1) * max(len(values), 1) < 2.0**53:
        return int(values.sum())
    upper = np.floor(values * 2.0**-PART)
    rest = values - upper * 2.0**PART
    return (whole_sum(upper, largest * 2.0**-PART) << PART) + int(rest.sum())


@dataclass
class Measured:
    """The sums of all columns by day and subject, gathered while batches go by."""

    names: Sequence[str]
    histograms: Sequence[Histogram | None]
    rows: dict[tuple[date, str | None], int] = field(default_factory=dict)
    sums: dict[tuple[date, str | None], list[Sums]] = field(default_factory=dict)

    def watch(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        """Measure each batch and pass it on, cleaned."""
        for batch in batches:
            columns = [cleaned(batch.column(name).to_numpy(zero_copy_only=False)) for name in self.names]
            self.measure(batch, columns)
            numbers = (pa.array(values, from_pandas=not is_whole) for values, is_whole in columns)
            arrays = [batch.column("day"), batch.column("subject"), *numbers]
            yield pa.RecordBatch.from_arrays(arrays, names=["day", "subject", *self.names])

    def measure(self, batch: pa.RecordBatch, columns: Sequence[tuple[Array, bool]]) -> None:
        """Add the rows of a batch."""
        order, starts = segments(batch)
        for start, end in zip(starts, np.append(starts[1:], len(batch)), strict=True):
            first = int(start if order is None else order[start])
            key = batch.column("day")[first].as_py(), batch.column("subject")[first].as_py()
            self.rows[key] = self.rows.get(key, 0) + int(end - start)
            sums = self.sums.setdefault(key, [Sums() for _ in self.names])
            for begin in range(start, end, PIECE):
                at: Any = slice(begin, min(begin + PIECE, end))
                at = at if order is None else order[at]
                for (column, is_whole), of_column, histogram in zip(columns, sums, self.histograms, strict=True):
                    values = column[at] if is_whole else known(column[at])
                    if len(values):
                        of_column.add(values, histogram)


def segments(batch: pa.RecordBatch) -> tuple[Ints | None, Ints]:
    """An order in which the rows of one day and subject stand together (None: they do), and where each begins."""
    key = batch.column("day").cast(pa.int32()).to_numpy().astype(np.int64) * (1 << 20)
    subject = batch.column("subject")
    if subject.null_count or not pc.all(pc.equal(subject, subject[0])).as_py():
        place = subject.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        key += np.nan_to_num(place, nan=-1).astype(np.int64)
    order = None
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key = key[order]
    return order, np.flatnonzero(np.append(True, key[1:] != key[:-1]))


def known(values: Array) -> Array:
    """The values that are numbers."""
    return values[~np.isnan(values)]


def cleaned(values: Array) -> tuple[Array, bool]:
    """Finite values within bounds, without a negative zero, and whether that is all; others are not a number: null."""
    low, high = values.min(initial=0.0), values.max(initial=0.0)
    if low >= -LARGEST and high <= LARGEST:
        return values + 0.0, True
    found = np.clip(values, -LARGEST, LARGEST) + 0.0
    found[~np.isfinite(values)] = np.nan
    return found, False


def insert_numbers(
    con: duckdb.DuckDBPyConnection,
    into: str,
    source: str,
    subject: str,
    columns: dict[str, Bins | None],
    days: Sequence[date],
    slices: Sequence[str],
) -> None:
    """Insert the profiles of columns with numbers (and the bins of each) on some days, of all rows or by slices."""
    names = list(columns)
    measured = Measured(names, [Histogram(bins.edges) if bins else None for bins in columns.values()])
    batches = con.sql(numbers_sql(source, subject, names, days, slices)).to_arrow_reader(BATCH)
    with counting_engine() as counting:
        counting.register("passing", pa.RecordBatchReader.from_batches(batches.schema, measured.watch(batches)))
        counted = counting.sql(distinct_sql(names)).fetchall()
        counting.unregister("passing")
    distinct = {(day, of): dict(zip(names, found, strict=True)) for day, of, *found in counted}
    rows = [
        row_of(key, name, bins, measured.rows[key], sums, distinct[key][name])
        for key, of_columns in measured.sums.items()
        for (name, bins), sums in zip(columns.items(), of_columns, strict=True)
    ]
    if rows:
        con.register("profiled_numbers", pa.Table.from_pylist(rows, schema=SCHEMA))
        run(con, insert_numbers_sql(into, is_sliced=bool(slices)))
        con.unregister("profiled_numbers")


SCHEMA = pa.schema(
    [
        ("day", pa.date32()), ("subject", pa.string()), ("column_name", pa.string()), ("n", pa.int64()),
        ("nulls", pa.int64()), ("total", pa.string()), ("squares", pa.string()), ("large_squares", pa.string()),
        ("low", pa.float64()), ("high", pa.float64()), ("distinct_values", pa.int64()), ("is_constant", pa.bool_()),
        ("bins", pa.string()), ("counts", pa.list_(pa.int64())), ("edges", pa.list_(pa.float64())),
    ]
)  # fmt: skip


def row_of(
    key: tuple[date, str | None], name: str, bins: Bins | None, n: int, sums: Sums, distinct: int
) -> dict[str, Any]:
    """One profile; whole numbers as texts, of which the engine makes doubles."""
    row: dict[str, Any] = {"day": key[0], "subject": key[1], "column_name": name, "n": n, "nulls": n - sums.n}
    row |= {"distinct_values": distinct, "is_constant": sums.n > 0 and sums.low == sums.high}
    if sums.n:
        row |= {"total": str(sums.total), "squares": str(sums.squares), "large_squares": str(sums.large_squares)}
        row |= {"low": sums.low, "high": sums.high}
    if bins is not None:
        counts = [0] * (len(bins.edges) + 1) if sums.counts is None else sums.counts.tolist()
        row |= {"bins": bins.version, "counts": counts, "edges": list(bins.edges)}
    return row


BETWEEN = "chr(31)"
"""SQL of what stands between a subject and a slice while both are one text."""


def numbers_sql(source: str, subject: str, names: Sequence[str], days: Sequence[date], slices: Sequence[str]) -> str:
    """SQL of the rows to be profiled: day, subject (with slices: a row in each of its own) and numbers as doubles."""
    numbers = "".join(f", {quote(name)}::double as {quote(name)}" for name in names)
    if not slices:
        return f"select day, {quote(subject)} as subject{numbers} from {source} where {on_days_sql(days)}"
    return f"""
        select * exclude (slice) replace (subject || {BETWEEN} || slice as subject)
        from (
            select day, {quote(subject)} as subject, unnest({slices_sql(slices)}[2:]) as slice{numbers}
            from {source} where {on_days_sql(days)}
        )
    """


def distinct_sql(names: Sequence[str]) -> str:
    """SQL of about how many values each column has, by day and subject."""
    counts = "".join(f", approx_count_distinct({quote(name)})::bigint" for name in names)
    return f"select day, subject{counts} from passing group by day, subject"


def insert_numbers_sql(into: str, *, is_sliced: bool) -> str:
    """SQL that inserts the rows of ``profiled_numbers``; of slices without the edges, which the row of all has."""
    kept, part = "", literal("all")
    if is_sliced:
        kept = f"replace (split_part(subject, {BETWEEN}, 1) as subject, null::double[] as edges)"
        part = f"split_part(subject, {BETWEEN}, 2)"
    return f"""
        insert into {quote(into)} by name
        select * exclude (total, squares, large_squares) {kept}, {part} as slice,
               total::hugeint::double / 1e9 as total,
               squares::hugeint::double / 1e12 + large_squares::hugeint::double as squares,
               case when profiled.edges is not null then counts[1] + counts[-1] end as out_of_range
        from profiled_numbers as profiled
    """
