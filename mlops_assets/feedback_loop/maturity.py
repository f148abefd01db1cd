"""How much of the labels is known yet: the share of each outcome that arrives by each age.

Age is counted in business days: at the end of day D a prediction of day P has age D - P, and age 0 is midnight
of its own day. From the window on (age H, the window in days rounded up) a day is mature and complete by
definition. Both outcomes have a curve of their own, because the delay depends on the outcome: a late flight
lands later than a punctual one. Other labels are divided at ``label.splits_at``, or all share one curve.

Every slice that quality is measured in has a curve too, from the labels of its own requests. A slice with too few of
them borrows the curve of all requests, and its rows say so.

The curve is a reverse-time product limit (J. D. Kalbfleisch and J. F. Lawless, *JASA* 84 (1989), 360-372): the
share known at age a is the product over later ages j of the share of the labels known at j that were known at
j - 1, each over the days that have reached age j. So yesterday already counts for what it has seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.adapters.engine import literal, slices_sql
from mlops_assets.service.labels import LabelDefinition

OUTCOMES = ("positive", "negative")
LOOKBACK_DAYS = 70
"""Each factor of the product rests on the newest so many days that have reached its age: ten of each weekday."""
MIN_DAYS = 10
"""Fewer days past the window are no curve."""
MIN_WEEKDAYS = 8
"""From so many days past the window on a weekday has a curve of its own; before, all days share one."""
MIN_SLICE_LABELS = 200
"""With fewer mature labels of an outcome behind it a slice borrows the curve of all requests."""
ALL = "all"
Z95 = 1.959963984540054
ONE_DAY = timedelta(days=1)

Array = NDArray[np.float64]


def horizon_days(label: LabelDefinition) -> int:
    """The age at which a prediction day is mature."""
    return ceil(label.window / ONE_DAY)


def history_days(label: LabelDefinition) -> int:
    """How many days of earlier ``completeness`` rows a curve reads."""
    return LOOKBACK_DAYS + horizon_days(label)


@dataclass(frozen=True)
class Triangle:
    """Labels known by age: ``arrived[p, a, y, s]`` of prediction day ``first + p`` at age ``a``, outcome ``y``, slice
    ``s``; the first slice is *all*.

    Not a number: the day had no predictions, or the age lies in the future. ``predicted[p, a, s]`` are its requests, as
    far as they were logged by that age: an external log brings some of them later.
    """

    first: date
    slices: tuple[str, ...]
    arrived: Array
    predicted: Array

    @classmethod
    def empty(cls, first: date, last: date, horizon: int, slices: Sequence[str] = (ALL,)) -> "Triangle":
        """One in which nothing is known."""
        days, named = (last - first).days + 1, (ALL, *sorted(set(slices) - {ALL}))
        shape = (days, horizon + 1, len(OUTCOMES), len(named))
        return cls(first, named, np.full(shape, np.nan), np.zeros((days, horizon + 1, len(named))))

    def position(self, day: date) -> int:
        """Where a prediction day stands."""
        return (day - self.first).days

    def positions(self, days: pd.Series) -> NDArray[np.int64]:
        """Where prediction days stand."""
        first = np.datetime64(self.first)
        return np.asarray((days.to_numpy("datetime64[D]") - first).astype(np.int64))

    def places(self, slices: pd.Series) -> NDArray[np.int64]:
        """Where slices stand."""
        return np.asarray(pd.Index(self.slices).get_indexer(pd.Index(slices)), dtype=np.int64)


@dataclass(frozen=True)
class Curve:
    """Share known by age (first axis), outcome and slice, as estimated on one day for one kind of day.

    ``error`` is the variance of the logarithm of the share as an average over days. ``variance`` is that of the
    share on one new day, which has a speed of its own, and ``covariance[a, s]`` the same between both outcomes. All are
    widened by Student's t over the days. ``labels[y, s]`` counts the mature labels behind the curve, ``days[s]`` the
    mature days.
    """

    share: Array
    error: Array
    variance: Array
    covariance: Array
    labels: Array
    days: NDArray[np.int64]


def product_limit(triangle: Triangle, day: date, *, weekday: int | None = None) -> Curve:
    """The curve as known at the end of ``day``, over all prediction days or those of one weekday (1 = Monday).

    Error: the day is the unit (labels of a day share its weather), linearised in the day's contribution to every
    factor; at least Greenwood's, which has the label as its unit (M. Greenwood, 1926). What days differ by beyond
    Greenwood's is what a new day will differ by: left out, nominal 95 % intervals held 80 % at age 1 where days
    differed by 16 % in speed (``benchmarks/provisional_metrics.py``).
    """
    arrived = triangle.arrived
    size, ages = arrived.shape[:2]
    now = triangle.position(day)
    place, age = np.arange(size)[:, None], np.arange(1, ages)[None, :]
    is_wanted = (place + age <= now) & (place + age > now - LOOKBACK_DAYS)
    if weekday is not None:
        is_wanted &= ((triangle.first.isoweekday() - 1 + place) % 7) + 1 == weekday
    before, after = arrived[:, :-1], arrived[:, 1:]
    use = is_wanted[:, :, None] & np.isfinite(before[:, :, 0]) & np.isfinite(after[:, :, 0])
    before, after = np.where(use[:, :, None], before, 0.0), np.where(use[:, :, None], after, 0.0)
    known, all_of_it = before.sum(axis=0), after.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = known / all_of_it
        parts = before / known - after / all_of_it
        greenwood = np.maximum((all_of_it - known) / (all_of_it * known), 0.0)
    days = use[:, -1].sum(axis=0)
    influence = from_the_end(np.cumsum, parts, axis=1)
    spread = np.where(days > 1, days / np.maximum(days - 1, 1), np.nan)
    by_day, label_by_label = spread * (influence**2).sum(axis=0), from_the_end(np.cumsum, greenwood, axis=0)
    widened = (stdtrit(np.maximum(days - 1, 1), 0.975) / Z95) ** 2
    error = np.maximum(by_day, label_by_label)
    variance = error + days * np.maximum(by_day - label_by_label, 0.0)
    most = np.sqrt(variance.prod(axis=1))
    covariance = np.clip((1 + days) * spread * influence.prod(axis=2).sum(axis=0), -most, most)
    share = from_the_end(np.cumprod, factors, axis=0)
    return Curve(share, widened * error, widened * variance, widened * covariance, all_of_it[-1], days)


def from_the_end(accumulate: Any, values: Array, *, axis: int) -> Array:
    """Accumulated from the last age towards the first."""
    return np.asarray(np.flip(accumulate(np.flip(values, axis), axis=axis), axis), dtype=np.float64)


def completeness_frame(triangle: Triangle, label: LabelDefinition, days: Sequence[date]) -> pd.DataFrame:
    """Rows of table ``completeness`` of some days: per slice, age and outcome what has arrived and the share that it
    is."""
    found = [rows for day in days for rows in day_rows(triangle, label, day)]
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.DataFrame({name: np.concatenate([rows[name] for rows in found]) for name in COLUMNS})


COLUMNS = (
    *("day", "label_version", "outcome", "slice", "age_days", "weekday", "value", "low", "high"),
    *("n", "days", "arrived", "predicted", "variance", "covariance", "reason"),
)


def day_rows(triangle: Triangle, label: LabelDefinition, day: date) -> Iterator[dict[str, Any]]:
    """The rows of one day; days without predictions, and slices without any on a day, have none."""
    curves: dict[int, Curve] = {0: product_limit(triangle, day)}
    for age in range(horizon_days(label) + 1):
        prediction_day = day - timedelta(days=age)
        place = triangle.position(prediction_day)
        if place < 0:
            continue
        asked = np.flatnonzero(np.isfinite(triangle.arrived[place, age, 0]))
        if not len(asked):
            continue
        weekday = prediction_day.isoweekday()
        if weekday not in curves:
            curves[weekday] = product_limit(triangle, day, weekday=weekday)
        kind = weekday if curves[weekday].days[0] >= MIN_WEEKDAYS else 0
        told = shares(label, curves[kind], kind, age, asked)
        for y, outcome in enumerate(OUTCOMES if label.splits_at is not None else OUTCOMES[:1]):
            yield {
                "day": np.full(len(asked), np.datetime64(day)),
                "label_version": np.full(len(asked), label.version, dtype=object),
                "outcome": np.full(len(asked), outcome, dtype=object),
                "age_days": np.full(len(asked), age),
                "slice": np.array(triangle.slices, dtype=object)[asked],
                "arrived": triangle.arrived[place, age, y, asked].astype(np.int64),
                "predicted": triangle.predicted[place, age, asked].astype(np.int64),
                **told[y],
            }


def shares(
    label: LabelDefinition, curve: Curve, kind: int, age: int, asked: NDArray[np.int64]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per outcome, of the asked slices: weekday, value, low, high, n, days, variance, covariance and reason."""
    has_one = label.is_one_sided or label.splits_at is None
    least = curve.labels[0] if has_one else curve.labels.min(axis=0)
    enough = MIN_WEEKDAYS if kind else MIN_DAYS
    borrows = (asked > 0) & ((least[asked] < MIN_SLICE_LABELS) | (curve.days[asked] < enough))
    whose = np.where(borrows, 0, asked)
    few = least[asked].astype(int)
    positive, negative = (
        share_of(label, curve, kind, age, y, whose) for y in range(len(OUTCOMES))
    )  # what is borrowed is borrowed for both outcomes: their covariance belongs to one curve
    if age < horizon_days(label):
        for told in (positive, negative):
            told["reason"] = told["reason"].copy()
            for place in np.flatnonzero(borrows & (told["reason"] == None)):  # noqa: E711  element by element
                told["reason"][place] = (
                    f"the curve of all requests: {few[place]} mature labels of this slice, below {MIN_SLICE_LABELS}"
                )
    return positive, negative


