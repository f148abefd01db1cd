"""Measure: what one row adds to a shift, so that a shift can be laid on the slices it sits in. Pure, but for the SQL.

A mean is the sum of its values, a share the sum of rows that count. The others become sums as well: spread is the
squared distance from the usual mean, a distance between histograms is the surprise of each row (the logarithm of how
much more of today than of the days before lies in its bin: the excess of all rows is the Jeffreys divergence, and each
slice holds its part of it), a constant column is the rows that would have had another value.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from math import fsum, log

from mlops_assets.adapters.engine import literal, quote

LARGEST = "1e11"
"""A value beyond counts as this one: its square, in billionths, of ten million rows, still is a whole number."""
_FINITE = f"case when isfinite({{0}}::double) then greatest(least({{0}}::double, {LARGEST}), -{LARGEST}) end"
VALUES = {"mean": _FINITE, "square": f"power({_FINITE}, 2)", "null_share": "({0} is null)::integer"}
"""What is added up for a statistic of a column; volume counts rows."""
SAME_ROWS = {"mean_alone": "mean", "null_alone": "null_share", "distance_7d": "distance"}
"""A statistic -> the one whose rows it is made of."""
DAYS_OF = {"distance_7d": 7}
"""Days that a statistic looks at together; others look at one."""
SMALLEST_SHARE = 1e-4
"""A bin that holds less counts as holding so much."""


@dataclass(frozen=True)
class Told:
    """What a profile says about one column on one day."""

    day: date
    valued: int
    total: float | None
    low: float | None
    bins: str | None
    counts: Sequence[int] | None
    edges: Sequence[float] | None
    texts: Sequence[str] | None


def told_sql(profiles: str, subject: str, names: Iterable[str], first: date, last: date) -> str:
    """SQL of column name and the fields of ``Told``, of some columns of a subject on some days, in order."""
    return f"""
        select column_name, day, n - nulls, total, low, bins, counts, edges, texts from {quote(profiles)}
        where subject = {literal(subject)} and column_name in ({", ".join(literal(name) for name in sorted(names))})
          and slice = 'all' and day between {literal(first)} and {literal(last)} order by column_name, day
    """


def value_sql(statistic: str, column: str) -> str:
    """SQL of what a row adds to a mean, a square or a share without a value."""
    return VALUES[statistic].format(quote(column))


def needs_profile(statistic: str) -> bool:
    """Whether what a row adds depends on what the days before were like."""
    return SAME_ROWS.get(statistic, statistic) in _BY_PROFILE


def addend_sql(statistic: str, column: str, told: Sequence[Told], day: date) -> str | None:
    """SQL of what a row adds to a statistic of a column on a day; None if the profiles do not say.

    Args:
        told: the column's profiles of the day, and of the days before that it is compared with, in order.
    """
    plain = SAME_ROWS.get(statistic, statistic)
    if plain in VALUES:
        return value_sql(plain, column)
    since = DAYS_OF.get(statistic, 1)
    today = [one for one in told if (day - one.day).days < since]
    before = [one for one in told if (day - one.day).days >= since]
    if plain not in _BY_PROFILE or not today or not before:
        return None
    return _BY_PROFILE[plain](quote(column), today, before)


def _spread_sql(column: str, today: Sequence[Told], before: Sequence[Told]) -> str | None:
    """Squared distance from the mean of the days before."""
    valued = sum(one.valued for one in before)
    if not valued:
        return None
    usual = fsum(one.total or 0.0 for one in before) / valued
    return f"power({_FINITE.format(column)} - {usual!r}::double, 2)"


def _constant_sql(column: str, today: Sequence[Told], before: Sequence[Told]) -> str | None:
    """Whether a value differs from the one that all have today."""
    last = today[-1]
    if last.low is not None:
        return f"({_FINITE.format(column)} <> {last.low!r}::double)::integer"
    known = [text for text, n in zip(last.texts or (), last.counts or (), strict=False) if n]
    return f"({column} <> {literal(known[0])})::integer" if known else None


def _out_of_range_sql(column: str, today: Sequence[Told], before: Sequence[Told]) -> str | None:
    """Whether a number lies in one of the two open ends of the bins."""
    edges = today[-1].edges
    if not edges:
        return None
    value = _FINITE.format(column)
    return f"({value} <= {edges[0]!r}::double or {value} > {edges[-1]!r}::double)::integer"


def _new_category_sql(column: str, today: Sequence[Told], before: Sequence[Told]) -> str | None:
    """Whether a text was unknown when the bins were frozen."""
    texts = today[-1].texts
    if not texts:
        return None
    return f"({column} not in ({', '.join(map(literal, texts))}))::integer"


def _distance_sql(column: str, today: Sequence[Told], before: Sequence[Told]) -> str | None:
    """How much more of today than of the days before lies in the bin of a value, as a logarithm."""
    last = today[-1]
    alike = [one for one in (*today, *before) if one.counts and one.bins == last.bins]
    now, usual = (_shares([one.counts or () for one in some if one in alike]) for some in (today, before))
    if not now or not usual:
        return None
    weights = [f"{round(log(p / q), 9)!r}::double" for p, q in zip(now, usual, strict=True)]
    value, rest = f"{column}::double + 0.0", f"when {column} is not null then {weights[-1]}"
    if last.edges:
        cases = " ".join(
            f"when {value} <= {edge!r}::double then {weight}"
            for edge, weight in zip(last.edges, weights[:-1], strict=True)
        )
        return f"case when not isfinite({column}::double) then null {cases} {rest} end"
    cases = " ".join(
        f"when {literal(text)} then {weight}" for text, weight in zip(last.texts or (), weights[:-1], strict=False)
    )
    return f"case when {column} is not null then case {column} {cases} else {weights[-1]} end end"


def _shares(counts: Sequence[Sequence[int]]) -> list[float]:
    """The share of each bin over some days; empty without any value."""
    if not counts:
        return []
    sums = [sum(of_bin) for of_bin in zip(*counts, strict=True)]
    total = sum(sums)
    return [max(one / total, SMALLEST_SHARE) for one in sums] if total else []


_Addend = Callable[[str, Sequence[Told], Sequence[Told]], str | None]
_BY_PROFILE: dict[str, _Addend] = {
    "spread": _spread_sql,
    "constant": _constant_sql,
    "out_of_range": _out_of_range_sql,
    "new_category": _new_category_sql,
    "distance": _distance_sql,
}
