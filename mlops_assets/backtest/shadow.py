"""A shadow of a home: its tables as they lie there, and a ledger of its own for what would have been decided."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

from mlops_assets.adapters.ledger import Ledger, Row
from mlops_assets.adapters.ledger_tables import EVENTS
from mlops_assets.closing.world import SHARED, World
from mlops_assets.decisions import Kind
from mlops_assets.service.service import MLService

REDECIDED = frozenset({"decisions", "incidents", "incident_events"})
"""What a backtest decides anew from its first day on."""


@contextmanager
def shadow_of(world: World, service: MLService, first: date) -> Iterator[World]:
    """The world under another policy, as if nothing was open when ``first`` began; gone afterwards.

    Tables are read where they are. The ledger is a copy in a temporary folder with everything that was known and
    said; what the service decided from ``first`` on is left out, and so are the incidents opened before it: nobody
    knows what another policy would have left open. Trainings before it stay, for the cool-down.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-backtest-") as folder:
        home = replace(world.home, ledger_url=f"sqlite:///{Path(folder) / 'ledger.db'}")
        shadow = World(service, home, world.clock)
        _copy(world.ledger, shadow.ledger, world.name, first)
        try:
            yield shadow
        finally:
            shadow.ledger.engine.dispose()


def _copy(source: Ledger, target: Ledger, service: str, first: date) -> None:
    with target.transaction() as transaction:
        for table in EVENTS:
            rows = source.rows(table, service)
            kept = [row for row in rows if _stays(row, first)] if table in REDECIDED else rows
            target.append(transaction, table, kept)
        target.append(transaction, "deliveries", source.rows("deliveries", SHARED))


def _stays(row: Row, first: date) -> bool:
    """Whether a decision is kept: a person's, or a training before the range."""
    if row.get("kind") is None:
        return False
    return "by" in row["evidence"] or (row["kind"] == Kind.RETRAIN.value and row["day"] < first)
