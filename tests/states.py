"""Comparing two worlds: every content column of every table as its readers see it, and what the ledger says."""

from __future__ import annotations

import pandas as pd
from toy_world import ledger_state

from mlops_assets.adapters.engine import columns_of, open_engine, quote
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.world import World
from mlops_assets.tables import BY_NAME, Table

LEFT_OUT = {"contracts", "quarantine"}
"""What a run that never failed need not share with one that did (DESIGN.md section 2)."""


def content(world: World, table: Table) -> pd.DataFrame:
    """The content columns of one table, closed days only, at the version that the last closing names."""
    closings = world.ledger.closings(world.name)
    version = world.ledger.pinned(world.name).get(table.name)
    with open_engine() as con:
        columns = feature_columns([world.service.feature_set]) if table.is_open else table.columns
        if table.name in ("training_set", "evaluation"):
            version = world.lake.version(table.name)
        if version is None:
            return pd.DataFrame()
        world.lake.view(con, table.name, columns, version=version, last=max(closings), is_open=table.is_open)
        names = sorted(name for name in columns_of(con, table.name) if name not in table.observed)
        listed = ", ".join(quote(name) for name in names)
        return con.sql(f"select {listed} from {quote(table.name)} order by {listed}").df()


def state(world: World) -> tuple[dict[str, pd.DataFrame], dict[str, list[Row]]]:
    """Everything that two worlds with the same history must share."""
    tables = {name: content(world, table) for name, table in BY_NAME.items() if name not in LEFT_OUT}
    return tables, ledger_state(world)


def assert_same(one: World, other: World) -> None:
    """Fails naming the first table or ledger view that differs."""
    tables, ledger = state(one)
    other_tables, other_ledger = state(other)
    for name in tables:
        assert len(tables[name]) == len(other_tables[name]), f"{name}: {len(tables[name])} != {len(other_tables[name])}"
        pd.testing.assert_frame_equal(tables[name], other_tables[name], check_exact=True, obj=name)
    for name in ledger:
        assert ledger[name] == other_ledger[name], name
