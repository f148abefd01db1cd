"""Judge: does the world still answer as the scores say? Observed beside predicted positives, the day as unit.

A score is a forecast of a day's share of positives, so the gap (observed minus predicted) is its one-step
error, and the champion's own past gaps are the scale: they contain season, weather and autocorrelation. What
no feature shows appears here first, as soon as there are labels. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import fsum, sqrt

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlops_assets.monitoring_loop.degradation import INCIDENT, Evaluation
from mlops_assets.monitoring_loop.evidence import CHAMPION, MIN_COMPLETENESS, Asked, Evidence, Known
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.degradation import CalibrationMonitor

CALIBRATION = "calibration"
RATIO = Asked(CHAMPION, ALL, "calibration_ratio", 1)
SHARE = Asked(CHAMPION, ALL, "positive_share", 1)


@dataclass(frozen=True)
class Gap:
    """One prediction day: shares of positives, observed and predicted, over its labelled requests."""

    observed: float
    predicted: float
    ratio: Known

    @property
    def size(self) -> float:
        """Observed minus predicted."""
        return self.observed - self.predicted


def rule_name(window_days: int, *, is_final: bool = True) -> str:
    """The monitor's name in table ``rules``.

    >>> rule_name(7), rule_name(1, is_final=False)
    ('calibration over 7 days', 'calibration of a day not mature yet')
    """
    if not is_final:
        return f"{CALIBRATION} of a day not mature yet"
    return f"{CALIBRATION} over {window_days} day{'s' if window_days > 1 else ''}"


def gaps_of(evidence: Evidence) -> dict[date, Gap]:
    """Every day on which the champion's shares are known; the predicted one is observed / ratio."""
    ratios, found = evidence.of(RATIO), {}
    for day, share in evidence.of(SHARE).items():
        ratio = ratios.get(day)
        if share.value is not None and ratio is not None and ratio.value:
            found[day] = Gap(share.value, share.value / ratio.value, ratio)
    return found


def watch_calibration(monitor: CalibrationMonitor, evidence: Evidence) -> Iterator[Evaluation]:
    """One evaluation per window over mature days, and one of the newest day that is not mature yet."""
    gaps = gaps_of(evidence)
    final = {day: gap for day, gap in gaps.items() if gap.ratio.is_final and day <= evidence.mature}
    for window_days in monitor.windows_days:
        yield judged(monitor, evidence, final, gaps, evidence.mature, window_days, rule_name(window_days))
    early = [
        day
        for day, gap in gaps.items()
        if day > evidence.mature and gap.ratio.completeness >= MIN_COMPLETENESS and not gap.ratio.is_final
    ]
    if early:
        yield judged(monitor, evidence, final, gaps, max(early), 1, rule_name(1, is_final=False))


def judged(
    monitor: CalibrationMonitor,
    evidence: Evidence,
    final: Mapping[date, Gap],
    gaps: Mapping[date, Gap],
    last: date,
    window_days: int,
    name: str,
) -> Evaluation:
    """The mean gap of the ``window_days`` that end on ``last`` beside the means of such windows before it."""
    known = evidence.of(RATIO).get(last, Known(None))
    found = Evaluation(
        evidence.day, name, last, window_days, CHAMPION, ALL, "calibration_ratio", INCIDENT,
        n_labelled=known.n_labelled, completeness=known.completeness, of_days=window_days,
        known_as=known.state if known.value is not None else "not_measured",
    )  # fmt: skip
    usual = {day: gap for day, gap in final.items() if evidence.usual.holds(day)}
    past = past_means(monitor, usual, last, window_days)
    window = window_of(gaps if window_days == 1 else final, last, window_days)
    if last not in gaps:
        return unmeasured(found, known, is_learning=len(past) < monitor.min_days, is_blocked=last in evidence.blocked)
    if len(past) < monitor.min_days or window is None:
        return replace(found, state="learning", reason="learning")
    observed, predicted = (fsum(values) / len(window) for values in zip(*window, strict=True))
    noise = sqrt(predicted * (1 - predicted) / max(known.n_labelled * len(window), 1))
    scale = max(sqrt(fsum(mean * mean for mean in past) / len(past)), noise)
    z = round((observed - predicted) / scale, 9) if scale else 0.0
    ratio = round(observed / predicted, 9)
    measured = replace(
        found, value=round(observed, 9), compared=round(predicted, 9), change=z, scale=round(scale, 9),
        days_judged=len(window),
    )  # fmt: skip
    is_off = abs(z) >= monitor.moderate_z and is_outside(monitor, ratio, ratio)
    if is_off and not known.is_final:
        is_off = is_outside(monitor, known.low, known.high)
    if not is_off:
        return replace(measured, reason=f"observed / predicted {ratio:.2f}, z {z:.1f}")
    return replace(
        measured, state="broken", tier="moderate", days_broken=len(window), reason=in_words(measured, monitor, ratio)
    )


