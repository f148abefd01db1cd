"""An instant that is written with its UTC offset is that instant, whatever clock wrote it."""

import gzip
from datetime import date, datetime
from pathlib import Path

import pytest
from toy_log import answers

from mlops_assets.adapters.engine import open_engine, rows
from mlops_assets.adapters.landing import deliveries, read_deliveries
from mlops_assets.service.sources import Source

DAY = date(2024, 3, 5)
WRITTEN = ("2024-03-05T01:30:00+01:00", "2024-03-04T19:30:00-0500", "2024-03-05T00:30:00Z", "2024-03-05 00:30:00")
"""Half past midnight in Greenwich, as four systems log it."""
SOURCE: Source = answers(
    columns={"line": "BIGINT", "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}, expected={"first": DAY}
)


def put_file(landing: Path, suffix: str) -> None:
    lines = [f"{n},{at},{at}" for n, at in enumerate(WRITTEN)]
    text = "\n".join(["line,event_at,available_at", *lines])
    if suffix == ".jsonl":
        text = "\n".join(f'{{"line": {n}, "event_at": "{at}", "available_at": "{at}"}}' for n, at in enumerate(WRITTEN))
    path = landing / SOURCE.name / f"{DAY}{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(text.encode()) if suffix == ".csv.gz" else text.encode())


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_a_text_file_may_write_its_instants_with_any_offset(suffix: str, tmp_path: Path) -> None:
    put_file(tmp_path, suffix)
    with open_engine() as con:
        assert read_deliveries(con, SOURCE, deliveries(tmp_path, SOURCE.name, DAY), "arrived") == {}
        found = rows(con, "select distinct event_at, available_at from arrived")
    assert found == [(datetime(2024, 3, 5, 0, 30), datetime(2024, 3, 5, 0, 30))]
