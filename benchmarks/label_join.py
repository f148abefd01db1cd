"""What does it cost to say what became of every prediction? CPU seconds and memory beside the floor and polars.

Ten million predictions over 30 days with a label window of 30 days, in one Parquet file per day; three in ten get a
label, one label in fifty is corrected, one in a hundred comes after the window. Measured, each in a process of its
own: the *floor* (the predictions are read and written with one constant column more), the product's `outcomes`, one
plain SQL join of the newest label, and the same in polars if it is installed (it is no dependency of the package;
``--polars PYTHON`` names an interpreter that has it). All use two threads. "cpu" is user plus system time.

    python benchmarks/label_join.py
    python benchmarks/label_join.py --rows 1000000 --polars /path/to/python
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb

from mlops_assets.feedback_loop.outcomes import outcomes_sql
from mlops_assets.service.labels import LabelDefinition

DAYS, FIRST = 30, date(2024, 3, 1)
LAST = FIRST + timedelta(days=70)
LABEL = LabelDefinition(
    version="v1", source="payments", request_id="id", value="paid", window_hours=720, never_labelled="never paid"
)


def open_engine() -> duckdb.DuckDBPyConnection:
    """Two threads and a limit that leaves room for the process."""
    con = duckdb.connect()
    con.execute(setting_sql("threads", "2"))
    con.execute(setting_sql("memory_limit", "1100MB"))
    con.execute(setting_sql("preserve_insertion_order", "false"))
    return con


def setting_sql(name: str, value: str) -> str:
    """SQL of one setting."""
    return f"set {name} = '{value}'"


def make_sql(table: str, rows: int) -> str:
    """SQL of the invented rows; the same for the same number."""
    at = f"timestamp '{FIRST}' + to_microseconds((i * {DAYS * 86_400_000_000 // rows})::bigint)"
    if table == "predictions":
        return f"""
            select 'r' || lpad(i::varchar, 9, '0') as request_id, 'm' || (i % 2) as model_version, 'champion' as role,
                   true as served, (hash(i) % 1000000007) / 1000000007.0 as score, {at} as predicted_at,
                   ({at})::date as prediction_day
            from range({rows}) t(i)
        """
    delay = "to_microseconds(((hash(i, 7) % 1000) / 1000.0 * 31 * 86400000000)::bigint)"
    return f"""
        select 'r' || lpad(i::varchar, 9, '0') as request_id, 'v1' as label_version, (hash(i, 3) % 2)::double as value,
               {at} + {delay} as event_at, {at} + {delay} + to_hours(n * 30) as known_at,
               ({at} + {delay} + to_hours(n * 30))::date as day
        from range({rows}) t(i) cross join range(2) c(n)
        where hash(i, 1) % 10 < 3 and (n = 0 or hash(i, 2) % 50 = 0)
    """


def write_sql(query: str, file: Path) -> str:
    """SQL that writes a query to a Parquet file."""
    return f"copy ({query}) to '{file}' (format parquet, compression zstd)"


def view_sql(name: str, folder: Path) -> str:
    """SQL of a view of a folder."""
    return f"create view {name} as select * from read_parquet('{folder / name}/*.parquet')"


def days_sql() -> str:
    """SQL of the calendar."""
    return f"""
        create table days as
        select d::date as day, d as start_at, d + interval 1 day as end_at
        from range(timestamp '{FIRST}', timestamp '{LAST}' + interval 5 day, interval 1 day) t(d)
    """


def floor_sql() -> str:
    """SQL of the floor: what is read and written anyway."""
    return "select *, null::double as value, null::timestamp as known_at, 'final' as state from predictions"


def plain_sql() -> str:
    """SQL of the join as one would write it: every prediction with the newest label in its window."""
    return """
        select p.*, l.value, l.known_at, 'final' as state
        from predictions p left join labels l
          on l.request_id = p.request_id and l.event_at <= p.predicted_at + interval 30 day
        qualify row_number() over (partition by p.request_id, p.model_version order by l.known_at desc) = 1
    """


def product_sql() -> str:
    """SQL of the product."""
    return outcomes_sql(LABEL, predictions="predictions", labels="labels", days="days", as_of=f"date '{LAST}'")


def with_polars(folder: Path, file: Path) -> None:
    """The same join in polars, streaming."""
    import polars as pl  # type: ignore[import-not-found,unused-ignore]

    predictions = pl.scan_parquet(folder / "predictions" / "*.parquet")
    labels = pl.scan_parquet(folder / "labels" / "*.parquet").select("request_id", "value", "event_at", "known_at")
    told = predictions.select("request_id", "model_version", "predicted_at").join(labels, on="request_id")
    told = told.filter(pl.col("event_at") <= pl.col("predicted_at") + pl.duration(days=30))
    told = told.group_by("request_id", "model_version").agg(
        pl.col("value").sort_by("known_at").last(), pl.col("known_at").max()
    )
    joined = predictions.join(told, on=["request_id", "model_version"], how="left").with_columns(state=pl.lit("final"))
    joined.sink_parquet(file, compression="zstd")


def with_duckdb(query: Callable[[], str]) -> Callable[[Path, Path], None]:
    """A way that is one SQL query."""

    def run(folder: Path, file: Path) -> None:
        con = open_engine()
        for name in ("predictions", "labels"):
            con.execute(view_sql(name, folder))
        con.execute(days_sql())
        con.execute(write_sql(query(), file))

    return run


WAYS = {
    "floor": with_duckdb(floor_sql), "outcomes": with_duckdb(product_sql), "plain join": with_duckdb(plain_sql),
    "polars": with_polars,
}  # fmt: skip


def run_here(way: str, folder: Path) -> None:
    """Carry out one way and print what it took; run in a process of its own."""
    import resource
    import time

    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    WAYS[way](folder, folder / f"{way.replace(' ', '-')}.parquet")
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "wall": time.perf_counter() - started, "gb": used.ru_maxrss / 1024**2}))


def main() -> None:
    """Make the files, run every way in turn, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeat", type=int, default=2, help="runs of each way; the cheapest counts")
    parser.add_argument("--polars", default=sys.executable, help="an interpreter that has polars")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        run_here(asked.way, asked.folder)
        return
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as name:
        folder = Path(name)
        con = open_engine()
        for table in ("predictions", "labels"):
            (folder / table).mkdir()
            con.execute(write_sql(make_sql(table, asked.rows), folder / table / "all.parquet"))
        con.close()
        print(f"{asked.rows:,} predictions\n{'':<12}{'cpu s':>8}{'x floor':>9}{'wall s':>8}{'peak GB':>9}", flush=True)
        floor = 0.0
        for way in WAYS:
            python = asked.polars if way == "polars" else sys.executable
            command = [python, __file__, "--way", way, "--folder", name]
            done = [subprocess.run(command, check=False, capture_output=True, text=True) for _ in range(asked.repeat)]
            if any(run.returncode for run in done):
                print(f"{way:<12}failed: {done[0].stderr.strip().splitlines()[-1]}")
                continue
            best = min((json.loads(run.stdout) for run in done), key=lambda found: found["cpu"])
            floor = floor or best["cpu"]
            print(
                f"{way:<12}{best['cpu']:>8.1f}{best['cpu'] / floor:>9.2f}{best['wall']:>8.1f}{best['gb']:>9.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
