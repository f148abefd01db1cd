"""What is said about other retraining dates without training: how versions aged, and nothing beyond it."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from mlops_assets.backtest.realised import Losses, ageing_of, beside, estimate, mean_loss

FIRST = date(2013, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(180)]
HELD = {day: (f"v{number // 30}", number % 30 + 1) for number, day in enumerate(DAYS)}


def losses(a_day: float, seed: int = 1) -> tuple[Losses, Losses]:
    """Daily losses of a champion that ages, and of a fallback that does not; hard days are hard for both."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0.15, 0.03, len(DAYS))
    noise = rng.normal(0, 0.002, len(DAYS))
    fallback = {day: (float(hard[i]) + 0.01, 900) for i, day in enumerate(DAYS)}
    return {day: (float(hard[i] + noise[i]) + a_day * HELD[day][1], 900) for i, day in enumerate(DAYS)}, fallback


def test_ageing_is_found_beside_the_fallback_although_days_differ_by_more():
    served, fallback = losses(0.0005)

    found = ageing_of(beside(served, fallback), HELD)

    assert found is not None
    assert found.versions == 6
    assert found.low < 0.0005 < found.high
    assert found.high - found.low < 0.0003


def test_younger_champions_are_an_estimate_with_an_interval_and_few_versions_give_none():
    served, fallback = losses(0.0005)
    ageing = ageing_of(beside(served, fallback), HELD)
    weekly = DAYS[::7]

    found = estimate(served, HELD, weekly, ageing)

    assert found is not None
    assert found.age_days == pytest.approx(4, abs=0.1)
    gain = 0.0005 * (found.realised_age_days - found.age_days)
    assert found.value == pytest.approx(mean_loss(served) - gain, abs=0.002)
    assert found.low < found.value < found.high
    young = {day: HELD[day] for day in DAYS[:90]}
    assert ageing_of(served, young) is None
    assert estimate(served, young, weekly, None) is None
