"""Third step, slicing: a shift of the whole is told with the slices it sits in, one of a slice alone is noted."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import date, timedelta
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, literal, quote, rows
from mlops_assets.closing.block import Block
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.world import World
from mlops_assets.feedback_loop.maturity import ARRIVAL, arrival_counts_sql
from mlops_assets.monitoring_loop.drift import FEATURES, ROWS
from mlops_assets.monitoring_loop.grid import LABELS
from mlops_assets.monitoring_loop.operations import OPERATIONS, sliced_operations_sql
from mlops_assets.monitoring_loop.profiles import ALL, LABEL, LOG, SCORE
from mlops_assets.monitoring_loop.shift_values import DAYS_OF, Told, addend_sql, needs_profile, told_sql, value_sql
from mlops_assets.monitoring_loop.slice_shifts import USUAL_DAYS, parted_slices, sliced_totals_sql, where_it_sits
from mlops_assets.service.labels import LabelDefinition

PER_KPI = "per_kpi"
"""Column of the profiles of label events: the day's labels per unit of KPI."""
ASKS_PEOPLE = ("moderate", "severe")


def with_slices_named(world: World, block: Block, drift: pd.DataFrame) -> pd.DataFrame:
    """The same rows; the reason of one that asks for people ends with the slices that hold most of the shift.

    Nothing is read unless something moved: the rows behind it, of that day and four weeks.
    """
    is_asked = drift["tier"].isin(ASKS_PEOPLE) & (drift["slice"] == ALL) & (drift["baseline"] == "trailing")
    if not world.service.slices or not is_asked.any():
        return drift
    reasons = drift["reason"].to_list()
    asked: dict[tuple[date, str], dict[int, Moved]] = {}
    for at in np.flatnonzero(is_asked.to_numpy()):
        place = int(at)
        subject, column, statistic = (str(drift[name].iloc[place]) for name in ("subject", "column_name", "statistic"))
        key = pd.Timestamp(drift["day"].iloc[place]).date(), subject
        asked.setdefault(key, {})[place] = Moved(statistic, column)
    for (day, subject), moved in asked.items():
        for place, words in _words(world, block, day, subject, moved).items():
            reasons[place] += words
    return drift.assign(reason=reasons)


class Moved(NamedTuple):
    """A shift of the whole: which statistic of which column."""

    statistic: str
    column: str


def _words(world: World, block: Block, day: date, subject: str, moved: Mapping[int, Moved]) -> dict[int, str]:
    """Where each of some shifts of one subject sits on a day, in words."""
    counted = {at: _counted(world, block, day, subject, one) for at, one in moved.items()}
    told = {at: where_it_sits(table, day, 0) for at, table in counted.items() if table is not None}
    return told | _words_of_rows(world, block, day, subject, {at: one for at, one in moved.items() if at not in told})


def _words_of_rows(world: World, block: Block, day: date, subject: str, moved: Mapping[int, Moved]) -> dict[int, str]:
    """Where shifts sit whose rows have to be read."""
    if not moved:
        return {}
    found = _rows_of(world, block, subject, day)
    if found is None:
        return {}
    known = {one for one in moved.values() if one.column in found.columns}
    told = _told(block, found.subject, {one.column for one in known if needs_profile(one.statistic)}, day)
    values = {
        f"{one.statistic} {one.column}": value
        for one in sorted(known)
        if (value := addend_sql(one.statistic, found.columns[one.column], told[one.column], day))
    }
    table = frame(block.con, sliced_totals_sql(found.relation, values, list(world.service.slices)))
    places: dict[str, int | None] = {name: place for place, name in enumerate(values)} | {f"volume {ROWS}": None}
    return {
        at: where_it_sits(table, day, places[name], days=DAYS_OF.get(one.statistic, 1))
        for at, one in moved.items()
        if (name := f"{one.statistic} {one.column}") in places
    }


def _told(block: Block, subject: str, names: Collection[str], day: date) -> dict[str, list[Told]]:
    """What the profiles of a day, and of four weeks before it, say about some columns."""
    told: dict[str, list[Told]] = defaultdict(list)
    if names:
        first = day - timedelta(days=USUAL_DAYS)
        for name, *fields in rows(block.con, told_sql("all_profiles", subject, names, first, day)):
            told[name].append(Told(*fields))
    return told


def _counted(world: World, block: Block, day: date, subject: str, moved: Moved) -> pd.DataFrame | None:
    """What is counted per slice and day anyway: of what answered, and of labels that are not there yet; else None."""
    first, query = day - timedelta(days=USUAL_DAYS), None
    if subject == OPERATIONS:
        query = sliced_operations_sql("all_operations", moved.column, moved.statistic, first, day)
    elif moved.column.startswith(ARRIVAL) and moved.statistic == "null_share":
        query = arrived_at_sql(world.service.label, "all_completeness", moved.column, first)
    return frame(block.con, query) if query else None


def arrived_at_sql(label: LabelDefinition, completeness: str, column: str, first: date) -> str:
    """SQL of the arrival of labels at one age per slice, in the shape of ``sliced_totals_sql``."""
    return f"""
        select day, slice, n as requests, n as n_0, bad::double as total_0
        from ({arrival_counts_sql(label, completeness, first)})
        where {literal(ARRIVAL)} || age_days = {literal(column)} order by day, slice
    """


class Behind(NamedTuple):
    """The rows behind a subject of drift: a subquery with a context, the subject of its profiles, and its columns.

    ``columns``: as the profile calls one -> as the subquery does.
    """

    relation: str
    subject: str
    columns: Mapping[str, str]


