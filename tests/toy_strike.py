"""Parcels suddenly arrive late, and no feature shows it: the service of the stories about quality that falls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toy_world import a_service, a_world, close, deliver, deliver_all, scans_file, span

from mlops_assets import CalibrationMonitor, DegradationRule, KpiPolicy, MLService
from mlops_assets.closing.world import World

STRIKE = 13
"""From this day on every parcel takes 25 minutes longer; labels are mature a day later."""
LAST = 16
OFF = DegradationRule(metric="calibration_ratio", above=1.4, broken_days=1, of_days=1, min_labels=10)

CALLS_SAVED = KpiPolicy(name="calls_saved", unit="calls", value_per_true_alarm=1, value_per_false_alarm=-0.5)


def parcels(rule: DegradationRule = OFF, *, incident: Sequence[DegradationRule] = ()) -> MLService:
    """Trains on Sundays and when the rule is broken, with a cool-down of two days."""
    declared = a_service()
    model: dict[str, Any] = {
        "retrain_when": (rule,), "cool_down_days": 2, "first_training": span(9, 9)[0], "threshold": 0.5,
    }  # fmt: skip
    monitor = CalibrationMonitor(windows_days=(1,), min_days=3, residual_days=14)
    return a_service(
        model=declared.model.model_copy(update=model),
        quality=declared.quality.model_copy(
            update={"degradation": tuple(incident), "calibration": monitor, "kpi": CALLS_SAVED}
        ),
    )


def before_the_strike(home: Path) -> World:
    """Everything is well up to the day before, and closed; the files of the strike lie in the landing zone."""
    world = a_world(home, parcels())
    deliver_all(world.home.landing, span(0, LAST))
    for day in span(STRIKE, LAST):
        late = scans_file(day)
        late["delay_min"] += 25
        deliver(world.home.landing, "scans", day, late)
    close(world, span(0, STRIKE - 1))
    return world
