"""What the drift monitor is told beforehand: how often it may be wrong, what is planned, which rules to show beside."""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Identifier, Policy

Statistic = Literal["mean", "mean_alone", "spread", "distance", "distance_7d", "volume"]
"""Statistics that an event can explain; null shares, constants and the like it never does."""


class AlarmBudget(Policy):
    """How many false alarms a quarter of 91 days may have; with the number of series it gives the thresholds."""

    tier2_a_quarter: float = Field(default=6, gt=0)
    tier3_a_quarter: float = Field(default=1, gt=0)


class KnownEvent(Policy):
    """A planned change that explains shifts in the columns it names, up to a size, and no fault anywhere.

    It counts as known on its days if it was declared before the first of them. Declared later it is an explanation
    in hindsight: it needs ``declared_by`` and changes no tier.
    """

    id: Identifier
    kind: Identifier
    start: date
    end: date = Field(description="Last day, included.")
    declared_on: date
    declared_by: str | None = None
    owner: str
    reason: str
    expiry: date = Field(description="Last day on which the declaration is believed.")
    features: tuple[str, ...] = Field(min_length=1, description="Features, rows, score; or all.")
    slices: tuple[str, ...] = ("all",)
    direction: Literal["up", "down", "any"] = "any"
    max_size: dict[Statistic, float] = Field(
        default={}, description="Largest size it explains, per statistic, in the unit of the statistic's gate."
    )
    no_rows: bool = Field(default=False, description="A non-business day: no rows are no fault.")

    @property
    def is_known_before(self) -> bool:
        """Whether it was declared before it began."""
        return self.declared_on < self.start

    def covers(self, day: date) -> bool:
        """Whether a day lies within the event, and the declaration was there and still counted."""
        return self.start <= day <= min(self.end, self.expiry) and self.declared_on <= day

    @model_validator(mode="after")
    def _is_possible(self) -> "KnownEvent":
        if self.end < self.start:
            raise ValueError(f"event '{self.id}': end {self.end} lies before start {self.start}")
        if self.expiry < self.start:
            raise ValueError(f"event '{self.id}': expiry {self.expiry} lies before start {self.start}")
        if not self.is_known_before and not self.declared_by:
            raise ValueError(
                f"event '{self.id}': declared on {self.declared_on}, when it had begun; "
                "name who explains it in declared_by"
            )
        return self


class DriftRule(Policy):
    """A plain rule beside the measured method. By default it only records what it would have done.

    ``mean_days``: the day's mean is more than ``threshold`` standard deviations of 30 daily means away (the article's
    rule); ``mean_values``: of single values. ``psi``, ``js``, ``wasserstein`` (over the standard deviation): above the
    threshold; ``ks``: the chance of such a gap without any change is below it.
    """

    measure: Literal["mean_days", "mean_values", "psi", "js", "ks", "wasserstein"]
    threshold: float = Field(gt=0)
    tier: Literal["recorded", "moderate"] = "recorded"
