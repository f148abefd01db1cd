"""A log that is a table of somebody's database is known like a file: from its day on, and late if it is late."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import sqlalchemy as sa
from toy_log import a_log_service, answers, answers_of, payments
from toy_stories import looked_at, on, states, stored
from toy_world import CALENDAR, a_world, close, deliver, span

from mlops_assets import DeclarationError, MLService, SqlTable, UnknownNameError
from mlops_assets.closing.extracting import extract_tables
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.standing import lacks_landing, waits_for
from mlops_assets.closing.world import World
from mlops_assets.errors import DatabaseError
from mlops_assets.promises import warnings

DAYS = span(0, 1)
VARIABLE = "LOANS_DB_URL"
RENAMED = {"score": "probability_of_default", "available_at": "written_at"}
TABLE = SqlTable(url_variable=VARIABLE, table="scores", columns=RENAMED)


def a_table_service(**table: Any) -> MLService:
    """The credit score whose log is a table; what became of the loans still comes in files."""
    return a_log_service(sources=(answers(table=TABLE.model_copy(update=table)), payments()))


def write(url: str, rows: pd.DataFrame, *, table: str = "scores") -> None:
    """Rows of the log into a table of a database, under the names of its owner."""
    renamed = rows.rename(columns=RENAMED).astype({"event_at": "datetime64[us]", "written_at": "datetime64[us]"})
    if url.startswith("duckdb:"):
        with duckdb.connect(url.removeprefix("duckdb:///")) as con:
            con.register("rows", renamed)
            con.execute(f"create table if not exists {table} as from rows limit 0")
            con.execute(f"insert into {table} from rows")
        return
    engine = sa.create_engine(url)
    renamed.to_sql(table, engine, if_exists="append", index=False)
    engine.dispose()


@pytest.fixture
def of_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Makes a world whose log is a table of a database, which has these days."""

    def made(url: str, days: Sequence[date] = DAYS[:2], **table: Any) -> World:
        monkeypatch.setenv(VARIABLE, url)
        world = a_world(tmp_path / "home", a_table_service(**table))
        for day in days:
            write(url, answers_of(day).sample(frac=1, random_state=1))
        return world

    return made


