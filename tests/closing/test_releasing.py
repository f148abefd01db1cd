"""Who answers: a gate alone, a signature, a rollback; each by name, once, and never in the past."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient
from toy_stories import copy_of, stored
from toy_world import FIRST, a_service, a_world, close, deliver_all, span

from mlops_assets import DegradationRule, LatencyObjective, OperationsPolicy, QualityPolicy
from mlops_assets.closing.standing import pending_decisions, proposals
from mlops_assets.closing.world import World
from mlops_assets.day_loop import open_epoch, recover
from mlops_assets.decisions import Kind
from mlops_assets.errors import LedgerError, UnknownNameError
from mlops_assets.people import approve, give_place, retrain_now, sign
from mlops_assets.status import open_incident_page, status_lines, status_of

pytestmark = pytest.mark.slow

TRAINING_DAY = FIRST + timedelta(days=9)
"""The Sunday on which the first training is due."""
DECISION = f"parcels-e1-{TRAINING_DAY}-retrain-retraining"


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def served_by(world: World, on: date) -> set[str]:
    answers = stored(world, "predictions").query("served")
    return set(answers[answers["day"] == on]["model_version"])


def at_its_days(world: World) -> World:
    """The same history under the demo clock: now is the end of its last closed day."""
    return a_world(world.home.path, world.service.model_copy(update={"clock": "demo"}))


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A training passed its gate under ``approval="sign_off"``; two more days are closed."""
    model = a_service().model.model_copy(update={"approval": "sign_off", "first_training": TRAINING_DAY})
    world = a_world(tmp_path_factory.mktemp("waiting") / "home", a_service(model=model))
    deliver_all(world.home.landing, span(0, 15))
    close(world, span(0, 11))
    assert [row["verdict"] for row in world.ledger.effective("gates", "parcels")] == ["PASS"]
    return world


def test_a_passed_gate_waits_for_a_signature(waiting: World) -> None:
    assert list(proposals(waiting)) == [DECISION] and not waiting.releases()
    assert served_by(waiting, day(11)) == {"prior"}
    assert f"waits for: mlops approve {DECISION} --by NAME" in "\n".join(status_lines(status_of(waiting)))


def test_only_who_the_raci_names_may_sign(waiting: World) -> None:
    with pytest.raises(LedgerError) as refused:
        approve([waiting], DECISION, by="Bob", reason="looks good")
    assert str(refused.value) == (
        "service 'parcels': 'Bob' may not sign model updates. Responsible: Mia; accountable: Mia."
    )
    assert list(proposals(waiting)) == [DECISION]


def test_a_signature_counts_from_when_it_was_given(waiting: World, tmp_path: Path) -> None:
    world = at_its_days(copy_of(waiting, tmp_path / "home"))
    said = approve([world], DECISION, by="Mia", reason="looks good")
    assert f"answer from {world.calendar.start_of(day(12))} UTC on" in said
    close(world, span(12, 13))
    champion = world.holders(world.calendar.end_of(day(13)))["champion"]["model_version"]
    assert served_by(world, day(11)) == {"prior"} and served_by(world, day(12)) == {champion}
    assert world.registry.aliases()["champion"] == champion
    [signed] = world.ledger.effective("sign_offs", "parcels")
    assert (signed["verdict"], signed["by"], signed["reason"]) == ("approved", "Mia", "looks good")
    with pytest.raises(UnknownNameError):
        approve([world], DECISION, by="Mia", reason="again")


