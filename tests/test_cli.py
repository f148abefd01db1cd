"""The command line as people use it: started as a program, in a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlops_assets.cli import as_csv, as_table, cli

VERBS = sorted(cli.commands)
FIRST, LAST = date(2012, 12, 31), date(2013, 1, 9)
Run = Callable[..., subprocess.CompletedProcess[str]]


def mlops_in(home: Path, landing: Path) -> Run:
    """Run ``mlops`` as a program in a home."""
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_LANDING": str(landing)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlops_assets.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    return run


@pytest.fixture
def mlops(home: Path, landing: Path) -> Run:
    return mlops_in(home, landing)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, landing: Path) -> tuple[Run, str]:
    """Ten days of real flights, replayed once for the tests that only ask, and what the replay said."""
    run = mlops_in(tmp_path_factory.mktemp("cli") / "home", landing)
    done = run("replay", "flight_delays", "--to", str(LAST))
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def rows(run: Run, query: str) -> list[dict[str, Any]]:
    answered = run("sql", "--format", "json", query)
    assert answered.returncode == 0, answered.stderr
    found: list[dict[str, Any]] = json.loads(answered.stdout)
    return found


# --- without any data ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_an_example(verb: str):
    shown = CliRunner().invoke(cli, [verb, "--help"])
    assert shown.exit_code == 0
    assert f"Example: mlops {verb}" in shown.output


def test_the_verbs_of_this_issue_are_all_there():
    wanted = {"init", "check", "replay", "status", "sql", "recover", "close", "freeze", "unfreeze", "ui"}
    assert wanted <= set(VERBS)


def test_importing_the_command_line_imports_nothing_that_costs_seconds():
    program = (
        "import sys, mlops_assets.cli\n"
        "heavy = {'dagster', 'mlflow', 'sklearn', 'pandas', 'great_expectations', 'duckdb', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_service_is_one_sentence_with_the_nearest_name(mlops: Run):
    done = mlops("status", "flight_delay")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "mlops: no service is named 'flight_delay'. Did you mean 'flight_delays'? Declared: flight_delays.\n"
    )


def test_a_folder_without_any_file_closes_nothing_and_is_named(tmp_path: Path):
    landing = tmp_path / "wrong" / "landing"
    run = mlops_in(tmp_path / "wrong", landing)
    done = run("replay", "flight_delays", "--to", str(FIRST))
    assert (done.returncode, done.stderr) == (
        1,
        f"mlops: service 'flight_delays': no file of its sources lies in the landing zone {landing}. "
        "Deliver one, or name the right folder with MLOPS_LANDING or MLOPS_HOME.\n",
    )
    assert "no day yet" in run("status", "flight_delays").stdout


@pytest.mark.parametrize("asked", [["status"], ["sql", "select 1"], ["recover"], ["explain", "x"]])
def test_who_only_asks_in_a_wrong_folder_is_told_so_and_makes_nothing(tmp_path: Path, asked: list[str]):
    done = mlops_in(tmp_path / "wrong", tmp_path / "wrong" / "landing")(*asked)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"mlops: there is no home at {tmp_path / 'wrong'}. Go to the folder")
    assert not list(tmp_path.iterdir())


def test_a_name_that_nothing_has_is_told_as_that(mlops: Run):
    done = mlops("close", "nonsense", "--by", "ana", "--as", "bad_data", "--reason", "x")
    assert done.stderr == "mlops close: no open incident is named 'nonsense'. There is none.\n"


def test_services_of_your_own_replace_the_examples(mlops: Run, tmp_path: Path):
    done = mlops("--service-module", "nowhere.at_all:service", "check")
    assert done.returncode == 1
    assert "MLOPS_SERVICES > nowhere.at_all:service: no module is named 'nowhere'." in done.stderr


def test_check_shows_what_was_promised_and_writes_nothing(mlops: Run, home: Path):
    done = mlops("check", "flight_delays")
    assert done.returncode == 0, done.stderr
    for word in ("owner", "source weather", "features", "label", "champion", "gate", "drift", "365 days"):
        assert word in done.stdout
    assert sorted(path.name for path in home.iterdir()) == ["landing"]


def test_a_day_that_is_none_is_refused_with_an_example():
    shown = CliRunner().invoke(cli, ["replay", "flight_delays", "--from", "monday"])
    assert shown.exit_code == 2
    assert "'monday' is not a day; write it as 2013-07-01." in shown.output


def test_a_redo_needs_a_name():
    shown = CliRunner().invoke(cli, ["replay", "flight_delays", "--redo-from", "2013-01-05"])
    assert shown.exit_code == 2
    assert "say who asks for it with --by NAME" in shown.output


def test_the_pages_do_not_listen_to_strangers():
    shown = CliRunner().invoke(cli, ["ui", "--host", "0.0.0.0"])
    assert shown.exit_code == 2
    assert "--i-have-a-login-in-front" in shown.output


@pytest.mark.slow
def test_init_can_be_repeated(mlops: Run, home: Path):
    first, second = mlops("init"), mlops("init")
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "made" in first.stdout and "made" not in second.stdout
    assert (home / "dagster" / "dagster.yaml").is_file()


# --- ten days of flights ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_replay_ends_with_a_summary_for_people(replayed: tuple[Run, str]):
    _run, said = replayed
    assert "2013-01-09  10 of 10 days" in said
    assert "days         10 closed, of which blocked" not in said
    for word in ("predictions", "labels", "retrainings", "decisions", "Brier", "peak memory", "make ui"):
        assert word in said
    assert "2013-01 " in said


@pytest.mark.slow
def test_a_second_replay_finds_its_work_done_in_seconds(replayed: tuple[Run, str]):
    run, _said = replayed
    started = time.perf_counter()
    again = run("replay", "flight_delays", "--from", str(FIRST), "--to", str(LAST))
    assert again.returncode == 0, again.stderr
    assert f"every day up to {LAST} is closed; nothing to do" in again.stdout
    assert "Brier" in again.stdout
    assert time.perf_counter() - started < 20


@pytest.mark.slow
def test_a_gap_is_refused_naming_the_first_unclosed_day(replayed: tuple[Run, str]):
    run, _said = replayed
    done = run("replay", "flight_delays", "--from", "2013-02-01")
    assert done.returncode == 1
    assert f"{LAST + timedelta(days=1)} is the first that is not closed" in done.stderr


@pytest.mark.slow
def test_status_says_how_the_service_stands(replayed: tuple[Run, str]):
    run, _said = replayed
    done = run("status", "flight_delays", "--format", "json")
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    assert status["closed_through"] == str(LAST)
    assert (status["epoch"], status["champion"], status["writer"]) == (1, None, None)
    assert status["next"]["day"] == str(LAST + timedelta(days=1))
    assert len(status["verdicts"]) == 7
    assert "the declared prior answers" in run("status", "flight_delays").stdout


@pytest.mark.slow
def test_every_request_has_exactly_one_served_prediction(replayed: tuple[Run, str]):
    run, _said = replayed
    [counted] = rows(
        run,
        "select count(*) as n, count(distinct request_id) as requests, min(day) as first, max(day) as last "
        "from flight_delays.predictions where served",
    )
    assert counted["n"] == counted["requests"] > 7_000
    assert (counted["first"], counted["last"]) == ("2013-01-01", "2013-01-09")


@pytest.mark.slow
def test_only_the_tables_that_a_query_names_are_opened_and_all_are_known(replayed: tuple[Run, str]):
    run, _output = replayed
    [direct] = rows(run, 'select count(*) as n from FLIGHT_DELAYS."Predictions"')
    [found] = rows(run, "select count(*) as n from query_table('flight_delays.predictions')")
    assert found == direct and direct["n"] > 0
    known = rows(run, "select view_name from duckdb_views() where schema_name = 'flight_delays'")
    assert {"labels", "verdicts", "features"} <= {row["view_name"] for row in known}


@pytest.mark.slow
def test_outcomes_can_be_asked_as_they_were_known(replayed: tuple[Run, str]):
    run, _said = replayed
    [then] = rows(run, "select count(*) as n, count(value) as k from flight_delays.outcomes_as_of('2013-01-02')")
    [now] = rows(run, "select count(*) as n, count(value) as k from flight_delays.outcomes_as_of('2013-01-09')")
    assert then["n"] < now["n"] and then["k"] < now["k"]
    assert rows(run, "select count(*) as n from flight_delays.outcomes") == [{"n": now["n"]}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select * from flight_delays.predicions", 'Did you mean "predictions"? Tables: flight_delays.actions, '),
        ("drop table flight_delays.closings", "takes one statement that reads"),
        ("select 1; select 2", "takes one statement that reads"),
        ("selec 1", "syntax error"),
        ("select * from read_text('pyproject.toml')", "disabled by configuration"),
    ],
)
def test_a_query_that_cannot_be_answered_is_one_line(replayed: tuple[Run, str], query: str, message: str):
    run, _said = replayed
    done = run("sql", query)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_recover_has_nothing_to_repair_after_a_whole_run(replayed: tuple[Run, str]):
    run, _said = replayed
    done = run("recover", "flight_delays")
    assert (done.returncode, done.stdout) == (0, "flight_delays: nothing to repair\n"), done.stderr


@pytest.mark.slow
def test_a_freeze_counts_from_the_first_unclosed_day_and_a_rehearsal_writes_nothing(mlops: Run):
    said = ("freeze", "flight_delays", "--by", "ana", "--reason", "labels are being repaired")
    assert "nothing was written" in mlops(*said, "--dry-run").stdout
    done = mlops(*said)
    assert done.stdout.startswith(f"flight_delays: from {FIRST} on no candidate is trained"), done.stderr
    assert mlops("replay", "flight_delays", "--to", str(FIRST)).returncode == 0
    status = json.loads(mlops("status", "flight_delays", "--format", "json").stdout)
    assert status["frozen_since"] == str(FIRST)


def test_a_second_writer_waits_then_names_the_first(mlops: Run, home: Path):
    from mlops_assets.adapters.ledger import Ledger

    with Ledger(f"sqlite:///{home / 'ledger.db'}").lease("flight_delays", "the nightly run"):
        done = mlops("replay", "flight_delays", "--to", str(FIRST), "--wait-seconds", "1")
    assert done.returncode == 1
    assert "the nightly run (process" in done.stdout and "waiting up to 1 s" in done.stdout
    assert "is still being written by the nightly run" in done.stderr


@pytest.mark.slow
def test_ctrl_c_stops_with_one_line_and_the_same_command_goes_on(home: Path, landing: Path):
    run = mlops_in(home, landing)
    environment = {**os.environ, "MLOPS_HOME": str(home), "MLOPS_LANDING": str(landing)}
    command = [sys.executable, "-m", "mlops_assets.cli", "replay", "flight_delays", "--to", "2013-01-20"]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell in the background ignores it
    ) as process:
        assert process.stdout is not None
        assert any(b" of 21 days" in line for line in process.stdout), "the first month is said to be done"
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().strip().splitlines()[-1] == "stopped; run the same command again to go on"
    assert run("replay", "flight_delays", "--to", "2013-01-02").returncode == 0


# --- how an answer is written -----------------------------------------------------------------------


def test_a_table_stands_in_columns_and_numbers_to_the_right():
    from mlops_assets.adapters.people_sql import Answer

    answer = Answer(("name", "n"), (("a", 5), ("bcd", 1000)))
    assert as_table(answer) == "name     n\n----  ----\na        5\nbcd   1000\n(2 rows)"
    assert as_csv(answer) == "name,n\na,5\nbcd,1000"
