"""Does a day that does not train cost more in December than in January? CPU seconds per day, and the slope.

Two homes are compared, both in a temporary folder: one replayed here from the first day to just after the first
release, and a copy of the home that the environment names. In each of them the last days without a training are
closed again in a new epoch (features, day loop, commit, decisions), in one block as a replay closes them, as often
as --repeat says; the cheapest time counts. What is not measured: reading the day's files, and Dagster's events.
Needs a replayed home; changes nothing in it.

    python benchmarks/replay_cost.py
    python benchmarks/replay_cost.py --days 7 --repeat 5
"""

import argparse
import gc
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.home import Home
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.world import World, arrow
from mlops_assets.day_loop import open_epoch, run_days
from mlops_assets.monitoring_loop.actions import is_cadence_day
from mlops_assets.services import find_service
from mlops_assets.tables import BY_NAME


def close(world: World, days: list[date]) -> int:
    """Close days as a replay does; the number of predictions written."""
    reports = run_days(world, days, acts=True, by="benchmark", on_day=lambda report: None)
    return sum(report.rows.get("predictions", 0) for report in reports)


def reopen(world: World, days: list[date]) -> None:
    """Open a new epoch in which nobody has computed the features of these days."""
    open_epoch(world, days[0], "benchmark")
    world.lake.replace_days("generations", days, arrow([], BY_NAME["generations"].columns), {})


def last_quiet_days(world: World, count: int) -> list[date]:
    """The newest closed days in a row, none of which trains."""
    last = world.closed_through()
    days: list[date] = []
    while last is not None and last >= world.service.first_day and len(days) < count:
        days = [] if is_cadence_day(last, world.service.model.cadence) else [last, *days]
        last -= timedelta(days=1)
    if len(days) < count:
        raise SystemExit(f"{count} closed days in a row without a training are needed; replay some more first")
    return days


def close_again(world: World, days: list[date]) -> tuple[float, int]:
    """CPU seconds of this process (all threads) for closing the days in a new epoch, and predictions written."""
    reopen(world, days)
    gc.collect()
    started = time.process_time()
    predictions = close(world, days)
    return time.process_time() - started, predictions


def scratch_world(home: Home, service: str, folder: Path) -> World:
    """The service in an empty home that reads the same landing zone."""
    folder.mkdir()
    stores = {name: f"sqlite:///{folder / name}.db" for name in ("ledger", "mlflow")}
    return World(find_service(service), Home(folder, home.landing, stores["ledger"], stores["mlflow"]))


def copied_world(home: Home, service: str, folder: Path) -> World:
    """The service in a copy of its tables, ledger and MLflow store; models are read where they lie."""
    world = scratch_world(home, service, folder)
    shutil.copytree(home.tables, folder / "tables")
    for name in ("ledger.db", "mlflow.db"):
        read_only = f"file:{home.path / name}?mode=ro"
        with closing(sqlite3.connect(read_only, uri=True)) as source, closing(sqlite3.connect(folder / name)) as copy:
            source.backup(copy)
    return world


def main() -> None:
    """Replay the beginning, copy the rest, measure both, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="flight_delays")
    parser.add_argument("--days", type=int, default=20, help="days per range (default: %(default)s)")
    parser.add_argument("--early-to", type=date.fromisoformat, default=date(2013, 2, 27), help="(default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="times each range is closed (default: %(default)s)")
    asked = parser.parse_args()
    home = Home.from_environment()
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as folder:
        early = scratch_world(home, asked.service, Path(folder) / "early")
        print(f"replaying {early.service.first_day} to {asked.early_to} in a scratch home ...", flush=True)
        beginning = list(days_between(early.service.first_day, asked.early_to))
        with early.ledger.lease(early.name, "benchmark"):
            ingest_sources(early, beginning)
        close(early, beginning)
        print(f"copying {home.path} ...", flush=True)
        late = copied_world(home, asked.service, Path(folder) / "late")
        ranges = [(world, last_quiet_days(world, asked.days)) for world in (early, late)]
        # In turns, so that both meet the same heap. The first round pays for imports and models and does not count.
        rounds = [[close_again(world, days) for world, days in ranges] for _ in range(asked.repeat + 1)][1:]
    cheapest = [min(found) for found in zip(*rounds, strict=True)]
    print(f"{'days closed again':<26}{'history':>9}{'predictions':>13}{'CPU s a day':>13}{'per 1,000':>11}")
    for (world, days), (seconds, predictions) in zip(ranges, cheapest, strict=True):
        history = (days[0] - world.service.first_day).days
        numbers = f"{predictions:>13,}{seconds / len(days):>13.3f}{seconds / predictions * 1000:>11.3f}"
        print(f"{f'{days[0]} .. {days[-1]}':<26}{history:>9}{numbers}")
    print(f"slope: {cheapest[1][0] / cheapest[0][0] - 1:+.1%} per day from the first range to the last")


if __name__ == "__main__":
    main()
