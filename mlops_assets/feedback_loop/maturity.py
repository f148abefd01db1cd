"""How much of the labels is known yet: the share of each outcome that arrives by each age.

Age is counted in business days: at the end of day D a prediction of day P has age D - P, and age 0 is midnight
of its own day. From the window on (age H, the window in days rounded up) a day is mature and complete by
definition. Both outcomes have a curve of their own, because the delay depends on the outcome: a late flight
lands later than a punctual one. Other labels are divided at ``label.splits_at``, or all share one curve.

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
from mlops_assets.adapters.engine import literal
from mlops_assets.service.labels import LabelDefinition

OUTCOMES = ("positive", "negative")
LOOKBACK_DAYS = 70
"""Each factor of the product rests on the newest so many days that have reached its age: ten of each weekday."""
MIN_DAYS = 10
"""Fewer days past the window are no curve."""
MIN_WEEKDAYS = 8
"""From so many days past the window on a weekday has a curve of its own; before, all days share one."""
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
    """Labels known by age: ``arrived[p, a, y]`` of prediction day ``first + p`` at age ``a``, outcome ``y``.

    Not a number: the day had no predictions, or the age lies in the future. ``predicted[p, a]`` are its requests, as
    far as they were logged by that age: an external log brings some of them later.
    """

    first: date
    arrived: Array
    predicted: Array

    @classmethod
    def empty(cls, first: date, last: date, horizon: int) -> "Triangle":
        """One in which nothing is known."""
        days = (last - first).days + 1
        return cls(first, np.full((days, horizon + 1, len(OUTCOMES)), np.nan), np.zeros((days, horizon + 1)))

    def position(self, day: date) -> int:
        """Where a prediction day stands."""
        return (day - self.first).days


@dataclass(frozen=True)
class Curve:
    """Share known by age (first axis) and outcome, as estimated on one day for one kind of day.

    ``error`` is the variance of the logarithm of the share as an average over days. ``variance`` is that of the
    share on one new day, which has a speed of its own, and ``covariance`` the same between both outcomes. All are
    widened by Student's t over the days. ``labels`` counts the mature labels behind the curve.
    """

    share: Array
    error: Array
    variance: Array
    covariance: Array
    labels: Array
    days: int


def product_limit(triangle: Triangle, day: date, *, weekday: int | None = None) -> Curve:
    """The curve as known at the end of ``day``, over all prediction days or those of one weekday (1 = Monday).

    Error: the day is the unit (labels of a day share its weather), linearised in the day's contribution to every
    factor; at least Greenwood's, which has the label as its unit (M. Greenwood, 1926). What days differ by beyond
    Greenwood's is what a new day will differ by: left out, nominal 95 % intervals held 80 % at age 1 where days
    differed by 16 % in speed (``benchmarks/provisional_metrics.py``).
    """
    arrived = triangle.arrived
    size, ages, _ = arrived.shape
    now = triangle.position(day)
    place, age = np.arange(size)[:, None], np.arange(1, ages)[None, :]
    use = (place + age <= now) & (place + age > now - LOOKBACK_DAYS)
    if weekday is not None:
        use &= ((triangle.first.isoweekday() - 1 + place) % 7) + 1 == weekday
    before, after = arrived[:, :-1, :], arrived[:, 1:, :]
    use &= np.isfinite(before[:, :, 0]) & np.isfinite(after[:, :, 0])
    before, after = np.where(use[:, :, None], before, 0.0), np.where(use[:, :, None], after, 0.0)
    known, all_of_it = before.sum(axis=0), after.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = known / all_of_it
        parts = before / known - after / all_of_it
        greenwood = np.maximum((all_of_it - known) / (all_of_it * known), 0.0)
    days = int(use[:, -1].sum())
    influence = from_the_end(np.cumsum, parts, axis=1)
    spread = days / (days - 1) if days > 1 else np.nan
    by_day, label_by_label = spread * (influence**2).sum(axis=0), from_the_end(np.cumsum, greenwood, axis=0)
    widened = (float(stdtrit(max(days - 1, 1), 0.975)) / Z95) ** 2
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
    """Rows of table ``completeness`` of some days: per age and outcome what has arrived and the share that it is."""
    found = [row for day in days for row in day_rows(triangle, label, day)]
    return pd.DataFrame(found, columns=list(COLUMNS))


COLUMNS = (
    *("day", "label_version", "outcome", "age_days", "weekday", "value", "low", "high"),
    *("n", "days", "arrived", "predicted", "variance", "covariance", "reason"),
)


def day_rows(triangle: Triangle, label: LabelDefinition, day: date) -> Iterator[tuple[Any, ...]]:
    """The rows of one day; days without predictions have none."""
    horizon = horizon_days(label)
    curves: dict[int, Curve] = {0: product_limit(triangle, day)}
    for age in range(horizon + 1):
        prediction_day = day - timedelta(days=age)
        place = triangle.position(prediction_day)
        if place < 0 or np.isnan(triangle.arrived[place, age, 0]):
            continue
        weekday = prediction_day.isoweekday()
        if weekday not in curves:
            curves[weekday] = product_limit(triangle, day, weekday=weekday)
        kind = weekday if curves[weekday].days >= MIN_WEEKDAYS else 0
        for y, outcome in enumerate(OUTCOMES if label.splits_at is not None else OUTCOMES[:1]):
            arrived = int(triangle.arrived[place, age, y]), int(triangle.predicted[place, age])
            yield (day, label.version, outcome, age, *shares(label, curves[kind], kind, age, y, arrived))


def shares(
    label: LabelDefinition, curve: Curve, kind: int, age: int, y: int, arrived: tuple[int, int]
) -> tuple[Any, ...]:
    """Weekday, value, low, high, n, days, arrived, predicted, variance, covariance and reason of one row."""
    n = int(curve.labels[y])
    if age == horizon_days(label):
        return (0, 1.0, 1.0, 1.0, n, curve.days, *arrived, 0.0, 0.0, None)
    if curve.days < MIN_DAYS and kind == 0:
        if label.prior_completeness:
            share = label.prior_completeness[age]
            return (0, share, share, share, n, curve.days, *arrived, 0.0, 0.0, "declared")
        reason = f"{curve.days} days past the label window, below {MIN_DAYS}"
        return (0, np.nan, np.nan, np.nan, n, curve.days, *arrived, np.nan, np.nan, reason)
    share, variance = float(curve.share[age, y]), float(curve.variance[age, y])
    if not share > 0:
        reason = (
            f"no {OUTCOMES[y]} label is known at age {age}" if n else f"no {OUTCOMES[y]} label in {curve.days} days"
        )
        return (kind, 0.0 if n else np.nan, np.nan, np.nan, n, curve.days, *arrived, np.nan, np.nan, reason)
    half = np.exp(Z95 * np.sqrt(float(curve.error[age, y])))
    numbers = (share, share / half, max(share, min(1.0, share * half)))
    spread = (variance, float(curve.covariance[age]))
    return (kind, *(round(x, 9) for x in numbers), n, curve.days, *arrived, *(round(x, 12) for x in spread), None)


def fill_triangle(triangle: Triangle, counted: pd.DataFrame) -> None:
    """Put what ``triangle_sql`` counted into a triangle: labels gained at each age, added up, and predictions."""
    last_age = triangle.arrived.shape[1] - 1
    places = np.array([triangle.position(day) for day in pd.to_datetime(counted["prediction_day"]).dt.date], dtype=int)
    triangle.arrived[np.unique(places[places >= 0])] = 0.0
    age = counted["age"].to_numpy(np.float64)
    is_positive, n = counted["is_positive"].to_numpy(object), counted["n"].to_numpy(np.float64)
    is_in_time = (age <= last_age) & (places >= 0)
    is_request = np.array([pd.isna(value) for value in is_positive], dtype=bool)
    for counts, is_theirs in ((triangle.arrived, ~is_request), (triangle.predicted, is_request)):
        rows = is_in_time & is_theirs
        at: tuple[Any, ...] = (places[rows], np.maximum(age[rows], 0).astype(int))
        outcome = () if counts is triangle.predicted else (np.where(is_positive[rows].astype(bool), 0, 1),)
        np.add.at(counts, (*at, *outcome), n[rows])
    touched = np.unique(places[places >= 0])
    triangle.arrived[touched] = np.cumsum(triangle.arrived[touched], axis=1)
    triangle.predicted[touched] = np.cumsum(triangle.predicted[touched], axis=1)


def recall_triangle(triangle: Triangle, stored: pd.DataFrame) -> None:
    """Put earlier ``completeness`` rows into a triangle: they say what had arrived at each age."""
    days = pd.to_datetime(stored["day"]).dt.date
    ages = stored["age_days"].to_numpy(int)
    places = np.array([triangle.position(day) for day in days], dtype=int) - ages
    is_inside = places >= 0
    y = np.where(stored["outcome"].to_numpy(object) == OUTCOMES[0], 0, 1)
    at = (places[is_inside], ages[is_inside], y[is_inside])
    triangle.arrived[at] = stored["arrived"].to_numpy(np.float64)[is_inside]


def triangle_sql(label: LabelDefinition, *, predictions: str, labels: str, first: date, last: date) -> str:
    """SQL of the labels that an outcome gained (or lost to a correction) at each age, per prediction day.

    Reads   ``predictions`` (served rows: one per request) of the days first to last, and the label events of one
            version whose outcome lies within the window.
    Returns ``(prediction_day, age, is_positive, n)``, and without an outcome how many requests were logged at each age.
    A label counts from the day on which its prediction is there too.
    """
    window = f"to_microseconds({label.window // MICROSECOND})"
    is_positive = "true" if label.splits_at is None else f"value > {label.splits_at!r}"
    asked = f"served and prediction_day between {literal(first)} and {literal(last)}"
    return f"""
        with told as (
            select prediction_day, greatest(l.day, p.day) as from_day, value, {is_positive} as is_positive,
                   lead(greatest(l.day, p.day)) over (partition by request_id order by known_at) as until_day
            from {predictions} p join {labels} l using (request_id)
            where {asked} and label_version = {literal(label.version)}
              and (event_at is null or event_at <= predicted_at + {window})
        )
        select prediction_day, from_day - prediction_day as age, is_positive, count(*) as n
        from told where value is not null group by all
        union all
        select prediction_day, until_day - prediction_day, is_positive, -count(*)
        from told where value is not null and until_day is not null group by all
        union all
        select prediction_day, day - prediction_day, null, count(*) from {predictions} where {asked}
        group by prediction_day, day
    """


WATCHED_AGES = (0, 1, 3, 7, 14)
"""Ages at which the arrival of labels is a series of its own, as far as they lie in the first half of the window;
what is missing at its end is a series of the operations."""


def arrival_series_sql(label: LabelDefinition, completeness: str) -> str:
    """SQL of the arrival of labels as series of the drift monitor: under subject *labels*, one per watched age.

    Reads   ``completeness`` of that table's shape.
    A prediction of the day that is this old is null if its label is not there. So slower arrival is seen on the day
    on which labels are missing, and not when the window is over.
    """
    ages = ", ".join(str(age) for age in WATCHED_AGES if age < max(1.0, horizon_days(label) / 2))
    return f"""
        select max(predicted) as n, max(predicted) - sum(arrived) as nulls, null::double as total,
               null::double as squares, day, 'labels' as subject, 'completeness_' || age_days as column_name,
               '' as version
        from {completeness}
        where label_version = {literal(label.version)} and age_days in ({ages})
        group by day, age_days having max(predicted) > 0
    """
