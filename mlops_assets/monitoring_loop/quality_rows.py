"""Measure: the answers of ``quality`` that need the rows themselves: of numbers, classes and lists, and one's own.

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
from mlops_assets.monitoring_loop.metrics import Array, Estimate
from mlops_assets.monitoring_loop.metrics_windows import KnownDays
from mlops_assets.monitoring_loop.own_metrics import GROUPS, own_rows, own_value
from mlops_assets.monitoring_loop.quality_answers import Answer, Known
from mlops_assets.monitoring_loop.questions import Questions, places_of
from mlops_assets.monitoring_loop.row_metrics import Measure, Part, Shares, measured, measures_of
from mlops_assets.service.service import MLService
from mlops_assets.service.tasks import OwnMetric

WAITS = "a ranked list is measured when all of its labels are there"


def kept_columns(service: MLService) -> dict[str, str]:
    """What of a prediction its rows keep, by expressions over it; nothing where all that is asked is counted."""
    own = bool(service.quality.own_metrics)
    if service.task == "binary" and not own:
        return {}
    kept = {"request_id": "request_id", "given": "score"}
    if own:
        kept |= {"decision": "decision", "bucket": "bucket"}
        kept |= {f"context_{name}": f"json_extract_string(context, {literal('$.' + name)})" for name in service.context}
    if service.ranking is not None:
        kept["unit"] = f"hash(json_extract_string(context, {literal('$.' + service.ranking.query)}))"
    return kept | {f"class_{n}": f"class_scores[{n + 1}]" for n in range(len(service.label.classes))}


def has_worth(service: MLService) -> bool:
    """Whether a metric asks what an outcome was worth."""
    return "revenue_per_impression" in service.quality.metrics


@dataclass(frozen=True)
class Rows:
    """All rows that answers are read from, sorted; ``places`` says where each state and group stands."""

    cells: pd.DataFrame
    part: Part
    places: Mapping[tuple[int, int], slice]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, service: MLService) -> "Rows":
        """Read them from the engine."""
        kept = [*kept_columns(service), *(["kpi"] if has_worth(service) else [])]
        cells = frame(con, rows_sql(kept))
        return cls(cells, part_of(cells, service), places_of(cells))

    def of(self, questions: Questions, place: int) -> "Chosen | None":
        """The rows of one question, day after day; None if there are none."""
        start, end = (int(edge) for edge in np.append(questions.starts, len(questions.states))[place : place + 2])
        group = int(questions.table["group_id"].to_numpy(np.uint64)[place])
        found = [self.places.get((int(state), group)) for state in questions.states[start:end]]
        there = [number for number, part in enumerate(found) if part is not None]
        days = [part for part in found if part is not None]
        if not days:
            return None
        at = np.concatenate([np.arange(part.start, part.stop) for part in days])
        day = np.repeat(np.arange(len(days)), [part.stop - part.start for part in days])
        every = self.part
        part = Part(
            every.score[at], every.value[at], day, every.is_large[at], every.unit[at], every.classes[at],
            every.worth[at], every.weight[at], every.gain_times[at],
        )  # fmt: skip
        return Chosen(at, part, start + np.array(there))


@dataclass(frozen=True)
class Chosen:
    """The rows of one question: where they stand among all, themselves, and where their days stand in
    ``Questions.daily``."""

    at: NDArray[np.int64]
    part: Part
    days: NDArray[np.int64]

    @property
    def is_one_day(self) -> bool:
        """Whether all of them are of one day."""
        return bool(self.part.day[-1] == 0)


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
        gain_times=np.ones(size),
    )


def row_answers(
    con: duckdb.DuckDBPyConnection, service: MLService, questions: Questions, known: Known
) -> Iterator[Answer]:
    """Every declared metric of a task that is not yes or no, and of the service's own."""
    measures, own = measures_of(service), service.quality.own_metrics
    if not measures and not own:
        return
    rows = Rows.read(con, service)
    labelled = questions.counts.counted if service.label.is_one_sided else questions.counts.n_labelled
    is_known = known.reasons == None  # noqa: E711  element by element
    is_asked = np.asarray((labelled >= max(service.quality.min_labels, 1)) & is_known, dtype=bool)
    told = {name: Told.empty(len(is_asked)) for name in (*measures, *(metric.name for metric in own))}
    given = own_rows(rows.cells, service.context) if own else pd.DataFrame()
    bucket = groups_of(rows, service) if own else np.empty(0, dtype=np.int64)
    is_one_sided = known.daily.shares.is_one_sided
    for place in np.flatnonzero(is_asked).tolist():  # the rows of one question at a time: windows of slices are many
        chosen, is_single = rows.of(questions, place), bool(questions.is_single[place])
        if chosen is None:
            continue
        shares = shares_of(known.daily, chosen.days, is_single=is_single)
        for name, measure in measures.items():
            tell(told[name], place, name, measure, chosen, shares, is_single=is_single, is_one_sided=is_one_sided)
        for metric in own:
            group = bucket[chosen.at] if is_single else chosen.part.day
            tell_own(told[metric.name], place, metric, given, group, chosen, shares, is_one_sided=is_one_sided)
    for name, answer in told.items():
        yield Answer(name, Estimate(*answer.found), Estimate(answer.raw, answer.raw, answer.raw), answer.reasons)