def _rows_of(world: World, block: Block, subject: str, day: date) -> Behind | None:
    """The rows behind a subject on a day and four weeks before, each with its context; None if there are none."""
    first = day - timedelta(days=USUAL_DAYS)
    if subject == LABELS:
        label, names = world.service.label, {LABEL: "value", "delay_hours": "delay_hours", PER_KPI: PER_KPI}
        usual = rows(block.con, usual_sql("all_profiles", label.version, PER_KPI, first, day))[0][0]
        return Behind(f"({labelled_sql(label, first, day, usual_per_kpi=usual or 0.0)})", label.version, names)
    if subject == LOG and world.service.prediction_log is not None:
        lag = world.service.prediction_log.log_lag_days
        return Behind(f"({logged_sql(lag, first, day)})", LOG, {"late": "late", "failed": "failed"})
    if subject == SCORE:
        scored_by = dict(rows(block.con, versions_sql(day, day))).get(day)
        return Behind(f"({scored_sql(first, day)})", scored_by, {SCORE: SCORE}) if scored_by else None
    version = next((version for (version,) in rows(block.con, feature_version_sql(day))), None)
    if subject != FEATURES or version is None:
        return None
    columns = feature_columns([world.feature_set(version)])
    world.lake.view(block.con, "features", columns, name="sliced_features", first=first, last=day, is_open=True)
    names = {column.name: column.name for column in columns}
    return Behind(f"({of_version_sql('sliced_features', version)})", version, names)


def feature_version_sql(day: date) -> str:
    """SQL of the feature version that stands for a day."""
    return f"select feature_version from roles where day = {literal(day)} and feature_version is not null"


def of_version_sql(features: str, version: str) -> str:
    """SQL of the rows of one feature version that were computed for their own day."""
    return f"select * from {quote(features)} where feature_version = {literal(version)} and filled_on is null"


def usual_sql(profiles: str, subject: str, column: str, first: date, last: date) -> str:
    """SQL of the mean of a column over some days, without the last one; null without any value."""
    return f"""
        select fsum(total) / sum(n - nulls) from {quote(profiles)}
        where subject = {literal(subject)} and column_name = {literal(column)} and slice = 'all'
          and day >= {literal(first)} and day < {literal(last)}
    """


def labelled_sql(label: LabelDefinition, first: date, last: date, *, usual_per_kpi: float = 0.0) -> str:
    """SQL of label events with the context of the answer they are about, and how late they came.

    ``per_kpi`` is by how much more of a label there is than its worth lets expect: added up, a shift of labels per KPI.

    Not of answers whose window was long over: how far back answers are at hand depends on the block; a row must not.
    """
    reach = ceil(label.window_hours / 24) + 2
    return f"""
        select l.day, l.value, round(epoch(l.known_at - p.predicted_at) / 3600.0, 9) as delay_hours,
               l.value - {usual_per_kpi!r}::double * l.kpi as {PER_KPI}, p.context
        from labels l join predictions p on p.request_id = l.request_id and p.served
        where l.label_version = {literal(label.version)} and l.day between {literal(first)} and {literal(last)}
          and p.prediction_day >= l.day - {reach}
    """


def logged_sql(lag_days: int, first: date, last: date) -> str:
    """SQL of the rows that a log brought and that were kept: whether each came late, and whether it failed."""
    return f"""
        select day, context, (prediction_day < day - {lag_days})::integer as late, (status <> 'ok')::integer as failed
        from predictions where day between {literal(first)} and {literal(last)}
    """


def scored_sql(first: date, last: date) -> str:
    """SQL of the scores that stand for each day: those of its champion, on every request."""
    return f"""
        select p.day, p.context, p.score, p.model_version from predictions p
        join roles r on r.day = p.day and r.model_version = p.model_version
        where p.day between {literal(first)} and {literal(last)}
    """


def versions_sql(first: date, last: date) -> str:
    """SQL of the model version whose score stands for each day."""
    return f"select day, model_version from roles where day between {literal(first)} and {literal(last)}"


def parted_rows(world: World, block: Block) -> list[dict[str, Any]]:
    """Rows of ``drift`` about slices whose score, or label rate, parts from all others: recorded, and noted."""
    slices = list(world.service.quality.slices)
    if not slices:
        return []
    first, last = min(block.days) - timedelta(days=USUAL_DAYS), max(block.days)
    label = world.service.label
    scored_by: Mapping[date, str] = dict(rows(block.con, versions_sql(first, last)))
    looked_at = (
        (SCORE, SCORE, "score", scored_sql(first, last), scored_by),
        (
            LABELS,
            LABEL,
            "value",
            labelled_sql(label, first, last),
            dict.fromkeys(scored_by, label.version),
        ),
    )
    found: list[dict[str, Any]] = []
    for subject, column, value, query, versions in looked_at:
        values = {what: value_sql(what, value) for what in ("mean", "square")}
        table = frame(block.con, sliced_totals_sql(f"({query})", values, slices))
        found += [
            {
                "day": one.day, "subject": subject, "slice": one.slice, "column_name": column, "statistic": "mean",
                "baseline": "trailing", "value": one.value, "expected": one.expected, "scale": one.scale,
                "surprise": one.z, "size": one.size, "tier": "expected", "reason": one.in_words(column),
            }
            for one in parted_slices(table, block.days, versions)
        ]  # fmt: skip
    return found
