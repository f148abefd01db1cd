"""A bill knows days and no predictions: what a version used of a day is its share of that day's predictions."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest
from toy_world import a_service

from mlops_assets import DailyBill, Expected, OperationsPolicy, Source, UnknownNameError
from mlops_assets.adapters.calendar import Calendar
from mlops_assets.adapters.engine import frame, open_engine, put, register_days
from mlops_assets.monitoring_loop.bill import allocate_bill
from mlops_assets.tables import BY_NAME

DAYS = [date(2024, 5, 1) + timedelta(days=number) for number in range(4)]
BILL = DailyBill(source="cloud", amount="euros")
SOURCE = Source(
    name="cloud", description="what the cloud asks for", contract="cloud", key=("line",), on_missing_day="go_stale",
    columns={"line": "VARCHAR", "euros": "DOUBLE", "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"},
    expected=Expected(first=DAYS[0]),
)  # fmt: skip


@pytest.fixture
def con():
    with open_engine() as engine:
        register_days(engine, Calendar("UTC"), DAYS[0], DAYS[-1])
        yield engine


def used(day: date, version: str, part: str, n: int) -> dict[str, object]:
    return {"day": day, "version": version, "slice": part, "n": n}


def operations(con, name: str, rows: list[dict[str, object]]) -> None:
    con.execute(BY_NAME["operations"].create_sql(name))
    if rows:
        put(con, "given_rows", pd.DataFrame(rows))
        con.execute(f"insert into {name} by name select * from given_rows")


def usage(day: date) -> list[dict[str, object]]:
    """300 answers of a champion, 100 of a shadow; a third of the answers to the south."""
    parts = [("champion", 300), ("shadow", 100), ("served", 300)]
    return [used(day, version, "all", n) for version, n in parts] + [used(day, "champion", "to=south", 100)]


def billed(con, lines: list[tuple[date, int, str, float, bool]], today: list[date]) -> pd.DataFrame:
    """Lines (arrival day, generation, line, euros, withdrawn) about the day before; every delivery is listed."""
    rows = pd.DataFrame(
        [
            {
                "day": day, "generation": number, "source_key": line, "line": line, "euros": euros,
                "withdrawn": gone, "event_at": pd.Timestamp(day) - pd.Timedelta(hours=12),
            }
            for day, number, line, euros, gone in lines
        ]
    )  # fmt: skip
    put(con, "stored", rows.astype({"event_at": "datetime64[us]"}))
    listed = rows[["day", "generation"]].drop_duplicates().assign(source="cloud")
    put(con, "listed", listed.assign(listed_on=listed["day"]))
    con.execute("create or replace temp table listed as select * replace (listed_on::date as listed_on) from listed")
    con.execute("create or replace temp table listed as select *, null::timestamp as start_at from listed")
    operations(con, "history", usage(DAYS[0]))
    operations(con, "operations", [row for day in today for row in usage(day)])
    allocate_bill(
        con, BILL, SOURCE, stored="stored", listed="listed", history="history", before=DAYS[1], operations="operations"
    )
    return frame(con, "select * from operations order by day, version, slice").set_index(["day", "version", "slice"])


def test_a_bill_is_shared_by_the_predictions_of_the_day_it_is_about(con):
    table = billed(con, [(DAYS[1], 1, "cpu", 30.0, False), (DAYS[1], 1, "disk", 10.0, False)], [DAYS[1]])
    shares = table.loc[pd.Timestamp(DAYS[1])]["billed"]
    assert shares["champion", "all"] == 30.0 and shares["shadow", "all"] == 10.0
    assert shares["champion", "to=south"] == 10.0 and shares["served", "all"] == 30.0
    assert table.loc[(pd.Timestamp(DAYS[1]), "served", "all"), "billed_per_1000"] == 100.0


def test_a_corrected_bill_adds_what_it_changes_and_a_withdrawn_line_gives_it_back(con):
    first = [(DAYS[1], 1, "cpu", 40.0, False), (DAYS[1], 1, "disk", 8.0, False)]
    again = [(DAYS[1], 2, "cpu", 44.0, False), (DAYS[1], 2, "disk", 8.0, True)]
    table = billed(con, [*first, *again], [DAYS[1]])
    assert table.loc[(pd.Timestamp(DAYS[1]), "champion", "all"), "billed"] == pytest.approx(0.75 * 44.0)


def test_a_block_shares_like_its_days_one_by_one_and_loses_no_row(con):
    lines = [(day, 1, "cpu", 12.0, False) for day in DAYS[1:3]]
    table = billed(con, lines, DAYS[1:3])
    assert len(table) == 8
    assert (table.loc[(slice(None), "champion", "all"), "billed"] == 9.0).all()


def test_a_bill_for_a_day_nobody_used_stands_there_for_nothing(con):
    table = billed(con, [(DAYS[3], 1, "cpu", 5.0, False)], [DAYS[1]])
    lost = table.loc[(pd.Timestamp(DAYS[3]), "served", "all")]
    assert (lost["billed"], lost["billed_n"], lost["n"]) == (5.0, 0, 0)


def test_a_bill_of_an_undeclared_source_is_refused():
    with pytest.raises(UnknownNameError, match="operations > bill: no source is named 'clouds'"):
        a_service(operations=OperationsPolicy(bill=DailyBill(source="clouds", amount="euros")))
