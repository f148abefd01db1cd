"""When falling quality asks for a person, or for a retraining: rules as declared sentences."""

from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Days, Policy, Share

CHAMPION = "champion"
UNSERVED = ("challenger", "canary", "shadow", "fallback")
ROLES = (CHAMPION, *UNSERVED, "served")
"""Whose answers of the same day may stand as control: those in a role, or whatever answered."""
VERSION = "version:"
"""How a named model version begins where a role could stand."""
SAME_WEEKDAY = "same_weekday"
SAYS = f"'{SAME_WEEKDAY}', a role ({', '.join(ROLES)}), or '{VERSION}NAME'"
LIMITS = ("rises_by_share", "drops_by_share", "rises_by", "drops_by", "above", "below")
"""The ways to say how bad is too bad; a rule has exactly one."""


class DegradationRule(Policy):
    """One sentence: *brier up 5 % against the fallback on 3 of 4 days*.

    A day is broken if the metric over the ``window_days`` that end on it has moved by more than the limit.
    The rule is broken if ``broken_days`` of the newest ``of_days`` days are. A day that is not measured is
    never a good one: where it could have made the difference, the answer is *unknown*.

    ``rises_by_share`` and ``drops_by_share`` are relative (0.05 = 5 %), ``rises_by`` and ``drops_by`` in the
    unit of the metric; both need ``compared_with``: a control of the same day, or the median of the same weekday
    over eight weeks (*same_weekday*). A control is what a role answered (*fallback*, *shadow*, ...) or a model version
    (*version:2024-03*), read by the same label definition at the same maturity; in ``control_slice`` if that is not the
    rule's own: the other arm of an experiment. ``above`` and ``below`` are levels.

    ``min_state`` *provisional* looks at days whose labels are still coming in: only from ``completeness`` .5
    on, and only if the whole interval lies beyond the limit, with the control's own error in it. *final* waits for
    maturity.
    """

    metric: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    rises_by_share: float | None = Field(default=None, gt=0)
    drops_by_share: Share | None = None
    rises_by: float | None = Field(default=None, gt=0)
    drops_by: float | None = Field(default=None, gt=0)
    above: float | None = None
    below: float | None = None
    compared_with: str | None = Field(
        default=None, description="same_weekday, or the control: a role, or version:NAME."
    )
    control_slice: str | None = None
    broken_days: int = Field(default=3, ge=1)
    of_days: int = Field(default=4, ge=1)
    window_days: int = Field(default=1, ge=1)
    min_state: Literal["provisional", "final"] = "final"
    min_labels: int = Field(default=200, ge=1)
    slice: str = "all"
    tier: Literal["expected", "moderate", "severe"] = "moderate"

    @property
    def limit(self) -> tuple[str, float]:
        """Which limit was declared, and its number."""
        return next((name, getattr(self, name)) for name in LIMITS if getattr(self, name) is not None)

    @property
    def is_rise(self) -> bool:
        """Whether more is worse."""
        return self.limit[0] in ("rises_by_share", "rises_by", "above")

    @property
    def sentence(self) -> str:
        """The rule as a person says it; also its name in table ``rules``."""
        name, number = self.limit
        if name in ("above", "below"):
            moved = f"{name} {number:g}"
        else:
            moved = f"{'up' if self.is_rise else 'down'} {number:.3g}"
            if name.endswith("_share"):
                moved = f"{'up' if self.is_rise else 'down'} {number * 100:.3g} %"
        against = f" against {self.control}" if self.compared_with else ""
        of_slice = "" if self.slice == "all" else f" of {self.slice}"
        window = "" if self.window_days == 1 else f" over {self.window_days} days"
        return f"{self.metric}{of_slice}{window} {moved}{against}{self._days}"

    @property
    def control(self) -> str:
        """What it is compared with, in words."""
        named = self.compared_with or "the limit"
        if named.startswith(VERSION):
            named = f"version {named.removeprefix(VERSION)}"
        elif named == SAME_WEEKDAY:
            named = "the same weekday"
        elif named in ROLES:
            named = "what was served" if named == "served" else f"the {named}"
        return f"{named} of {self.control_slice}" if self.control_slice else named

    @property
    def has_control(self) -> bool:
        """Whether it is compared with somebody's answers of the same day."""
        return self.compared_with not in (None, SAME_WEEKDAY)

    @property
    def _days(self) -> str:
        if self.of_days == 1:
            return ""
        if self.broken_days == self.of_days:
            return f" for {self.of_days} consecutive days"
        return f" on {self.broken_days} of {self.of_days} days"

    @model_validator(mode="after")
    def _says_one_thing(self) -> "DegradationRule":
        declared = [name for name in LIMITS if getattr(self, name) is not None]
        if len(declared) != 1:
            raise ValueError(
                f"a degradation rule on '{self.metric}' needs exactly one of {', '.join(LIMITS)}; "
                f"it has {', '.join(declared) or 'none'}"
            )
        is_level = declared[0] in ("above", "below")
        if is_level and self.compared_with:
            raise ValueError(f"'{declared[0]}' is a level of '{self.metric}': leave compared_with out")
        if not is_level and not self.compared_with:
            raise ValueError(f"'{declared[0]}' of '{self.metric}' needs compared_with: {SAYS}")
        if self.broken_days > self.of_days:
            raise ValueError(f"broken_days={self.broken_days} of '{self.metric}' is more than of_days={self.of_days}")
        return self

    @model_validator(mode="after")
    def _control_is_another(self) -> "DegradationRule":
        named = self.compared_with
        is_known = named in (None, SAME_WEEKDAY, *ROLES) or (named and named.removeprefix(VERSION) not in ("", named))
        if not is_known:
            raise ValueError(f"compared_with '{named}' of '{self.metric}' is nothing to compare with: use {SAYS}")
        if self.control_slice is not None and not self.has_control:
            raise ValueError(f"control_slice '{self.control_slice}' of '{self.metric}' needs compared_with, a control")
        if named == "served" and self.control_slice in (None, self.slice):
            raise ValueError(f"'{self.metric}' of what was served is compared with itself: name a control_slice")
        return self


