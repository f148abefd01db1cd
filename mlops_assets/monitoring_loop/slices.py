"""Judge: where does it sit? The slices that explain more of a gap than their share of the traffic. Pure, but
for the reading."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import fsum

import duckdb

from mlops_assets.adapters.engine import literal, rows
from mlops_assets.monitoring_loop.evidence import SERVED

NAMED_SLICES = 2
MIN_EXPLAINED_SHARE = 0.3
"""A slice that explains less of a gap than this is not named."""
MIN_CONCENTRATION = 1.3
"""Neither is one that explains what its share of the labels lets expect."""


@dataclass(frozen=True)
class SlicePart:
    """One slice over the judged days: labelled requests, and positives observed beyond the predicted ones."""

    slice: str
    n_labelled: int
    excess: float


@dataclass(frozen=True)
class Explained:
    """A slice with its shares (0 to 1) of the whole excess and of the labelled requests."""

    slice: str
    of_excess: float
    of_labels: float


def explaining(parts: Iterable[SlicePart], total: SlicePart) -> list[Explained]:
    """The slices in which a gap is concentrated, the ones that explain most first.

    >>> explaining([SlicePart("o=A", 30, 8.0), SlicePart("o=B", 70, 2.0)], SlicePart("all", 100, 10.0))
    [Explained(slice='o=A', of_excess=0.8, of_labels=0.3)]
    """
    if not total.excess or not total.n_labelled:
        return []
    found = [Explained(p.slice, p.excess / total.excess, p.n_labelled / total.n_labelled) for p in parts]
    named = [e for e in found if e.of_excess >= MIN_EXPLAINED_SHARE and e.of_excess >= MIN_CONCENTRATION * e.of_labels]
    return sorted(named, key=lambda e: (-e.of_excess, e.slice))[:NAMED_SLICES]


def in_words(explained: Sequence[Explained]) -> str:
    """The slices as the end of a sentence; empty if the gap is everywhere.

    >>> in_words([Explained("origin=EWR", 0.62, 0.36)])
    '; 62% of the gap in origin=EWR (36% of the labels)'
    """
    told = [f"{e.of_excess:.0%} of the gap in {e.slice} ({e.of_labels:.0%} of the labels)" for e in explained]
    return "; " + ", ".join(told) if told else ""


def parts_sql(as_of: date, first: date, last: date) -> str:
    """SQL of ``(slice, n_labelled, observed, ratio)`` per slice and prediction day, as known on a day.

    Reads ``all_quality``; slices and days without a value or a prediction are left out.
    """
    return f"""
        select slice, max(n_labelled), max(value) filter (where metric = 'positive_share') as observed,
               max(value) filter (where metric = 'calibration_ratio') as ratio
        from (
            select * from all_quality
            where role = {literal(SERVED)} and window_days = 1 and metric in ('positive_share', 'calibration_ratio')
              and prediction_day between {literal(first)} and {literal(last)}
              and day between {literal(first)} and {literal(as_of)}
            qualify row_number() over (partition by slice, prediction_day, metric order by day desc) = 1
        ) group by slice, prediction_day having observed is not null and ratio > 0 order by slice, prediction_day
    """


def where_it_sits(con: duckdb.DuckDBPyConnection, as_of: date, last: date, window_days: int) -> str:
    """The end of a sentence about a calibration gap: the slices that explain most of it."""
    labels: dict[str, int] = {}
    excess: dict[str, list[float]] = {}
    first = last - timedelta(days=window_days - 1)
    for part, n_labelled, observed, ratio in rows(con, parts_sql(as_of, first, last)):
        labels[part] = labels.get(part, 0) + n_labelled
        excess.setdefault(part, []).append(n_labelled * (observed - observed / ratio))
    parts = [SlicePart(part, labels[part], fsum(excess[part])) for part in labels]
    total = next((part for part in parts if part.slice == "all"), SlicePart("all", 0, 0.0))
    return in_words(explaining([part for part in parts if part.slice != "all"], total))