def share_of(
    label: LabelDefinition, curve: Curve, kind: int, age: int, y: int, whose: NDArray[np.int64]
) -> dict[str, Any]:
    """The share of one outcome at one age by the curves of some slices, or why there is none."""
    n, days = np.nan_to_num(curve.labels[y, whose]).astype(np.int64), curve.days[whose]
    size, nothing = len(whose), np.full(len(whose), None, dtype=object)

    def told(
        value: Any, low: Any, high: Any, variance: Any, covariance: Any, reason: Any, weekday: int
    ) -> dict[str, Any]:
        numbers = {"value": value, "low": low, "high": high, "variance": variance, "covariance": covariance}
        full = {name: np.broadcast_to(np.asarray(number, dtype=np.float64), size) for name, number in numbers.items()}
        return {
            **full,
            "weekday": np.full(size, weekday),
            "n": n,
            "days": days,
            "reason": np.broadcast_to(reason, size),
        }

    if age == horizon_days(label):
        return told(1.0, 1.0, 1.0, 0.0, 0.0, nothing, 0)
    if kind == 0 and curve.days[0] < MIN_DAYS:
        if label.prior_completeness:
            share = label.prior_completeness[age]
            return told(share, share, share, 0.0, 0.0, np.array("declared", dtype=object), 0)
        reason = np.array(f"{curve.days[0]} days past the label window, below {MIN_DAYS}", dtype=object)
        return told(np.nan, np.nan, np.nan, np.nan, np.nan, reason, 0)
    share, error = curve.share[age, y, whose], curve.error[age, y, whose]
    is_known = share > 0
    half = np.exp(Z95 * np.sqrt(error))
    value = np.where(is_known, np.round(share, 9), np.where(n > 0, 0.0, np.nan))
    high = np.round(np.maximum(share, np.minimum(1.0, share * half)), 9)
    for place in np.flatnonzero(~is_known):
        nothing[place] = (
            f"no {OUTCOMES[y]} label is known at age {age}"
            if n[place]
            else f"no {OUTCOMES[y]} label in {days[place]} days"
        )
    bounds = (np.round(share / half, 9), high, np.round(curve.variance[age, y, whose], 12),
              np.round(curve.covariance[age, whose], 12))  # fmt: skip
    low, high, variance, covariance = (np.where(is_known, numbers, np.nan) for numbers in bounds)
    return told(value, low, high, variance, covariance, nothing, kind)


