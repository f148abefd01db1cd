"""What a feature is worth: what shuffling it adds to the loss on rows the candidate has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlops_assets.model_loop.evaluation import brier
from mlops_assets.model_loop.importance import MAX_ROWS, permutation_importance

NAMES = ("strong", "weak", "noise")


def rows(n: int = 800) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(size=n) for name in NAMES})
    chance = scores(table)
    return table.assign(value=(rng.random(n) < chance).astype(float))


def scores(table: pd.DataFrame) -> np.ndarray:
    return 1 / (1 + np.exp(-(2.0 * table["strong"] + 0.7 * table["weak"]).to_numpy()))


def measured(table: pd.DataFrame) -> dict[str, float]:
    return permutation_importance(table, NAMES, scores=scores, loss=brier)


def test_a_feature_is_worth_what_the_model_makes_of_it():
    found = measured(rows())
    assert found["strong"] > 3 * found["weak"] > 0
    assert found["noise"] == 0.0


def test_the_same_rows_give_the_same_importances_and_shuffling_leaves_them_alone():
    table = rows()
    before = table.copy()
    assert measured(table) == measured(table)
    pd.testing.assert_frame_equal(table, before)


def test_many_rows_are_thinned_out():
    seen: list[int] = []

    def counting(table: pd.DataFrame) -> np.ndarray:
        seen.append(len(table))
        return scores(table)

    permutation_importance(rows(5 * MAX_ROWS), NAMES, scores=counting, loss=brier)
    assert max(seen) <= MAX_ROWS


def test_a_category_is_shuffled_like_a_number():
    table = rows().assign(kind=pd.Series(["a", "b"] * 400, dtype="str"))
    found = permutation_importance(table, ("kind",), scores=lambda t: (t["kind"] == "a").to_numpy(float), loss=brier)
    assert set(found) == {"kind"} and found["kind"] == pytest.approx(0.0, abs=0.1)
