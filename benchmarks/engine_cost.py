"""What does an engine cost? CPU milliseconds of opening one: a DuckDB instance of its own, or ours.

python benchmarks/engine_cost.py
"""

import argparse
import time
from collections.abc import Callable

import duckdb

from mlops_assets.adapters.engine import open_engine, rows


def question_sql() -> str:
    """SQL of one number."""
    return "select 1"


def own_instance() -> None:
    """A DuckDB that shares nothing."""
    with duckdb.connect(":memory:") as con:
        rows(con, question_sql())


def ours() -> None:
    """A private database in the instance of the process."""
    with open_engine() as con:
        rows(con, question_sql())


def cpu_ms(work: Callable[[], None], times: int) -> float:
    """CPU milliseconds of doing something once."""
    work()
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) * 1000 / times


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="(default: %(default)s)")
    times = parser.parse_args().times
    print(f"an instance of its own  {cpu_ms(own_instance, times):6.2f} CPU ms")
    print(f"open_engine             {cpu_ms(ours, times):6.2f} CPU ms")


if __name__ == "__main__":
    main()
