"""The only way to know how good other retraining dates are: train, in a copy of the home that is thrown away."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.ledger import Ledger
from mlops_assets.adapters.ledger_tables import EVENTS
from mlops_assets.backtest.realised import Quality, realised
from mlops_assets.closing.world import SHARED, World
from mlops_assets.day_loop import open_epoch, run_days
from mlops_assets.errors import RangeError
from mlops_assets.service.service import MLService


def quality_when_trained(
    world: World, service: MLService, days: Sequence[date], told: Callable[[int], None]
) -> Quality:
    """Close every day from the first one on again, under another policy, in a copy; the loss over ``days``.

    The copy is a redo: every file counts on its own day, with today's code (PROTOCOL.md 5). It has a model registry
    of its own, so it begins where the service began. Messages are recorded there and sent nowhere.

    Raises:
        RangeError: the service's model runs elsewhere, so there is nothing to train.
    """
    if service.is_monitor_only:
        raise RangeError(f"service '{service.name}': its model runs elsewhere; leave --train out.")
    with tempfile.TemporaryDirectory(prefix="mlops-backtest-") as folder:
        copied = _copy_of(world, service, Path(folder))
        try:
            open_epoch(copied, service.first_day, "backtest-policy")
            done = iter(range(1, 1 + (max(days) - service.first_day).days + 1))
            every = list(days_between(service.first_day, max(days)))
            run_days(copied, every, acts=True, by="backtest-policy", on_day=lambda _report: told(next(done)))
            return realised(copied, days)
        finally:
            copied.ledger.engine.dispose()


def _copy_of(world: World, service: MLService, folder: Path) -> World:
    """The same tables and ledger elsewhere, with an empty model registry."""
    home = replace(
        world.home, path=folder, ledger_url=f"sqlite:///{folder / 'ledger.db'}",
        mlflow_uri=f"sqlite:///{folder / 'mlflow.db'}",
    )  # fmt: skip
    for schema in (world.name, SHARED):
        source = world.home.tables / schema
        if source.is_dir():
            shutil.copytree(source, home.tables / schema, copy_function=_linked)
    copied = World(service, home, world.clock)
    _copy_ledger(world.ledger, copied.ledger, world.name)
    return copied


def _linked(source: str, target: str) -> str:
    """A data file is never changed, so a link is a copy; a log is copied, for its last entry is rewritten."""
    if "_delta_log" not in Path(source).parts and os.stat(source).st_dev == os.stat(Path(target).parent).st_dev:
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


def _copy_ledger(source: Ledger, target: Ledger, service: str) -> None:
    with target.transaction() as transaction:
        for table in EVENTS:
            for name in (service, SHARED):
                target.append(transaction, table, source.rows(table, name))
