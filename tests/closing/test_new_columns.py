"""A table outlives the version of this package that began it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa

from mlops_assets.adapters.engine import open_engine
from mlops_assets.adapters.lake import Lake
from mlops_assets.tables import Column

NARROW = (Column("day", "DATE", ""), Column("score", "DOUBLE", ""))
WIDE = (*NARROW, Column("cost", "DOUBLE", ""))
OLD, NEW = date(2024, 3, 1), date(2024, 3, 2)


def test_a_table_begun_before_a_column_existed_takes_it_and_reads_null_before(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "shop")
    lake.replace_days("predictions", [OLD], pa.table({"day": [OLD], "score": [0.25]}), {})

    assert read(lake) == [(OLD, 0.25, None)]
    lake.replace_days("predictions", [NEW], pa.table({"day": [NEW], "score": [0.5], "cost": [0.01]}), {})
    assert read(lake) == [(OLD, 0.25, None), (NEW, 0.5, 0.01)]


def read(lake: Lake) -> list[tuple[object, ...]]:
    with open_engine() as con:
        lake.view(con, "predictions", WIDE)
        return con.sql("select day, score, cost from predictions order by day").fetchall()
