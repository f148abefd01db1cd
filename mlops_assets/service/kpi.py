"""What an answer is worth: the business number that a service exists to move."""

from pydantic import Field, model_validator

from mlops_assets.service.policy import Identifier, Policy

KPI_COLUMNS = ("score", "decision", "outcome")
"""What a value expression may read, beside the declared slices: a number 0 to 1, and two booleans."""


class KpiPolicy(Policy):
    """The value of one answered request, once its outcome is known; table ``kpi`` has its mean.

    Declared are either the values of a true and of a false alarm (and of a positive without an alarm), or one
    SQL expression over ``score``, ``decision``, ``outcome`` and the declared slices, for instance
    ``case when decision then 3 * outcome::integer - 1 else 0 end``. The decision is the one that was logged
    (``model.threshold``). The unit is text for people: *EUR per flight*.
    """

    name: Identifier
    unit: str
    value_per_true_alarm: float | None = None
    value_per_false_alarm: float | None = None
    value_per_miss: float = 0.0
    expression: str | None = Field(default=None, description="In place of the values per alarm.")

    @property
    def value(self) -> str:
        """The SQL expression of the value of one request."""
        if self.expression is not None:
            return self.expression
        return (
            f"case when decision and outcome then {self.value_per_true_alarm!r} "
            f"when decision then {self.value_per_false_alarm!r} when outcome then {self.value_per_miss!r} else 0.0 end"
        )

    @model_validator(mode="after")
    def _has_one_value(self) -> "KpiPolicy":
        per_alarm = (self.value_per_true_alarm, self.value_per_false_alarm)
        if self.expression is None and None in per_alarm:
            raise ValueError(
                f"KPI '{self.name}' needs value_per_true_alarm and value_per_false_alarm, or an expression"
            )
        if self.expression is not None and per_alarm != (None, None):
            raise ValueError(f"KPI '{self.name}' has an expression and values per alarm; leave one of them out")
        return self
