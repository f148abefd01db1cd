"""Promises: broken on k of n days, an error budget spent too fast, and the day on which a limit will be crossed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from mlops_assets import ErrorObjective, LatencyObjective, OperationsPolicy
from mlops_assets.monitoring_loop.objectives import COST, Level, Measured, explaining_slice, judge_objectives

FIRST = date(2013, 7, 1)
LATENCY = OperationsPolicy(objectives=(LatencyObjective(limit_ms=50),))
ERRORS = OperationsPolicy(objectives=(ErrorObjective(good_share=0.99, max_burn=14),))
COSTS = OperationsPolicy(max_cost_per_1000=2.0)


def judged(policy: OperationsPolicy, name: str, days: Sequence[tuple[int, int, float | None]]) -> list[Level]:
    """Levels of consecutive days from FIRST on, each (events, bad, level)."""
    found = [Measured(FIRST + timedelta(days=n), name, *one) for n, one in enumerate(days)]
    return judge_objectives(policy, found, [])


def test_a_promise_that_was_declared_severe_is_missed_severely():
    grave = OperationsPolicy(objectives=(LatencyObjective(limit_ms=50, tier="severe"),))
    calm, slow = (1000, 20, 30.0), (1000, 80, 61.0)
    levels = judged(grave, "latency", [calm, slow, slow])
    assert [level.tier for level in levels] == ["stable", "stable", "severe"]


def test_one_bad_day_is_forgiven_and_the_second_within_three_is_not():
    calm, slow = (1000, 20, 30.0), (1000, 80, 61.0)
    tiers = [level.tier for level in judged(LATENCY, "latency", [calm, slow, calm, slow, calm, calm, slow])]
    assert tiers == ["stable", "stable", "stable", "moderate", "stable", "stable", "stable"]


def test_a_day_without_events_does_not_count_as_a_good_one():
    slow, nothing = (1000, 80, 61.0), (0, 0, None)
    levels = judged(LATENCY, "latency", [slow, nothing, nothing, slow])
    assert [level.tier for level in levels] == ["stable", "stable", "stable", "moderate"]
    assert levels[1].reason == "no events"


def test_a_budget_spent_fourteen_times_too_fast_pages_on_the_same_day():
    level = judged(ERRORS, "errors", [(1000, 5, 0.005), (1000, 150, 0.15)])[-1]
    assert level.tier == "moderate" and level.burn == 15.0
    assert level.reason == "errors 0.15 (15.0% of 1,000 bad): budget spent 15 times too fast"


def test_three_failures_of_ten_are_too_few_to_believe_a_burn():
    assert judged(ERRORS, "errors", [(10, 3, 0.3)])[0].tier == "stable"


def test_the_budget_is_that_of_the_window_and_old_days_leave_it():
    calm = [(1000, 10, 0.01)] * 27
    levels = judged(ERRORS, "errors", [(1000, 100, 0.1), *calm, (1000, 10, 0.01)])
    assert levels[27].budget_spent == pytest.approx((100 + 27 * 10) / 280)
    assert levels[28].budget_spent == 1.0


def test_rows_of_a_day_do_not_depend_on_where_the_block_began():
    rng = np.random.default_rng(0)
    days = [(1000, int(bad), None) for bad in rng.poisson(12, 40)]
    found = [Measured(FIRST + timedelta(days=n), "errors", *one) for n, one in enumerate(days)]
    assert judge_objectives(ERRORS, found[30:], found[:30]) == judge_objectives(ERRORS, found, [])[30:]


def test_a_cost_that_grows_is_forecast_with_an_interval_and_told_two_weeks_before():
    rng = np.random.default_rng(1)
    growth = [float(np.exp(0.02 * n + rng.normal(0, 0.02))) for n in range(40)]  # crosses 2.0 on day 34.7
    levels = judged(COSTS, COST, [(1, int(value > 2.0), value) for value in growth])
    at = {n: level for n, level in enumerate(levels)}
    crossed = FIRST + timedelta(days=35)
    for n in (16, 20, 25):
        assert at[n].crosses_low <= crossed <= (at[n].crosses_high or date.max)
    assert abs((at[25].crosses_on - crossed).days) <= 3
    assert at[16].tier == "stable" and at[25].tier == "moderate"
    assert at[25].reason.startswith("cost_per_1000: at the current growth above 2 on 2013-08-")


def test_a_latency_that_grows_is_forecast_before_the_promise_is_broken():
    rng = np.random.default_rng(4)
    growth = [25 * float(np.exp(0.02 * n + rng.normal(0, 0.02))) for n in range(33)]  # crosses 50 ms on day 34.7
    levels = judged(LATENCY, "latency", [(900, 9, value) for value in growth])
    assert abs((levels[25].crosses_on - (FIRST + timedelta(days=35))).days) <= 3
    assert (levels[16].tier, levels[25].tier) == ("stable", "moderate")
    assert levels[25].reason.startswith("latency: at the current growth above 50 on 2013-08-")


@pytest.mark.parametrize("days_since", [1, 3, 7, 14, 20])
def test_a_step_is_no_growth(days_since: int):
    """Another version answers, a thousand times slower than a constant and far from the limit."""
    rng = np.random.default_rng(3)
    values = [0.0001 * float(np.exp(rng.normal(0, 0.2))) for _ in range(28 - days_since)]
    values += [0.05 * float(np.exp(rng.normal(0, 0.2))) for _ in range(days_since)]
    levels = judged(LATENCY, "latency", [(900, 0, value) for value in values])
    assert levels[-1].crosses_on is None and {level.tier for level in levels} == {"stable"}


def test_a_level_cost_has_no_date():
    rng = np.random.default_rng(2)
    levels = judged(COSTS, COST, [(1, 0, float(1.5 * np.exp(rng.normal(0, 0.1)))) for _ in range(60)])
    assert [level.tier for level in levels] == ["stable"] * 60
    assert sum(level.crosses_on is not None for level in levels) <= 3


def test_a_limit_that_is_crossed_is_broken_on_the_second_day():
    tiers = [level.tier for level in judged(COSTS, COST, [(1, 0, 1.0), (1, 1, 2.5), (1, 1, 2.6)])]
    assert tiers == ["stable", "stable", "moderate"]


def test_the_slice_that_explains_a_rise_is_named_and_a_merely_large_one_is_not():
    usual = {"all": (28_000.0, 280.0), "to=SFO": (1_000.0, 10.0), "by=UA": (14_000.0, 140.0)}
    one_route = {"all": (1_000.0, 40.0), "to=SFO": (36.0, 31.0), "by=UA": (500.0, 21.0)}
    everywhere = {"all": (1_000.0, 40.0), "to=SFO": (36.0, 1.0), "by=UA": (500.0, 20.0)}
    assert explaining_slice(one_route, usual) == ("to=SFO", 1.0)
    assert explaining_slice(everywhere, usual) is None


def test_a_promise_that_cannot_be_broken_is_refused_when_it_loads():
    with pytest.raises(ValidationError, match="4 broken days cannot lie within 3 days"):
        LatencyObjective(limit_ms=50, broken_days=4)
    with pytest.raises(ValidationError, match="declared twice: errors"):
        OperationsPolicy(objectives=(ErrorObjective(good_share=0.9), ErrorObjective(good_share=0.99)))
