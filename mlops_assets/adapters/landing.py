"""The landing zone: where other people put files, one per source and arrival day."""

import hashlib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.adapters.engine import literal, quote, run
from mlops_assets.errors import ContractError
from mlops_assets.service.sources import Source

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl")


@dataclass(frozen=True)
class Delivery:
    """One file as it lies there now."""

    source: str
    day: date
    path: Path
    bytes: int
    modified_ns: int

    def fingerprint(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def deliveries(landing: Path, source: str, last: date) -> list[Delivery]:
    """Every file of a source up to an arrival day, oldest first; files with other names are not ours.

    Raises:
        ContractError: two files of different kinds claim the same day.
    """
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
        if day in found:
            raise ContractError(
                f"source '{source}', day {day}: both {found[day].path.name} and {path.name} lie in {folder}. "
                "Keep one of them."
            )
        stat = path.stat()
        found[day] = Delivery(source, day, path, stat.st_size, stat.st_mtime_ns)
    return [found[day] for day in sorted(found) if day <= last]


def _columns_sql(source: Source) -> str:
    return "{" + ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in source.columns.items()) + "}"


def read_delivery_sql(source: Source, delivery: Delivery) -> str:
    """SQL that reads one file with the declared types; a value of another type is an error, never a null."""
    path = literal(str(delivery.path))
    if delivery.path.suffix == ".parquet":
        return f"select * from read_parquet({path})"
    if delivery.path.suffix == ".jsonl":
        return f"select * from read_json({path}, format = 'newline_delimited', columns = {_columns_sql(source)})"
    return (
        f"select * from read_csv({path}, header = true, auto_detect = false, delim = ',', quote = '\"', "
        f"escape = '\"', nullstr = '', columns = {_columns_sql(source)}, strict_mode = true)"
    )


def insert_delivery_sql(source: Source, delivery: Delivery, into: str) -> str:
    """SQL that adds the rows of one file, with the declared columns and types, under its arrival day."""
    listed = ", ".join(f"{quote(name)}::{kind} as {quote(name)}" for name, kind in source.columns.items())
    return (
        f"insert into {quote(into)} by name select {literal(delivery.day)} as day, {listed} "
        f"from ({read_delivery_sql(source, delivery)})"
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


def _parquet_fault(source: Source, delivery: Delivery) -> str | None:
    """Why a Parquet file cannot be read as declared, or None."""
    try:
        schema = pq.read_schema(delivery.path)
    except pa.ArrowInvalid as error:
        return f"the file cannot be read as Parquet ({str(error).splitlines()[0][:120]}). Deliver it again, whole."
    missing = [name for name in source.columns if name not in schema.names]
    added = [name for name in schema.names if name not in source.columns]
    if missing:
        hint = f" The file has {', '.join(repr(n) for n in added)} instead: was it renamed?" if added else ""
        return f"column '{missing[0]}' is missing.{hint} Deliver the file with the declared columns."
    for name, kind in source.columns.items():
        found = schema.field(name).type
        if not _fits(found, kind):
            return f"column '{name}' is {found}, declared {kind}. Deliver it with the declared type."
    return None


def _fits(found: pa.DataType, declared: str) -> bool:
    """Whether every value of a stored type can be read as the declared one without loss or guessing."""
    types = pa.types
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
    """
    run(con, create_arrived_sql(source, into))
    parquet = [delivery for delivery in arrived if delivery.path.suffix == ".parquet"]
    checked = {delivery.day: _parquet_fault(source, delivery) for delivery in parquet}
    faults = {day: fault for day, fault in checked.items() if fault}
    sound = [delivery for delivery in parquet if delivery.day not in faults]
    alone = [delivery for delivery in arrived if delivery.path.suffix != ".parquet"]
    if sound:
        try:
            run(con, insert_parquet_files_sql(source, sound, into))
        except duckdb.Error:
            alone += sound
    for delivery in alone:
        try:
            run(con, insert_delivery_sql(source, delivery, into))
        except duckdb.Error as error:
            faults[delivery.day] = f"{_readable(error)} Deliver the file with the declared columns and types."
    return faults


def _readable(error: duckdb.Error) -> str:
    """The parts of a DuckDB message that name the line, the column and the value."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:4])[:300]
