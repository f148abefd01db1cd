"""Measure: has a column moved alone? A mean beside what the columns say that usually move with it.

A storm moves every late rate at once, and a broken join only one of them. On its own the one looks like weather;
beside its companions it stands out. Regression-adjusted variables: D. M. Hawkins, *Technometrics* 33 (1991), 61-75;
here with one companion at a time, so that a companion that is broken itself accuses nobody else.
"""

from dataclasses import dataclass

import numpy as np

from mlops_assets.monitoring_loop.baseline import Bools, Floats, trailing
from mlops_assets.service.monitoring import DriftPolicy

COMPANIONS = 3
MIN_SHARED_SHARE = 0.5
"""Share of the variance of past errors that two columns must have in common."""
MAX_TIMES_CLOSEST = 2.0
"""A companion leaves at most so many times the variance unexplained that the closest one leaves."""


@dataclass(frozen=True)
class Alone:
    """What is left of the errors of a column when its companions have had their say.

    ``past`` is (series, judged day, back), newest first, with the slopes of the judged day; ``today`` (series, judged
    day), less the more the companions are farther out than they ever were: there a slope says little. Not-a-number
    without companions.
    """

    past: Floats
    today: Floats


def alone(errors: Floats, usable: Bools, policy: DriftPolicy) -> Alone:
    """Errors less what each of the up to three closest companions explains; of these differences the smallest.

    Args:
        errors: (series, day), value minus expected.
        usable: errors that may stand as past errors.
        policy: how many days count.
    """
    length = policy.residual_days
    past = trailing(np.where(usable, errors, np.nan), length)
    today = errors[:, length:]
    if not len(past):
        return Alone(past, today)
    slopes, shared, squares = _pairs(past, policy.baseline_days)
    order = np.argsort(-shared, axis=0, kind="stable")[:COMPANIONS]
    found_past, found_today = [], []
    closest, days = shared.max(axis=0), np.arange(today.shape[1])
    for rank in range(len(order)):
        who = order[rank]
        share = np.take_along_axis(shared, who[None], axis=0)[0]
        is_close = (share >= MIN_SHARED_SHARE) & (1 - share <= MAX_TIMES_CLOSEST * (1 - closest))
        slope = np.where(is_close, np.take_along_axis(slopes, who[None], axis=0)[0], np.nan)
        found_past.append(past - slope[..., None] * past[who, days])
        lever = today[who, days] ** 2 / np.take_along_axis(squares, who[None], axis=0)[0]
        found_today.append((today - slope * today[who, days]) / np.sqrt(1 + lever))
    return Alone(_smallest(np.stack(found_past)), _smallest(np.stack(found_today)))


def _pairs(past: Floats, least_days: int) -> tuple[Floats, Floats, Floats]:
    """Slope of each column on each other, the share of variance they have in common, and the sum of squares of the
    other: (other, column, day)."""
    known, filled = ~np.isnan(past), np.nan_to_num(past)
    slopes, shared, squares = (np.zeros((len(past), *past.shape[:2])) for _ in range(3))
    for other in range(len(past)):
        both = known & known[other]
        mine, its = np.where(both, filled, 0.0), np.where(both, filled[other], 0.0)
        product, own, beside = (mine * its).sum(axis=-1), (mine * mine).sum(axis=-1), (its * its).sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes[other] = product / beside
            share = product * product / (own * beside)
        shared[other] = np.where(both.sum(axis=-1) >= least_days, np.nan_to_num(share), 0.0)
        shared[other, other], squares[other] = 0.0, np.where(beside > 0, beside, 1.0)
    return slopes, shared, squares


def _smallest(differences: Floats) -> Floats:
    """Over the first axis: the difference nearest to zero, zero if they disagree on the side."""
    with np.errstate(invalid="ignore"):
        is_known = ~np.isnan(differences)
        up = (differences > 0) | ~is_known
        down = (differences < 0) | ~is_known
        low = np.where(is_known, differences, np.inf).min(axis=0)
        high = np.where(is_known, differences, -np.inf).max(axis=0)
    found: Floats = np.where(up.all(axis=0), low, np.where(down.all(axis=0), high, 0.0))
    return np.where(is_known.any(axis=0), found, np.nan)
