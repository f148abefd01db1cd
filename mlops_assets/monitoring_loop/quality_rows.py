"""Measure: the answers of ``quality`` that need the rows themselves: metrics of numbers, classes and ranked lists.

The rows are read once per block, in the order of state, group and request, so that every sum runs in one order
whatever else is in the block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame, literal, quote
from mlops_assets.monitoring_loop.metrics import Array, Completeness, Estimate
from mlops_assets.monitoring_loop.quality_answers import Answer, Known
from mlops_assets.monitoring_loop.questions import Questions, places_of
from mlops_assets.monitoring_loop.row_metrics import Measure, Part, Shares, measured, measures_of
from mlops_assets.service.service import MLService

WAITS = "a ranked list is measured when all of its labels are there"


def kept_columns(service: MLService) -> dict[str, str]:
    """What of a prediction its rows keep, by expressions over it; nothing for yes or no, which is counted."""
    if service.task == "binary":
        return {}
    kept = {"given": "score"}
    if service.ranking is not None:
        kept["unit"] = f"hash(json_extract_string(context, {literal('$.' + service.ranking.query)}))"
    return kept | {f"class_{n}": f"class_scores[{n + 1}]" for n in range(len(service.label.classes))}


def has_worth(service: MLService) -> bool:
    """Whether a metric asks what an outcome was worth."""
    return "revenue_per_impression" in service.quality.metrics


@dataclass(frozen=True)
class Rows:
    """All rows that answers are read from, sorted; ``places`` says where each state and group stands."""

    part: Part
    places: Mapping[tuple[int, int], slice]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, service: MLService) -> "Rows":
        """Read them from the engine."""
        kept = [*kept_columns(service), *(["kpi"] if has_worth(service) else [])]
        cells = frame(con, rows_sql(kept))
        return cls(part_of(cells, service), places_of(cells))

    def of(self, questions: Questions, place: int) -> Part | None:
        """The rows of one question, day after day; None if there are none."""
        start, end = questions.starts[place], np.append(questions.starts, len(questions.states))[place + 1]
        group = int(questions.table["group_id"].to_numpy(np.uint64)[place])
        found = [self.places.get((int(state), group)) for state in questions.states[start:end]]
        days = [part for part in found if part is not None]
        if not days:
            return None
        at = np.concatenate([np.arange(part.start, part.stop) for part in days])
        day = np.repeat(np.arange(len(days)), [part.stop - part.start for part in days])
        every = self.part
        return Part(
            every.score[at], every.value[at], day, every.is_large[at], every.unit[at], every.classes[at],
            every.worth[at], every.weight[at],
        )  # fmt: skip


def part_of(cells: pd.DataFrame, service: MLService) -> Part:
    """The columns as arrays; a row that only has no gain yet has gain 0."""
    size = len(cells)

    def column(name: str) -> Array:
        return np.asarray(cells[name].to_numpy(np.float64, na_value=np.nan), dtype=np.float64)

    classes = [column(f"class_{n}") for n in range(len(service.label.classes))]
    return Part(
        score=column("given"),
        value=np.nan_to_num(column("value")),
        day=np.zeros(size, dtype=np.int64),
        is_large=cells["is_positive"].to_numpy(bool),
        unit=cells["unit"].to_numpy(np.uint64) if "unit" in cells else np.zeros(size, dtype=np.uint64),
        classes=np.stack(classes, axis=1) if classes else np.empty((size, 0)),
        worth=np.nan_to_num(column("kpi")) if "kpi" in cells else np.zeros(size),
        weight=np.ones(size),
    )


def row_answers(
    con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, known: Known
) -> Iterator[Answer]:
    """Every declared metric of a task that is not yes or no."""
    measures = measures_of(service)
    if not measures:
        return
    rows = Rows.read(con, service)
    parts = [rows.of(questions, place) for place in range(len(questions.table))]
    labelled = questions.counts.counted if service.label.is_one_sided else questions.counts.n_labelled
    is_known = known.reasons == None  # noqa: E711  element by element
    is_asked = np.asarray((labelled >= max(service.quality.min_labels, 1)) & is_known, dtype=bool)
    for metric, measure in measures.items():
        yield answer_of(metric, measure, parts, is_asked, questions.is_single, known.completeness)


def answer_of(
    metric: str,
    measure: Measure,
    parts: Sequence[Part | None],
    is_asked: NDArray[np.bool_],
    is_single: NDArray[np.bool_],
    known: Completeness,
) -> Answer:
    """One metric of every question, with the reason where it is not defined."""
    found, raw = np.full((3, len(parts)), np.nan), np.full(len(parts), np.nan)
    reasons = np.full(len(parts), None, dtype=object)
    for place, part in enumerate(parts):
        shares = shares_of(known, place)
        if part is None or not is_asked[place]:
            continue
        try:
            raw[place] = measure(part).value
            if metric == "ndcg" and not shares.is_whole:
                reasons[place] = WAITS
                continue
            value = measured(metric, measure, part, shares, is_one_sided=known.is_one_sided)
        except ValueError as error:
            reasons[place] = str(error).removeprefix(f"{metric}: ")
            continue
        has_bounds = is_single[place] or part.day[-1] > 0  # a long window rests on one day alone: no bounds
        found[:, place] = (value.value, value.low, value.high) if has_bounds else (value.value, np.nan, np.nan)
    return Answer(metric, Estimate(*found), Estimate(raw, raw, raw), reasons)


def shares_of(known: Completeness, place: int) -> Shares:
    """The completeness of one question; an outcome that nobody knows a share of has no rows."""
    numbers = (known.positive, known.negative, known.variance_positive, known.variance_negative, known.covariance)
    positive, negative, *variances = (float(array[place]) for array in numbers)
    whole = 1.0 if np.isnan(negative) else negative
    return Shares(positive, whole, *(0.0 if np.isnan(variance) else variance for variance in variances))


def rows_sql(kept: Sequence[str]) -> str:
    """SQL of every row with an outcome, in the order of state, group and request."""
    more = "".join(f", {quote(name)}" for name in kept)
    return f"""
        select state, group_id, value, is_positive{more} from quality_rows
        where is_positive is not null order by state, group_id, request_id
    """
