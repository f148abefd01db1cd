"""What other people's tables promise us."""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.policy import Identifier, Policy, Share


class Expected(Policy):
    """On which days a file of this source is due; outside of them its absence means nothing.

    ``daily``: every day from ``first`` to ``last`` (none: without end). ``once``: on ``first`` only.
    """

    cadence: Literal["daily", "once"] = "daily"
    first: date
    last: date | None = None

    def covers(self, day: date) -> bool:
        """Whether a file is due on this day.

        >>> Expected(cadence="once", first=date(2013, 1, 1)).covers(date(2013, 1, 2))
        False
        """
        if self.cadence == "once":
            return day == self.first
        return self.first <= day and (self.last is None or day <= self.last)


class Source(Policy):
    """A table we read and do not own: one file per arrival day in the landing zone.

    ``columns`` maps every column to its DuckDB type, in any order; ``key`` names a row within one file;
    ``event_at`` is when something happened and ``available_at`` when it could first be read, never earlier.
    """

    name: Identifier
    description: str
    columns: dict[Identifier, str]
    key: tuple[str, ...] = Field(min_length=1)
    event_at: str = "event_at"
    available_at: str = "available_at"
    feeds: Literal["same_day", "next_day"] = "same_day"
    expected: Expected
    on_missing_day: Literal["block", "go_stale"]
    on_bad_row: Literal["quarantine_row", "block_day"] = "block_day"
    max_bad_share: Share = 0.05
    contract: Identifier

    @model_validator(mode="after")
    def _columns_exist(self) -> "Source":
        for column in (*self.key, self.event_at, self.available_at):
            if column not in self.columns:
                raise ValueError(
                    f"source '{self.name}': column '{column}' is named but not declared; "
                    f"declared: {', '.join(self.columns)}"
                )
        return self
