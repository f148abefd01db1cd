"""A daily series as text, with what changed behind it as marks: the same in a mail, a terminal and a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import isnan
from string import ascii_lowercase

from mlops_assets.adapters.calendar import days_between

HEIGHT = 4
STEPS = " ▁▂▃▄▅▆▇█"
FULL = len(STEPS) - 1
MOST_MARKS = len(ascii_lowercase)
LONGEST_WORDS = 110


@dataclass(frozen=True)
class Mark:
    """Something that changed on a day."""

    day: date
    words: str


def chart(
    values: Mapping[date, float], marks: Sequence[Mark], *, title: str, first: date, last: date, opened_on: date | None
) -> str:
    """Columns of eighths of a block, one a day, between the smallest and the largest value; a day without one is a dot.

    Below stand the letters of the marks, and ``^`` where the incident was opened; then what the letters mean.

    >>> day = date(2013, 7, 1)
    >>> print(chart({day: 1.0, date(2013, 7, 3): 3.0}, [Mark(date(2013, 7, 3), "model: a -> b")], title="delay",
    ...             first=day, last=date(2013, 7, 3), opened_on=date(2013, 7, 3)))
    delay, 2013-07-01 to 2013-07-03
             3 |  █
               |  █
               |  █
             1 |▁·█
       changes |  a
        opened |  ^
    a 2013-07-03 model: a -> b
    """
    days = list(days_between(first, last))
    known = {day: value for day, value in values.items() if first <= day <= last and not isnan(value)}
    low, high = min(known.values(), default=0.0), max(known.values(), default=0.0)
    eighths = [None if day not in known else _eighths(known[day], low, high) for day in days]
    lines = [f"{title}, {first} to {last}"]
    for row in reversed(range(HEIGHT)):
        label = f"{high:.4g}" if row == HEIGHT - 1 else f"{low:.4g}" if row == 0 else ""
        lines.append(f"{label:>10} |{''.join(_cell(eighth, row) for eighth in eighths)}")
    letters = _letters(marks, first, last)
    if letters:
        lines.append(f"{'changes':>10} |{''.join(letters[day][0] if day in letters else ' ' for day in days)}")
    if opened_on is not None and first <= opened_on <= last:
        lines.append(f"{'opened':>10} |{' ' * (opened_on - first).days}^")
    return "\n".join([line.rstrip() for line in lines] + [f"{a} {day} {words}" for day, (a, words) in letters.items()])


def _eighths(value: float, low: float, high: float) -> int:
    """Height of a column, at least one eighth so that the smallest value is not taken for a gap."""
    return max(round((value - low) / (high - low) * HEIGHT * FULL), 1) if high > low else HEIGHT * FULL // 2


def _cell(eighths: int | None, row: int) -> str:
    if eighths is None:
        return "·" if row == 0 else " "
    return STEPS[min(max(eighths - row * FULL, 0), FULL)]


def _letters(marks: Sequence[Mark], first: date, last: date) -> dict[date, tuple[str, str]]:
    """Day -> its letter and everything that changed on it, oldest first."""
    by_day: dict[date, list[str]] = {}
    for mark in sorted(marks, key=lambda one: one.day):
        if first <= mark.day <= last:
            by_day.setdefault(mark.day, []).append(mark.words)
    named = list(by_day.items())[-MOST_MARKS:]
    return {
        day: (letter, _short("; ".join(words))) for letter, (day, words) in zip(ascii_lowercase, named, strict=False)
    }


def _short(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else f"{words[: LONGEST_WORDS - 4]} ..."


def change_in_words(change: Mapping[str, object]) -> str:
    """One row of ledger table ``changes``.

    >>> change_in_words({"kind": "model", "subject": "champion", "before": "v1", "after": "v2", "by": ""})
    'model champion: v1 -> v2'
    """
    before = f"{change['before']} -> " if change["before"] else ""
    by = f" (by {change['by']})" if change["by"] else ""
    return f"{change['kind']} {change['subject']}: {before}{change['after']}{by}"