def fill_triangle(triangle: Triangle, counted: pd.DataFrame) -> None:
    """Put what ``triangle_sql`` counted into a triangle: labels gained at each age, added up, and predictions."""
    last_age = triangle.arrived.shape[1] - 1
    places, part = triangle.positions(counted["prediction_day"]), triangle.places(counted["slice"])
    is_inside = places >= 0
    is_touched = np.zeros((triangle.arrived.shape[0], len(triangle.slices)), dtype=bool)
    is_touched[places[is_inside], part[is_inside]] = True
    days, slices = np.nonzero(is_touched)
    triangle.arrived[days, :, :, slices] = 0.0
    age = counted["age"].to_numpy(np.float64)
    is_positive, n = counted["is_positive"].to_numpy(object), counted["n"].to_numpy(np.float64)
    is_in_time = (age <= last_age) & is_inside
    is_request = counted["is_positive"].isna().to_numpy()
    for counts, is_theirs in ((triangle.arrived, ~is_request), (triangle.predicted, is_request)):
        rows = is_in_time & is_theirs
        at: tuple[Any, ...] = (places[rows], np.maximum(age[rows], 0).astype(int))
        outcome = () if counts is triangle.predicted else (np.where(is_positive[rows].astype(bool), 0, 1),)
        np.add.at(counts, (*at, *outcome, part[rows]), n[rows])
    triangle.arrived[days, :, :, slices] = np.cumsum(triangle.arrived[days, :, :, slices], axis=1)
    triangle.predicted[days, :, slices] = np.cumsum(triangle.predicted[days, :, slices], axis=1)


