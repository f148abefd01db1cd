"""Three weeks of flights with a bad file nearly every day, through the command line: told by name, and repairable.

One replay meets every fault, in Parquet and in files of text, each on a day of its own; the files are repaired, one
redo follows, and the home is compared with one in which nothing was ever wrong.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flight_stories import asked, home_at, mlops
from states import state

from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays.service import flight_delays

pytestmark = pytest.mark.slow

SOURCES = ("schedule", "departures", "arrivals", "weather", "planes")
FIRST, LAST = date(2012, 12, 31), date(2013, 1, 20)
Spoil = Callable[[Path], None]


def rewritten(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def missing(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    rewritten(path, lambda rows: rows.iloc[:0])


def text_for_a_number(path: Path) -> None:
    rewritten(path, lambda rows: rows.assign(arr_delay=rows["arr_delay"].astype(str) + " min"))


def delivered_twice(path: Path) -> None:
    rewritten(path, lambda rows: pd.concat([rows, rows]))


def rows_of_tomorrow(path: Path) -> None:
    def moved(rows: pd.DataFrame) -> pd.DataFrame:
        later = rows.sample(frac=0.1, random_state=0).index
        rows.loc[later, "available_at"] += timedelta(days=1)
        return rows

    rewritten(path, moved)


def ten_times_the_volume(path: Path) -> None:
    def copies(rows: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([rows.assign(request_id=rows["request_id"] + f"-{n}") for n in range(10)])

    rewritten(path, copies)


def renamed(path: Path) -> None:
    rewritten(path, lambda rows: rows.rename(columns={"dep_delay": "departure_delay"}))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def text_written_for_a_number(path: Path) -> None:
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[0, "dep_delay"] = "late"
    rows.to_csv(path, index=False)


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 7])


def without_a_byte(path: Path) -> None:
    path.write_bytes(b"")


def lines_twice(path: Path) -> None:
    header, *lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join([header, *lines, *lines])))


def renamed_key(path: Path) -> None:
    path.write_text(path.read_text().replace('"dep_delay"', '"departure_delay"'))


def beside_another(path: Path) -> None:
    pd.read_parquet(path).to_csv(path.with_suffix(".csv"), index=False)


@dataclass(frozen=True)
class Fault:
    """A bad file, the day that it costs (None: none), and the words that name column and fix."""

    source: str
    day: date
    spoil: Spoil
    blocks: date | None
    words: tuple[str, ...]
    suffix: str = ".parquet"

    @property
    def name(self) -> str:
        return self.spoil.__name__ + ("" if self.suffix == ".parquet" else self.suffix)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("arrivals", date(2013, 1, 2), missing, None, ("Deliver it; it counts from the first unclosed day on.",)),
        Fault("schedule", date(2013, 1, 3), empty, date(2013, 1, 4), ("the file is empty", "Deliver the day again")),
        Fault("arrivals", date(2013, 1, 5), text_for_a_number, date(2013, 1, 5),
              ("column 'arr_delay'", "declared DOUBLE", "Deliver it with the declared type.")),
        Fault("departures", date(2013, 1, 6), delivered_twice, date(2013, 1, 6),
              ("column(s) request_id", "repeat a key", "Deliver every row once.")),
        Fault("weather", date(2013, 1, 7), rows_of_tomorrow, date(2013, 1, 7),
              ("column 'available_at'", "7 of 72 rows", "Put each row into the file of the day")),
        Fault("departures", date(2013, 1, 8), ten_times_the_volume, date(2013, 1, 8),
              ("table row count", '"max_value": 1400', "Correct and deliver again.")),
        Fault("departures", date(2013, 1, 9), renamed, date(2013, 1, 9),
              ("column 'dep_delay' is missing", "'departure_delay' instead: was it renamed?")),
        Fault("arrivals", date(2013, 1, 10), truncated, date(2013, 1, 10),
              ("cannot be read as Parquet", "Deliver it again, whole.")),
        Fault("departures", date(2013, 1, 12), text_written_for_a_number, date(2013, 1, 12),
              ("column 'dep_delay' holds 'late'", "declared DOUBLE", "Deliver the file with the declared columns"),
              ".csv"),
        Fault("arrivals", date(2013, 1, 13), cut_off, date(2013, 1, 13),
              ("the file cannot be read", "Deliver it again, whole."), ".csv.gz"),
        Fault("departures", date(2013, 1, 14), cut_off, date(2013, 1, 14),
              ("is not a JSON object: was the file cut off?", "Deliver it again, whole."), ".jsonl"),
        Fault("schedule", date(2013, 1, 15), without_a_byte, date(2013, 1, 16),
              ("the file is empty", "Deliver the day again"), ".csv"),
        Fault("departures", date(2013, 1, 17), lines_twice, date(2013, 1, 17),
              ("column(s) request_id", "repeat a key", "Deliver every row once."), ".csv.gz"),
        Fault("departures", date(2013, 1, 18), renamed_key, date(2013, 1, 18),
              ("column 'dep_delay' is missing", "'departure_delay' instead: was it renamed?"), ".jsonl"),
        Fault("weather", date(2013, 1, 19), beside_another, date(2013, 1, 19),
              ("both 2013-01-19.csv and 2013-01-19.parquet lie in", "Keep one of them.")),
    )
}  # fmt: skip
AS_TEXT = {"schedule": ".csv", "departures": ".csv.gz", "arrivals": ".jsonl", "weather": ".csv"}
TEXT_DAY = date(2013, 1, 11)


def write_text_files(landing: Path) -> None:
    """Every source of one day, and the days of faults in text, in another format, with the same rows."""
    for source, suffix in AS_TEXT.items():
        as_text(landing / source / f"{TEXT_DAY}.parquet", suffix)
    for fault in FAULTS.values():
        if fault.suffix != ".parquet":
            as_text(landing / fault.source / f"{fault.day}.parquet", fault.suffix)


def as_text(path: Path, suffix: str) -> None:
    """The same bytes whenever it is written: a packed file knows when it was packed."""
    rows, text = pd.read_parquet(path), path.with_name(path.stem + suffix)
    if suffix == ".jsonl":
        times = {name: rows[name].astype(str) for name in rows.columns if name.endswith("_at")}
        rows.assign(**times).to_json(text, orient="records", lines=True)
    else:
        packed: Any = {"method": "gzip", "mtime": 1} if suffix.endswith(".gz") else None
        rows.to_csv(text, index=False, compression=packed)
    path.unlink()


def deliver(landing: Path, to: Path) -> None:
    """The files of these weeks, some as text, as somebody else would put them there."""
    for source in SOURCES:
        (to / source).mkdir(parents=True, exist_ok=True)
        for path in (landing / source).glob("*.parquet"):
            if FIRST <= date.fromisoformat(path.stem) <= LAST:
                shutil.copy(path, to / source / path.name)
    write_text_files(to)


@dataclass(frozen=True)
class Story:
    """What the command line said and showed of the broken weeks."""

    home: Path
    said: str
    states: dict[str, str]
    contracts: list[dict[str, Any]]
    predictions: dict[str, int]
    sizes: dict[Path, int]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, landing: Path) -> Story:
    home = tmp_path_factory.mktemp("bad") / "home"
    deliver(landing, home / "landing")
    for fault in FAULTS.values():
        fault.spoil(home / "landing" / fault.source / f"{fault.day}{fault.suffix}")
    sizes = {path: path.stat().st_size for path in (home / "landing").rglob("*.*")}
    said = mlops(home, "replay", "flight_delays", "--to", str(LAST))
    (answer,) = asked(
        home,
        "select (select map_from_entries(list((day::varchar, state))) from flight_delays.closings) as states, "
        "(select map_from_entries(list((day::varchar, n))) from (select day, count(*) as n "
        "from flight_delays.predictions where served group by day)) as predictions",
    )
    contracts = asked(home, "select day, source, outcome, message from flight_delays.contracts where not success")
    return Story(home, said, answer["states"], contracts, answer["predictions"], sizes)


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_file_of_flights_is_named_with_its_fix_and_costs_only_the_day_it_feeds(broken: Story, name: str):
    fault = FAULTS[name]
    found = [row for row in broken.contracts if (row["source"], row["day"]) == (fault.source, str(fault.day))]
    assert {row["outcome"] for row in found} == {"missing" if fault.blocks is None else "rejected"}
    messages = [row["message"] for row in found if all(word in row["message"] for word in fault.words)]
    assert len(messages) == 1, found
    assert messages[0].startswith(f"source '{fault.source}', day {fault.day}")
    if fault.blocks is not None:
        told = [line for line in broken.said.splitlines() if line.startswith(f"{fault.blocks}  blocked: ")]
        assert len(told) == 1 and f"source '{fault.source}', day {fault.day}" in told[0], "said when it happens"


def test_every_other_day_is_predicted(broken: Story):
    lost = {str(fault.blocks) for fault in FAULTS.values() if fault.blocks}
    assert {day for day, state in broken.states.items() if state == "blocked"} == lost
    asked_for = {str(date(2013, 1, 1) + timedelta(days=n)) for n in range((LAST - FIRST).days)}
    assert set(broken.predictions) == asked_for - lost


def test_files_of_text_are_read_like_parquet_files(broken: Story):
    assert broken.states[str(TEXT_DAY)] == "computed"
    assert not [row for row in broken.contracts if row["day"] == str(TEXT_DAY)]


def test_what_was_delivered_stays_where_it_lies(broken: Story):
    assert {path: path.stat().st_size for path in (broken.home / "landing").rglob("*.*")} == broken.sizes


def test_after_repair_and_redo_nothing_tells_that_the_files_were_ever_bad(broken: Story, landing: Path, tmp_path: Path):
    repaired, clean = tmp_path / "repaired", tmp_path / "clean"
    deliver(landing, clean / "landing")
    shutil.copytree(broken.home, repaired)
    for fault in FAULTS.values():
        for path in (repaired / "landing" / fault.source).glob(f"{fault.day}.*"):
            path.unlink()
        name = f"{fault.source}/{fault.day}{fault.suffix}"
        shutil.copy(clean / "landing" / name, repaired / "landing" / name)
    said = mlops(repaired, "replay", "flight_delays", "--redo-from", "2013-01-02", "--by", "Ana Rivera")
    assert f"closed through {LAST}" in said
    mlops(clean, "replay", "flight_delays", "--to", str(LAST))
    one, other = (World(flight_delays, home_at(folder)) for folder in (repaired, clean))
    assert {row["state"] for row in one.ledger.closings(one.name).values()} == {"computed"}
    assert_same_tables(one, other)


def assert_same_tables(one: World, other: World) -> None:
    tables, others = state(one)[0], state(other)[0]
    for name in tables:
        pd.testing.assert_frame_equal(tables[name], others[name], check_exact=True, obj=name)
