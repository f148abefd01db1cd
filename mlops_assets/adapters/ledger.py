"""The ledger: append-only events in SQLite (or Postgres by URL), and the lease that makes one writer.

What is frozen, open or in charge is never stored: it is read from the events. Every machine event has an
``epoch``; a redo from day D opens a new one, in which the older epochs' events of day D and later are void.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from mlops_assets.adapters.calendar import wall_clock
from mlops_assets.adapters.ledger_tables import EVENTS, LEASES, METADATA
from mlops_assets.errors import LeaseHeldError, LedgerError

LEASE_SECONDS = 60
READS = "mlops_reads"
"""Mark of a connection that only reads: on SQLite its transaction does not take the write lock."""
Row = dict[str, Any]


def append_only_sql(table: str, verb: str) -> str:
    """SQL of a trigger that refuses to change the past (SQLite)."""
    return (
        f"create trigger if not exists no_{verb}_{table} before {verb} on {table} "
        f"begin select raise(abort, 'the ledger is append-only'); end"
    )


def named_sql() -> str:
    """SQL of the tables and triggers that are there (SQLite)."""
    return "select name from sqlite_master where type in ('table', 'trigger')"


def _missing_columns_sql(con: Connection) -> list[str]:
    """SQL that gives the tables of an older ledger the columns that were declared since; they are null before."""
    inspector = sa.inspect(con)
    there = {name: {column["name"] for column in inspector.get_columns(name)} for name in EVENTS}
    return [
        f'alter table {table.name} add column "{column.name}" {column.type.compile(con.dialect)}'
        for table in EVENTS.values()
        for column in table.columns
        if column.name not in there[table.name]
    ]


def _append_only_postgres_sql(table: str) -> list[str]:
    return [
        "create or replace function refuse_change() returns trigger as "
        "$$ begin raise exception 'the ledger is append-only'; end $$ language plpgsql",
        f"create or replace trigger append_only before update or delete on {table} "
        "for each row execute function refuse_change()",
    ]


@dataclass(frozen=True)
class Lease:
    """The right to write one service: a number that only grows, so that a late writer is noticed."""

    service: str
    number: int
    holder: str


class Ledger:
    """Append-only events of all services.

    Args:
        url: SQLAlchemy URL; SQLite gets WAL, full synchronisation and a 30 s wait for the lock.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._held: list[Lease] = []
        self._read: dict[tuple[str, str], list[Row]] = {}
        self._counted: dict[tuple[str, str], tuple[tuple[int, int], list[Row]]] = {}
        if not self._is_complete():
            self._complete()

    def _reading(self) -> Connection:
        """A connection that only reads: it waits for no writer, and none waits for it."""
        return self.engine.connect().execution_options(**{READS: True})

    def _is_complete(self) -> bool:
        """Whether tables, columns and guards are there; asked before every use, so it must not wait for a writer."""
        if self.engine.dialect.name != "sqlite":
            return False
        with self._reading() as con:
            there = set(con.execute(sa.text(named_sql())).scalars())
            guards = {f"no_{verb}_{table}" for table in EVENTS for verb in ("update", "delete")}
            return there >= {*guards, *METADATA.tables} and not _missing_columns_sql(con)

    def _complete(self) -> None:
        """Make what is missing."""
        METADATA.create_all(self.engine)
        with self.engine.begin() as con:
            for statement in _missing_columns_sql(con):
                con.exec_driver_sql(statement)
            for table in EVENTS:
                if self.engine.dialect.name == "sqlite":
                    statements = [append_only_sql(table, verb) for verb in ("update", "delete")]
                else:
                    statements = _append_only_postgres_sql(table)
                for statement in statements:
                    con.exec_driver_sql(statement)

    def rows(self, table: str, service: str) -> list[Row]:
        """All events of one kind, in the order of their keys, whatever their epoch.

        What is append-only has not changed while it has as many rows as before: they are counted, not read again.
        Callers do not change the rows.
        """
        events = EVENTS[table]
        mine = events.c.service == service
        kept = self._read.get((table, service))
        with self._reading() as con:
            count = con.execute(sa.select(sa.func.count()).select_from(events).where(mine)).scalar_one()
            if kept is None or len(kept) != count:
                query = sa.select(events).where(mine).order_by(*events.primary_key.columns)
                kept = self._read[(table, service)] = [dict(row) for row in con.execute(query).mappings()]
        return list(kept)

    def effective(self, table: str, service: str) -> list[Row]:
        """Events that count: those of a later epoch replace the older ones from its first day on, by day."""
        opened, said = self.rows("epochs", service), self.rows(table, service)
        kept = self._counted.get((table, service))
        if kept is None or kept[0] != (len(opened), len(said)):
            voided = {epoch: _first_voided(epoch, opened) for epoch in {row["epoch"] for row in said}}
            events = [row for row in said if row["day"] < voided[row["epoch"]]]
            found = sorted(events, key=lambda row: (row["day"], row["epoch"]))
            kept = self._counted[(table, service)] = ((len(opened), len(said)), found)
        return list(kept[1])

    def epoch(self, service: str) -> int:
        """The current epoch, from 1."""
        return max((row["epoch"] for row in self.rows("epochs", service)), default=1)

    def redo_until(self, service: str) -> date | None:
        """Last day that the current epoch re-decides; None outside a redo."""
        epochs = {row["epoch"]: row for row in self.rows("epochs", service)}
        return epochs[max(epochs)]["until_day"] if epochs else None

    def closings(self, service: str) -> dict[date, Row]:
        """The closing that counts, per closed day."""
        return {row["day"]: row for row in self.effective("closings", service)}

    def pinned(self, service: str) -> dict[str, int]:
        """The table versions that readers see: those of the last closing, or, if newer, what was put right since.

        A closing names the newest versions, so what was put right before it is among them already. Readers cut a
        table at the last closed day, whatever a newer version holds beyond it.
        """
        closings = self.closings(service)
        vector: dict[str, int] = dict(closings[max(closings)]["versions"]) if closings else {}
        for row in self.rows("recomputations", service) if closings else ():
            vector[row["table_name"]] = max(vector.get(row["table_name"], -1), row["version"])
        return vector

    def append(self, con: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add events inside a transaction; one whose key is there already is left as it is."""
        if rows:
            dialect: Any = sqlite if self.engine.dialect.name == "sqlite" else postgresql
            con.execute(dialect.insert(EVENTS[table]).on_conflict_do_nothing(), [dict(row) for row in rows])

    @contextmanager
    def transaction(self, lease: Lease | None = None) -> Iterator[Connection]:
        """One transaction; it is refused if a lease, given or held by this object, was taken over meanwhile."""
        with self.engine.begin() as con:
            for mine in {*self._held, *([lease] if lease is not None else [])}:
                held = con.execute(_lease_sql(mine.service)).mappings().one()["number"]
                if held != mine.number:
                    raise LedgerError(
                        f"service '{mine.service}': lease {mine.number} was taken over (now {held}); "
                        "nothing was written. Run the same command again."
                    )
            yield con

    def holder(self, service: str) -> Row | None:
        """Who writes this service now; None if nobody does."""
        with self._reading() as con:
            row = con.execute(sa.select(LEASES).where(LEASES.c.service == service)).mappings().first()
        return dict(row) if row and _is_alive(row) else None

    @contextmanager
    def lease(self, service: str, holder: str) -> Iterator[Lease]:
        """Hold the lease of a service while the body runs; a heartbeat keeps it.

        Raises:
            LeaseHeldError: another living process holds it; names who and since when.
        """
        lease = self._take(service, holder)
        self._held.append(lease)
        stopped = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(lease, stopped), daemon=True)
        keeper.start()
        try:
            yield lease
        finally:
            self._held.remove(lease)
            stopped.set()
            keeper.join()
            self._beat(lease, None)

    def _take(self, service: str, holder: str) -> Lease:
        now = wall_clock()
        mine = {"holder": holder, "host": socket.gethostname(), "pid": os.getpid(), "heartbeat": now}
        dialect: Any = sqlite if self.engine.dialect.name == "sqlite" else postgresql
        nobody = {"service": service, "number": 0, "heartbeat": None}
        with self.engine.begin() as con:
            con.execute(dialect.insert(LEASES).values(**nobody).on_conflict_do_nothing())
            row = con.execute(_lease_sql(service)).mappings().one()
            if _is_alive(row):
                raise LeaseHeldError(
                    f"service '{service}' is being written by {row['holder']} (process {row['pid']} on "
                    f"{row['host']}, last sign of life {row['heartbeat']:%H:%M:%S} UTC). One writer at a time: "
                    "wait for it, or end it."
                )
            number = row["number"] + 1
            con.execute(LEASES.update().where(LEASES.c.service == service).values(number=number, **mine))
        return Lease(service, number, holder)

    def _keep(self, lease: Lease, stopped: threading.Event) -> None:
        while not stopped.wait(LEASE_SECONDS / 4):
            self._beat(lease, wall_clock())

    def _beat(self, lease: Lease, at: datetime | None) -> None:
        mine = (LEASES.c.service == lease.service) & (LEASES.c.number == lease.number)
        with self.engine.begin() as con:
            con.execute(LEASES.update().where(mine).values(heartbeat=at))


def _first_voided(epoch: int, opened: Sequence[Row]) -> date:
    """First day whose events of an epoch are void, because a later epoch decides it."""
    return min((row["from_day"] for row in opened if row["epoch"] > epoch), default=date.max)


def _lease_sql(service: str) -> sa.Select[Any]:
    """The lease of a service, locked until the transaction ends: on Postgres two would otherwise take it at once."""
    return sa.select(LEASES).where(LEASES.c.service == service).with_for_update()


def _is_alive(row: Any) -> bool:
    """Whether a lease row still binds: it beat within LEASE_SECONDS, and its process, if on this host, lives."""
    if row["heartbeat"] is None or wall_clock() - row["heartbeat"] > timedelta(seconds=LEASE_SECONDS):
        return False
    if row["host"] != socket.gethostname():
        return True
    return Path(f"/proc/{row['pid']}").exists() if Path("/proc").is_dir() else True


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, json_serializer=_json)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, json_serializer=_json, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
            connection.execute(f"pragma {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("begin" if connection.get_execution_options().get(READS) else "begin immediate")

    return engine


def _json(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True)
