"""The one daily calendar of a service, and the only reader of clocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MICROSECOND = timedelta(microseconds=1)
DEMO_DAY = timedelta(minutes=2)
"""The demo clock lets one business day pass in this time, unless the service declares another."""


def wall_clock() -> datetime:
    """Now, as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


@cache
def _start_of(day: date, timezone: str) -> datetime:
    local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(timezone))
    return local.astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Calendar:
    """Business days of one time zone. Day D is ``[start_of(D), start_of(D + 1))``; instants are naive UTC.

    >>> new_york = Calendar("America/New_York")
    >>> new_york.end_of(date(2013, 3, 10)) - new_york.start_of(date(2013, 3, 10))
    datetime.timedelta(seconds=82800)
    """

    timezone: str

    def start_of(self, day: date) -> datetime:
        """First instant of the day."""
        return _start_of(day, self.timezone)

    def end_of(self, day: date) -> datetime:
        """First instant after the day."""
        return _start_of(day + timedelta(days=1), self.timezone)

    def last_instant(self, day: date) -> datetime:
        """Last microsecond of the day."""
        return self.end_of(day) - MICROSECOND

    def day_of(self, instant: datetime) -> date:
        """The business day that an instant falls in."""
        return instant.replace(tzinfo=UTC).astimezone(ZoneInfo(self.timezone)).date()


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from first to last, both included; none if last is earlier."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def demo_now(
    calendar: Calendar, first_unclosed: date, last_closed_at: datetime, wall: datetime, demo_day: timedelta = DEMO_DAY
) -> datetime:
    """The demo's time: the start of the first unclosed day, a day later for every ``demo_day`` since the last closing.

    It never runs more than two days ahead, so a demo that was switched off goes on one day at a time, and a
    day whose file never comes is still closed (PROTOCOL.md 7; docs/decisions/0005-demo-clock.md).
    """
    passed = min(int((wall - last_closed_at) / demo_day), 2)
    return calendar.start_of(first_unclosed + timedelta(days=max(passed, 0)))
