"""What an answer is worth: the business number that a service exists to move."""

from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Identifier, Policy

KPI_COLUMNS = ("score", "decision", "outcome")
"""What a value expression may read, beside the declared slices: a number, a boolean, and what happened."""


class KpiSource(Policy):
    """A source that already knows the number: revenue per session, calls per customer, margin per day.

    ``value`` is an SQL expression over a row; the rows of one ``unit`` (an expression: the id of a session or of a
    customer) on one business day of the source's ``event_at`` add up, and the KPI is their mean per unit. The version
    that gets the credit is the one that serves the hash bucket of the unit's id, so that a canary or a holdback is
    compared with the champion on units and not on requests; where the log of a model that runs elsewhere is read, the
    version that answered the request of this id. At grain *day* a row is about the whole day: ``unit`` is how many
    units it counts (none: one, the day), and only what was *served* has a value.

    ``settles_after_days``: a day is final so many days after it; until then its value is corrected for what has not
    come, once ten days have settled. ``slices`` give a unit its declared slices, as expressions over its first row of
    the day.
    """

    source: Identifier
    grain: Literal["session", "customer", "day"]
    value: str
    unit: str | None = None
    settles_after_days: int = Field(default=0, ge=0, le=28)
    slices: dict[Identifier, str] = {}

    @property
    def expressions(self) -> dict[str, str]:
        """Field -> expression over a row of the source, for the check of names."""
        named = {"value": self.value, **({"unit": self.unit} if self.unit is not None else {})}
        return named | {f"slices > '{name}'": text for name, text in self.slices.items()}

    @model_validator(mode="after")
    def _units_have_a_name(self) -> "KpiSource":
        if self.grain != "day" and self.unit is None:
            raise ValueError(f"grain '{self.grain}' needs unit, an expression: the id of a {self.grain} in a row")
        return self


class KpiPolicy(Policy):
    """The value of one answered request, once its outcome is known; table ``kpi`` has its mean.

    Declared are either the values of a true and of a false alarm (and of a positive without an alarm), or one
    SQL expression over ``score``, ``decision``, ``outcome`` and the declared slices, for instance
    ``case when decision then 3 * outcome::integer - 1 else 0 end``, or a ``source`` of its own. The decision is the
    one that was logged (``model.threshold``). The outcome is a boolean of a yes-or-no service, the number of one that
    tells numbers (``-abs(score - outcome)``), the name of the class, or the gain of a ranked row. The unit is text for
    people: *EUR per flight*.
    """

    name: Identifier
    unit: str
    value_per_true_alarm: float | None = None
    value_per_false_alarm: float | None = None
    value_per_miss: float = 0.0
    expression: str | None = Field(default=None, description="In place of the values per alarm.")
    source: KpiSource | None = Field(default=None, description="In place of both.")

    @property
    def value(self) -> str:
        """The SQL expression of the value of one request, or of one row of its source."""
        if self.source is not None:
            return self.source.value
        if self.expression is not None:
            return self.expression
        return (
            f"case when decision and outcome then {self.value_per_true_alarm!r} "
            f"when decision then {self.value_per_false_alarm!r} when outcome then {self.value_per_miss!r} else 0.0 end"
        )

    @model_validator(mode="after")
    def _has_one_value(self) -> "KpiPolicy":
        per_alarm = (self.value_per_true_alarm, self.value_per_false_alarm)
        ways = (self.expression is not None) + (self.source is not None)
        if not ways and None in per_alarm:
            raise ValueError(
                f"KPI '{self.name}' needs value_per_true_alarm and value_per_false_alarm, an expression, or a source"
            )
        if ways > 1 or (ways and per_alarm != (None, None)):
            raise ValueError(
                f"KPI '{self.name}' has more than one of: values per alarm, an expression, a source; keep one of them"
            )
        return self
