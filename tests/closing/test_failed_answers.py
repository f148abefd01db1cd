"""A model that gives no number for a request: the failure is a row, and somebody else answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from states import assert_same
from toy_stories import on, stored
from toy_world import FIRST, a_service, a_world, close, deliver, deliver_all, orders_file, span

from mlops_assets import ModelTier, RequestView
from mlops_assets.closing.world import World
from mlops_assets.service.service import MLService

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")]

BROKEN = FIRST + timedelta(days=10)
HEAVY_KG = 61


def overflowing(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """Densities of a normal distribution: so far out both classes have none, and their ratio is no number."""
    from sklearn.impute import SimpleImputer
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), GaussianNB())


def a_fragile_service(*, fallback: str) -> MLService:
    """Parcels above 60 kg have a weight that no model has ever seen."""
    usual = a_service()
    views = [one for one in usual.views if one.name != "parcel"]
    broken = RequestView(name="parcel", features={"weight": "case when weight_kg > 60 then 1e200 else weight_kg end"})
    model = usual.model.model_copy(
        update={
            "champion": ModelTier(factory="test_failed_answers:overflowing"),
            "fallback": ModelTier(factory=fallback),
            "threshold": 0.5,
        }
    )
    return a_service(views=(broken, *views), model=model)


def with_heavy_parcels(home: Path, service: MLService, *, block_days: int = 14) -> World:
    """Two weeks with a training on the first Sunday; three parcels of one day are far too heavy."""
    world = a_world(home, service)
    deliver_all(world.home.landing, span(0, 12))
    rows = orders_file(BROKEN - timedelta(days=1))
    rows.loc[rows.index[:3], "weight_kg"] = HEAVY_KG
    deliver(world.home.landing, "orders", BROKEN - timedelta(days=1), rows)
    close(world, span(0, 12), block_days=block_days)
    return world


def of_heavy(world: World) -> pd.DataFrame:
    heavy = [f"{BROKEN}-{number:02d}" for number in range(3)]
    found = on(stored(world, "predictions"), BROKEN)
    return found[found["request_id"].isin(heavy)]


def test_the_fallback_answers_where_the_champion_gives_no_number(tmp_path: Path) -> None:
    world = with_heavy_parcels(tmp_path / "home", a_fragile_service(fallback="toy_world:cheap"))
    found = of_heavy(world)
    failed, answered = found[found["role"] == "champion"], found[found["role"] == "fallback"]
    assert (failed["status"] == "error").all() and failed["score"].isna().all() and failed["decision"].isna().all()
    assert not failed["served"].any() and len(failed) == 3
    assert (answered["status"] == "fallback").all() and answered["served"].all() and len(answered) == 3
    assert (answered["decision"] == (answered["score"] >= 0.5)).all()
    others = on(stored(world, "predictions"), BROKEN).query("request_id not in @found.request_id")
    assert (others["status"] == "ok").all() and (others["served"] == (others["role"] == "champion")).all()
    operations = on(stored(world, "operations"), BROKEN).query("slice == 'all'").set_index("version")
    assert operations.loc["served", "fallbacks"] == 3
    assert operations.loc[failed["model_version"].iloc[0], "errors"] == 3


def test_the_prior_answers_where_every_model_fails(tmp_path: Path) -> None:
    world = with_heavy_parcels(tmp_path / "home", a_fragile_service(fallback="test_failed_answers:overflowing"))
    found = of_heavy(world)
    answered = found[found["served"]]
    assert list(answered["role"]) == ["prior"] * 3 and list(answered["score"]) == [0.3] * 3
    assert (answered["status"] == "fallback").all()
    assert set(found[~found["served"]]["status"]) == {"error"}


def test_a_failure_is_the_same_row_whether_days_close_together_or_one_by_one(tmp_path: Path) -> None:
    service = a_fragile_service(fallback="toy_world:cheap")
    assert_same(
        with_heavy_parcels(tmp_path / "together", service),
        with_heavy_parcels(tmp_path / "alone", service, block_days=1),
    )
