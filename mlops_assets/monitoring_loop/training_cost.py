"""Judge: did a training, or a day of scoring, suddenly take far more than the ones before it?

What it uses belongs to the machine that carried it out, so two replays differ in it. A finding needs a
multiple that no busy machine makes, and an amount that a small service never reaches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from mlops_assets.monitoring_loop.findings import Finding

BEFORE, LEAST_BEFORE = 6, 3
"""Earlier trainings whose median is the usual amount, and how few of them say something."""
LEAST_MORE = {"cpu_seconds": 10.0, "peak_mib": 512.0}
"""What a training must use beyond the usual amount."""
IN_WORDS = {"cpu_seconds": "CPU seconds", "peak_mib": "MiB of memory"}


@dataclass(frozen=True)
class Training:
    """What one training, or one day of scoring, used; ``known_on`` is the day on which it was carried out."""

    decision_id: str
    known_on: date
    rows: int
    cpu_seconds: float
    peak_mib: float


def costly(
    trainings: Sequence[Training],
    day: date,
    max_growth: float | None,
    *,
    work: str = "training",
    watched: Sequence[str] = tuple(IN_WORDS),
) -> Iterator[Finding]:
    """Findings about the trainings of a day that used ``max_growth`` times what the ones before did; None: no limit.

    Args:
        trainings: oldest first; later ones than the day's change nothing.
        work: what was done, in words and as the first part of the cause.
        watched: which of what it used is judged.
    """
    for number, one in enumerate(trainings):
        before = trainings[max(0, number - BEFORE) : number]
        if one.known_on != day or max_growth is None or len(before) < LEAST_BEFORE:
            continue
        for name, words in ((name, IN_WORDS[name]) for name in watched):
            value, usual = getattr(one, name), median(getattr(earlier, name) for earlier in before)
            if value >= max_growth * usual and value - usual >= LEAST_MORE[name]:
                rows = f"{one.rows:,} rows, {round(median(earlier.rows for earlier in before)):,} before"
                reason = f"{work} {one.decision_id}: {value:,.0f} {words}, usually {usual:,.0f} ({rows})"
                yield Finding("moderate", f"{work}:{name}", reason, value / usual)
