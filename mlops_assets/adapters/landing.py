"""The landing zone: where other people put files, one per source and arrival day."""

import csv
import gzip
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.adapters.engine import literal, quote, rows, run
from mlops_assets.service.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl")


HIDDEN = b"mlops_assets.pseudonyms"
"""Key of the metadata of a Parquet file that names its columns that are pseudonyms already."""


def hidden_metadata(names: Sequence[str]) -> dict[bytes, bytes]:
    """Metadata that says which columns of a file are pseudonyms."""
    return {HIDDEN: json.dumps(sorted(names)).encode()}


@dataclass(frozen=True)
class Delivery:
    """One file as it lies there now; ``beside``: a second file that claims the same day, so that neither is read."""

    source: str
    day: date
    path: Path
    bytes: int
    modified_ns: int
    beside: Path | None = None

    def fingerprint(self) -> str:
        """SHA-256 of the bytes."""
        both = self.path.read_bytes() + (self.beside.read_bytes() if self.beside else b"")
        return hashlib.sha256(both).hexdigest()

    def hidden_columns(self) -> frozenset[str]:
        """Columns that are pseudonyms already; none in a file that was not written here, or that cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.path.suffix != ".parquet":
            return frozenset()
        try:
            told = (pq.read_schema(self.path).metadata or {}).get(HIDDEN, b"[]")
        except (pa.ArrowException, OSError):
            return frozenset()
        return frozenset(json.loads(told))


def deliveries(landing: Path, source: str, last: date) -> list[Delivery]:
    """Every file of a source up to an arrival day, oldest first; files with other names are not ours."""
    folder = landing / source
    found: dict[date, Delivery] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        stem, dot, suffix = path.name.partition(".")
        if f"{dot}{suffix}" not in SUFFIXES:
            continue
        try:
            day = date.fromisoformat(stem)
        except ValueError:
            continue
        stat = path.stat()
        if first := found.get(day):
            newest = max(first.modified_ns, stat.st_mtime_ns)
            found[day] = replace(first, bytes=first.bytes + stat.st_size, modified_ns=newest, beside=path)
        else:
            found[day] = Delivery(source, day, path, stat.st_size, stat.st_mtime_ns)
    return [found[day] for day in sorted(found) if day <= last]


READ_AS = {"TIMESTAMP": "TIMESTAMPTZ"}
"""Text with a UTC offset is brought to UTC; read as a plain TIMESTAMP it would lose the offset without a word."""


def _columns_sql(source: Source, names: Sequence[str]) -> str:
    """The type of each column of a file; one that is not declared is read as text, and left."""
    types = {name: source.columns.get(name, "VARCHAR") for name in names}
    return "{" + ", ".join(f"{literal(name)}: {literal(READ_AS.get(t.upper(), t))}" for name, t in types.items()) + "}"


def read_delivery_sql(source: Source, delivery: Delivery, header: Sequence[str]) -> str:
    """SQL that reads one file with the declared types; a value of another type is an error, never a null.

    ``header``: the columns as they stand in a CSV file, which DuckDB takes by place and not by name.
    """
    path = literal(str(delivery.path))
    if delivery.path.suffix == ".parquet":
        return f"select * from read_parquet({path})"
    if delivery.path.suffix == ".jsonl":
        columns = _columns_sql(source, list(source.columns))
        return f"select * from read_json({path}, format = 'newline_delimited', columns = {columns})"
    return (
        f"select * from read_csv({path}, header = true, auto_detect = false, delim = ',', quote = '\"', "
        f"escape = '\"', nullstr = '', columns = {_columns_sql(source, header)}, strict_mode = true)"
    )


def misfits_sql(source: Source, delivery: Delivery, header: Sequence[str]) -> str:
    """SQL of one row: per declared column of a text file, a value that is not of its type; null: all are."""
    as_text = source.model_copy(update={"columns": dict.fromkeys(source.columns, "VARCHAR")})
    listed = ", ".join(
        f"min({quote(name)}) filter (where try_cast({quote(name)} as {kind}) is null)"
        for name, kind in source.columns.items()
    )
    return f"select {listed} from ({read_delivery_sql(as_text, delivery, header)})"


def insert_delivery_sql(source: Source, delivery: Delivery, into: str, header: Sequence[str]) -> str:
    """SQL that adds the rows of one file, with the declared columns and types, under its arrival day."""
    listed = ", ".join(f"{quote(name)}::{kind} as {quote(name)}" for name, kind in source.columns.items())
    return (
        f"insert into {quote(into)} by name select {literal(delivery.day)} as day, {listed} "
        f"from ({read_delivery_sql(source, delivery, header)})"
    )


def insert_parquet_files_sql(source: Source, group: list[Delivery], into: str) -> str:
    """SQL that adds many Parquet files of one schema at once; the file name gives the arrival day."""
    paths = ", ".join(literal(str(delivery.path)) for delivery in group)
    listed = ", ".join(f"{quote(name)}::{kind} as {quote(name)}" for name, kind in source.columns.items())
    return (
        f"insert into {quote(into)} by name select parse_filename(filename, true)::date as day, {listed} "
        f"from read_parquet([{paths}], filename = true)"
    )


def create_arrived_sql(source: Source, into: str) -> str:
    """SQL of the empty temp table that deliveries are read into."""
    columns = ", ".join(f"{quote(name)} {kind}" for name, kind in source.columns.items())
    return f"create or replace temp table {quote(into)} (day DATE, {columns})"


def _parquet_types(source: Source, delivery: Delivery) -> "tuple[pa.DataType, ...] | str":
    """The stored types of the declared columns of a Parquet file, or why it cannot be read as declared."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(delivery.path)
    except (pa.ArrowException, OSError) as error:
        return f"the file cannot be read as Parquet ({str(error).splitlines()[0][:120]}). Deliver it again, whole."
    if fault := _column_fault(source, schema.names):
        return fault
    for name, kind in source.columns.items():
        found = schema.field(name).type
        if not _fits(found, kind):
            return f"column '{name}' is {found}, declared {kind}. Deliver it with the declared type."
    return tuple(schema.field(name).type for name in source.columns)


