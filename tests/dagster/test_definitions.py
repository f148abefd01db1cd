"""What a Dagster user sees: the lineage we reviewed, four groups, and nothing that has to be switched on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from toy_world import a_service, a_world

from mlops_assets.build import build_definitions
from mlops_assets.examples.flight_delays.service import flight_delays

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "lineage.txt"
LOOPS = {"feature_loop", "feedback_loop", "model_loop", "monitoring_loop"}


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions([flight_delays])


def lineage(defs: dg.Definitions) -> str:
    """One line per asset: what it is made from."""
    nodes = sorted(defs.resolve_asset_graph().asset_nodes, key=lambda node: node.key.path)
    lines = []
    for node in nodes:
        above = ", ".join(sorted(key.to_user_string() for key in node.parent_keys))
        lines.append(f"{node.key.to_user_string()} <- {above}".rstrip())
    return "\n".join(lines) + "\n"


def test_the_lineage_of_the_example_is_the_one_we_reviewed(defs: dg.Definitions) -> None:
    assert lineage(defs) == GOLDEN.read_text()


def test_dagster_accepts_the_definitions_of_two_services_that_share_a_source() -> None:
    """The second service takes the sources of the first one as they are."""
    other = a_service(name="letters")
    both = build_definitions([a_service(), other])
    dg.Definitions.validate_loadable(both)
    keys = {key.to_user_string() for key in both.resolve_asset_graph().get_all_asset_keys()}
    assert {"sources/orders", "parcels/verdict", "letters/verdict"} <= keys


def test_the_four_groups_are_the_four_loops(defs: dg.Definitions) -> None:
    assert {node.group_name for node in defs.resolve_asset_graph().asset_nodes} == LOOPS


def test_a_service_stays_within_sixteen_partitioned_keys(defs: dg.Definitions) -> None:
    """An asset and day cost an event each: a year of them is what a replay writes."""
    daily = [node for node in defs.resolve_asset_graph().asset_nodes if node.partitions_def]
    assert len(daily) <= 16
    assert len({node.partitions_def for node in daily}) == 1


def test_the_partitions_are_the_days_of_the_service(defs: dg.Definitions) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(["flight_delays", "verdict"]))
    assert node.partitions_def is not None
    keys = node.partitions_def.get_partition_keys()
    assert (keys[0], keys[-1]) == (str(flight_delays.first_day), str(flight_delays.last_day))


def test_every_asset_says_who_answers_for_it_and_what_it_is(defs: dg.Definitions) -> None:
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.owners == [flight_delays.owner.email], node.key
        assert node.description and node.kinds, node.key


def test_predictions_do_not_wait_for_a_release(defs: dg.Definitions) -> None:
    """They read role changes from the ledger; an edge would make a cycle."""
    graph = defs.resolve_asset_graph()
    above = graph.get_ancestor_asset_keys(dg.AssetKey(["flight_delays", "predictions"]))
    assert dg.AssetKey(["flight_delays", "release"]) not in above


def test_the_schedule_and_the_sensors_are_on_from_the_start(defs: dg.Definitions) -> None:
    (schedule,) = defs.schedules or []
    assert schedule.name == "flight_delays_daily_schedule"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or []}
    names = ("retrain", "alert", "escalation", "digest", "freeze", "rollback", "failed_run")
    assert sensors == {f"flight_delays_{name}_sensor": dg.DefaultSensorStatus.RUNNING for name in names}


def test_the_names_of_the_jobs(defs: dg.Definitions) -> None:
    assert {job.name for job in defs.jobs or []} == {"flight_delays_daily", "flight_delays_retrain"}


def test_building_definitions_opens_nothing(tmp_path: Path) -> None:
    """A code server loads them before ``mlops init`` was run."""
    home = a_world(tmp_path / "nowhere").home
    build_definitions([a_service()], home)
    assert not home.path.exists()


def test_loading_the_definitions_leaves_the_heavy_packages_out() -> None:
    """Every tick and every run pays for what is imported here."""
    code = (
        "import sys, mlops_assets.definitions\n"
        "print([m for m in ('mlflow', 'great_expectations', 'sklearn') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [("dagster", "definitions", "validate", "-w", "workspace.yaml"), ("dg", "list", "defs")], ids=" ".join
)
def test_the_usual_commands_work(command: tuple[str, ...], home: Path) -> None:
    program = str(Path(sys.executable).parent / command[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *command[1:]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