def recall_triangle(triangle: Triangle, stored: pd.DataFrame) -> None:
    """Put earlier ``completeness`` rows into a triangle: they say what had arrived at each age."""
    ages = stored["age_days"].to_numpy(int)
    places, part = triangle.positions(stored["day"]) - ages, triangle.places(stored["slice"])
    is_inside = places >= 0
    y = np.where(stored["outcome"].to_numpy(object) == OUTCOMES[0], 0, 1)
    at = (places[is_inside], ages[is_inside], y[is_inside], part[is_inside])
    triangle.arrived[at] = stored["arrived"].to_numpy(np.float64)[is_inside]


def triangle_sql(
    label: LabelDefinition, *, predictions: str, labels: str, first: date, last: date, slices: Sequence[str] = ()
) -> str:
    """SQL of the labels that an outcome gained (or lost to a correction) at each age, per prediction day and slice.

    Reads   ``predictions`` (served rows: one per request) of the days first to last, and the label events of one
            version whose outcome lies within the window.
    Returns ``(slice, prediction_day, age, is_positive, n)``, and without an outcome how many requests were logged at
            each age. A label counts from the day on which its prediction is there too.
    """
    window = f"to_microseconds({label.window // MICROSECOND})"
    is_positive = "true" if label.splits_at is None else f"value > {label.splits_at!r}"
    return f"""
        with asked as (
            select request_id, day, prediction_day, predicted_at, {slices_sql(slices)} as slices
            from {predictions} where served and prediction_day between {literal(first)} and {literal(last)}
        ), told as (
            select slices, prediction_day, greatest(l.day, p.day) as from_day, value, {is_positive} as is_positive,
                   lead(greatest(l.day, p.day)) over (partition by request_id order by known_at) as until_day
            from asked p join {labels} l using (request_id)
            where label_version = {literal(label.version)}
              and (event_at is null or event_at <= predicted_at + {window})
        ), counted as (
            select slices, prediction_day, from_day - prediction_day as age, is_positive, count(*) as n
            from told where value is not null group by all
            union all
            select slices, prediction_day, until_day - prediction_day, is_positive, -count(*)
            from told where value is not null and until_day is not null group by all
            union all
            select slices, prediction_day, day - prediction_day, null, count(*) from asked group by all
        )
        select slice, prediction_day, age, is_positive, sum(n)::bigint as n
        from (select unnest(slices) as slice, prediction_day, age, is_positive, n from counted) group by all
    """


ARRIVAL = "completeness_"
"""How the series of arrival begin; the age in days follows."""
WATCHED_AGES = (0, 1, 3, 7, 14)
"""Ages at which the arrival of labels is a series of its own, as far as they lie in the first half of the window;
what is missing at its end is a series of the operations."""


def watched_ages(label: LabelDefinition) -> tuple[int, ...]:
    """The ages at which arrival is watched."""
    return tuple(age for age in WATCHED_AGES if age < max(1.0, horizon_days(label) / 2))


def arrival_series_sql(label: LabelDefinition, completeness: str) -> str:
    """SQL of the arrival of labels as series of the drift monitor: under subject *labels*, one per watched age.

    Reads   ``completeness`` of that table's shape.
    A prediction of the day that is this old is null if its label is not there. So slower arrival is seen on the day
    on which labels are missing, and not when the window is over.
    """
    return f"""
        select n, bad as nulls, null::double as total, null::double as squares, day, 'labels' as subject,
               {literal(ARRIVAL)} || age_days as column_name, '' as version
        from ({arrival_counts_sql(label, completeness)}) where slice = {literal(ALL)}
    """


def arrival_counts_sql(label: LabelDefinition, completeness: str, first: date = date.min) -> str:
    """SQL of ``(day, age_days, slice, n, bad)`` from a day on: predictions of a watched age, and of how many the label
    is not there."""
    ages = ", ".join(map(str, watched_ages(label)))
    since = "" if first == date.min else f"and day >= {literal(first)}"
    return f"""
        select day, age_days, coalesce(slice, {literal(ALL)}) as slice, max(predicted) as n,
               max(predicted) - sum(arrived) as bad
        from {completeness}
        where label_version = {literal(label.version)} and age_days in ({ages}) {since}
        group by all having max(predicted) > 0
    """
