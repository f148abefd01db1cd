"""The engine as a Dagster resource: what a step asks its tables with."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from dagster_duckdb import DuckDBResource

from mlops_assets.adapters.engine import open_engine


class PrivateDuckDB(DuckDBResource):
    """A ``DuckDBResource`` whose connections are private, in memory, and closed whatever happens.

    The stock one opens a shared file: a second process waits for it in silence for 106 s, and an exception
    leaves it locked. The truth lies in Delta tables here, so an engine needs no file at all.
    """

    database: str = ":memory:"

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with our limits, UTC, and no extension downloads."""
        with open_engine() as con:
            yield con
