"""Measure: what the metrics of a day will probably be before it has labels, and by how much it then differs.

Mature days say how often each band of scores came true; a fresh day has so many scores in each band. That gives
an estimate without a label (binned confidence-based performance estimation), which is **blind to concept drift by
construction**: it assumes that a score still means what it meant. So the difference between the realised and the
estimated value is the signal for concept drift, with an interval of its own.

Of one class out of several the band is that of the largest chance, and what mature days say of a band is how often the
class was right and what the mean loss was: the same form. A number or an order says nothing about its own error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame
from mlops_assets.monitoring_loop.metrics import Z95, Array, Estimate
from mlops_assets.monitoring_loop.metrics_windows import student
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import bin_sql
from mlops_assets.service.service import MLService
from mlops_assets.service.tasks import Task

BANDS = 32
"""Bands of scores, equal steps of asin(sqrt(score))."""
MIN_DAYS = 7
"""Fewer mature days of a version are nothing to estimate from."""
ESTIMATED: Mapping[Task, tuple[str, ...]] = {
    "binary": ("brier", "positive_share"), "multiclass": ("accuracy", "log_loss"), "regression": (), "ranking": (),
}  # fmt: skip
"""What can be estimated of each task."""
UNDEFINED = "{task}: a score says nothing about its own error, so a day cannot be estimated before its labels"
FRESH = {"binary": ("n", "p1", "p2"), "multiclass": ("n", "top", "entropy")}
MATURE = {"binary": ("n", "positives"), "multiclass": ("n", "hits", "loss")}
SMALLEST_CHANCE = "2.220446049250313e-16"


@dataclass(frozen=True)
class Reference:
    """What each band gave on the mature days of one version: per day and band, rows and the sum of what they gave.

    That is positives, right answers, or loss, by what is estimated.
    """

    n: Array
    total: Array

    @property
    def days(self) -> int:
        """Days with labels."""
        return int((self.n.sum(axis=1) > 0).sum())


@dataclass(frozen=True)
class Fresh:
    """Scores of one day per band: how many, the sum of what they themselves promise, and of their squares.

    Labels play no part. A chance promises itself; of several classes the largest chance promises to be right so often,
    and all together promise a mean loss of their entropy.
    """

    n: Array
    p1: Array
    p2: Array


def coefficients(metric: str, fresh: Fresh) -> tuple[float, Array]:
    """A metric as a constant plus coefficients times the rate of each band."""
    total = float(fresh.n.sum())
    if metric == "brier":  # (p - y)**2 is p**2 + y * (1 - 2 * p)
        return float(fresh.p2.sum()) / total, (fresh.n - 2 * fresh.p1) / total
    return 0.0, fresh.n / total


def estimated(metric: str, fresh: Fresh, reference: Reference) -> tuple[float, float]:
    """The expected value of a metric and its variance.

    The variance is that of the rates of the bands, with the day as its unit (W. G. Cochran, *Sampling Techniques*,
    3rd ed. 1977, ch. 6). A band that no mature day has seen is taken at its word: its rate is its mean score.
    """
    constant, slopes = coefficients(metric, fresh)
    n, total = reference.n.sum(axis=0), reference.total.sum(axis=0)
    at_its_word = fresh.p1 / np.maximum(fresh.n, 1)
    rates = np.where(n > 0, total / np.maximum(n, 1), at_its_word)
    weights = np.where(n > 0, slopes / np.maximum(n, 1), 0.0)
    by_day = ((reference.total - rates * reference.n) * weights).sum(axis=1)
    days = reference.days
    return constant + float((slopes * rates).sum()), float((by_day**2).sum()) * days / (days - 1)


def expectations(
    con: duckdb.DuckDBPyConnection, service: MLService, table: pd.DataFrame, realised: Mapping[str, Estimate]
) -> dict[str, tuple[Estimate, Array]]:
    """Per metric name the estimates of every question, and the mature days behind each.

    ``<metric>_estimated`` has a value for questions about the day itself; ``<metric>_surprise``, realised minus
    estimated, for every question about a single day. Its interval contains the error of the rates, and the larger
    of the row-by-row error of the realised value and what days have differed by.
    """
    size = len(table)
    names = [f"{metric}_{kind}" for metric in realised for kind in ("estimated", "surprise")]
    found, support = {name: np.full((3, size), np.nan) for name in names}, np.zeros(size)
    references = read_references(con, service, table)
    days, groups = list(table["day"]), list(table["group_id"])
    is_own = np.asarray(table["day"] == table["prediction_day"], dtype=bool)
    of_day = {(days[place], groups[place]): reference for place, reference in references.items()}
    for place, scores in read_fresh(con, service, table).items():
        mature = of_day.get((days[place], groups[place]))
        support[place] = 0 if mature is None else reference_of("", mature).days
        if mature is None or support[place] < MIN_DAYS:
            continue
        for metric, real in realised.items():
            reference = reference_of(metric, mature)
            value, variance = estimated(metric, fresh_of(metric, scores), reference)
            t = float(student(np.array([reference.days - 1.0]))[0])
            if is_own[place]:
                half = t * np.sqrt(variance * (1 + reference.days))
                found[f"{metric}_estimated"][:, place] = value, value - half, value + half
            own = (real.high[place] - real.low[place]) / (2 * Z95)
            half = t * np.sqrt(variance + max(own**2, variance * reference.days))
            difference = real.value[place] - value
            found[f"{metric}_surprise"][:, place] = difference, difference - half, difference + half
    return {name: (Estimate(*numbers), support) for name, numbers in found.items()}


def fresh_of(metric: str, numbers: Array) -> Fresh:
    """What a metric needs of a day's ``FRESH`` numbers: log loss the entropy, all others the chances."""
    n, first, second = numbers
    return Fresh(n, second if metric == "log_loss" else first, second)


