"""Judge: how often would a rule speak up if nothing had changed? A seeded simulation over the measured noise.

*3 % for 3 consecutive days* sounds strict, and fires 1.4 to 3.1 times a quarter on daily noise of 5 to 10 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlops_assets.service.degradation import DegradationRule

QUARTER_DAYS = 91
QUARTERS = 2000
SEED = 2013
MIN_DAYS = 28
"""Fewer days than this say nothing about how much days differ."""


@dataclass(frozen=True)
class Noise:
    """How the daily change of a rule varied: centre, standard deviation and lag-1 correlation of past days."""

    centre: float
    spread: float
    lag1: float = 0.0
    days: int = 0


def noise_of(changes: Sequence[float]) -> Noise | None:
    """The noise of consecutive daily changes; None from fewer than ``MIN_DAYS`` of them.

    >>> noise_of([0.1, -0.1] * 20)
    Noise(centre=0.0, spread=0.1, lag1=-1.0, days=40)
    """
    if len(changes) < MIN_DAYS:
        return None
    values = np.asarray(changes, dtype=np.float64)
    centre, spread = float(values.mean()), float(values.std())
    if not spread:
        return Noise(centre, 0.0, 0.0, len(changes))
    centred = values - centre
    lag1 = float((centred[1:] * centred[:-1]).mean() / (centred * centred).mean())
    return Noise(round(centre, 12) + 0.0, round(spread, 12), round(lag1, 12), len(changes))


def false_alarms_a_quarter(rule: DegradationRule, noise: Noise) -> float:
    """Mean number of times in 91 days that the rule becomes broken, if every day only has its usual noise.

    Days are normal and correlated from one to the next (a first-order autoregression); 2,000 quarters, seeded.
    """
    random = np.random.default_rng(SEED)
    rho = float(np.clip(noise.lag1, 0.0, 0.98))
    errors = random.standard_normal((QUARTER_DAYS + rule.of_days, QUARTERS))
    for day in range(1, len(errors)):
        errors[day] = rho * errors[day - 1] + np.sqrt(1 - rho * rho) * errors[day]
    changes = noise.centre + noise.spread * errors
    limit = rule.limit[1] if rule.compared_with else 0.0
    is_beyond = changes > limit if rule.is_rise else changes < -limit
    counted = np.cumsum(np.vstack([np.zeros((1, QUARTERS), dtype=int), is_beyond]), axis=0)
    is_broken = counted[rule.of_days :] - counted[: -rule.of_days] >= rule.broken_days
    return float((is_broken[1:] & ~is_broken[:-1]).sum() / QUARTERS)


def in_words(rule: DegradationRule, noise: Noise | None) -> str:
    """What an owner should know about a rule before the first alarm."""
    if noise is not None:
        alarms = false_alarms_a_quarter(rule, noise)
        return (
            f"{alarms:.1f} false alarms a quarter (simulated: {noise.days} measured days, change {noise.centre:+.3g} "
            f"+- {noise.spread:.2g}, lag-1 correlation {noise.lag1:.2f})"
        )
    if not rule.limit[0].endswith("_share"):
        return f"false alarms not known before {MIN_DAYS} days are measured"
    low, high = (false_alarms_a_quarter(rule, Noise(0.0, spread)) for spread in (0.05, 0.1))
    return f"{low:.1f} to {high:.1f} false alarms a quarter (simulated: assumed daily noise of 5 to 10 %)"
