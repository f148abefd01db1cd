"""A block of days gives what the same days give one by one, row for row and decision for decision."""

from datetime import timedelta
from pathlib import Path

import pytest
from states import assert_same, state
from toy_world import a_service, a_world, close, deliver, deliver_all, orders_file, scans_file, span

from mlops_assets.closing.world import World

pytestmark = pytest.mark.slow


def forty_days(folder: Path, *, block_days: int, one_by_one: bool) -> World:
    """40 days with a file that is missing, then late, and one that is re-delivered with corrections."""
    world = a_world(folder)
    landing = world.home.landing
    late, again = span(8, 8)[0], span(15, 15)[0]
    deliver_all(landing, span(0, 11), without=[("scans", late)])

    def run(first: int, last: int) -> None:
        parts = [[day] for day in span(first, last)] if one_by_one else [span(first, last)]
        for days in parts:
            close(world, days, block_days=block_days)

    run(0, 11)
    deliver_all(landing, span(12, 20))
    deliver(landing, "scans", late)  # three days late: known from the end of day 12 on
    run(12, 20)
    corrected = scans_file(again)
    corrected.loc[corrected.index[:5], "delay_min"] += 15
    deliver(landing, "scans", again, corrected.iloc[1:])  # four labels corrected, one withdrawn
    deliver_all(landing, span(21, 39))
    run(21, 39)
    return world


def test_a_block_of_forty_days_equals_the_same_days_one_by_one(tmp_path: Path) -> None:
    in_blocks = forty_days(tmp_path / "blocks", block_days=14, one_by_one=False)
    one_by_one = forty_days(tmp_path / "days", block_days=14, one_by_one=True)
    assert_same(in_blocks, one_by_one)
    tables, ledger = state(in_blocks)
    assert len(ledger["gates"]) >= 3, "the story needs trainings inside the 40 days"
    assert {row["role"] for row in ledger["releases"]} == {"champion", "fallback"}
    assert (tables["quality"]["state"] == "restated").any(), "the correction restates a final day"


def test_a_missing_order_file_blocks_the_day_it_feeds_and_no_other(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    missing = span(5, 5)[0]
    deliver_all(world.home.landing, span(0, 9), without=[("orders", missing)])
    close(world, span(0, 9))
    tables, ledger = state(world)
    states = {row["day"]: row["state"] for row in ledger["closings"]}
    assert [day for day, kind in states.items() if kind == "blocked"] == [missing + timedelta(days=1)]
    predicted = set(tables["predictions"]["day"].dt.date)
    assert missing + timedelta(days=1) not in predicted
    assert missing in predicted and missing + timedelta(days=2) in predicted
    opened = [row for row in ledger["incidents"] if row["cause"] == "orders"]
    assert len(opened) == 1 and str(missing) in opened[0]["text"]


def test_a_redo_gives_the_state_of_a_run_that_never_failed(tmp_path: Path) -> None:
    from mlops_assets.day_loop import open_epoch

    clean = a_world(tmp_path / "clean")
    deliver_all(clean.home.landing, span(0, 24))
    close(clean, span(0, 24))
    broken = a_world(tmp_path / "broken")
    day = span(10, 10)[0]
    deliver_all(broken.home.landing, span(0, 24))
    renamed = orders_file(day).rename(columns={"weight_kg": "weight"})
    deliver(broken.home.landing, "orders", day, renamed)
    close(broken, span(0, 24))
    assert broken.ledger.closings(broken.name)[day + timedelta(days=1)]["state"] == "blocked"
    reason = broken.ledger.closings(broken.name)[day + timedelta(days=1)]["reason"]
    assert "'orders'" in reason and str(day) in reason and "'weight_kg'" in reason and "renamed" in reason
    deliver(broken.home.landing, "orders", day)
    open_epoch(broken, day, by="Mia")
    close(broken, span(10, 24))
    strip = lambda text: text.replace("-e2-", "-e1-")  # noqa: E731
    tables, ledger = state(clean)
    redone, redone_ledger = state(broken)
    for name in tables:
        assert tables[name].equals(redone[name]), name
    assert [r["decision_id"] for r in ledger["decisions"]] == [
        strip(r["decision_id"]) for r in redone_ledger["decisions"]
    ]
    assert [r["model_version"] for r in ledger["releases"]] == [r["model_version"] for r in redone_ledger["releases"]]


def test_days_may_be_closed_for_a_service_without_labels_yet(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_service())
    deliver_all(world.home.landing, span(0, 1))
    close(world, span(0, 1))
    tables, _ledger = state(world)
    assert set(tables["predictions"]["role"]) == {"prior"}
    assert tables["predictions"]["served"].all()
