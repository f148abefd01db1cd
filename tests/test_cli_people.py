"""What people say through the real command line: rehearsed, refused, said, and what the service makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from signing_service import TRAINING_DAY, parcels
from toy_world import FIRST, deliver_all, span

from mlops_assets.adapters.home import Home
from mlops_assets.adapters.ledger import Ledger
from mlops_assets.cli import cli
from mlops_assets.closing.standing import proposals
from mlops_assets.closing.world import World
from mlops_assets.errors import MlopsError

DECISION = f"parcels-e1-{TRAINING_DAY}-retrain-retraining"
INCIDENT = f"parcels-e1-{FIRST + timedelta(days=4)}-open_incident-scans"


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def mlops(*words: str) -> str:
    """What ``mlops`` answers; for a refusal the sentence that goes to the error output."""
    done = CliRunner().invoke(cli, list(words))
    if isinstance(done.exception, MlopsError):
        return f"refused: {done.exception}"
    assert done.exit_code == 0, done.output
    return done.output.strip()


@pytest.fixture(scope="module")
def eleven_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven days are closed: scans stayed away on one of them, and the first training waits for a signature."""
    folder = tmp_path_factory.mktemp("people") / "home"
    deliver_all(folder / "landing", span(0, 20), without=[("scans", day(4))])
    with pytest.MonkeyPatch.context() as environment:
        go_to(folder, environment)
        mlops("replay", "parcels", "--to", str(day(10)))
    return folder


