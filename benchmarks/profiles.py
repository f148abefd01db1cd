"""What do profiles cost? CPU seconds and peak memory of measuring a column once, beside reading raw rows every day.

Writes a seeded table of --rows rows (16 columns: 14 numbers, 2 texts) over 31 days and over 365 days into a temporary
folder, then runs each step in a process of its own:

- cheapest: the cheapest pass that reads every column (a sum per number, a count per text, by day);
- floor: the scan floor, one scan with count, lowest and highest of every column and the sum of every number, by day;
- raw: one SQL pass over 31 days of raw rows with what drift needs (mean, spread, nulls, range, histogram);
- profile 31 / 365: the profiles of the whole table in one pass, bins included;
- judge: one day's drift from the stored profiles of 31 days, reading them included;
- evidently: PSI of the newest day of a million rows against the rest, if --evidently names a Python that has it.

    python benchmarks/profiles.py
    python benchmarks/profiles.py --rows 1000000 --evidently /path/to/an/environment/bin/python
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb

from mlops_assets.adapters.engine import frame, open_engine, quote, run
from mlops_assets.monitoring_loop.bins import learn_bins
from mlops_assets.monitoring_loop.drift import Limits, find_drift, series_from_profiles
from mlops_assets.monitoring_loop.profiles import FrozenBins, profile_features
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME

FIRST = date(2024, 1, 1)
NUMBERS = [f"number_{place:02d}" for place in range(14)]
TEXTS = ["text_few", "text_many"]
EVIDENTLY_ROWS = 1_000_000

EVIDENTLY = """
import json, sys, time
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
reference, current = (pd.read_parquet(path) for path in sys.argv[1:3])
started = time.process_time()
Report([DataDriftPreset(method="psi")]).run(current, reference)
print(json.dumps({"cpu": time.process_time() - started, "mb": 0}))
"""


def table_sql(path: Path, rows: int, days: int) -> str:
    """SQL that writes the table, sorted by day; the same bytes every time."""
    numbers = ", ".join(
        f"round((hash(i * 31 + {place}) % 1000003) / 1000003.0 * {place + 1} * 10 "
        f"+ (hash(i * 17 + {place}) % 1009) / 100.0, 3) as {name}"
        for place, name in enumerate(NUMBERS)
    )
    return f"""
        copy (
            select DATE '{FIRST}' + (i * {days} // {rows})::integer as day, i::varchar as request_id,
                   'v1' as feature_version, {numbers}, 'few-' || hash(i) % 20 as text_few,
                   'many-' || hash(i + 1) % 200 as text_many
            from range({rows}) rows(i)
        ) to '{path}' (format parquet, row_group_size 122880)
    """


def open_sql(path: Path) -> str:
    """SQL of a view over the table."""
    return f"create or replace temp view features as select * from read_parquet('{path}')"


def floor_sql() -> str:
    """SQL of one full scan with trivial aggregates of every column: what no pass by day can do without."""
    sums = ", ".join(f"sum({name})" for name in NUMBERS)
    bounds = ", ".join(f"count({name}), min({name}), max({name})" for name in [*NUMBERS, *TEXTS])
    return f"select day, count(*), {sums}, {bounds} from features group by day"


def cheapest_sql() -> str:
    """SQL of the cheapest pass that reads every column."""
    sums = ", ".join(f"sum({name})" for name in NUMBERS)
    return f"select day, {sums}, {', '.join(f'count({name})' for name in TEXTS)} from features group by day"


def raw_sql() -> str:
    """SQL of one pass over raw rows with what drift needs of every column."""
    edges = [round(0.5 * place, 1) for place in range(44)]
    numbers = ", ".join(
        f"avg({n}), stddev_pop({n}), count({n}), min({n}), max({n}), histogram({n}, {edges})" for n in NUMBERS
    )
    return f"select day, {numbers}, {', '.join(f'histogram({name})' for name in TEXTS)} from features group by day"


def learning_sql() -> str:
    """SQL of the rows that bins are learned from: a day is enough here."""
    return f"create or replace temp table learning as select * from features where day = DATE '{FIRST}'"


def keep_sql(path: Path) -> str:
    """SQL that stores the profiles."""
    return f"copy (select * from profiles order by day, column_name) to '{path}' (format parquet)"


def roles_sql(days: int) -> str:
    """SQL of one feature version for all days."""
    return f"""
        create or replace temp view roles as select DATE '{FIRST}' + i::integer as day, 'v1' as feature_version,
        null::varchar as model_version from range({days}) days(i)
    """


def stored_sql(path: Path) -> str:
    """SQL of a view over stored profiles."""
    return f"create or replace temp view stored as select * from read_parquet('{path}')"


def sample_sql(condition: str, rows: int, path: Path) -> str:
    """SQL that writes some rows for Evidently."""
    named = ", ".join(quote(name) for name in NUMBERS)
    return f"copy (select {named} from features where {condition} limit {rows}) to '{path}' (format parquet)"


def read_all(con: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Run a query to its end."""
    frame(con, sql)


def profile(con: duckdb.DuckDBPyConnection, days: int, into: Path) -> None:
    """Profile every day in one pass and store the profiles."""
    run(con, learning_sql())
    bins = learn_bins(con, "learning", numeric=NUMBERS, categorical=TEXTS)
    profile_features(
        con, features="features", feature_version="v1", numeric=NUMBERS, categorical=TEXTS, into="profiles",
        days=[FIRST + timedelta(days=number) for number in range(days)], frozen=FrozenBins(bins, {}),
    )  # fmt: skip
    run(con, keep_sql(into))


def judge(con: duckdb.DuckDBPyConnection, days: int, stored: Path) -> None:
    """The newest day's drift from stored profiles."""
    run(con, stored_sql(stored))
    run(con, roles_sql(days))
    series = series_from_profiles(con, profiles="stored", roles="roles")
    last = FIRST + timedelta(days=days - 1)
    assert len(find_drift(series, days=[last], policy=DriftPolicy(), critical=(), blocked=()))


def step(name: str, folder: Path, days: int) -> None:
    """Run one step and print its CPU seconds and the peak memory of this process."""
    steps: dict[str, Callable[[duckdb.DuckDBPyConnection], None]] = {
        "cheapest": lambda con: read_all(con, cheapest_sql()),
        "floor": lambda con: read_all(con, floor_sql()),
        "raw": lambda con: read_all(con, raw_sql()),
        "profile": lambda con: profile(con, days, folder / f"profiles-{days}.parquet"),
        "judge": lambda con: judge(con, days, folder / f"profiles-{days}.parquet"),
    }
    with open_engine() as con:
        run(con, open_sql(folder / f"rows-{days}.parquet"))
        run(con, BY_NAME["profiles"].create_sql())
        Limits.of(DriftPolicy(), 1)  # imports are not counted, here as little as for Evidently
        before = time.process_time()
        steps[name](con)
        cpu = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cpu": cpu, "mb": peak}))


def measured(name: str, folder: Path, days: int) -> tuple[float, float]:
    """CPU seconds and peak megabytes of one step in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--days", str(days)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return told["cpu"], told["mb"]


def evidently(python: str, folder: Path) -> float:
    """CPU seconds of Evidently's PSI, reading left out."""
    with open_engine() as con:
        run(con, open_sql(folder / "rows-31.parquet"))
        last = FIRST + timedelta(days=30)
        for part, condition, rows in (("reference", f"day < DATE '{last}'", EVIDENTLY_ROWS * 30 // 31),
                                      ("current", f"day = DATE '{last}'", EVIDENTLY_ROWS // 31)):  # fmt: skip
            run(con, sample_sql(condition, rows, folder / f"{part}.parquet"))
    command = [python, "-c", EVIDENTLY, str(folder / "reference.parquet"), str(folder / "current.parquet")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"Evidently failed: {told.stderr[-800:]}")
    return float(json.loads(told.stdout.splitlines()[-1])["cpu"])


def main() -> None:
    """Write the tables, measure every step, print one table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--evidently", metavar="PYTHON", help="a Python that has evidently installed")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--days", type=int, default=31, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        step(asked.step, asked.folder, asked.days)
        return
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as name:
        folder = Path(name)
        for days in (31, 365):
            with open_engine() as con:
                run(con, table_sql(folder / f"rows-{days}.parquet", asked.rows, days))
        steps = [
            ("cheapest", 31), ("floor", 31), ("raw", 31), ("profile", 31), ("judge", 31),
            ("cheapest", 365), ("floor", 365), ("profile", 365),
        ]  # fmt: skip
        found = {(what, days): measured(what, folder, days) for what, days in steps}
        print(f"{asked.rows:,} rows, {len(NUMBERS) + len(TEXTS)} columns")
        print(f"{'step':<12}{'days':>6}{'CPU s':>9}{'peak MB':>9}")
        for (what, days), (cpu, peak) in found.items():
            print(f"{what:<12}{days:>6}{cpu:>9.2f}{peak:>9.0f}")
        raw, judging = found["raw", 31][0], found["judge", 31][0]
        print(f"raw pass over judging from profiles: {raw / judging:.0f} times")
        for days in (31, 365):
            print(f"profiles of {days} days over the scan floor: "
                  f"{found['profile', days][0] / found['floor', days][0]:.1f} times; over the cheapest pass: "
                  f"{found['profile', days][0] / found['cheapest', days][0]:.1f} times")  # fmt: skip
        if asked.evidently:
            cpu = evidently(asked.evidently, folder)
            print(f"Evidently's PSI on {EVIDENTLY_ROWS:,} rows and {len(NUMBERS)} numbers: {cpu:.1f} CPU s, "
                  f"{cpu / judging:.0f} times judging from profiles")  # fmt: skip


if __name__ == "__main__":
    main()