def _column_fault(source: Source, found: Sequence[str]) -> str | None:
    """What is wrong with the names of the columns of a file, or None; columns beside the declared ones are left."""
    missing = [name for name in source.columns if name not in found]
    added = [name for name in found if name not in source.columns]
    if not missing:
        return None
    hint = f" The file has {', '.join(repr(n) for n in added)} instead: was it renamed?" if added else ""
    return f"column '{missing[0]}' is missing.{hint} Deliver the file with the declared columns."


def _text_columns(delivery: Delivery) -> list[str]:
    """Names of the columns of a text file, in their order; none if the file is empty.

    DuckDB takes the columns of a CSV file by place, reads a JSON key that is not there as null, and passes over a
    line that was cut off: a renamed column or half a file would go unnoticed.

    Raises:
        ValueError: a line that is not JSON.
    """
    is_packed = delivery.path.suffix == ".gz"
    with gzip.open(delivery.path, "rt") if is_packed else delivery.path.open(newline="") as lines:
        if delivery.path.suffix != ".jsonl":
            return next(csv.reader(lines), [])
        names: dict[str, None] = {}
        for number, line in enumerate(lines, 1):
            try:
                names |= dict.fromkeys(json.loads(line) if line.strip() else ())
            except (ValueError, TypeError):
                raise ValueError(f"line {number} is not a JSON object: was the file cut off?") from None
        return list(names)


def _fits(found: "pa.DataType", declared: str) -> bool:
    """Whether every value of a stored type can be read as the declared one without loss or guessing."""
    from pyarrow import types

    if types.is_null(found):
        return True
    match declared.upper():
        case "VARCHAR":
            return bool(types.is_string(found) or types.is_large_string(found) or types.is_dictionary(found))
        case "DOUBLE":
            return bool(types.is_floating(found) or types.is_integer(found) or types.is_decimal(found))
        case "INTEGER" | "BIGINT":
            return bool(types.is_integer(found))
        case "BOOLEAN":
            return bool(types.is_boolean(found))
        case "DATE":
            return bool(types.is_date(found))
        case "TIMESTAMP":
            return bool(types.is_timestamp(found))
        case _:
            return True


def read_deliveries(
    con: duckdb.DuckDBPyConnection, source: Source, arrived: list[Delivery], into: str
) -> dict[date, str]:
    """Read files into temp table ``into`` (day + declared columns); returns day -> why a file is unusable.

    A structural fault (unreadable, a column missing or of another type) concerns one file; the others go on.
    Parquet files are read together only if their types are the same: DuckDB would cast to those of the first.
    """
    run(con, create_arrived_sql(source, into))
    faults: dict[date, str] = {}
    alike: dict[tuple[pa.DataType, ...], list[Delivery]] = defaultdict(list)
    alone: list[Delivery] = []
    for delivery in arrived:
        if delivery.beside:
            names = f"{delivery.path.name} and {delivery.beside.name}"
            faults[delivery.day] = f"both {names} lie in {delivery.path.parent}. Keep one of them."
        elif delivery.path.suffix != ".parquet":
            alone.append(delivery)
        elif isinstance(types := _parquet_types(source, delivery), str):
            faults[delivery.day] = types
        else:
            alike[types].append(delivery)
    for group in alike.values():
        try:
            run(con, insert_parquet_files_sql(source, group, into))
        except duckdb.Error:
            alone += group
    for delivery in alone:
        if fault := _read_alone(con, source, delivery, into):
            faults[delivery.day] = fault
    return faults


def _read_alone(con: duckdb.DuckDBPyConnection, source: Source, delivery: Delivery, into: str) -> str | None:
    """Read one file; returns why it is unusable."""
    header: list[str] = []
    try:
        if delivery.path.suffix != ".parquet":
            header = _text_columns(delivery)
            if not header:
                return None
            if fault := _column_fault(source, header):
                return fault
        run(con, insert_delivery_sql(source, delivery, into, header))
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        return f"the file cannot be read ({error}). Deliver it again, whole."
    except duckdb.IOException as error:  # a packed file that ends too early
        return f"the file cannot be read ({_readable(error, source)}). Deliver it again, whole."
    except duckdb.Error as error:
        why = _misfit(con, source, delivery, header) or _readable(error, source)
        return f"{why} Deliver the file with the declared columns and types."
    return None


def _misfit(con: duckdb.DuckDBPyConnection, source: Source, delivery: Delivery, header: Sequence[str]) -> str | None:
    """Which column of a text file holds what, if a value of another type is what is wrong with it."""
    try:
        [found] = rows(con, misfits_sql(source, delivery, header))
    except duckdb.Error:
        return None
    named = zip(source.columns.items(), found, strict=True)
    return next((f"column '{name}' holds '{value}', declared {kind}." for (name, kind), value in named if value), None)


def _readable(error: duckdb.Error, source: Source) -> str:
    """The parts of a DuckDB message that name line, column and value; where ids are hidden no whole line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if source.pseudonymise:
        lines = [line for line in lines if not line.startswith("Original Line")]
    return " ".join(lines[:4])[:300]
