"""A table is opened once, and still says what anybody has written to it since."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from mlops_assets.adapters.engine import open_engine, open_own_engine, rows, run
from mlops_assets.adapters.lake import CHECKPOINT_COMMITS, Lake
from mlops_assets.adapters.people_sql import sandbox_sql
from mlops_assets.tables import Column

COLUMNS = (Column("day", "DATE", ""), Column("n", "BIGINT", ""))
MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)


def write(lake: Lake, day: date, n: int) -> None:
    given = pa.table({"day": pa.array([day], pa.date32()), "n": pa.array([n], pa.int64())})
    lake.replace_days("visits", [day], given, {})


def read(lake: Lake, version: int | None = None) -> list[tuple[date, int]]:
    with open_engine() as con:
        lake.view(con, "visits", COLUMNS, version=version)
        return [(day, n) for day, n in rows(con, "select day, n from visits order by day")]


def test_an_open_table_shows_what_another_writer_committed_meanwhile(tmp_path: Path) -> None:
    mine, theirs = Lake(tmp_path, "shop"), Lake(tmp_path, "shop")
    write(mine, MONDAY, 1)
    assert read(mine) == read(theirs) == [(MONDAY, 1)]
    write(theirs, TUESDAY, 2)
    assert read(mine) == [(MONDAY, 1), (TUESDAY, 2)]
    write(mine, MONDAY, 3)
    assert read(theirs) == [(MONDAY, 3), (TUESDAY, 2)]
    assert mine.versions() == theirs.versions() == {"visits": 2}


def test_a_table_that_was_not_there_when_it_was_first_asked_for_is_found_later(tmp_path: Path) -> None:
    mine, theirs = Lake(tmp_path, "shop"), Lake(tmp_path, "shop")
    assert read(mine) == [] and mine.version("visits") is None and mine.versions() == {}
    write(theirs, MONDAY, 1)
    assert read(mine) == [(MONDAY, 1)] and mine.version("visits") == 0


def test_a_pinned_version_says_what_it_said_while_the_table_goes_on(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "shop")
    for n in range(CHECKPOINT_COMMITS + 3):  # the log is summed up on the way
        write(lake, MONDAY, n)
    assert [read(lake, version=v) for v in (0, 7, CHECKPOINT_COMMITS + 1)] == [
        [(MONDAY, 0)],
        [(MONDAY, 7)],
        [(MONDAY, CHECKPOINT_COMMITS + 1)],
    ]
    assert read(lake) == [(MONDAY, CHECKPOINT_COMMITS + 2)], "looking back does not move what is newest"


def test_a_view_holds_the_days_from_first_to_last_both_included(tmp_path: Path) -> None:
    lake, days = Lake(tmp_path, "shop"), [date(2024, 2, 28) + timedelta(days=n) for n in range(5)]
    for n, day in enumerate(days):
        write(lake, day, n)
    assert [len(lake.files("visits", None, day, day)) for day in days] == [1] * 5
    for first, last in ((0, 2), (1, 1), (3, 4), (2, 1)):
        with open_engine() as con:
            lake.view(con, "visits", COLUMNS, first=days[first], last=days[last])
            found = [n for (n,) in rows(con, "select n from visits order by n")]
        assert found == list(range(first, last + 1))
    assert len(lake.files("visits", None, None, days[1])) == 2 and len(lake.files("visits", None, days[3], None)) == 2


def test_a_person_s_question_shuts_off_its_own_engine_and_no_other(tmp_path: Path) -> None:
    """What a person may not do, the run that goes on in the same process still may."""
    lake = Lake(tmp_path, "shop")
    write(lake, MONDAY, 1)
    with open_own_engine() as con:
        for statement in sandbox_sql(str(tmp_path / "elsewhere")):
            run(con, statement)
        with pytest.raises(duckdb.PermissionException):
            rows(con, f"select * from read_parquet('{lake.files('visits', None, None, None)[0]}')")
    assert read(lake) == [(MONDAY, 1)]


def test_a_table_that_was_replaced_by_another_one_is_opened_anew(tmp_path: Path) -> None:
    lake, other = Lake(tmp_path / "a", "shop"), Lake(tmp_path / "b", "shop")
    for n in range(3):
        write(lake, MONDAY, n)
    write(other, TUESDAY, 9)
    shutil.rmtree(lake.path("visits"))
    shutil.copytree(other.path("visits"), lake.path("visits"))
    assert read(lake) == [(TUESDAY, 9)] and lake.version("visits") == 0


def test_a_log_that_was_cleaned_up_behind_our_back_is_read_from_its_summary(tmp_path: Path) -> None:
    mine, theirs = Lake(tmp_path, "shop"), Lake(tmp_path, "shop")
    write(mine, MONDAY, 0)
    for n in range(1, CHECKPOINT_COMMITS + 2):
        write(theirs, MONDAY, n)
    for entry in sorted((mine.path("visits") / "_delta_log").glob("*.json"))[:CHECKPOINT_COMMITS]:
        entry.unlink()
    assert read(mine) == [(MONDAY, CHECKPOINT_COMMITS + 1)]
