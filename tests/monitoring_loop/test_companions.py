"""What moves with its companions is weather; what moves alone is a fault."""

from __future__ import annotations

import numpy as np
import pandas as pd
from test_drift import HISTORY, a_series, day, judged, tier

WIND = ("carrier", "origin", "route", "airport")


def storms(length: int, seed: int = 0) -> np.ndarray:
    """What all late rates of a day have in common, in their own unit."""
    return np.random.default_rng(seed).gamma(2.0, 0.5, length)


def rates(common: np.ndarray, alone: dict[str, np.ndarray] | None = None) -> pd.DataFrame:
    """Late rates of four kinds that share the weather."""
    random = np.random.default_rng(1)
    parts = []
    for name in WIND:
        means = 5.0 + common + random.normal(0, 0.05, len(common))
        parts.append(a_series(name, means + (alone or {}).get(name, 0.0)))
    return pd.concat(parts, ignore_index=True)


def test_a_broken_join_stands_out_among_its_companions_though_storms_move_it_more():
    number = HISTORY + 10
    common, extra = storms(HISTORY + 20), np.zeros(HISTORY + 20)
    common[number], extra[number] = 1.0, 0.8
    found = judged(rates(common, {"carrier": extra}), [number])
    of = {name: found[found["column_name"] == name] for name in WIND}
    assert tier(of["carrier"], "mean", number) == "stable"
    assert tier(of["carrier"], "mean_alone", number) == "moderate"
    assert {tier(of[name], "mean_alone", number) for name in WIND[1:]} == {"stable"}


def test_a_storm_moves_all_of_them_and_is_nobodys_fault():
    number = HISTORY + 10
    common = storms(HISTORY + 20)
    common[number] = 12.0
    found = judged(rates(common), [number])
    assert set(found[found["statistic"] == "mean_alone"]["tier"]) == {"stable"}


def test_a_column_without_companions_has_no_such_row_and_neither_has_a_young_one():
    random = np.random.default_rng(2)
    lonely = pd.concat([a_series(name, random.normal(5, 1, HISTORY + 5)) for name in "ab"], ignore_index=True)
    assert "mean_alone" not in set(judged(lonely, [HISTORY + 1])["statistic"])
    young = rates(storms(40))
    assert "mean_alone" not in set(judged(young, [39])["statistic"])
    assert day(39) in set(judged(young, [39])["day"])