def go_to(folder: Path, environment: pytest.MonkeyPatch) -> None:
    """The home of the commands that follow, and the service they know."""
    for name, value in {
        "MLOPS_HOME": folder, "MLOPS_LANDING": folder / "landing", "MLOPS_SERVICES": "signing_service:parcels",
        "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }.items():  # fmt: skip
        environment.setenv(name, str(value))


@pytest.fixture
def world(eleven_days: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of these days, to go on with."""
    folder = tmp_path / "home"
    shutil.copytree(eleven_days, folder)
    go_to(folder, monkeypatch)
    return World(parcels, Home.from_environment())


def rehearsed(world: World, *words: str) -> str:
    """What a verb would do; it says that nothing was written, and nothing was."""
    tables = ("inputs", "decisions", "sign_offs", "releases", "actions")
    before = [len(world.ledger.rows(table, "parcels")) for table in tables]
    said = mlops(*words, "--dry-run")
    assert said.endswith("; nothing was written")
    assert [len(world.ledger.rows(table, "parcels")) for table in tables] == before
    return said


def closed(world: World, last: int) -> World:
    """The days up to one are closed, as a person would do it."""
    mlops("replay", "parcels", "--to", str(day(last)))
    assert world.closed_through() == day(last)
    return world


def champion(world: World) -> str:
    return str(world.holders(world.calendar.end_of(day(20)))["champion"]["model_version"])


@pytest.mark.slow
def test_an_incident_is_taken_and_closed(world: World) -> None:
    mia = ("--by", "Mia")
    assert rehearsed(world, "approve", INCIDENT, *mia).startswith(f"would give {INCIDENT} to Mia from {day(11)} on")
    assert mlops("approve", INCIDENT, *mia).startswith(f"Mia has incident {INCIDENT} from {day(11)} on")

    close = ("close", INCIDENT, *mia, "--reason", "a strike", "--as", "bad_data")
    assert f"Did you mean '{INCIDENT}'?" in mlops("close", INCIDENT[:-1], *close[2:])
    assert mlops(*close, "--from", str(day(6)), "--until", str(day(5))) == (
        f"refused: incident {INCIDENT}: --until {day(5)} lies before --from {day(6)}."
    )
    meaning = f"{day(4)} to {day(4)} leave baselines and trainings"
    assert f"would close {INCIDENT} from {day(11)} on, {meaning}" in rehearsed(world, *close)
    assert meaning in mlops(*close)
    assert f"closed from {day(11)} on by Mia" in mlops("status", "parcels")
    assert json.loads(mlops("status", closed(world, 11).name, "--format", "json"))["open_incidents"] == []


@pytest.mark.slow
def test_a_version_is_signed_rolled_back_and_promoted_again(world: World) -> None:
    assert list(proposals(world)) == [DECISION]
    refusal = "refused: service 'parcels': 'Bob' may not sign model updates. Responsible: Mia; accountable: Mia."
    assert mlops("approve", DECISION, "--by", "Bob") == refusal
    assert f"would answer from {world.calendar.start_of(day(11))} UTC" in rehearsed(
        world, "approve", DECISION, "--by", "Mia"
    )
    with Ledger(world.home.ledger_url).lease("parcels", "the nightly run"):
        held = mlops("approve", DECISION, "--by", "Mia")
    assert held.startswith("refused: service 'parcels' is being written by the nightly run") and list(
        proposals(world)
    ) == [DECISION]
    assert "answer from" in mlops("approve", DECISION, "--by", "Mia")
    first = champion(world)
    with Ledger(world.home.ledger_url).lease("parcels", "the nightly run"):
        held = mlops("rollback", "parcels", "--by", "Mia", "--reason", "wrong")
    assert held.startswith("refused: service 'parcels' is being written by the nightly run"), held
    assert "no proposal or open incident is named" in mlops("approve", DECISION, "--by", "Mia")

    bob = ("--by", "Bob", "--reason", "wrong on heavy parcels")
    assert rehearsed(world, "rollback", "parcels", *bob).startswith(f"would give the place of {first} to ")
    assert f"undo with: mlops promote parcels --to {first}" in mlops("rollback", "parcels", *bob)
    assert champion(world) != first

    back = ("promote", "parcels", "--to", first)
    assert mlops(*back, *bob) == refusal
    assert "no released version is named" in mlops("promote", "parcels", "--to", "nobody", "--by", "Mia", *bob[2:])
    closed(world, 11)
    mia = ("--by", "Mia", "--reason", "it was the better one")
    assert rehearsed(world, *back, *mia).endswith(f"to {first}; nothing was written")
    mlops(*back, *mia)
    assert champion(world) == world.registry.aliases()["champion"] == first


@pytest.mark.slow
def test_retraining_is_frozen_lifted_and_asked_for_and_its_version_refused(world: World) -> None:
    because = ("--by", "Mia", "--reason", "the new depot")
    assert "would be refused; the champion stays" in rehearsed(world, "reject", DECISION, *because)
    assert mlops("reject", DECISION, *because) == (
        f"{DECISION} is refused; the champion stays; next: mlops status parcels"
    )
    assert not proposals(world) and not world.releases()

    assert rehearsed(world, "freeze", "parcels", *because).startswith(f"would freeze parcels: from {day(11)} on no")
    assert "undo with: mlops unfreeze parcels" in mlops("freeze", "parcels", *because)
    closed(world, 11)
    assert f"retraining is frozen since {day(11)}" in mlops("retrain", "parcels", *because)
    assert rehearsed(world, "unfreeze", "parcels", *because).startswith("would unfreeze parcels")
    mlops("unfreeze", "parcels", *because)
    closed(world, 12)

    asked = f"parcels-e1-{day(12)}-retrain-retraining"
    assert rehearsed(world, "retrain", "parcels", *because) == (
        f"would train as of {day(12)}: {asked}; nothing was written"
    )
    assert mlops("retrain", "parcels", *because).startswith("PASS: ")
    assert list(proposals(world)) == [asked]


@pytest.mark.slow
def test_a_refusal_is_one_sentence_and_exit_code_one_in_a_program_of_its_own(world: World) -> None:
    command = [sys.executable, "-m", "mlops_assets.cli", "approve", DECISION, "--by", "Bob"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("mlops: service 'parcels': 'Bob' may not sign") and done.stderr.count("\n") == 1


def test_every_verb_of_people_wants_a_name_and_can_be_rehearsed() -> None:
    for name in ("approve", "close", "freeze", "promote", "reject", "retrain", "rollback", "unfreeze"):
        shown = CliRunner().invoke(cli, [name, "--help"]).output
        assert "--by TEXT" in shown and "--dry-run" in shown and f"Example: mlops {name}" in shown
