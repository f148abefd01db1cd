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

    The one exception is what it announces word for word: ``new_categories`` names texts that were never seen before,
    ``ranges`` the lowest and highest number of a column, for instance ``{"weight": (0, 40)}``. Whatever else is new or
    out of range in that column stays a fault.

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
    new_categories: dict[str, tuple[str, ...]] = Field(default={}, description="Column -> new texts that are expected.")
    ranges: dict[str, tuple[float, float]] = Field(
        default={}, description="Column -> lowest and highest number that is expected, both included."
    )

    def announces(self, column: str, statistic: str) -> bool:
        """Whether it says which new texts, or which range, a column will have."""
        is_text = statistic == "new_category" and column in self.new_categories
        return is_text or (statistic == "out_of_range" and column in self.ranges)

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

    @model_validator(mode="after")
    def _announces_what_it_names(self) -> "KnownEvent":
        for column in (*self.new_categories, *self.ranges):
            if column not in self.features and "all" not in self.features:
                raise ValueError(f"event '{self.id}': it announces something about '{column}'; name it in features too")
        for column, (low, high) in self.ranges.items():
            if not low <= high:
                raise ValueError(f"event '{self.id}': the range of '{column}' begins at {low:g} and ends at {high:g}")
        if empty := sorted(column for column, texts in self.new_categories.items() if not texts):
            raise ValueError(f"event '{self.id}': new_categories of {', '.join(empty)} names no text")
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