def test_a_refused_version_never_answers(waiting: World, tmp_path: Path) -> None:
    world = copy_of(waiting, tmp_path / "home")
    assert "the champion stays" in sign([world], DECISION, "rejected", by="Mia", reason="not before the holidays")
    assert not proposals(world) and not world.releases()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A champion and a fallback answer since two days."""
    model = a_service().model.model_copy(update={"cadence": "never"})
    world = a_world(tmp_path_factory.mktemp("trained") / "home", a_service(model=model))
    deliver_all(world.home.landing, span(0, 24))
    close(world, span(0, 9))
    world = at_its_days(world)
    assert retrain_now(world, by="Mia", reason="the first one", is_dry_run=True).startswith("would train as of")
    assert not world.ledger.rows("decisions", "parcels")
    assert retrain_now(world, by="Mia", reason="the first one", is_dry_run=False).startswith("PASS: ")
    return world


def test_what_the_training_used_stands_in_the_ledger_and_on_its_page_in_mlflow(trained: World) -> None:
    [row] = trained.ledger.effective("trainings", "parcels")
    assert (row["day"], row["known_on"]) == (day(9), day(10))
    assert row["rows"] > 100 and row["features"] == 4
    assert row["cpu_seconds"] > 0 and row["wall_seconds"] > 0 and row["peak_mib"] > 50
    found = trained.registry.find(next(r["train_key"] for r in trained.releases() if r["role"] == "champion"))
    assert found is not None
    numbers = MlflowClient(trained.home.mlflow_uri).get_run(found.mlflow_run_id).data.metrics
    assert numbers["fitted_rows"] == row["rows"]
    assert 0 < numbers["fit_cpu_seconds"] < row["cpu_seconds"] and numbers["fit_peak_mib"] > 50


def test_a_person_rolls_back_at_once_and_promotes_again(trained: World, tmp_path: Path) -> None:
    home = copy_of(trained, tmp_path / "home").home.path
    world = a_world(home, trained.service.model_copy(update={"clock": "wall"}))
    roles = {row["role"]: row["model_version"] for row in world.releases()}
    close(world, span(10, 10))
    world = at_its_days(world)
    would = give_place(world, Kind.ROLLBACK, None, by="Bob", reason="bad", is_dry_run=True)
    assert would == f"would give the place of {roles['champion']} to {roles['fallback']}; nothing was written"
    give_place(world, Kind.ROLLBACK, None, by="Bob", reason="bad", is_dry_run=False)
    assert world.registry.aliases() == {"champion": roles["fallback"], "fallback": roles["fallback"]}
    close(world, span(11, 11))
    assert served_by(world, day(10)) == {roles["champion"]} and served_by(world, day(11)) == {roles["fallback"]}
    assert world.trained_on(roles["fallback"]) == day(9), "a rollback does not make a version younger"
    with pytest.raises(LedgerError):
        give_place(world, Kind.PROMOTE, roles["champion"], by="Bob", reason="better", is_dry_run=False)
    give_place(at_its_days(world), Kind.PROMOTE, roles["champion"], by="Mia", reason="better", is_dry_run=False)
    assert world.registry.aliases()["champion"] == roles["champion"]
    assert not [row for row in pending_decisions(world) if row["kind"] in ("rollback", "promote")]


def test_a_redo_that_leaves_nobody_in_charge_takes_the_aliases_back(trained: World, tmp_path: Path) -> None:
    world = copy_of(trained, tmp_path / "home")
    assert set(world.registry.aliases()) == {"champion", "fallback"}
    open_epoch(world, day(5), by="Mia")
    assert not world.releases(), "a person trained in a day that is decided again"
    recover(world)
    assert world.registry.aliases() == {}


def test_a_severe_breach_rolls_back_once_and_freezes_retraining(trained: World, tmp_path: Path) -> None:
    """A rule that no parcel service could keep: every final day breaks it."""
    rule = DegradationRule(metric="brier", above=0.01, broken_days=1, of_days=1, min_labels=5, tier="severe")
    service = trained.service.model_copy(
        update={"clock": "wall", "quality": QualityPolicy(min_labels=5, degradation=(rule,))}
    )
    world = a_world(copy_of(trained, tmp_path / "home").home.path, service)
    roles = {row["role"]: row["model_version"] for row in world.releases()}
    close(world, span(10, 20))
    decided = [(row["day"], row["kind"]) for row in world.ledger.effective("decisions", "parcels")]
    back = [when for when, kind in decided if kind == "rollback"]
    assert len(back) == 1, "the second within two weeks is left to people"
    assert "freeze" in {kind for _, kind in decided}
    after = back[0] + timedelta(days=1)
    assert served_by(world, back[0]) == {roles["champion"]} and served_by(world, after) == {roles["fallback"]}
    assert world.registry.aliases()["champion"] == roles["fallback"]
    [opened] = [row for row in world.ledger.effective("incidents", "parcels") if row["cause"] == "quality:brier"]
    page = open_incident_page([world], opened["incident_id"], None)
    assert f"- {back[0]} rollback (done): {roles['champion']} gives its place to {roles['fallback']}" in page
    assert f"- {opened['day']} freeze (done): " in page and "requests were answered on them." in page
    assert re.search(r"- brier of these answers: 0\.\d+ \(0\.\d+ the fallback's, .*\), \d+ labels known", page)


def test_a_promise_of_answering_time_that_was_declared_severe_rolls_back_on_its_own_day(
    trained: World, tmp_path: Path
) -> None:
    """Nobody answers within a nanosecond: the champion's first day is its last."""
    promised = OperationsPolicy(objectives=(LatencyObjective(limit_ms=1e-6, tier="severe"),))
    service = trained.service.model_copy(update={"clock": "wall", "operations": promised})
    world = a_world(copy_of(trained, tmp_path / "home").home.path, service)
    roles = {row["role"]: row["model_version"] for row in world.releases()}
    close(world, span(10, 11))
    [back] = [row for row in world.ledger.effective("decisions", "parcels") if row["kind"] == "rollback"]
    assert (back["day"], back["evidence"]["cause"]) == (day(10), "objective:latency")
    assert served_by(world, day(10)) == {roles["champion"]} and served_by(world, day(11)) == {roles["fallback"]}
