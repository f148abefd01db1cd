"""When a training is launched, day after day and tick after tick: by performance, by both reasons, never while frozen.

Quality falls from the strike on; its labels are mature a day later. Every day closes as the daemon closes it, and then
the sensor ticks twice: Dagster launches a run key once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from toy_stories import copy_of, stored
from toy_strike import LAST, OFF, STRIKE, before_the_strike, parcels
from toy_world import close, span

from mlops_assets.build import build_definitions
from mlops_assets.closing.world import World
from mlops_assets.people import set_frozen

pytestmark = pytest.mark.slow

THURSDAY, FRIDAY, SATURDAY, SUNDAY = span(STRIKE, LAST)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> World:
    return before_the_strike(tmp_path_factory.mktemp("parcels"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def launched(world: World, instance: dg.DagsterInstance, days: Sequence[date]) -> dict[date, list[str]]:
    """Day -> the trainings that the sensor asked for after it closed; each is carried out before the next day."""
    defs = build_definitions([world.service], world.home)
    sensor = next(one for one in defs.sensors or [] if one.name == "parcels_retrain_sensor")
    seen: dict[date, list[str]] = {}
    for day in days:
        close(world, [day], acts=False)
        asked: dict[str, dg.RunRequest] = {}
        for _twice in range(2):
            with dg.build_sensor_context(instance=instance, definitions=defs) as context:
                asked |= {str(one.run_key): one for one in sensor.evaluate_tick(context).run_requests or []}
        seen[day] = list(asked)
        for request in asked.values():
            job = defs.resolve_job_def("parcels_retrain")
            assert job.execute_in_process(instance=instance, tags=dict(request.tags), run_config=QUIET).success
    return {day: keys for day, keys in seen.items() if keys}


def because(world: World, day: date, kind: str) -> str:
    """Why a day decided on something."""
    rows = world.ledger.effective("decisions", world.name)
    return next(str(row["because"]) for row in rows if (row["day"], row["kind"]) == (day, kind))


def test_performance_launches_one_run_then_cools_down_and_both_reasons_on_one_day_are_one_run(
    before: World, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """On Saturday quality is as bad as on Friday and nothing is launched; on Sunday the calendar and quality agree."""
    world = copy_of(before, tmp_path / "home")
    assert launched(world, instance, span(STRIKE, LAST)) == {
        FRIDAY: [f"parcels-e1-{FRIDAY}-retrain-retraining-1"],
        SUNDAY: [f"parcels-e1-{SUNDAY}-retrain-retraining-1"],
    }
    assert because(world, FRIDAY, "retrain").startswith("performance: calibration_ratio above 1.4: ")
    assert because(world, SUNDAY, "retrain").startswith(
        f"cadence: weekly, due on {SUNDAY}; performance: calibration_ratio above 1.4: "
    )
    rules = stored(world, "rules").query("leads_to == 'retraining'").set_index("day")
    assert rules.loc[SATURDAY, "state"] == "broken"
    trained = [row["day"] for row in world.ledger.effective("gates", "parcels")]
    assert trained[-2:] == [FRIDAY, SUNDAY]


def test_a_freeze_wins_over_both_reasons_until_a_person_lifts_it(
    before: World, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """The rule that retrains is severe here: it freezes too. Mia lifts the freeze for Sunday, when both are due."""
    grave = OFF.model_copy(update={"tier": "severe"})
    world = copy_of(before, tmp_path / "home", parcels(incident=[grave]))
    assert launched(world, instance, [THURSDAY, FRIDAY, SATURDAY]) == {}
    assert because(world, FRIDAY, "hold_retraining").startswith("calibration")

    frozen = copy_of(world, tmp_path / "frozen")
    assert launched(frozen, instance, [SUNDAY]) == {}
    assert because(frozen, SUNDAY, "hold_retraining").startswith("calibration")

    set_frozen(world, False, by="Mia", reason="the strike is the new normal", is_dry_run=False)
    lifted = copy_of(world, tmp_path / "lifted", parcels())
    assert list(launched(lifted, instance, [SUNDAY])) == [SUNDAY]
    assert because(lifted, SUNDAY, "unfreeze") == "Mia: the strike is the new normal"
