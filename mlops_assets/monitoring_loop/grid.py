"""Measure: daily profiles laid out as arrays, one row per series, one column per day, no day left out.

What a person said when closing an incident enters here: days that were bad data are in no baseline, and a new
normal makes a series start afresh. Nothing else takes a day out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

import duckdb
import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, literal
from mlops_assets.monitoring_loop.baseline import WEEK, Bools, Floats, Ints, window_days
from mlops_assets.monitoring_loop.distances import HISTOGRAM_DAYS, MAX_BINS
from mlops_assets.monitoring_loop.profiles import ALL, LOG, SCORE
from mlops_assets.service.monitoring import DriftPolicy

FEATURES = "features"
"""Subject of every feature series, whatever the feature version."""
LABELS = "labels"
"""Subject of the series of label events: the rate, the delay, what was attributed."""
LEAD_DAYS = HISTOGRAM_DAYS + WEEK
"""Days that a distance looks back before it has a value itself."""


@dataclass(frozen=True)
class Answers:
    """What closed incidents taught, per column (``all``: every one): bad days, and since when there is a new normal.

    A person gives these; the monitor never does. They count from the day on which the incident was closed: the
    caller judges the days before it without them.
    """

    bad_days: Mapping[str, Collection[date]] = field(default_factory=dict)
    normal_since: Mapping[str, date] = field(default_factory=dict)

    def leaves_out(self, column: str, day: date) -> bool:
        """Whether a day is no part of the baseline of a column."""
        for name in (column, ALL):
            if day in self.bad_days.get(name, ()) or day < self.normal_since.get(name, date.min):
                return True
        return False


NO_ANSWERS = Answers()


def history_days(policy: DriftPolicy) -> int:
    """Days before the first judged day that can matter to it."""
    return policy.residual_days + window_days(policy) + LEAD_DAYS


@dataclass(frozen=True)
class Grid:
    """Profiles as arrays (series, day), the last axis daily without gaps from ``first`` on.

    ``numbers`` holds the columns of the profiles; ``counts`` is (series, day, bin). ``is_usable``: there are rows,
    and the day is not blocked. ``in_baseline``: of which those that no person declared bad. ``runs`` changes where
    values stop being comparable: with the model version for the score; ``binned`` also with the
    bins, which ``bins`` names by their place in ``bin_names``.
    """

    first: date
    keys: tuple[tuple[str, str], ...]
    blocked: frozenset[date]
    is_usable: Bools
    in_baseline: Bools
    numbers: Mapping[str, Floats]
    counts: Floats
    runs: Floats
    binned: Floats
    bins: Floats
    bin_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        series: pd.DataFrame,
        first: date,
        last: date,
        policy: DriftPolicy,
        blocked: Collection[date],
        answers: Answers = NO_ANSWERS,
    ) -> "Grid":
        """Lay the rows out; rows outside of what the days from ``first`` to ``last`` can see are left out."""
        start = first - timedelta(days=history_days(policy))
        length = (last - start).days + 1
        offset: Ints = np.asarray((pd.to_datetime(series["day"]) - pd.Timestamp(start)).dt.days, dtype=np.int64)
        seen, when = series[(offset >= 0) & (offset < length)], offset[(offset >= 0) & (offset < length)]
        names = list(zip(seen["subject"].astype(str), seen["column_name"].astype(str), strict=True))
        keys = sorted(set(names))
        number = {key: position for position, key in enumerate(keys)}
        at = np.array([number[name] for name in names], dtype="int64")

        def laid_out(column: pd.Series) -> Floats:
            array = np.full((len(keys), length), np.nan)
            array[at, when] = column.to_numpy(dtype="float64", na_value=np.nan)
            return array

        numbers = {name: laid_out(seen[name]) for name in NUMBERS if name in seen}
        missing = np.full((len(keys), length), np.nan)
        numbers |= {name: missing for name in NUMBERS if name not in numbers}
        days = [start + timedelta(days=back) for back in range(length)]
        is_usable = (np.nan_to_num(numbers["n"]) > 0) & np.array([day not in blocked for day in days], dtype=bool)
        kept = np.array([[not answers.leaves_out(key[1], day) for day in days] for key in keys], dtype=bool)
        in_baseline = is_usable & kept.reshape(is_usable.shape)
        runs = carried_forward(laid_out(codes(seen, "version")[0]))
        bin_codes, bin_names = codes(seen, "bins")
        bins = carried_forward(laid_out(bin_codes))
        binned = runs * 1e6 + bins
        counts = histograms(seen, at, when, (len(keys), length))
        return cls(
            start, tuple(keys), frozenset(blocked), is_usable, in_baseline, numbers, counts, runs, binned,
            bins, bin_names,
        )  # fmt: skip

    def position(self, day: date) -> int:
        """Where a day stands on the last axis."""
        return (day - self.first).days

    def values(self, name: str) -> Floats:
        """A column of the profiles on usable days; not-a-number elsewhere."""
        found: Floats = np.where(self.is_usable, self.numbers[name], np.nan)
        return found


NUMBERS = ("n", "nulls", "total", "squares", "is_constant", "out_of_range", "new_category")


def codes(seen: pd.DataFrame, name: str) -> tuple[pd.Series, tuple[str, ...]]:
    """A number per text, and the texts; 0 for all if there is no such column."""
    texts = seen[name].fillna("").astype(str) if name in seen else pd.Series("", index=seen.index)
    numbers, names = pd.factorize(texts)
    return pd.Series(numbers, index=seen.index), tuple(str(text) for text in names)


def histograms(
    seen: pd.DataFrame,
    at: Ints,
    when: Ints,
    shape: tuple[int, int],
) -> Floats:
    """Counts as (series, day, bin), zeros where there are none."""
    array = np.zeros((*shape, MAX_BINS))
    if "counts" in seen:
        has_counts = seen["counts"].notna().to_numpy()
        for position, back, counts in zip(at[has_counts], when[has_counts], seen["counts"][has_counts], strict=True):
            array[position, back, : len(counts)] = counts
    return array


def carried_forward(values: Floats) -> Floats:
    """Every gap filled with the newest value before it."""
    at = np.where(np.isnan(values), 0, np.arange(values.shape[-1]))
    filled: Floats = np.take_along_axis(values, np.maximum.accumulate(at, axis=-1), axis=-1)
    return filled


def series_from_profiles(
    con: duckdb.DuckDBPyConnection, *, profiles: str, roles: str, label_version: str = ""
) -> pd.DataFrame:
    """The series that ``find_drift`` reads, one per feature and one of the score.

    Args:
        profiles: relation of that table's shape.
        roles: relation ``(day, feature_version, model_version)``: whose features and whose score stand for a
            day, for example the champion's. One row per day; it must not change once the day is closed.
        label_version: the definition whose labels are watched.
    """
    return frame(con, series_sql(profiles, roles, label_version))


def series_sql(profiles: str, roles: str, label_version: str) -> str:
    """SQL of one row per day and series: features under one subject, the score with its model version, the log,
    and what the label definition in force brought: its rate, its delay and what was attributed.

    Reads   ``profiles`` and ``roles(day, feature_version, model_version)``; slice *all* only.
    """
    numbers = f"profiles.day as day, column_name, {', '.join(NUMBERS)}, bins, counts, edges"
    profiled = f"{profiles} as profiles join {roles} as roles on profiles.day = roles.day and slice = '{ALL}'"
    return f"""
        select {numbers}, '{FEATURES}' as subject, '' as version
        from {profiled} and subject = feature_version
        union all
        select {numbers}, '{SCORE}' as subject, model_version as version
        from {profiled} and subject = model_version and column_name = '{SCORE}'
        union all
        select {numbers}, subject, '' as version
        from {profiles} as profiles where subject = '{LOG}' and slice = '{ALL}'
        union all
        select {numbers}, '{LABELS}' as subject, subject as version
        from {profiles} as profiles
        where subject = {literal(label_version)} and slice = '{ALL}' and column_name <> 'own_decision'
    """
