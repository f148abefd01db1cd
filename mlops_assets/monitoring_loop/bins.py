"""Measure: the bins in which a column is counted, frozen once so that days, weeks and months can be added up.

Bins are learned from the first days on which a column has values and never change afterwards: a histogram over
other bins is another histogram. Every profile carries its bins and their version, so that whoever adds two of
them can see that they fit. The bins of a day follow from the days before it alone; a day computed in a block
therefore has the bins of the same day computed alone.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import inf, nextafter
from typing import Any

import duckdb

from mlops_assets.adapters.engine import literal, quote, rows

LEARNING_DAYS = 14
"""Days with values from which the bins of a column are learned: two weeks, so that every weekday counts twice."""
SEARCHED_DAYS = 60
"""Calendar days in which they are looked for."""
QUANTILES = 20
POINT_MASS_SHARE = 0.05
"""A single number with at least this share of the values has a bin of its own: zeros, say."""
TAIL_STEPS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
"""Bins beyond what the first days had, in interquartile ranges: seasons move out there, and stay countable."""
TOP_TEXTS = 30
KNOWN_TEXTS = 500


@dataclass(frozen=True)
class Bins:
    """Bins of one column. Numbers: upper bounds, each included; texts: the known ones, most frequent first.

    A histogram has one count more than there are edges (or counted texts): the open end above (or all others).
    """

    edges: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """Fingerprint; histograms may be added up if and only if it is the same.

        >>> Bins(edges=(0.0, 1.0)).version == Bins(edges=(0.0, 2.0)).version
        False
        """
        return hashlib.sha256(repr((self.edges, self.texts)).encode()).hexdigest()[:12]


SCORE_BINS = Bins(
    edges=(
        nextafter(0.0, -inf), 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35,
        0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0,
    )
)  # fmt: skip
"""Of a chance between 0 and 1, finest where rare events lie; the same for every model, so that models compare."""

LABEL_BINS = Bins(edges=(nextafter(0.0, -inf), 0.0, nextafter(1.0, -inf), 1.0))
"""No and yes; anything else is out of range."""


def number_edges(quantiles: Sequence[float], masses: Iterable[float], low: float, high: float) -> tuple[float, ...]:
    """Edges from the 20 inner quantiles, the point masses and the range of the first days.

    >>> number_edges([1.0, 2.0, 3.0], [], 0.0, 4.0)[-3:]
    (12.0, 20.0, 36.0)
    """
    quartile = len(quantiles) // 4
    step = quantiles[-1 - quartile] - quantiles[quartile] or (high - low) / 4 or max(abs(high), 1.0)
    inner = {*quantiles, nextafter(low, -inf), high}
    own = {edge for mass in masses for edge in (nextafter(mass, -inf), mass)}
    tails = {end for width in TAIL_STEPS for end in (low - width * step, high + width * step)}
    return tuple(sorted(inner | own | tails))


def learn_bins(
    con: duckdb.DuckDBPyConnection, source: str, *, numeric: Iterable[str], categorical: Iterable[str]
) -> dict[str, Bins]:
    """Bins of the named columns from all rows of ``source``; a column without any value has none."""
    found: dict[str, Bins] = {}
    for name in sorted(numeric):
        ((quantiles, low, high, masses),) = rows(con, numbers_sql(source, name))
        if quantiles:
            found[name] = Bins(edges=number_edges(quantiles, masses or (), low, high))
    for name in sorted(categorical):
        texts = tuple(row[0] for row in rows(con, texts_sql(source, name)))
        if texts:
            found[name] = Bins(texts=texts)
    return found


def numbers_sql(source: str, name: str) -> str:
    """SQL of one row: inner quantiles, lowest, highest and point masses of a column's finite values."""
    shares = ", ".join(str(number / (QUANTILES + 1)) for number in range(1, QUANTILES + 1))
    return f"""
        with given as (
            select {quote(name)}::double + 0.0 as x, count(*) as n from {source}
            where isfinite({quote(name)}::double) group by 1
        )
        select (select quantile_disc({quote(name)}::double + 0.0, [{shares}]) from {source}
                where isfinite({quote(name)}::double)),
               min(x), max(x), list(x order by x) filter (where n >= {POINT_MASS_SHARE} * (select sum(n) from given))
        from given
    """


def texts_sql(source: str, name: str) -> str:
    """SQL of a column's texts, most frequent first."""
    column = quote(name)
    return f"""
        select {column} from {source} where {column} is not null group by 1
        order by count(*) desc, 1 limit {KNOWN_TEXTS}
    """


@dataclass(frozen=True)
class Learned:
    """Since when a column's bins are frozen, and the days they are to be learned from."""

    since: date
    from_days: tuple[date, ...]


def days_to_learn(valued: Mapping[str, Iterable[date]], days: Sequence[date]) -> dict[str, Learned]:
    """The first of ``days`` before which enough days with values lie, and which these are, per column.

    Args:
        valued: days on which a column had values, before and within ``days``.
        days: the days to be profiled, in order.
    """
    found: dict[str, Learned] = {}
    for name, known in sorted(valued.items()):
        ordered = sorted(set(known))
        for day in days:
            before = [known_day for known_day in ordered if day - timedelta(days=SEARCHED_DAYS) <= known_day < day]
            if len(before) >= LEARNING_DAYS:
                found[name] = Learned(day, tuple(before[:LEARNING_DAYS]))
                break
    return found


def bins_of_rows(found: Iterable[tuple[Any, ...]]) -> dict[str, Bins]:
    """Column -> bins, from the rows of ``stored_bins_sql``."""
    return {name: Bins(tuple(edges or ()), tuple(texts or ())) for name, edges, texts in found}


def stored_bins_sql(profiles: str, names: Iterable[str]) -> str:
    """SQL of the bins of some columns on the newest day on which any of them has bins: column, edges, texts.

    A column that several subjects have keeps the bins of the first subject by name; they were learned once.
    """
    listed = ", ".join(literal(name) for name in sorted(names)) or "null"
    return f"""
        with binned as (select * from {profiles} where bins is not null and slice = 'all' and column_name in ({listed}))
        select column_name, arg_min(edges, subject), arg_min(texts, subject) from binned
        where day = (select max(day) from binned) group by all order by all
    """


def valued_days_sql(profiles: str) -> str:
    """SQL of the days on which columns had values: column, day."""
    return f"select distinct column_name, day from {profiles} where nulls < n order by all"
