"""SQLite keeps an instant as a text, each writer in its own way; its day is that of the instant."""

from __future__ import annotations

import sqlite3
from datetime import date, datetime
from pathlib import Path

import pytest
from toy_log import answers

from mlops_assets import DeclarationError, SqlTable
from mlops_assets.adapters.sql_tables import open_table

DAY = datetime(2024, 3, 4, 23), datetime(2024, 3, 5, 23)
TOLD = (
    *("2024-03-04 22:59:59", "2024-03-04 23:00:00"),
    *("2024-03-05 10:00:00", "2024-03-05 22:59:59", "2024-03-05 23:00:00"),
)
TABLE = SqlTable(url_variable="LOANS_DB_URL", table="scores")
SOURCE = answers(
    columns={"line": "BIGINT", "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}, table=TABLE,
    expected={"first": date(2024, 3, 5)},
)  # fmt: skip


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sqlite3.Connection:
    monkeypatch.setenv("LOANS_DB_URL", f"sqlite:///{tmp_path / 'loans.db'}")
    con = sqlite3.connect(tmp_path / "loans.db", isolation_level=None)
    con.execute("create table scores (line bigint, event_at timestamp, available_at timestamp)")
    return con


WAYS = {
    "as SQLite itself writes it": "{0}",
    "with a fraction": "{0}.000000",
    "with a T": "{0}",
    "with an offset": "{0}+00:00",
    "in Zulu time": "{0}Z",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_rows_of_a_day_are_those_of_its_instants(way: str, db: sqlite3.Connection) -> None:
    for line, text in enumerate(TOLD):
        at = WAYS[way].format(text.replace(" ", "T") if way in ("with a T", "in Zulu time") else text)
        db.execute("insert into scores values (?, ?, ?)", (line, at, at))
    with open_table(SOURCE, TABLE) as reader:
        found = [row for batch in reader.read(*DAY) for row in batch]
    assert [row[0] for row in found] == [1, 2, 3]
    assert found[0][1:] == [datetime(2024, 3, 4, 23)] * 2


def test_a_row_that_would_belong_to_no_day_is_refused_by_name(db: sqlite3.Connection) -> None:
    db.execute("insert into scores values (1, '2024-03-05', 'yesterday')")
    with pytest.raises(DeclarationError) as refused, open_table(SOURCE, TABLE):
        pass
    assert str(refused.value) == (
        "source 'answers' > table 'scores' of $LOANS_DB_URL > 'available_at': one row says 'yesterday', which is no "
        "instant, so it belongs to no day. Write 2024-03-05 12:00:00, in UTC or with an offset, or name a view that "
        "does."
    )
