"""What people said stays in a redo; what it was about may be gone, and then somebody has to be told."""

from datetime import date
from pathlib import Path

import pytest
from toy_stories import untrained
from toy_world import a_world, close, deliver, deliver_all, span

from mlops_assets.closing.voids import void_inputs
from mlops_assets.closing.world import World
from mlops_assets.day_loop import open_epoch, recover
from mlops_assets.people import Closing, close_incident, set_frozen
from mlops_assets.status import status_lines, status_of

pytestmark = pytest.mark.slow

DAYS = span(0, 20)


def consumed(world: World) -> set[tuple[int, date, str]]:
    """Which closing took which words into account, of those that count."""
    kinds = {row["input_id"]: row["kind"] for row in world.ledger.rows("inputs", world.name)}
    rows = world.ledger.effective("consumed_inputs", world.name)
    return {(row["epoch"], row["day"], kinds[row["input_id"]]) for row in rows}


def day(number: int) -> date:
    return DAYS[number]


def test_a_word_about_what_a_redo_no_longer_knows_is_listed_as_void(tmp_path: Path) -> None:
    """Scans of day 3 are missing: an incident, which Mia closes. They come, and a redo has nothing to open."""
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 8), without=[("scans", day(3))])
    close(world, span(0, 4))
    incident = f"parcels-e1-{day(3)}-open_incident-scans"
    close_incident([world], incident, Closing("bad_data"), by="Mia", reason="the scanner was down")
    set_frozen(world, True, by="Mia", reason="stocktaking", is_dry_run=False)
    close(world, span(5, 6))
    assert void_inputs(world) == [] and recover(world) == []
    assert consumed(world) == {(1, day(5), "close"), (1, day(5), "freeze")}

    deliver(world.home.landing, "scans", day(3))
    open_epoch(world, day(3), by="Mia")
    close(world, span(3, 4))
    why = f"epoch 2 knows no '{incident}'; say it again about what it knows, if it still holds"
    told = {"kind": "close", "subject": incident, "by": "Mia", "effective_day": str(day(5)), "reason": why}
    close(world, span(5, 6))
    status = status_of(world)
    assert [{k: v for k, v in row.items() if k != "input_id"} for row in status["void_inputs"]] == [told]
    assert f"    close by Mia, effective {day(5)}: {why}" in list(status_lines(status))
    assert recover(world) == [f"void: 'close' by Mia, effective {day(5)}: {why}"]
    assert consumed(world) == {(2, day(5), "close"), (2, day(5), "freeze")}, "each epoch takes every word once"
    assert status["frozen_since"] == str(day(5)), "what names nothing that is gone goes on counting"


def test_while_a_redo_has_not_come_to_a_word_nobody_calls_it_void(tmp_path: Path) -> None:
    world = a_world(tmp_path, untrained())
    deliver_all(world.home.landing, span(0, 6), without=[("scans", day(4))])
    close(world, span(0, 5))
    incident = f"parcels-e1-{day(4)}-open_incident-scans"
    close_incident([world], incident, Closing("bad_data"), by="Mia", reason="the scanner was down")
    open_epoch(world, day(2), by="Mia")
    assert void_inputs(world) == []
