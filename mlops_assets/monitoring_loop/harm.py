"""Judge: a harm too small for any single day that goes on and on.

Two differences of the same mature day, both without the weather of that day: what the champion loses more than the
fallback on the same rows, and how much the realised loss exceeds what was estimated before there were labels. A small
lasting rise of either breaks no declared rule and shows in no input; summed up it is seen. Self-starting CUSUM: every
day beside all days before it in the window (D. M. Hawkins, *The Statistician* 36, 1987, 299-316; E. S. Page,
*Biometrika* 41, 1954). Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import accumulate
from math import exp, fsum, sqrt

from mlops_assets.monitoring_loop.degradation import INCIDENT, Evaluation
from mlops_assets.monitoring_loop.evidence import CHAMPION, Evidence, Series, asked_for_harm
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.degradation import HarmMonitor

QUARTER_DAYS = 91
MAX_CORRELATION = 0.8
CLIPPED = 3.0
"""One day counts as at most so many standard deviations: a blizzard is no lasting harm."""


@dataclass(frozen=True)
class Sum:
    """A one-sided sum at its newest day: how high, since when it rises, and by how much the days since lie higher."""

    height: float
    since: int
    days: int
    rise: float
    half: float
    usual: float


def watch_harm(monitor: HarmMonitor, loss: str, evidence: Evidence) -> Iterator[Evaluation]:
    """One evaluation per difference, at the newest mature day."""
    own, beside, surprise = (evidence.of(asked) for asked in asked_for_harm(loss))
    mine, control, unexpected = _finals(own), _finals(beside), _finals(surprise)
    more = {day: value - control[day] for day, value in mine.items() if day in control}
    for name, differences in (("champion minus fallback", more), ("realised minus estimated", unexpected)):
        if differences:
            yield judged(monitor, evidence, mine, differences, f"{loss}, {name}")


def _finals(series: Series) -> dict[date, float]:
    return {day: known.value for day, known in series.items() if known.is_final and known.value is not None}


def judged(
    monitor: HarmMonitor,
    evidence: Evidence,
    losses: Mapping[date, float],
    differences: Mapping[date, float],
    rule: str,
) -> Evaluation:
    """The sum over the days of one difference up to the newest mature day."""
    last = evidence.mature
    days = [last - timedelta(days=back) for back in range(monitor.days - 1, -1, -1)]
    there = [day for day in days if day in differences]
    found = Evaluation(
        evidence.day, rule, last, 1, CHAMPION, ALL, rule.partition(",")[0], INCIDENT,
        days_judged=len(there), of_days=monitor.days,
        known_as="final" if last in differences else "not_measured",
    )  # fmt: skip
    if len(there) <= monitor.min_days or last not in differences:
        why = "learning" if len(there) <= monitor.min_days else f"no such difference on {last} yet"
        return replace(found, state="learning", reason=why)
    total = summed([differences[day] for day in there], monitor)
    known = [losses[day] for day in there if day in losses]
    level = fsum(known) / max(len(known), 1)
    share = total.rise / level if level else 0.0
    limit = sum_limit(monitor)
    measured = replace(
        found, value=round(total.usual + total.rise, 9), compared=round(total.usual, 9), change=round(total.height, 9),
        scale=round(total.half, 9), days_broken=total.days,
    )  # fmt: skip
    if total.height <= limit or share < monitor.min_rise_share or total.rise <= total.half:
        return replace(measured, days_broken=0, reason=f"sum {total.height:.1f}, limit {limit:.1f}")
    since = there[total.since]
    return replace(
        measured, state="broken", tier="moderate",
        reason=f"{rule}: {total.rise:+.4f} ({total.rise - total.half:+.4f} .. {total.rise + total.half:+.4f}) since "
        f"{since}, {total.days} days, {share:.1%} of the loss; too little on any single day (sum {total.height:.1f}, "
        f"limit {limit:.1f})",
    )  # fmt: skip


def summed(values: list[float], monitor: HarmMonitor) -> Sum:
    """S = max(0, S + clip(z, -3, 3) - allowance), z beside the mean and spread of all days before.

    Both are those of the days before the sum began to rise, so that harm does not become its own scale. The spread is
    widened for the lag-1 correlation of the days, as for independent days S would be too high.
    """
    height, since, mean, wide = 0.0, monitor.min_days, 0.0, 0.0
    usual = _Before.of(values)
    for place in range(monitor.min_days, len(values)):
        if height == 0.0:
            since = place
            mean, wide = usual.at(place)
        z = (values[place] - mean) / wide if wide else 0.0
        height = max(0.0, height + max(-CLIPPED, min(CLIPPED, z)) - monitor.allowance)
    late = values[since:] if height else []
    rise = fsum(late) / len(late) - mean if late else 0.0
    half = 1.96 * wide * sqrt(1 / len(late) + 1 / since) if late else 0.0
    return Sum(height, since, len(late), rise, half, mean)


@dataclass(frozen=True)
class _Before:
    """Running sums of values less the first one, of their squares and of neighbours' products."""

    values: list[float]
    totals: list[float]
    squares: list[float]
    products: list[float]

    @classmethod
    def of(cls, values: list[float]) -> "_Before":
        apart = [value - values[0] for value in values]
        neighbours = [one * other for one, other in zip(apart, apart[1:], strict=False)]
        return cls(
            values, list(accumulate(apart)), list(accumulate(one * one for one in apart)), list(accumulate(neighbours))
        )

    def at(self, place: int) -> tuple[float, float]:
        """Mean and spread of the values before a place; the spread widened for their lag-1 correlation."""
        total, first, last = self.totals[place - 1], 0.0, self.values[place - 1] - self.values[0]
        mean = total / place
        squares = max(self.squares[place - 1] - place * mean * mean, 0.0)
        products = self.products[place - 2] - mean * (2 * total - first - last) + (place - 1) * mean * mean
        rho = min(max(products / squares, 0.0), MAX_CORRELATION) if squares else 0.0
        return self.values[0] + mean, sqrt(squares / (place - 1) * (1 + rho) / (1 - rho) * (1 + 1 / place))


def sum_limit(monitor: HarmMonitor) -> float:
    """The height that independent days without any harm reach as seldom as the alarm budget allows.

    Both sums together ``false_alarms_a_quarter``. Source: D. Siegmund, *Sequential Analysis* (1985), p. 27:
    days to a false alarm = (exp(2kb) - 2kb - 1) / (2 k**2) with b = limit + 1.166.

    >>> round(sum_limit(HarmMonitor()), 1)
    4.6
    """
    days, k, low, high = 2 * QUARTER_DAYS / monitor.false_alarms_a_quarter, monitor.allowance, 0.0, 50.0
    for _ in range(60):
        b = (low + high) / 2
        too_often = (exp(2 * k * b) - 2 * k * b - 1) / (2 * k * k) < days
        low, high = (b, high) if too_often else (low, b)
    return round(max(low - 1.166, 0.0), 6)
