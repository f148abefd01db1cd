"""The alarm budget's report is written with each Sunday, from what was asked and answered by then."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from toy_stories import run, untrained
from toy_world import a_world, close, deliver_all, span

from mlops_assets.adapters.dagster_events import loop_done
from mlops_assets.closing.budgeting import newest_report
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.people import Closing, close_incident
from mlops_assets.status import status_lines, status_of

SUNDAYS = [day for day in span(0, 17) if day.isoweekday() == 7]


@pytest.mark.slow
def test_sundays_report_what_was_asked_and_answered_by_then(tmp_path: Path):
    """A file is missing on 4 March; a week later somebody says that it was a false alarm."""
    world = a_world(tmp_path / "home", untrained())
    deliver_all(world.home.landing, span(0, 17), without=[("orders", span(3, 3)[0])])
    close(world, span(0, 9))
    [incident] = world.ledger.effective("incidents", world.name)
    close_incident([world], incident["incident_id"], Closing("false_alarm", None, None), by="Mia", reason="a holiday")
    ingest_sources(world, span(10, 17))
    reports = run(world, span(10, 17))

    rows = world.ledger.effective("alarm_budget", world.name)

    assert {row["day"] for row in rows} == set(SUNDAYS)
    of_all = [row for row in rows if row["scope"] == "all"]
    assert [(row["days"], row["incidents"], row["answered"], row["false_alarms"]) for row in of_all] == [
        (3, 0, 0, 0), (10, 1, 0, 0), (17, 1, 1, 1),
    ]  # fmt: skip
    assert [row["scope"] for row in newest_report(world, SUNDAYS[-1])] == ["all", "orders"]
    assert newest_report(world, SUNDAYS[0] - timedelta(days=1)) == []
    [line] = [line for line in status_lines(status_of(world)) if "alarm budget" in line]
    assert "1 incidents" in line
    assert "0% of 1 answered were real" in line
    assert "budget 7 false alarms a quarter: within" in line

    events: list[dg.AssetMaterialization] = []
    for report in reports:
        loop_done(world, report, ("quality", "verdict"), events.append)
    [weekly] = [event for event in events if event.asset_key.path[-1] == "alarm_budget"]
    assert weekly.metadata["week to"].value == str(SUNDAYS[-1]) and weekly.partition is None
    [chart] = [e.metadata["chart"].value for e in events if e.asset_key.path[-1] == "quality" and "chart" in e.metadata]
    assert f"quality:brier, {span(0, 0)[0]} to {span(17, 17)[0]}" in chart
    assert f"a {span(10, 10)[0]} owner:close" in chart
