"""Third step, slicing: a shift of the whole is told with the slices it sits in, one of a slice alone is noted."""

from collections.abc import Mapping
from datetime import date, timedelta
from math import ceil
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets.adapters.engine import frame, literal, quote, rows
from mlops_assets.closing.block import Block
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.drift import FEATURES
from mlops_assets.monitoring_loop.grid import LABELS
from mlops_assets.monitoring_loop.profiles import ALL, LABEL, SCORE
from mlops_assets.monitoring_loop.slice_shifts import (
    USUAL_DAYS,
    VALUES,
    parted_slices,
    sliced_totals_sql,
    value_sql,
    where_it_sits,
)
from mlops_assets.service.labels import LabelDefinition

ASKS_PEOPLE = ("moderate", "severe")


def with_slices_named(world: World, block: Block, drift: pd.DataFrame) -> pd.DataFrame:
    """The same rows; the reason of one that asks for people ends with the slices that hold most of the shift.

    Nothing is read unless something moved: rows of features, scores or label events of that day and four weeks.
    """
    is_asked = (
        drift["tier"].isin(ASKS_PEOPLE) & (drift["slice"] == ALL) & (drift["baseline"] == "trailing")
        & drift["subject"].isin((FEATURES, SCORE, LABELS)) & drift["statistic"].isin((*VALUES, "volume"))
        & ~((drift["subject"] == LABELS) & (drift["column_name"] != LABEL))
    )  # fmt: skip
    if not world.service.slices or not is_asked.any():
        return drift
    reasons = drift["reason"].to_list()
    asked: dict[tuple[date, str], list[int]] = {}
    for at in np.flatnonzero(is_asked.to_numpy()):
        place = int(at)
        key = pd.Timestamp(drift["day"].iloc[place]).date(), str(drift["subject"].iloc[place])
        asked.setdefault(key, []).append(place)
    for (day, subject), found in asked.items():
        moved = {place: (str(drift["statistic"].iloc[place]), str(drift["column_name"].iloc[place])) for place in found}
        for place, words in _words(world, block, day, subject, moved).items():
            reasons[place] += words
    return drift.assign(reason=reasons)


def _words(world: World, block: Block, day: date, subject: str, moved: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """Where each of some shifts of one subject sits on a day, in words; ``moved``: (statistic, column) of each."""
    values = {
        f"{statistic} {column}": value_sql(statistic, "value" if subject == LABELS else column)
        for statistic, column in moved.values()
        if statistic in VALUES
    }
    relation = _relation(world, block, subject, day)
    if relation is None:
        return {}
    table = frame(block.con, sliced_totals_sql(relation, values, list(world.service.slices)))
    places = {name: place for place, name in enumerate(values)}
    return {at: where_it_sits(table, day, places.get(f"{what} {column}")) for at, (what, column) in moved.items()}


def _relation(world: World, block: Block, subject: str, day: date) -> str | None:
    """A subquery with the rows behind a subject on a day and four weeks before, each with its context."""
    first = day - timedelta(days=USUAL_DAYS)
    if subject == LABELS:
        return f"({labelled_sql(world.service.label, first, day)})"
    if subject == SCORE:
        return f"({scored_sql(first, day)})"
    version = next((version for (version,) in rows(block.con, feature_version_sql(day))), None)
    if version is None:
        return None
    columns = feature_columns([world.feature_set(version)])
    world.lake.view(block.con, "features", columns, name="sliced_features", first=first, last=day, is_open=True)
    return f"({of_version_sql('sliced_features', version)})"


def feature_version_sql(day: date) -> str:
    """SQL of the feature version that stands for a day."""
    return f"select feature_version from roles where day = {literal(day)} and feature_version is not null"


def of_version_sql(features: str, version: str) -> str:
    """SQL of the rows of one feature version that were computed for their own day."""
    return f"select * from {quote(features)} where feature_version = {literal(version)} and filled_on is null"


def labelled_sql(label: LabelDefinition, first: date, last: date) -> str:
    """SQL of label events with the context of the answer they are about.

    Not of answers whose window was long over: how far back answers are at hand depends on the block; a row must not.
    """
    reach = ceil(label.window_hours / 24) + 2
    return f"""
        select l.day, l.value, p.context from labels l join predictions p on p.request_id = l.request_id and p.served
        where l.label_version = {literal(label.version)} and l.day between {literal(first)} and {literal(last)}
          and p.prediction_day >= l.day - {reach}
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
