"""Events that announce what will be new: a depot opens, parcels become heavier. Nobody announced the other depot."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from toy_stories import run, stored, untrained
from toy_world import FIRST, a_world, deliver, deliver_all, orders_file, span

from mlops_assets import DriftPolicy, MLService, RequestView
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.world import World
from mlops_assets.errors import UnknownNameError
from mlops_assets.promises import promises

pytestmark = pytest.mark.slow

OPENING = 25
"""The day on which the new depot is in the orders for the first time."""
BEFORE, NEXT = span(OPENING, OPENING + 1)


def expansion(**changes: Any) -> dict[str, Any]:
    return {
        "id": "west_opens", "kind": "expansion", "start": BEFORE, "end": NEXT + timedelta(days=30),
        "declared_on": FIRST, "owner": "mia@example.com", "reason": "depot west opens for heavy parcels",
        "expiry": NEXT + timedelta(days=30), "features": ["depot_code", "weight"],
        "new_categories": {"depot_code": ["west"]}, "ranges": {"weight": [0, 93]},
        "max_size": {"distance": 1.0, "distance_7d": 1.0, "mean": 99.0, "spread": 9.0}, **changes,
    }  # fmt: skip


def opened(day: date, parts: dict[str, int], weight: float) -> pd.DataFrame:
    """The orders of one day: some parcels go to other depots, and are heavier."""
    rows = orders_file(day - timedelta(days=1))
    moved = [depot for depot, n in parts.items() for _ in range(n)]
    rows.loc[: len(moved) - 1, "depot"] = moved
    rows.loc[: len(moved) - 1, "weight_kg"] = weight
    return rows


def the_service(events: Path) -> MLService:
    views = (RequestView(name="parcel", features={"weight": "weight_kg", "depot_code": "depot"}, categorical=("depot_code",)),)  # fmt: skip # noqa: E501
    return untrained(views=views, drift=DriftPolicy(known_events=str(events), min_days=5, baseline_days=12))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Ten parcels a day go to the new depot; a day later ten go to one that nobody announced, and weigh too much."""
    home = tmp_path_factory.mktemp("depots")
    (home / "events.yaml").write_text(yaml.safe_dump({"events": [expansion()]}))
    found = a_world(home / "home", the_service(home / "events.yaml"))
    days = span(0, OPENING + 1)
    deliver_all(found.home.landing, days)
    deliver(found.home.landing, "orders", BEFORE - timedelta(days=1), opened(BEFORE, {"west": 10}, 92.0))
    later = opened(NEXT, {"west": 6, "moon": 10}, 92.0)
    later.loc[6:15, "weight_kg"] = 99.0
    deliver(found.home.landing, "orders", NEXT - timedelta(days=1), later)
    ingest_sources(found, days)
    run(found, days)
    return found


def faults(world: World, day: date) -> dict[str, Any]:
    """Column -> (tier, event, reason) of what is new or out of range on a day."""
    rows = stored(world, "drift")
    asked = rows[(rows["day"] == day) & rows["statistic"].isin(["new_category", "out_of_range"])]
    told = asked[asked["subject"] == "features"].set_index("column_name")
    return {str(name): (row["tier"], row["event"], row["reason"]) for name, row in told.iterrows()}


def test_what_was_announced_word_for_word_is_expected(world: World) -> None:
    found = faults(world, BEFORE)
    assert {name: told[:2] for name, told in found.items()} == {
        "depot_code": ("expected", "west_opens"), "weight": ("expected", "west_opens"),
    }  # fmt: skip
    assert found["depot_code"][2].endswith("; expected: depot west opens for heavy parcels announced 33.3%")


def test_anything_else_that_is_new_stays_a_fault_and_says_how_much_of_it_was_announced(world: World) -> None:
    found = faults(world, NEXT)
    assert {name: told[:2] for name, told in found.items()} == {
        "depot_code": ("moderate", "west_opens"), "weight": ("moderate", "west_opens"),
    }  # fmt: skip
    assert found["depot_code"][2].endswith("; west_opens announced 20.0%, and not 33.3%")
    assert found["weight"][2].endswith("; west_opens announced 20.0%, and not 33.3%")


@pytest.mark.parametrize(("field", "named"), [("new_categories", {"weight": ["west"]}), ("ranges", {"depot_code": [0, 1]})])  # fmt: skip # noqa: E501
def test_the_check_refuses_a_range_of_texts_and_new_texts_of_numbers(tmp_path: Path, field: str, named: Any) -> None:
    (tmp_path / "events.yaml").write_text(yaml.safe_dump({"events": [expansion(**{field: named})]}))
    with pytest.raises(UnknownNameError, match=f"west_opens > {field}: no feature of that kind is named"):
        list(promises(a_world(tmp_path / "home", the_service(tmp_path / "events.yaml"))))