class CalibrationMonitor(Policy):
    """Watches observed beside predicted positives; needs no declaration to be on.

    A finding is a gap between the two that is large (observed / predicted outside of ``min_ratio`` and
    ``max_ratio``) and surprising (``moderate_z`` times the gaps of the champion's own past
    ``residual_days``; the day is the unit). It sees what no feature shows: the world answers differently to
    the same inputs. ``windows_days`` are counted over mature days.
    """

    windows_days: tuple[int, ...] = (1, 7)
    min_ratio: float = Field(default=0.8, gt=0, lt=1)
    max_ratio: float = Field(default=1.25, gt=1)
    moderate_z: float = Field(default=3.0, gt=0)
    residual_days: int = Field(default=60, ge=14)
    min_days: Days = 20


class HarmMonitor(Policy):
    """Watches harm that is too small for any single day and goes on; needs no declaration to be on.

    Two sums over mature days: the champion's loss less the fallback's on the same rows, and the realised loss less
    the estimated one. A finding is a sum that chance reaches ``false_alarms_a_quarter`` times a quarter, with a mean
    rise since its begin of at least ``min_rise_share`` of the loss.
    """

    days: int = Field(default=90, ge=42, description="Mature days that are looked at.")
    min_days: int = Field(default=28, ge=7, description="Days before the first one that can be judged.")
    allowance: float = Field(default=0.5, gt=0, description="Slack per day, in standard deviations of the days.")
    min_rise_share: float = Field(default=0.01, gt=0)
    false_alarms_a_quarter: float = Field(default=0.3, gt=0, description="Of both sums together.")