def reference_of(metric: str, numbers: Array) -> Reference:
    """What a metric needs of the mature days' ``MATURE`` numbers: log loss the loss, all others what came true."""
    return Reference(numbers[0], numbers[2 if metric == "log_loss" else 1])


def read_fresh(con: duckdb.DuckDBPyConnection, service: MLService, table: pd.DataFrame) -> dict[int, Array]:
    """Scores per band of every question about a single day, over everybody: the ``FRESH`` numbers of the task."""
    is_asked = (table["window_days"] == 1) & (table["slice"] == ALL)
    sql = fresh_bands_sql() if service.task == "binary" else fresh_classes_sql(len(service.label.classes))
    cells = asked(con, table[is_asked], sql)
    return {place: numbers for (place,), numbers in dense(cells, ["question"], list(FRESH[service.task])).items()}


def read_references(con: duckdb.DuckDBPyConnection, service: MLService, table: pd.DataFrame) -> dict[int, Array]:
    """The ``MATURE`` numbers, each per day and band, of the longest window that became final on a day."""
    longest = int(table["window_days"].max()) if len(table) else 1
    is_asked = (table["window_days"] == longest) & (table["state"] == "final") & (longest > 1)
    is_asked &= table["slice"] == ALL
    sql = mature_bands_sql() if service.task == "binary" else mature_classes_sql(len(service.label.classes))
    cells = asked(con, table[is_asked], sql)
    by_day = dense(cells, ["question", "prediction_day"], list(MATURE[service.task]))
    grouped: dict[int, list[NDArray[np.float64]]] = {}
    for (question, _), numbers in by_day.items():
        grouped.setdefault(int(question), []).append(numbers)
    return {question: np.stack(days, axis=1) for question, days in grouped.items()}


def asked(con: duckdb.DuckDBPyConnection, questions: pd.DataFrame, sql: str) -> pd.DataFrame:
    """The answer of the engine to a query that reads ``quality_members(question, number, group_id)``."""
    members = questions[["number", "group_id"]].assign(question=questions.index.to_numpy())
    con.register("quality_members", members)
    cells = frame(con, sql)
    con.unregister("quality_members")
    return cells


def dense(cells: pd.DataFrame, keys: list[str], numbers: list[str]) -> dict[tuple[Any, ...], NDArray[np.float64]]:
    """Per key an array with one row per number and one column per band; rows are sorted by key."""
    is_new = (cells[keys] != cells[keys].shift()).any(axis=1).to_numpy()
    found = np.zeros((int(is_new.sum()), len(numbers), BANDS))
    found[np.cumsum(is_new) - 1, :, cells["band"].to_numpy()] = cells[numbers].to_numpy(np.float64)
    return dict(zip(cells.loc[is_new, keys].itertuples(index=False, name=None), found, strict=True))


def fresh_bands_sql() -> str:
    """SQL of ``(question, band, n, p1, p2)`` over all predictions with a score."""
    return f"""
        select question, {bin_sql(BANDS)} as band, count(*) as n, sum(score)::double / 1e9 as p1,
               sum(round(score / 1e9 * (score / 1e9) * 1e12)::bigint)::double / 1e12 as p2
        from quality_members join quality_cells using (number) join quality_rows using (state, group_id)
        where score is not null
        group by all order by all
    """


def mature_bands_sql() -> str:
    """SQL of ``(question, prediction_day, band, n, positives)`` over labelled predictions."""
    return f"""
        select question, prediction_day, {bin_sql(BANDS)} as band, sum(positives + negatives)::bigint as n,
               sum(positives)::bigint as positives
        from quality_members join quality_cells using (number) join quality_hits using (state, group_id)
        group by all order by all
    """


def class_rows_sql(classes: int) -> str:
    """SQL of the rows of questions about one class out of several: ``chances``, the largest of them, and the outcome.

    A label of a class that nobody declared has no chance; a row without chances is left out.
    """
    listed = ", ".join(f"class_{number}" for number in range(classes))
    return f"""
        select question, prediction_day, value, chances, list_max(chances) as top,
               {bin_sql(BANDS, "least(greatest(list_max(chances), 0), 1)")} as band
        from (
            select question, prediction_day, value, [{listed}] as chances
            from quality_members join quality_cells using (number) join quality_rows using (state, group_id)
            where score is not null
        )
    """


def fresh_classes_sql(classes: int) -> str:
    """SQL of ``(question, band, n, top, entropy)`` over all predictions; sums of whole billionths."""
    entropy = "list_sum(list_transform(chances, lambda p: case when p > 0 then -p * ln(p) else 0 end))"
    return f"""
        select question, band, count(*) as n, sum((top * 1e9)::bigint)::double / 1e9 as top,
               sum(({entropy} * 1e9)::bigint)::double / 1e9 as entropy
        from ({class_rows_sql(classes)}) group by all order by all
    """


def mature_classes_sql(classes: int) -> str:
    """SQL of ``(question, prediction_day, band, n, hits, loss)`` over labelled predictions; the first of equals is the
    answer, and log loss is cut off as in ``metrics_multiclass``."""
    chance = f"least(greatest(coalesce(chances[value::integer + 1], 0), {SMALLEST_CHANCE}), 1 - {SMALLEST_CHANCE})"
    loss = f"-ln(case when value >= 0 then {chance} else {SMALLEST_CHANCE} end)"
    return f"""
        select question, prediction_day, band, count(*) as n,
               sum((list_position(chances, top) - 1 = value)::integer)::bigint as hits,
               sum(({loss} * 1e9)::bigint)::double / 1e9 as loss
        from ({class_rows_sql(classes)}) where value is not null group by all order by all
    """