@pytest.fixture(params=["sqlite", "duckdb", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own of each kind."""
    if request.param == "postgres":
        made: str = request.getfixturevalue("postgres_database")
        return made
    return f"{request.param}:///{tmp_path / 'loans.db'}"


def test_a_day_of_a_table_lands_as_the_file_it_would_have_been(url: str, of_table: Callable[..., World]) -> None:
    """Declared names and types, in the order of the key, whatever the database makes of a timestamp or a number."""
    world = of_table(url)
    assert extract_tables(world, DAYS[:2], again=False) == [("answers", day) for day in DAYS[:2]]
    for day in DAYS[:2]:
        landed = pd.read_parquet(world.home.landing / "answers" / f"{day}.parquet")
        asked = answers_of(day).sort_values(["available_at", "line"], ignore_index=True)
        pd.testing.assert_frame_equal(landed, asked, check_dtype=False)
    assert extract_tables(world, DAYS[:2], again=True) == [], "the same rows are the same file"


def test_what_a_table_is_given_after_its_day_has_closed_counts_from_the_first_unclosed_day_on(
    tmp_path: Path, of_table: Callable[..., World]
) -> None:
    """After day 0 has closed its last ten answers arrive; nothing else of it is new, and the closed day stays."""
    url, (zero, one) = f"sqlite:///{tmp_path / 'loans.db'}", DAYS[:2]
    world, rows = of_table(url, []), answers_of(zero)
    write(url, rows[:50])
    close(world, [zero])
    before = stored(world, "predictions")
    write(url, rows[50:60])
    write(url, answers_of(one))
    close(world, [one])

    assert [(outcome, n) for outcome, n, _ in looked_at(world, "answers", zero)] == [("accepted", 1), ("accepted", 2)]
    after = stored(world, "predictions")
    pd.testing.assert_frame_equal(on(after, zero), before)
    assert len(before) == 50 and set(states(world).values()) == {"computed"}
    late = on(after, one)
    late = late[late["prediction_day"].dt.date == zero]
    assert len(late) == 10 and (late["logged_at"] == pd.Timestamp(CALENDAR.last_instant(one))).all()


def test_a_day_lands_when_it_is_over_and_a_day_without_a_row_is_a_missing_file(
    tmp_path: Path, of_table: Callable[..., World]
) -> None:
    day, url = DAYS[0], f"sqlite:///{tmp_path / 'loans.db'}"
    world, end = of_table(url, [day]), CALENDAR.end_of(day)
    early = World(world.service, world.home, clock=lambda: end + timedelta(minutes=14))
    assert extract_tables(early, [day], again=False) == []
    assert waits_for(early, day, early.now()) == (
        f"{day} waits for answers/{day}.* (rows of table 'scores') until {end + timedelta(hours=6)} UTC"
    )
    settled = World(world.service, world.home, clock=lambda: end + timedelta(minutes=15))
    assert extract_tables(settled, [day], again=False) == [("answers", day)]
    assert waits_for(settled, day, settled.now()) is None
    ingest_sources(world, DAYS[:2])
    found = on(stored(world, "contracts"), DAYS[1])
    assert list(found[found["source"] == "answers"]["message"]) == [
        f"source 'answers', day {DAYS[1]}: table 'scores' has no row whose written_at lies in that day. Load it; it "
        "counts from the first unclosed day on."
    ]


def test_a_value_of_another_type_blocks_its_day_and_no_other(tmp_path: Path, of_table: Callable[..., World]) -> None:
    url = f"sqlite:///{tmp_path / 'loans.db'}"
    world = of_table(url, DAYS[:1])
    write(url, answers_of(DAYS[1]).astype({"score": object}).replace({"score": {None: "unknown"}}))
    ingest_sources(world, DAYS[:2])
    assert [(outcome, n) for outcome, n, _ in looked_at(world, "answers", DAYS[0])] == [("accepted", 1)]
    ((outcome, _, reason),) = looked_at(world, "answers", DAYS[1])
    assert outcome == "rejected" and "column 'score' is string, declared DOUBLE" in reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "score"}, "> table of $LOANS_DB_URL: no table is named 'score'. Did you mean 'scores'?"),
        ({"columns": {"score": "probability"}}, "> columns > 'score': no column is named 'probability'. Did you mean"),
        ({"columns": {**RENAMED, "available_at": "model"}}, "'model': is no timestamp, so the rows of a day cannot"),
    ],
)
def test_a_table_that_is_not_as_declared_is_refused_with_the_name_that_was_meant(
    tmp_path: Path, of_table: Callable[..., World], changes: dict[str, Any], message: str
) -> None:
    world = of_table(f"sqlite:///{tmp_path / 'loans.db'}", DAYS[:1], **changes)
    with pytest.raises(DeclarationError) as refused:
        close(world, DAYS[:1])
    assert message in str(refused.value) and not states(world)


def test_a_database_that_is_down_closes_no_day_and_its_password_is_in_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens on that port; the password stands in the URL, and once more behind its question mark."""
    monkeypatch.setenv(VARIABLE, "postgresql+psycopg2://mia:s3cret@127.0.0.1:1/loans?application_name=t0ken")
    world = a_world(tmp_path, a_table_service())
    with pytest.raises(DatabaseError, match=r"table 'scores' of \$LOANS_DB_URL: .*refused") as refused:
        close(world, DAYS[:1])
    assert not {"s3cret", "t0ken"} & set(str(refused.value).replace(":", " ").split()) and not states(world)
    assert "s3cret" not in str(refused.value) and refused.value.__cause__ is None
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(DeclarationError, match="the environment variable LOANS_DB_URL is not set. Set it to"):
        close(world, DAYS[:1])


def test_a_url_in_the_declaration_is_refused_without_being_repeated() -> None:
    with pytest.raises(DeclarationError, match="> url_variable: is no name of an environment variable") as refused:
        SqlTable(url_variable="postgresql://mia:s3cret@db/loans", table="scores")
    assert "s3cret" not in str(refused.value)
    with pytest.raises(UnknownNameError, match="no declared column is named 'scor'. Did you mean 'score'"):
        answers(table=TABLE.model_copy(update={"columns": {"scor": "p"}}).model_dump())


def test_a_service_that_reads_a_table_waits_for_no_first_file(tmp_path: Path) -> None:
    """Loans are paid back months later: no file of theirs lies there on the first day, and no folder is wrong."""
    assert lacks_landing(a_world(tmp_path / "files", a_log_service())) is not None
    assert lacks_landing(a_world(tmp_path / "table", a_table_service())) is None


@pytest.mark.slow
def test_no_file_of_ours_holds_an_id_of_a_table_whose_ids_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that a table lands as holds pseudonyms, which are not hashed twice, also not when it is read again."""
    named, key = ("request", "customer"), "a secret of the bank"
    monkeypatch.setenv(VARIABLE, url := f"sqlite:///{tmp_path / 'loans.db'}")
    sources = (answers(table=TABLE, pseudonymise=named), payments(pseudonymise=named))
    world = a_world(tmp_path / "home", a_log_service(sources=sources))
    write(url, answers_of(DAYS[0]))
    with pytest.raises(DeclarationError, match="MLOPS_HMAC_KEY_LOANS is not set"):
        close(world, DAYS[:1])
    monkeypatch.setenv("MLOPS_HMAC_KEY_LOANS", key)
    close(world, DAYS[:1])
    write(url, answers_of(DAYS[1]))
    close(world, DAYS[1:2])

    asked = [f"{day}-{n:02d}" for day in DAYS[:2] for n in range(60)]
    expected = {hmac.new(key.encode(), name.encode(), hashlib.sha256).hexdigest() for name in asked}
    assert set(stored(world, "predictions")["request_id"]) == expected
    assert [(outcome, n) for outcome, n, _ in looked_at(world, "answers", DAYS[0])] == [("accepted", 1)]
    files = [path for path in world.home.path.rglob("*") if path.is_file()]
    written = b"".join(plain_bytes(path) for path in files)
    assert any(path.parent == world.home.landing / "answers" for path in files) and b"champion" in written
    assert [raw for raw in (asked[7], asked[70], "client-07", key) if raw.encode() in written] == []


def plain_bytes(path: Path) -> bytes:
    """What a file says, with the columns of a Parquet file unpacked."""
    if path.suffix != ".parquet":
        return path.read_bytes()
    return path.read_bytes() + pd.read_parquet(path).to_csv().encode()


@pytest.mark.slow
def test_a_file_that_somebody_put_in_place_of_a_landed_one_is_hidden_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a file that says so holds pseudonyms already."""
    monkeypatch.setenv(VARIABLE, url := f"sqlite:///{tmp_path / 'loans.db'}")
    monkeypatch.setenv("MLOPS_HMAC_KEY_LOANS", "a secret of the bank")
    table = TABLE.model_copy(update={"reread_days": 0})
    sources = (answers(table=table, pseudonymise=("request",)), payments(pseudonymise=("request",)))
    world = a_world(tmp_path / "home", a_log_service(sources=sources))
    write(url, answers_of(DAYS[1]))
    deliver(world.home.landing, "answers", DAYS[0], answers_of(DAYS[0]))
    close(world, DAYS[:2])
    assert set(stored(world, "predictions")["request_id"].str.len()) == {64}
    assert len(set(stored(world, "predictions")["request_id"])) == 120


def test_a_check_says_why_a_table_cannot_be_read_before_a_day_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = a_world(tmp_path, a_table_service())

    def told() -> list[str]:
        return [warning for warning in warnings(world) if "source 'answers'" in warning]

    monkeypatch.delenv(VARIABLE, raising=False)
    assert "the environment variable LOANS_DB_URL is not set" in told()[0]
    file = tmp_path / "loans.db"
    monkeypatch.setenv(VARIABLE, f"sqlite:///{file}")
    assert f"$LOANS_DB_URL names {file}, and there is no such file." in told()[0] and not file.exists()
    write(f"sqlite:///{file}", answers_of(DAYS[0]), table="scored")
    assert "no table is named 'scores'. Did you mean 'scored'?" in told()[0]
    write(f"sqlite:///{file}", answers_of(DAYS[0]))
    assert told() == []
