"""Closes the parcel world's days in a process of its own, so that it can be ended at a fault point.

Processes are forked from one that has only imported: importing costs more than the days, and a process that has
opened nothing has no threads that a fork would lose.
"""

import multiprocessing
import os
from pathlib import Path

from toy_world import a_world, close, span

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["crashing", "great_expectations", "mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store",
     "mlops_assets.day_loop", "skops.io", "sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline"]
)  # fmt: skip


def close_days(home: Path, last: int, fault: str) -> None:
    """Close the first days; ended at a fault point if one is named."""
    os.environ["MLOPS_FAULT"] = fault
    close(a_world(home), span(0, last))


def run(home: Path, last: int, fault: str = "") -> int:
    """The exit code of a process that closes the first days: 0, or 137 if it was ended."""
    process = _context.Process(target=close_days, args=(home, last, fault))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode
