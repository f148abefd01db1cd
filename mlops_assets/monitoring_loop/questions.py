"""Measure: the questions that ``quality`` answers, with everything counted that an answer needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame
from mlops_assets.monitoring_loop import metrics, quality_counts
from mlops_assets.monitoring_loop.metrics import Array, Counts, Loss, Outcome


@dataclass(frozen=True)
class Window:
    """One question: predictions of the ``length`` days ending ``last``, as known at the end of ``day``."""

    day: date
    last: date
    length: int
    state: str


@dataclass(frozen=True)
class Questions:
    """Every question about every group that it concerns, with the counts of its days.

    ``table`` has one row per question and group: number, group_id, version, role, slice, and what the window
    says. ``daily`` counts one row per question, group and prediction day, question after question; ``starts``
    is where each begins and ``states`` names the state of each day. ``counts`` are the days added.
    """

    table: pd.DataFrame
    daily: Counts
    states: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: Counts

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, windows: Sequence[Window]) -> "Questions":
        """Read it from the engine, where the counting was done."""
        cells = frame(con, quality_counts.answers_sql())
        number, group = cells["number"].to_numpy(np.int64), cells["group_id"].to_numpy(np.uint64)
        is_new = np.append(True, (number[1:] != number[:-1]) | (group[1:] != group[:-1]))
        starts = np.flatnonzero(is_new) if len(cells) else np.empty(0, dtype=np.int64)
        names = frame(con, quality_counts.names_sql()).set_index("group_id")
        named = names.iloc[names.index.get_indexer(pd.Index(group[starts]))].reset_index()
        table = pd.concat([pd.Series(number[starts], name="number"), named], axis=1)
        asked = [windows[n] for n in table["number"].astype(int)]
        table["day"], table["prediction_day"] = [w.day for w in asked], [w.last for w in asked]
        table["window_days"], table["state"] = [w.length for w in asked], [w.state for w in asked]
        daily = counts_of(cells)
        return cls(table, daily, cells["state"].to_numpy(np.int64), starts, added(daily, starts))

    @property
    def is_single(self) -> NDArray[np.bool_]:
        """Which questions are about one day."""
        return np.asarray(self.table["window_days"] == 1, dtype=bool)

    @property
    def days(self) -> NDArray[np.int64]:
        """Prediction day of each day of every question, in days since 1970: a state is named by it."""
        return self.states // quality_counts.STATES_A_DAY

    @property
    def ages(self) -> NDArray[np.int64]:
        """Age of each day of every question, at the end of the day that the question is asked on."""
        asked = self.table["day"].to_numpy("datetime64[D]").astype(np.int64)
        return np.asarray(self.spread(asked) - self.days, dtype=np.int64)

    def spread(self, of_questions: NDArray[Any]) -> NDArray[Any]:
        """A value per question as a value per day of it."""
        return np.repeat(of_questions, np.diff(np.append(self.starts, len(self.states))))

    def lengths(self, is_wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of some questions, and how many days each has."""
        return np.flatnonzero(is_wanted), np.diff(np.append(self.starts, len(self.states)))[is_wanted]

    def part(self, is_wanted: NDArray[np.bool_]) -> tuple[Counts, NDArray[np.int64]]:
        """The days of some questions, and where each of those begins among them."""
        lengths = np.diff(np.append(self.starts, len(self.states)))[is_wanted]
        return taken(self.daily, self.spread(is_wanted)), np.cumsum(lengths) - lengths


def places_of(cells: pd.DataFrame) -> dict[tuple[int, int], slice]:
    """Where the rows of each state and group stand among rows that are sorted by both."""
    state, group = cells["state"].to_numpy(np.int64), cells["group_id"].to_numpy(np.uint64)
    is_new = (state[1:] != state[:-1]) | (group[1:] != group[:-1])
    edges = [0, *(np.flatnonzero(is_new) + 1), len(cells)] if len(cells) else []
    return {
        (int(state[start]), int(group[start])): slice(int(start), int(end))
        for start, end in zip(edges, edges[1:], strict=False)
    }


def counts_of(cells: pd.DataFrame) -> Counts:
    """Counts from their columns; sums come back from integers to the units of a score and a loss."""

    def column(name: str) -> Array:  # what is not counted for a task is zero
        if name not in cells:
            return np.zeros(len(cells))
        return np.asarray(np.nan_to_num(cells[name].to_numpy(np.float64)), dtype=np.float64)

    def outcome(suffix: str, n: Array, *, is_positive: bool) -> Outcome:
        sums = {name: column(f"{name}_{suffix}") / metrics.LOSS_UNIT for name in quality_counts.SUMS}
        loss = Loss(*(sums[name] for name in quality_counts.LOSSES))
        return Outcome(n, sums["p1"], sums["p2"], sums["p3"], sums["p4"], loss, is_positive)

    return Counts(
        n=column("n"),
        n_labelled=column("n_labelled"),
        positive=outcome("1", column("positives"), is_positive=True),
        negative=outcome("0", column("negatives"), is_positive=False),
        below=column("below"),
        below_squares=column("below_squares"),
        above_squares=column("above_squares"),
    )


def mapped(counts: Counts, change: Any) -> Counts:
    """Counts with every array put through a function."""

    def of(part: Any) -> Any:
        if isinstance(part, Loss | Outcome):
            return type(part)(*(of(getattr(part, name)) for name in part.__dataclass_fields__))
        return change(part) if isinstance(part, np.ndarray) else part

    return Counts(*(of(getattr(counts, name)) for name in Counts.__dataclass_fields__))


def added(daily: Counts, starts: NDArray[np.int64]) -> Counts:
    """Counts of several days together; the placements of AUC do not add up and come out meaningless."""
    return mapped(daily, lambda array: np.add.reduceat(array, starts) if len(starts) else array)


def taken(counts: Counts, which: NDArray[np.bool_]) -> Counts:
    """Some of the counts."""
    return mapped(counts, lambda array: array[which])
