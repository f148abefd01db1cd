"""What does one day cost, from the command to the closed day? CPU seconds beyond imports and in all, and peak memory.

The next day of a home is closed twice, each time in a copy and in a process of its own: by ``mlops replay`` for that
one day, and by the job that the schedule starts. A third process only imports what they import. Needs a home whose
next day lies in the landing zone and does not train; changes nothing in it. The aims are 6 CPU seconds beyond
imports and 20 in all.

    mlops replay flight_delays --to 2013-12-21
    python benchmarks/daily_run.py
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from mlops_assets.adapters.home import Home
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.actions import is_cadence_day
from mlops_assets.services import find_service

MODULES = (
    "mlops_assets.cli", "mlops_assets.build", "mlops_assets.day_loop", "mlops_assets.closing.sources",
    "mlops_assets.summary", "mlops_assets.adapters.dagster_home", "great_expectations", "sklearn.compose",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline", "skops.io", "mlflow.artifacts",
    "mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "pyarrow.parquet", "sqlglot.dialects.duckdb", "upath.core",
)  # fmt: skip
WAYS = ("imports", "replay", "schedule")


def do(way: str, service: str, day: date) -> None:
    """One of the three, in this process; prints what it cost as one line of JSON."""
    import importlib
    import resource
    import time

    for module in MODULES:
        importlib.import_module(module)
    imported, started = time.process_time(), time.perf_counter()
    if way == "replay":
        by_replay(service, day)
    elif way == "schedule":
        by_job(service, day)
    from mlops_assets.adapters.stopwatch import spent

    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "imports": imported, "beyond": time.process_time() - imported, "wall": time.perf_counter() - started,
        "peak_mib": used.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024),
        "spent": {work: took.cpu_seconds for work, took in spent().items()},
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def by_replay(service: str, day: date) -> None:
    """What ``mlops replay SERVICE --to DAY`` does."""
    from mlops_assets.replay import replay_service

    world = World(find_service(service), Home.from_environment())
    replay_service(
        world, first=None, last=day, redo_from=None, by="benchmark", wait_seconds=60, say=lambda line: None
    )  # fmt: skip


def by_job(service: str, day: date) -> None:
    """What a run of the schedule does, in the process that Dagster starts for it."""
    from dagster import DagsterInstance

    from mlops_assets.adapters.dagster_home import prepare_dagster_home
    from mlops_assets.build import build_definitions

    home = Home.from_environment()
    os.environ["DAGSTER_HOME"] = str(prepare_dagster_home(home))
    job = build_definitions([find_service(service)], home).resolve_job_def(f"{service}_daily")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with DagsterInstance.get() as instance:
        job.execute_in_process(instance=instance, partition_key=day.isoformat(), run_config=quiet)


def next_day(world: World) -> date:
    """The first unclosed day; it must not train, or the training would be measured."""
    day = world.first_unclosed()
    if world.closed_through() is None or is_cadence_day(day, world.service.model.cadence):
        raise SystemExit(f"the next day is {day}: replay a few days more, or fewer, so that it does not train")
    return day


def measured(way: str, service: str, day: date, home: Home, folder: Path) -> dict[str, Any]:
    """One of the three in a copy of the home, in its own process."""
    copy = folder / way
    shutil.copytree(home.path, copy, ignore=shutil.ignore_patterns("landing"))
    (copy / "dagster" / "dagster.yaml").unlink(missing_ok=True)  # it names the folders of the original
    moved = {"MLOPS_HOME": str(copy), "MLOPS_LANDING": str(home.landing)}
    kept = {name: value for name, value in os.environ.items() if name not in ("MLOPS_LEDGER_URL", "DAGSTER_HOME")}
    command = [sys.executable, __file__, "--do", way, "--service", service, "--day", day.isoformat()]
    done = subprocess.run(command, env=kept | moved, check=True, capture_output=True, text=True)
    if way != "imports" and World(find_service(service), at(copy, home.landing)).closed_through() != day:
        raise SystemExit(f"{way}: {day} was not closed\n{done.stdout}\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def at(path: Path, landing: Path) -> Home:
    """A home in another folder."""
    return Home(path, landing, f"sqlite:///{path / 'ledger.db'}", f"sqlite:///{path / 'mlflow.db'}")


def main() -> None:
    """Measure the three ways, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="flight_delays")
    parser.add_argument("--do", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--day", type=date.fromisoformat, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.do:
        do(asked.do, asked.service, asked.day)
        return
    home = Home.from_environment()
    day = next_day(World(find_service(asked.service), home))
    print(f"{asked.service}, {day}: CPU seconds and peak memory of one day in one process")
    print(f"{'way':<10}{'imports':>9}{'beyond':>9}{'in all':>9}{'wall s':>9}{'peak MiB':>10}  of which CPU s")
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as folder:
        for way in WAYS:
            cost = measured(way, asked.service, day, home, Path(folder))
            work = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cost["spent"].items())
            seconds = f"{cost['imports']:>9.2f}{cost['beyond']:>9.2f}{cost['imports'] + cost['beyond']:>9.2f}"
            print(f"{way:<10}{seconds}{cost['wall']:>9.2f}{cost['peak_mib']:>10.0f}  {work}", flush=True)


if __name__ == "__main__":
    main()
