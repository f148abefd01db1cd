"""A harm that no single day shows is seen when it goes on, and a blizzard is no such harm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from mlops_assets import HarmMonitor
from mlops_assets.monitoring_loop.degradation import Evaluation
from mlops_assets.monitoring_loop.evidence import Asked, Evidence, Known, asked_for_harm
from mlops_assets.monitoring_loop.harm import watch_harm
from mlops_assets.monitoring_loop.rules import QualityJudgement

MATURE = date(2013, 6, 28)
MONITOR = HarmMonitor()
CHAMPION, FALLBACK, SURPRISE = asked_for_harm("brier")


def known(values: Sequence[float]) -> dict[date, Known]:
    """A final value per day, the last one of the newest mature day."""
    last = len(values) - 1
    return {MATURE - timedelta(days=last - place): Known(float(v), v, v, 300, 1.0) for place, v in enumerate(values)}


def losses(days: int = 90, seed: int = 0) -> np.ndarray:
    """What any model loses on a day: weather, mostly."""
    return np.random.default_rng(seed).normal(0.15, 0.03, days)


def edges(days: int = 90, seed: int = 1) -> np.ndarray:
    """What the champion loses less than the fallback on a day."""
    return np.random.default_rng(seed).normal(0.010, 0.004, days)


def said(world: np.ndarray, edge: np.ndarray, surprise: np.ndarray | None = None) -> list[Evaluation]:
    series: dict[Asked, dict[date, Known]] = {CHAMPION: known(world - edge), FALLBACK: known(world)}
    if surprise is not None:
        series[SURPRISE] = known(surprise)
    evidence = Evidence(MATURE + timedelta(days=2), MATURE, series)
    return list(watch_harm(MONITOR, "brier", evidence))


def test_a_champion_that_loses_two_hundredths_of_its_loss_every_day_is_told_though_no_day_is_unusual():
    """0.003 more on days that differ by 0.03: less than any weather, and three quarters of a day's usual edge."""
    edge = edges()
    edge[-21:] -= 0.003
    [found] = said(losses(), edge)
    assert (found.state, found.tier) == ("broken", "moderate")
    assert found.reason.startswith("brier, champion minus fallback: +0.00")
    [asked] = QualityJudgement(found.day, (found,)).findings("arrivals")
    assert (asked.tier, asked.cause) == ("moderate", "quality:brier")
    assert abs(edge[-21:] - edges()[:-21].mean()).max() < 3.2 * edges()[:-21].std()


def test_ordinary_days_and_one_terrible_day_are_no_lasting_harm():
    [found] = said(losses(), edges())
    assert (found.state, found.tier) == ("ok", "stable")
    worse = edges()
    worse[-1] = -0.2
    [found] = said(losses(), worse)
    assert (found.state, found.tier) == ("ok", "stable")


def test_what_is_worse_than_estimated_for_weeks_is_told():
    surprise = np.random.default_rng(3).normal(0.0, 0.01, 90)
    surprise[-21:] += 0.008
    _, found = said(losses(), edges(), surprise)
    assert (found.state, found.rule) == ("broken", "brier, realised minus estimated")


def test_a_rise_that_hardly_matters_asks_nobody():
    """Surprising, and a thousandth of the loss."""
    edge = np.random.default_rng(1).normal(0.01, 0.0001, 90)
    edge[-21:] -= 0.00015
    [found] = said(losses(), edge)
    assert found.state == "ok" and found.change is not None and found.change > 5


def test_a_young_service_is_learning_and_one_without_a_fallback_is_not_judged():
    [found] = said(losses(20), edges(20))
    assert found.state == "learning"
    evidence = Evidence(MATURE + timedelta(days=2), MATURE, {CHAMPION: known(losses())})
    assert list(watch_harm(MONITOR, "brier", evidence)) == []


def test_hundred_years_of_quiet_quarters_have_about_the_declared_false_alarms():
    random = np.random.default_rng(11)
    broken = 0
    for _ in range(400):
        edge = random.normal(0.01, 0.004, 90)
        [found] = said(losses(), edge)
        broken += found.state == "broken"
    assert broken <= 24
