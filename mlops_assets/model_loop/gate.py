"""A pure function: comparison -> PASS, FAIL or INCONCLUSIVE, with the reasons and the power it had."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from mlops_assets.model_loop.evaluation import Comparison
from mlops_assets.service.training import GatePolicy

Z_BOUND = 1.959963984540054
"""Normal quantile of a one-sided 2.5 % error: the upper of two 95 % bounds."""
Z_POWER = 0.8416212335729143
"""Normal quantile of 80 % power."""

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True)
class GateVerdict:
    """What a candidate has shown, why that is the verdict, and the numbers behind it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: Mapping[str, float | int | str | None]

    @property
    def text(self) -> str:
        """Verdict and reasons as one sentence."""
        return f"{self.verdict}: {'; '.join(self.reasons)}."


def needed_days(day_sd: float, margin: float) -> int:
    """Judged days after which a candidate that is just as good passes four times in five.

    Args:
        day_sd: standard deviation of the daily differences; ``margin``: in the same unit, above 0.

    Source: J. Cohen, Statistical Power Analysis (1988), ch. 2; days are the units.

    >>> needed_days(0.003, 0.0015)
    32
    """
    return max(2, ceil(((Z_BOUND + Z_POWER) * day_sd / margin) ** 2))


def judge(
    comparison: Comparison,
    *,
    policy: GatePolicy,
    champion_age_days: int | None,
    unopposed: str | None,
) -> GateVerdict:
    """Judge the primary loss (lower is better) of a candidate beside its rival's on the judged days.

    PASS: the upper 95 % bound of the difference is at most the margin (``max_loss_increase_share`` of the
    rival's loss), and there is a reason to change: it is better for sure, or the champion is older than
    ``champion_age_days``, or there is none yet. FAIL: the lower bound is above the margin. Otherwise
    INCONCLUSIVE: the champion stays, and the reasons say how many days would settle it. ``unopposed`` says why the
    prior stands in for a champion; None: there is one.

    Source: non-inferiority, G. Piaggio et al., JAMA 308 (2012), 2594-2604.
    """
    c = comparison
    loss, rival_loss, difference, low, high = c.value, c.rival_value, c.difference, c.low, c.high
    unmeasured = _unmeasured(c, policy)
    if unmeasured or loss is None or rival_loss is None or difference is None or low is None or high is None:
        return GateVerdict("INCONCLUSIVE", (unmeasured or "nothing could be compared",), _numbers(c, None))
    margin = policy.max_loss_increase_share * rival_loss
    numbers = _numbers(c, margin)
    measured = (
        f"{c.metric} {loss:.4f} against {rival_loss:.4f} on {c.n} rows of {c.days} days: difference "
        f"{difference:+.5f} [{low:+.5f}, {high:+.5f}], margin {margin:.5f}"
    )
    if low > margin:
        return GateVerdict("FAIL", (measured, "worse than the margin allows, for sure"), numbers)
    if high > margin:
        return GateVerdict("INCONCLUSIVE", (measured, _power(c, margin)), numbers)
    if unopposed:
        why = f"better than the prior, and {unopposed}" if difference < 0 else None
        why_not = "no better than the prior"
    else:
        why = _why_change(high, policy, champion_age_days)
        why_not = (
            f"no worse, but not better for sure either, and the champion is {champion_age_days} days old; "
            f"from {policy.champion_age_days} days on that is enough"
        )
    return GateVerdict("PASS" if why else "INCONCLUSIVE", (measured, why or why_not), numbers)


def _unmeasured(c: Comparison, policy: GatePolicy) -> str | None:
    if c.n < policy.min_labels:
        return f"{c.n} judged labels, below min_labels={policy.min_labels}"
    if c.days < 3:
        return f"{c.days} judged days; three are the least that say anything"
    return None


def _why_change(high: float, policy: GatePolicy, age_days: int | None) -> str | None:
    if high < 0:
        return "better for sure"
    if age_days is not None and age_days >= policy.champion_age_days:
        return f"no worse than the margin allows, and the champion is {age_days} days old"
    return None


def detectable(standard_error: float) -> float:
    """The smallest margin that a candidate which is just as good would keep four times in five.

    >>> round(detectable(0.001), 4)
    0.0028
    """
    return (Z_BOUND + Z_POWER) * standard_error


def _power(c: Comparison, margin: float) -> str:
    error = c.standard_error or 0.0
    if not (error and margin > 0):
        return "the margin is zero: only a better candidate can pass"
    days = needed_days(error * c.days**0.5, margin)
    return (
        f"could be worse than the margin: {c.days} days can see a margin of {detectable(error):.5f} "
        f"(80 % power), not {margin:.5f}; that takes about {days} days"
        if detectable(error) > margin
        else f"could be worse than the margin, although {c.days} days can see one of {detectable(error):.5f}"
    )


def _numbers(c: Comparison, margin: float | None) -> dict[str, float | int | str | None]:
    error = c.standard_error
    return {
        "metric": c.metric, "value": c.value, "rival_value": c.rival_value, "difference": c.difference,
        "low": c.low, "high": c.high, "margin": margin, "days": c.days, "n": c.n,
        "correlation": c.correlation, "day_sd": c.day_sd,
        "detectable": None if error is None else detectable(error),
        "needed_days": None if not (error and margin) else needed_days(error * c.days**0.5, margin),
    }  # fmt: skip