@dataclass(frozen=True)
class Told:
    """What has been found of one metric: value and bounds, raw value, and why there is none; one entry per question."""

    found: Array
    raw: Array
    reasons: NDArray[np.object_]

    @classmethod
    def empty(cls, size: int) -> "Told":
        """Nothing yet."""
        return cls(np.full((3, size), np.nan), np.full(size, np.nan), np.full(size, None, dtype=object))


def tell(
    told: Told, place: int, metric: str, measure: Measure, chosen: Chosen, shares: Shares, *, is_single: bool,
    is_one_sided: bool,
) -> None:  # fmt: skip
    """Put down one metric of one question, or the reason why it is not defined."""
    part = chosen.part
    try:
        told.raw[place] = measure(part).value
        if metric == "ndcg" and not shares.is_whole:
            told.reasons[place] = WAITS
            return
        value = measured(metric, measure, part, shares, is_one_sided=is_one_sided)
    except ValueError as error:
        told.reasons[place] = str(error).removeprefix(f"{metric}: ")
        return
    has_bounds = is_single or not chosen.is_one_day  # a long window rests on one day alone: no bounds
    told.found[:, place] = (value.value, value.low, value.high) if has_bounds else (value.value, np.nan, np.nan)


def groups_of(rows: Rows, service: MLService) -> NDArray[np.int64]:
    """Which twentieth of a day each row is in: those of one list are together."""
    if service.ranking is not None:
        return np.asarray(rows.part.unit % np.uint64(GROUPS), dtype=np.int64)
    return rows.cells["bucket"].to_numpy(np.int64) % GROUPS


def tell_own(
    told: Told, place: int, metric: OwnMetric, given: pd.DataFrame, group: NDArray[np.int64], chosen: Chosen,
    shares: Shares, *, is_one_sided: bool,
) -> None:  # fmt: skip
    """Put down one metric of the service's own of one question, or the reason why there is no value."""
    if not shares.is_whole and (is_one_sided or not metric.is_weighted):
        told.reasons[place] = f"'{metric.name}' is measured when all labels are there"
        return
    weight = chosen.part.known_by(shares, is_one_sided=is_one_sided).weight
    outcome = own_value(metric, given.iloc[chosen.at].assign(weight=weight).reset_index(drop=True), group)
    told.reasons[place] = outcome.reason
    if outcome.value is not None:
        told.found[:, place] = outcome.value.value, outcome.value.low, outcome.value.high
        told.raw[place] = outcome.value.value


def shares_of(known: KnownDays, days: NDArray[np.int64], *, is_single: bool) -> Shares:
    """The completeness of the days of one question; an outcome that nobody knows a share of has no rows.

    Over several days the errors are those of the shares as averages: how fast one day was shows in what days differ by.
    """
    shares = known.shares
    variances = (shares.variance_positive, shares.variance_negative) if is_single else (
        known.error_positive, known.error_negative
    )  # fmt: skip
    positive, negative = (np.nan_to_num(array[days]) for array in variances)
    most = float(np.sqrt(positive * negative).sum())
    correlation = float(np.nan_to_num(shares.covariance[days]).sum()) / most if is_single and most > 0 else 0.0
    of_negative = np.where(np.isnan(shares.negative[days]), 1.0, shares.negative[days])
    return Shares(
        shares.positive[days], of_negative, np.sqrt(positive), np.sqrt(negative), min(max(correlation, -1.0), 1.0)
    )


def rows_sql(kept: Sequence[str]) -> str:
    """SQL of every row with an outcome, in the order of state, group and request."""
    more = "".join(f", {quote(name)}" for name in kept)
    return f"""
        select state, group_id, value, is_positive{more} from quality_rows
        where is_positive is not null order by state, group_id, request_id
    """
