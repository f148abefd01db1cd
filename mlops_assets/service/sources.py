"""What other people's tables promise us."""

import re
from datetime import date
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mlops_assets.errors import DeclarationError, UnknownNameError
from mlops_assets.service.policy import Identifier, Policy, Share


class Expected(Policy):
    """On which days a file of this source is due; outside of them its absence means nothing.

    ``daily``: every day from ``first`` to ``last`` (none: without end). ``once``: on ``first`` only. ``list``: on
    each of ``days``, in order.
    """

    cadence: Literal["daily", "once", "list"] = "daily"
    first: date | None = None
    last: date | None = None
    days: tuple[date, ...] = ()

    def covers(self, day: date) -> bool:
        """Whether a file is due on this day.

        >>> Expected(cadence="once", first=date(2013, 1, 1)).covers(date(2013, 1, 2))
        False
        >>> Expected(cadence="list", days=(date(2013, 1, 1), date(2013, 4, 1))).covers(date(2013, 4, 1))
        True
        """
        if self.cadence == "list":
            return day in self.days
        if self.cadence == "once":
            return day == self.first
        return self.first_due <= day and (self.last is None or day <= self.last)

    @property
    def first_due(self) -> date:
        """The first day on which a file is due."""
        return self.first if self.first is not None else self.days[0]

    @model_validator(mode="after")
    def _says_when(self) -> "Expected":
        is_list = self.cadence == "list"
        if is_list and (self.first is not None or self.last is not None):
            raise ValueError("cadence 'list' is due on its days alone; leave first and last out, or use 'daily'")
        if is_list and not self.days:
            raise ValueError("cadence 'list' needs days, for example days=(date(2013, 1, 1), date(2013, 4, 1))")
        if is_list and list(self.days) != sorted(set(self.days)):
            raise ValueError("cadence 'list': days must be in order, each named once; sort them")
        if not is_list and self.days:
            raise ValueError(f"cadence '{self.cadence}' has no days; use cadence='list', or leave days out")
        if not is_list and self.first is None:
            raise ValueError(f"cadence '{self.cadence}' needs first, the first day on which a file is due")
        if self.cadence == "once" and self.last is not None:
            raise ValueError("cadence 'once' is due on first alone; leave last out, or use 'daily'")
        if self.first is not None and self.last is not None and self.last < self.first:
            raise ValueError(f"last {self.last} lies before first {self.first}; exchange them")
        return self


class SqlTable(Policy):
    """Where the rows of a source are found if nobody puts files into the landing zone: a table of a database.

    When an arrival day is over, its rows (by ``available_at``) are read once and land as the file of the day; from
    there on the source is like any other. A day without a row is a day without a file.

    ``url_variable``: environment variable with the database's SQLAlchemy URL (``postgresql+psycopg2://...``,
    ``sqlite:///...``; ``duckdb:///...`` too), so that no secret stands in a declaration. ``table``: its name, behind
    a schema and a dot if need be; a view will do. ``columns``: declared column -> column of the table, where they
    differ. Instants without a time zone are UTC.

    ``settle_minutes``: how long after the end of a day its rows may still be on their way. ``reread_days``: so many
    days before are read again; what changed, came late or went since is a new generation, like a file that was
    delivered again.
    """

    url_variable: str
    table: str = Field(min_length=1)
    columns: dict[Identifier, str] = {}
    settle_minutes: int = Field(default=15, ge=0)
    reread_days: int = Field(default=3, ge=0)

    def column(self, declared: str) -> str:
        """What a declared column is called in the table."""
        return self.columns.get(declared, declared)

    @field_validator("url_variable", mode="before")
    @classmethod
    def _names_a_variable(cls, name: object) -> object:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(name)):  # not shown: it may be the URL, with a password
            raise DeclarationError(
                "source > table > url_variable", "is no name of an environment variable (capitals, digits, _).",
                "Put the URL into one that only the service sees, and write its name: url_variable='LOANS_DB_URL'.",
            )  # fmt: skip
        return name


class Source(Policy):
    """A table we read and do not own: one file per arrival day in the landing zone, put there or read from a ``table``.

    ``columns`` maps every column to its DuckDB type, in any order; ``key`` names a row within one file;
    ``event_at`` is when something happened and ``available_at`` when it could first be read, never earlier.
    ``owner``: whom to ask when it breaks, a person or a desk; named by the playbook.

    ``pseudonymise`` names id columns (texts) that are stored as HMAC-SHA256 under a key that only the environment of
    the service has (``MLOPS_HMAC_KEY_<SERVICE>``); the contract sees the pseudonyms too. Name the same ids in every
    source that is joined by them. Such a source belongs to one service: another one has another key.

    ``rows_may_repeat``: several rows of a file may share a key and are all kept. So it is for the source of a
    ``PredictionLog`` without being asked: whoever writes it tries again, and its repeats are dropped and counted later.
    """

    name: Identifier
    description: str
    owner: str = ""
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
    pseudonymise: tuple[str, ...] = ()
    rows_may_repeat: bool = False
    table: SqlTable | None = None

    @model_validator(mode="after")
    def _table_maps_declared_columns(self) -> "Source":
        for column in self.table.columns if self.table else ():
            if column not in self.columns:
                where = f"source '{self.name}' > table > columns"
                raise UnknownNameError(where=where, kind="declared column", name=column, known=self.columns)
        return self

    @model_validator(mode="after")
    def _columns_exist(self) -> "Source":
        for column in (*self.key, self.event_at, self.available_at, *self.pseudonymise):
            if column not in self.columns:
                raise ValueError(
                    f"source '{self.name}': column '{column}' is named but not declared; "
                    f"declared: {', '.join(self.columns)}"
                )
        for column in self.pseudonymise:
            if self.columns[column].upper() not in ("VARCHAR", "TEXT", "STRING"):
                raise ValueError(
                    f"source '{self.name}' > pseudonymise: '{column}' is declared as {self.columns[column]}; "
                    "a pseudonym is a text, so declare the column as VARCHAR"
                )
        return self
