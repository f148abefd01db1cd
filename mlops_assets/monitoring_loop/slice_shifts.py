"""Judge: in which part of the traffic does a shift sit? Pure, but for the SQL.

Two questions. When the whole has moved: which slice (an experiment arm, an app version, a market) holds more of it
than its share of the rows? And when the whole has not: does the score of one slice part from all the others?
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import fsum, isfinite
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import slices_sql
from mlops_assets.monitoring_loop.baseline import Floats
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.slices import SlicePart, explaining

USUAL_DAYS = 28
MIN_USUAL_DAYS = 14
"""Fewer days before say nothing about what a slice usually is."""
MIN_ROWS = 20
"""A slice with fewer rows that day is not judged by itself."""
PARTED_Z = 5.0
"""From which surprise on a slice that parts from the others is noted; a note asks for nobody, and must be rare."""
PARTED_SIZE = 0.25
"""And from which size on, in standard deviations of the score: the whole would hardly move, the slice clearly does."""


def sliced_totals_sql(relation: str, values: Mapping[str, str], slices: Sequence[str]) -> str:
    """SQL of ``(day, slice, requests, n_0, total_0, n_1, ...)``: per day and slice, and of all, sums of some values.

    Reads ``relation(day, context, ...)``; ``values`` are expressions over a row of it. Sums are of whole billionths,
    so that no order of rows changes a bit.
    """
    named = "".join(f", {text} as x_{place}" for place, text in enumerate(values.values()))
    numbered = "".join(f", x_{place}" for place in range(len(values)))
    sums = "".join(
        f", count(x_{place}) as n_{place}, coalesce(sum((x_{place} * 1e9)::hugeint), 0)::double / 1e9 as total_{place}"
        for place in range(len(values))
    )
    return f"""
        select day, slice, count(*) as requests{sums} from (
            select day, unnest({slices_sql(slices)}) as slice{numbered} from (
                select day, context{named} from {relation}
            )
        ) group by day, slice order by day, slice
    """


def where_it_sits(table: pd.DataFrame, day: date, place: int | None, *, days: int = 1) -> str:
    """The end of a sentence about a shift of the whole on a day: the slices that hold more than their share of it.

    Args:
        table: what ``sliced_totals_sql`` gives, of the day and of the days before that it is compared with.
        place: which of the values moved; None: the number of rows.
        days: how many days, the last of them ``day``, have moved together.
    """
    dated, since = pd.to_datetime(table["day"]).dt.date, day - timedelta(days=days)
    today, past = table[(dated > since) & (dated <= day)], table[dated <= since]
    if days > 1:
        today = today.drop(columns="day").groupby("slice", as_index=False, sort=True).sum()
    if past["day"].nunique() < MIN_USUAL_DAYS:
        return ""
    usual, found = _usual(past, place), {str(row["slice"]): row for row in today.to_dict("records")}
    if place is None:  # a slice may be gone altogether
        parts = [_volume(name, found, usual, past["day"].nunique()) for name in sorted({*usual, *found})]
    else:
        parts = [_part(name, row, usual, place) for name, row in found.items()]
    total = next((part for part in parts if part.slice == ALL), SlicePart(ALL, 0, 0.0))
    return in_words([(e.slice, e.of_excess, e.of_labels) for e in explaining(
        [part for part in parts if part.slice != ALL], total)])  # fmt: skip


def _usual(past: pd.DataFrame, place: int | None) -> dict[str, tuple[float, float]]:
    """Slice -> rows and sum of the days before."""
    n, total = ("requests", "requests") if place is None else (f"n_{place}", f"total_{place}")
    return {
        str(name): (fsum(some[n]), fsum(some[total]))
        for name, some in past.sort_values("day").groupby("slice", sort=True)
    }


def _volume(
    name: str, found: Mapping[str, Mapping[Hashable, Any]], usual: Mapping[str, tuple[float, float]], days: int
) -> SlicePart:
    """How many requests of a slice are more than on a usual day."""
    before = usual.get(name, (0.0, 0.0))[0] / days
    return SlicePart(name, round(before), (found[name]["requests"] if name in found else 0) - before)


def _part(name: str, row: Mapping[Hashable, Any], usual: Mapping[str, tuple[float, float]], place: int) -> SlicePart:
    """How far the sum of a slice is from what its rows usually add; one that is new is held against the whole."""
    n, total = row[f"n_{place}"], row[f"total_{place}"]
    past_n, past_total = usual[name] if usual.get(name, (0.0, 0.0))[0] else usual[ALL]
    return SlicePart(name, int(n), total - n * past_total / past_n if past_n else 0.0)


def in_words(found: Iterable[tuple[str, float, float]]) -> str:
    """The slices as the end of a sentence; empty if the shift is everywhere.

    >>> in_words([("arm=b", 0.91, 0.5)])
    '; 91% of it in arm=b (50% of the rows)'
    """
    told = [f"{of_shift:.0%} of it in {name} ({of_rows:.0%} of the rows)" for name, of_shift, of_rows in found]
    return "; " + ", ".join(told) if told else ""


@dataclass(frozen=True)
class PartedSlice:
    """A slice whose score parts from that of everybody else by more than it ever does."""

    day: date
    slice: str
    n: int
    value: float
    expected: float
    scale: float
    z: float
    size: float

    def in_words(self, what: str) -> str:
        """The finding as a person would say it."""
        return (
            f"{what}: {self.slice} lies {self.value:+.3g} from all others, usually {self.expected:+.3g} "
            f"(z {self.z:.1f}, {self.size:.1f} sd, {self.n} rows): a shift in that part of the traffic alone"
        )


def parted_slices(table: pd.DataFrame, days: Sequence[date], versions: Mapping[date, str]) -> list[PartedSlice]:
    """Slices that part from the others on a day, compared with their own four weeks under the same model version.

    What moves every slice alike moves the distance to the others by nothing, so that a storm is not told once per
    slice. The scale is how much the distance has differed from day to day, and at least its sampling error.

    Args:
        table: ``sliced_totals_sql`` of the value (place 0) and of its square (place 1).
        versions: what the value of a day is from; only days of the same version are compared.
    """
    if table.empty:
        return []
    dated = table.assign(day=pd.to_datetime(table["day"]).dt.date)
    n, total, squares = (
        dated.pivot(index="day", columns="slice", values=name).sort_index(axis=1).sort_index().astype("float64")
        for name in ("n_0", "total_0", "total_1")
    )
    if ALL not in n:
        return []
    names = [str(name) for name in n.columns]
    distance = _distances(n.fillna(0.0).to_numpy(), total.fillna(0.0).to_numpy(), names.index(ALL))
    deviation = _deviations(n[ALL].to_numpy(), total[ALL].to_numpy(), squares[ALL].to_numpy())
    known = list(n.index)
    found: list[PartedSlice] = []
    for at, day in enumerate(known):
        if day not in days:
            continue
        past = [
            i for i in range(at) if (day - known[i]).days <= USUAL_DAYS and versions.get(known[i]) == versions.get(day)
        ]
        if len(past) >= MIN_USUAL_DAYS and deviation[at] > 0:
            found += _parted(day, names, n.fillna(0.0).to_numpy()[at], distance[past], distance[at], deviation[at])
    return found


def _distances(n: Floats, total: Floats, whole: int) -> Floats:
    """(day, slice): mean of the slice minus the mean of all others; not-a-number where either has too few rows."""
    others = n[:, [whole]] - n
    is_known = (n >= MIN_ROWS) & (others >= MIN_ROWS)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(is_known, total / n - (total[:, [whole]] - total) / others, np.nan)
    return found


def _deviations(n: Floats, total: Floats, squares: Floats) -> Floats:
    """Standard deviation of the value per day."""
    mean = total / np.maximum(n, 1.0)
    found: Floats = np.sqrt(np.maximum(squares / np.maximum(n, 1.0) - mean * mean, 0.0))
    return found


def _parted(
    day: date, names: Sequence[str], n: Floats, past: Floats, distance: Floats, deviation: float
) -> list[PartedSlice]:
    found = []
    for i, name in enumerate(names):
        usual = past[~np.isnan(past[:, i]), i]
        if len(usual) < MIN_USUAL_DAYS or not isfinite(distance[i]):
            continue
        expected = fsum(usual) / len(usual)
        spread = (fsum((usual - expected) ** 2) / (len(usual) - 1)) ** 0.5
        scale = max(spread, deviation / float(n[i]) ** 0.5) * (1 + 1 / len(usual)) ** 0.5
        z, size = abs(distance[i] - expected) / scale, abs(distance[i] - expected) / deviation
        if z >= PARTED_Z and size >= PARTED_SIZE:
            numbers = (round(float(number), 9) for number in (distance[i], expected, scale, min(z, 99.0), size))
            found.append(PartedSlice(day, name, int(n[i]), *numbers))
    return sorted(found, key=lambda one: (-one.z, one.slice))