def past_means(monitor: CalibrationMonitor, final: Mapping[date, Gap], last: date, window_days: int) -> list[float]:
    """Mean gaps of the windows that ended before the judged one began, newest first.

    Always laid out from the judged window backwards, so that sums run in one order whatever else is known.
    """
    length = monitor.residual_days + window_days - 1
    days = (last - timedelta(days=window_days + back) for back in range(length))
    sizes = np.array([final[day].size if day in final else np.nan for day in days], dtype=np.float64)
    windows = sliding_window_view(sizes, window_days)
    counted = (~np.isnan(windows)).sum(axis=-1)
    enough = 3 * counted >= 2 * window_days
    means = np.nan_to_num(windows).sum(axis=-1)[enough] / counted[enough]
    return [float(mean) for mean in means]


def window_of(gaps: Mapping[date, Gap], last: date, window_days: int) -> list[tuple[float, float]] | None:
    """Observed and predicted shares of a window; None if more than a third of its days is missing."""
    days = (gaps.get(last - timedelta(days=back)) for back in range(window_days))
    there = [(gap.observed, gap.predicted) for gap in days if gap]
    return there if there and 3 * len(there) >= 2 * window_days else None


def is_outside(monitor: CalibrationMonitor, low: float | None, high: float | None) -> bool:
    """Whether a whole interval of the ratio lies outside of what is tolerated."""
    return low is not None and high is not None and (low > monitor.max_ratio or high < monitor.min_ratio)


def unmeasured(found: Evaluation, known: Known, *, is_learning: bool, is_blocked: bool) -> Evaluation:
    """A mature day without the numbers: a matter of labels, unless it was blocked or nothing was known before."""
    if is_learning:
        return replace(found, state="learning", reason="learning")
    if known.value is not None:
        return replace(found, state="unknown", reason=f"no positive among {known.n_labelled} labels")
    if is_blocked or known.reason == "blocked":
        return replace(found, state="unknown", gap="blocked", reason=f"{found.prediction_day} was blocked")
    why = known.reason or "no row of quality"
    return replace(
        found, state="unknown", tier="unknown", gap="labels",
        reason=f"{CALIBRATION} of {found.prediction_day} cannot be judged: {why}",
    )  # fmt: skip


def in_words(found: Evaluation, monitor: CalibrationMonitor, ratio: float) -> str:
    """The finding as a person would say it."""
    days = (
        f"on {found.prediction_day}"
        if found.window_days == 1
        else (f"over the {found.window_days} mature days to {found.prediction_day}")
    )
    early = "" if found.known_as in ("final", "restated") else f" ({found.completeness or 0:.0%} of the labels known)"
    return (
        f"calibration: observed/predicted {ratio:.2f} {days}{early}: {found.value or 0:.1%} positive, "
        f"{found.compared or 0:.1%} predicted (z {abs(found.change or 0):.1f} against its own past "
        f"{monitor.residual_days} days)"
    )
