"""Features of a part of the traffic: profiled by slice, and noted where one part alone moves."""

from __future__ import annotations

import numpy as np
import pytest
from states import content
from toy_log import a_log_service, answers_of, deliver_log
from toy_stories import stored
from toy_world import a_world, close, deliver, span

from mlops_assets import DriftPolicy, UnknownNameError
from mlops_assets.closing.world import World
from mlops_assets.tables import BY_NAME

pytestmark = pytest.mark.slow

DAYS = span(0, 15)
LAST = DAYS[-1]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> list[World]:
    """On the last day customers of arm a earn more and those of arm b less: the mean of all stays.

    Closed in one block, and the last two days one by one.
    """
    found = []
    for cut in (len(DAYS), 14):
        policy = DriftPolicy(critical_features=("income",), learning_z=50)  # the whole is not what this is about
        world = a_world(tmp_path_factory.mktemp("arms"), a_log_service(drift=policy))
        deliver_log(world.home.landing, DAYS)
        rows = answers_of(LAST)
        rows["income"] += np.where(rows["arm"] == "a", 1200.0, -1200.0)
        deliver(world.home.landing, "answers", LAST, rows)
        close(world, DAYS[:cut], block_days=len(DAYS))
        for day in DAYS[cut:]:
            close(world, [day])
        found.append(world)
    return found


def test_profiles_of_slices_add_up_to_that_of_all_and_leave_its_bins_to_it(worlds: list[World]) -> None:
    rows = stored(worlds[0], "profiles").query("column_name == 'income'").set_index(["day", "slice"])
    numbers = ["n", "nulls", "total", "squares"]
    for day in (DAYS[3], LAST):
        parts = rows.loc[[(day, "arm=a"), (day, "arm=b")]]
        assert parts[numbers].sum().to_numpy() == pytest.approx(
            rows.loc[(day, "all"), numbers].astype(float).to_numpy()
        )
    today = rows.loc[LAST]
    assert np.sum(today["counts"]["arm=a"] + today["counts"]["arm=b"] - today["counts"]["all"]) == 0
    assert today["bins"].nunique() == 1 and today["edges"].notna().tolist() == [True, False, False]
    scores = stored(worlds[0], "profiles").query("column_name == 'score' and day == @LAST and subject == 'v7'")
    assert set(scores["slice"]) == {"all", "arm=a", "arm=b"}


def test_a_slice_whose_feature_alone_moves_is_a_note_and_asks_nobody(worlds: list[World]) -> None:
    drift = stored(worlds[0], "drift").query("slice != 'all' and column_name == 'income'")
    assert set(drift["day"]) == {LAST} and set(drift["slice"]) == {"arm=a", "arm=b"}
    assert set(drift["tier"]) == {"expected"}
    assert drift["reason"].str.contains("a shift in that part of the traffic alone").all()
    assert stored(worlds[0], "verdicts").set_index("day").loc[LAST, "verdict"] == "note"


def test_days_in_a_block_have_the_same_sliced_profiles_as_one_by_one(worlds: list[World]) -> None:
    for name in ("profiles", "drift"):
        one, other = (content(world, BY_NAME[name]) for world in worlds)
        assert one.equals(other), name


def test_a_slice_that_nobody_declared_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="drift > feature_slices: no slice is named 'market'"):
        a_log_service(drift=DriftPolicy(feature_slices=("market",)))
