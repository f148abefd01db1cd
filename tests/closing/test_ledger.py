"""The ledger keeps what was said: nothing is changed, nothing is said twice, and one writer writes."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlops_assets.adapters.calendar import wall_clock
from mlops_assets.adapters.ledger import LEASE_SECONDS, Lease, Ledger
from mlops_assets.adapters.ledger_tables import EVENTS
from mlops_assets.adapters.people_sql import ledger_types
from mlops_assets.errors import LeaseHeldError, LedgerError

DAY = date(2024, 3, 4)
NOON = datetime(2024, 3, 4, 12)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite in a file, and a database of its own in Postgres."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    made: str = request.getfixturevalue("postgres_database")
    return made


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    made = Ledger(url)
    yield made
    made.engine.dispose()


def a_closing(day: date, epoch: int = 1, **changes: Any) -> dict[str, Any]:
    row = {
        "service": "parcels", "epoch": epoch, "day": day, "state": "computed", "reason": "", "inputs": "abc",
        "versions": {"labels": 3}, "closed_at": NOON,
    }  # fmt: skip
    return {**row, **changes}


def an_epoch(epoch: int, from_day: date) -> dict[str, Any]:
    return {
        "service": "parcels", "epoch": epoch, "from_day": from_day, "until_day": DAY, "by": "Mia",
        "versions": {}, "opened_at": NOON,
    }  # fmt: skip


def say(ledger: Ledger, table: str, *rows: dict[str, Any]) -> None:
    with ledger.transaction() as transaction:
        ledger.append(transaction, table, rows)


def test_what_was_said_is_read_back_as_it_was_said(ledger: Ledger) -> None:
    say(ledger, "closings", a_closing(DAY), a_closing(DAY + timedelta(days=1), reason="Ärger"))
    assert ledger.rows("closings", "parcels") == [a_closing(DAY), a_closing(DAY + timedelta(days=1), reason="Ärger")]
    assert ledger.rows("closings", "letters") == []


@pytest.mark.parametrize("verb", ["update closings set state = 'blocked'", "delete from closings"])
def test_the_past_cannot_be_changed(ledger: Ledger, verb: str) -> None:
    say(ledger, "closings", a_closing(DAY))
    with pytest.raises(sa.exc.DBAPIError, match="the ledger is append-only"), ledger.engine.begin() as con:
        con.exec_driver_sql(verb)
    assert ledger.rows("closings", "parcels") == [a_closing(DAY)]


def test_every_table_of_events_is_guarded(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger.engine.connect() as con:
        triggers = {row[0] for row in con.exec_driver_sql("select name from sqlite_master where type = 'trigger'")}
    assert triggers == {f"no_{verb}_{table}" for table in EVENTS for verb in ("update", "delete")}


def test_saying_it_twice_says_it_once_and_the_first_word_stands(ledger: Ledger) -> None:
    say(ledger, "closings", a_closing(DAY))
    say(ledger, "closings", a_closing(DAY, state="blocked"), a_closing(DAY + timedelta(days=1)))
    assert [row["state"] for row in ledger.rows("closings", "parcels")] == ["computed", "computed"]


def test_a_transaction_that_fails_leaves_nothing_behind(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), ledger.transaction() as transaction:
        ledger.append(transaction, "closings", [a_closing(DAY)])
        _ = 1 / 0
    assert ledger.rows("closings", "parcels") == []


def test_a_new_epoch_voids_what_the_older_ones_said_of_its_days_and_nothing_else(ledger: Ledger) -> None:
    days = [DAY + timedelta(days=i) for i in range(4)]
    say(ledger, "closings", *(a_closing(day) for day in days))
    assert ledger.epoch("parcels") == 1 and ledger.redo_until("parcels") is None

    say(ledger, "epochs", an_epoch(2, from_day=days[2]))
    assert sorted(ledger.closings("parcels")) == days[:2]
    assert ledger.epoch("parcels") == 2 and ledger.redo_until("parcels") == DAY
    assert ledger.epoch("letters") == 1, "another service has its own epochs"

    say(ledger, "closings", a_closing(days[2], epoch=2, state="blocked"))
    say(ledger, "epochs", an_epoch(3, from_day=days[1]))
    say(ledger, "closings", a_closing(days[1], epoch=3))
    counted = [(row["day"], row["epoch"]) for row in ledger.effective("closings", "parcels")]
    assert counted == [(days[0], 1), (days[1], 3)]
    assert len(ledger.rows("closings", "parcels")) == 6, "and all of it is still there to be read"


def test_what_somebody_else_said_meanwhile_is_heard(ledger: Ledger, url: str) -> None:
    """Events are kept once read, and counted again: another process may have said more, or opened an epoch."""
    other = Ledger(url)
    say(ledger, "closings", a_closing(DAY))
    assert sorted(ledger.closings("parcels")) == [DAY]
    say(other, "closings", a_closing(DAY + timedelta(days=1)))
    assert sorted(ledger.closings("parcels")) == [DAY, DAY + timedelta(days=1)]
    say(other, "epochs", an_epoch(2, from_day=DAY + timedelta(days=1)))
    assert sorted(ledger.closings("parcels")) == [DAY] and ledger.epoch("parcels") == 2
    other.engine.dispose()


def test_reading_waits_for_no_writer_and_opening_a_ledger_does_not_either(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    say(ledger, "closings", a_closing(DAY))
    with ledger.engine.begin() as writing:
        ledger.append(writing, "closings", [a_closing(DAY + timedelta(days=1))])
        reader = Ledger(url)
        assert sorted(reader.closings("parcels")) == [DAY]
        assert reader.holder("parcels") is None
    assert sorted(reader.closings("parcels")) == [DAY, DAY + timedelta(days=1)]


def test_a_second_writer_is_told_who_writes_since_when_and_what_to_do(ledger: Ledger) -> None:
    with ledger.lease("parcels", "the daily run"):
        holder = ledger.holder("parcels")
        assert holder is not None
        with pytest.raises(LeaseHeldError) as refused, ledger.lease("parcels", "a replay"):
            pass
        with ledger.lease("letters", "a replay"):
            pass  # another service has its own writer
    assert str(refused.value) == (
        f"service 'parcels' is being written by the daily run (process {os.getpid()} on {socket.gethostname()}, "
        f"last sign of life {holder['heartbeat']:%H:%M:%S} UTC). One writer at a time: wait for it, or end it."
    )
    assert ledger.holder("parcels") is None
    with ledger.lease("parcels", "a replay") as lease:
        assert lease.number == 2


def pretend(ledger: Ledger, **changes: Any) -> None:
    """Change the lease row as time or another process would."""
    values = ", ".join(f"{name} = :{name}" for name in changes)
    with ledger.engine.begin() as con:
        con.execute(sa.text(f"update leases set {values} where service = 'parcels'"), changes)


@pytest.mark.parametrize("fate", ["silent for too long", "dead"])
def test_the_lease_of_a_holder_that_is_gone_is_taken_over(ledger: Ledger, fate: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with ledger.lease("parcels", "a run that is killed") as lost:
        if fate == "dead":
            pretend(ledger, pid=gone.pid)
        else:
            pretend(ledger, host="elsewhere", heartbeat=wall_clock() - timedelta(seconds=LEASE_SECONDS + 1))
        assert ledger.holder("parcels") is None
        with ledger.lease("parcels", "the next run") as taken:
            assert taken.number == lost.number + 1


def test_a_holder_on_another_host_binds_as_long_as_it_gives_signs_of_life(ledger: Ledger) -> None:
    with ledger.lease("parcels", "a run elsewhere"):
        pretend(ledger, host="elsewhere", pid=1, heartbeat=wall_clock() - timedelta(seconds=LEASE_SECONDS - 10))
        with pytest.raises(LeaseHeldError), ledger.lease("parcels", "here"):
            pass


def test_a_writer_whose_lease_was_taken_over_commits_nothing(ledger: Ledger) -> None:
    with ledger.lease("parcels", "the next run"):
        pass
    with ledger.lease("parcels", "the next run but one") as lease:
        overtaken = Lease("parcels", lease.number - 1, "a run that slept")
        with pytest.raises(LedgerError) as refused, ledger.transaction(overtaken) as transaction:
            ledger.append(transaction, "closings", [a_closing(DAY)])
        with ledger.transaction(lease) as transaction:
            ledger.append(transaction, "closings", [a_closing(DAY + timedelta(days=1))])
    assert str(refused.value) == (
        "service 'parcels': lease 1 was taken over (now 2); nothing was written. Run the same command again."
    )
    assert sorted(ledger.closings("parcels")) == [DAY + timedelta(days=1)]


def test_every_commit_of_a_writer_checks_that_it_still_holds_its_lease(ledger: Ledger) -> None:
    """Also the commits that are about actions or divergences and do not name the lease."""
    with ledger.lease("parcels", "a run that slept"):
        say(ledger, "closings", a_closing(DAY))
        pretend(ledger, number=7)
        with pytest.raises(LedgerError, match="lease 1 was taken over"):
            say(ledger, "closings", a_closing(DAY + timedelta(days=1)))
    assert sorted(ledger.closings("parcels")) == [DAY]
    say(ledger, "closings", a_closing(DAY + timedelta(days=1)))  # who holds none writes people's words


def test_of_many_who_reach_for_the_lease_at_once_one_gets_it(ledger: Ledger) -> None:
    start, done, won = threading.Barrier(4), threading.Barrier(4), []

    def reach() -> None:
        start.wait()
        try:
            with ledger.lease("parcels", "one of many") as lease:
                won.append(lease.number)
                done.wait()
        except LeaseHeldError:
            done.wait()

    threads = [threading.Thread(target=reach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]


def test_people_count_with_the_numbers_of_every_event() -> None:
    """What is no text and nothing nested is no text in ``mlops sql`` either."""
    texts = (sa.String, sa.Text, sa.JSON)
    for name, table in EVENTS.items():
        told = ledger_types(name)
        assert [c.name for c in table.columns if not isinstance(c.type, texts) and told[c.name] == "VARCHAR"] == []
