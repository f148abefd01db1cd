"""Dagster's own home: where its history lies, and how a replay writes a year of it without waiting an hour.

Dagster's SQLite log opens a new connection for every event, asks it for its columns, and waits for the disk after
each: 12-16 ms per event on a quiet disk, 60 ms on a busy one, twice per asset and day (planned, materialised).
``ReplayStorage`` keeps one connection per file, asks once, and leaves the waiting to SQLite's write-ahead log
(``synchronous=NORMAL``); planned events go in as one batch. Measured on one busy 2-core machine, 31 days x 14 assets in
one run: 49 s (9.2 s CPU) with Dagster's own, 3.7 s with open connections, 1.4 s (1.2 s CPU) with the batch as well.
Materializations wait for each other and go in by batches too; whoever reads through this log sees them all.
The rows and files are the very same, so the pages and the daemon read them with Dagster's own class. A power cut can
lose the last moments of *Dagster's* log, never a closing: the ledger is the record, and ``build.settle`` writes again
what the log lacks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import yaml
from dagster import DagsterInstance
from dagster._config import StringSource
from dagster._core.events import ASSET_EVENTS, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import StaticPool

from mlops_assets.adapters.home import Home
from mlops_assets.adapters.stopwatch import measured

FILE = "dagster.yaml"
EVENTS = "Dagster events"
WAITING_EVENTS = 40
"""So many materializations are stored at once: those of three days. A kill loses them, and ``build.settle`` tells
them again."""
INDEX = "index"
BUSY_SECONDS = 30


def settings(folder: Path) -> dict[str, Any]:
    """The settings of the ``dagster.yaml`` beside the package, with paths inside ``folder``."""
    return {
        "storage": {"sqlite": {"base_dir": str(folder)}},
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": str(folder)},
        },
        "compute_logs": {
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(folder / "compute_logs")},
        },
        "concurrency": {
            "runs": {
                "max_concurrent_runs": 4,
                "tag_concurrency_limits": [
                    {"key": "mlops/kind", "value": "retrain", "limit": 1},
                    {"key": "dagster/backfill", "limit": 1},
                ],
            },
            "pools": {"default_limit": 2, "granularity": "run"},
        },
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 300, "max_runtime_seconds": 14400},
        "run_retries": {"enabled": True, "max_retries": 2},
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
    }


def prepare_dagster_home(home: Home) -> Path:
    """Write ``dagster.yaml`` into the home's Dagster folder unless a person did before; returns the folder."""
    home.dagster.mkdir(parents=True, exist_ok=True)
    file = home.dagster / FILE
    if not file.is_file():
        file.write_text(yaml.safe_dump(settings(home.dagster), sort_keys=False))
    return home.dagster


@contextmanager
def instance(home: Home) -> Iterator[DagsterInstance]:
    """The Dagster instance that a replay writes its history to; the pages and the daemon read the same files.

    A ``dagster.yaml`` that names another storage (Postgres) is used as it stands.
    """
    folder = prepare_dagster_home(home)
    written = yaml.safe_load((folder / FILE).read_text()) or {}
    base = (written.get("storage") or {}).get("sqlite", {}).get("base_dir")
    quick = {"module": __name__, "class": ReplayStorage.__name__, "config": {"base_dir": base}}
    overrides = {"storage": {"custom": quick}} if base else {}
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=overrides)) as opened:
        yield opened


def stopped_instigators(home: Home) -> list[str]:
    """Names of the schedules and sensors that a person switched off, in order."""
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(home.dagster))) as opened:
        states = opened.all_instigator_state()
    return sorted({state.instigator_name for state in states if state.status is InstigatorStatus.STOPPED})


class ReplayEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log over connections that stay open; same files, same rows."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._kept: dict[str, Engine] = {}
        self._has_index_columns: bool | None = None
        self._waiting: list[EventLogEntry] = []
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        self._store_waiting()
        with self._db_lock:
            if shard not in self._kept:
                self._keep(shard)
            with self._kept[shard].begin() as con:
                yield con

    def _keep(self, shard: str) -> None:
        """Open a shard; of the runs, only the newest stays open."""
        for older in [name for name in self._kept if INDEX not in (name, shard)]:
            self._kept.pop(older).dispose()
        arguments = {"timeout": BUSY_SECONDS, "check_same_thread": False}
        engine = create_engine(self.conn_string_for_shard(shard), poolclass=StaticPool, connect_args=arguments)
        self._initdb(engine)
        event.listen(engine, "connect", _wait_less)
        engine.dispose()
        self._kept[shard] = engine

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if self._has_index_columns is None:
            self._has_index_columns = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._has_index_columns

    @measured(EVENTS)
    def store_event(self, event: EventLogEntry) -> None:
        """Store one event; a materialization waits for the next ones, or until somebody looks."""
        if not (event.is_dagster_event and event.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION):
            super().store_event(event)  # connects, and so stores first what waits
            return
        if self._waiting and self._waiting[0].run_id != event.run_id:
            self._store_waiting()
        self._waiting.append(event)
        if len(self._waiting) >= WAITING_EVENTS:
            self._store_waiting()

    def _store_waiting(self) -> None:
        """Store what waits, in the order in which it came."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self.store_event_batch(waiting)

    @measured(EVENTS)
    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run; a batch of asset events is two transactions instead of two per event.

        What the page of an asset says about its newest event is written once per batch.
        """
        if not all(e.is_dagster_event and e.dagster_event_type in ASSET_EVENTS for e in events):
            super().store_event_batch(events)
            return
        given = [self._event_to_row(entry) for entry in events]
        with self.run_connection(events[0].run_id) as con:
            con.execute(SqlEventLogStorageTable.insert(), given)
        newest: dict[tuple[Any, ...], tuple[EventLogEntry, int]] = {}
        with self.index_transaction() as con:
            for entry, row in zip(events, given, strict=True):
                event_id = int(con.execute(SqlEventLogStorageTable.insert(), row).inserted_primary_key[0])  # type: ignore[index]
                self._store_asset_event_tags(con, [entry], [event_id])
                newest[row["asset_key"], row["dagster_event_type"]] = entry, event_id
            for entry, event_id in newest.values():
                self._store_asset_event(con, entry, event_id)

    def dispose(self) -> None:
        """Store what waits, close what is open."""
        self._store_waiting()
        while self._kept:
            self._kept.popitem()[1].dispose()
        super().dispose()


def wait_less_sql() -> str:
    """SQL: leave the waiting for the disk to the write-ahead log's checkpoints."""
    return "pragma synchronous = normal"


def _wait_less(connection: Any, _record: Any) -> None:
    connection.execute(wait_less_sql())


class ReplayStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with ``ReplayEventLog`` in the place of its event log."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage.dispose()
        folder = Path(base_dir) / "history" / "runs"
        self._event_log_storage = ReplayEventLog(f"{folder}/")

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What the settings say about it."""
        return {"base_dir": StringSource}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Made by Dagster from the settings."""
        return cls(config_value["base_dir"], inst_data)
