"""Measure: the AUC of longer windows, over all rows of their days in one order of scores.

The scores of a day that were counted in bins stay in them (``quality_counts.HISTOGRAM_FROM``); all others are exact.
"""

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame
from mlops_assets.monitoring_loop.metrics import Array, Completeness
from mlops_assets.monitoring_loop.questions import Questions

Ints = NDArray[np.int64]
WEIGHT_UNIT = 1_000_000
"""What a label stands for is counted in 1e-6: whole numbers add up to the same in any company."""


@dataclass(frozen=True)
class Ranked:
    """All labelled rows of a block, group after group and lowest score first within each.

    ``place`` is the group and the score of a row in one number, ``cell`` its group and state in another.
    """

    place: Ints
    cell: Ints
    positives: Ints
    negatives: Ints
    states: "pd.Index[int]"
    groups: "pd.Index[int]"

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> "Ranked":
        """Read them from the engine."""
        cells = frame(con, hits_sql())
        state, states = pd.factorize(cells["state"].to_numpy(np.int64))
        group, groups = pd.factorize(cells["group_id"].to_numpy(np.uint64))
        place = group.astype(np.int64) << 30 | cells["score"].to_numpy(np.int64)
        order = np.argsort(place, kind="stable")
        positives, negatives = (cells[name].to_numpy(np.int64)[order] for name in ("positives", "negatives"))
        cell = (group * len(states) + state)[order]
        return cls(place[order], cell, positives, negatives, pd.Index(states), pd.Index(groups))

    def cells_of(self, questions: Questions) -> Ints:
        """The cell of each day of every question; -1 for a day without labelled rows."""
        group = self.groups.get_indexer(pd.Index(questions.table["group_id"].to_numpy(np.uint64)))
        state, group = self.states.get_indexer(pd.Index(questions.states)), questions.spread(group)
        return np.where((state < 0) | (group < 0), -1, group * len(self.states) + state)

    def aucs(self, cells: Ints, weights: NDArray[np.int64]) -> tuple[Ints, Array]:
        """The groups that some cells are of, and the AUC of each over all its cells.

        Args:
            weights: per cell what a positive counts as itself and as a negative, and what a negative counts.
        """
        size = len(self.states) * len(self.groups)
        is_asked, of_cell = np.zeros(size, dtype=bool), np.zeros((3, size), dtype=np.int64)
        is_asked[cells], of_cell[:, cells] = True, weights
        rows = np.flatnonzero(is_asked[self.cell])
        cell, place = self.cell[rows], self.place[rows]
        positives, negatives = self.positives[rows], self.negatives[rows]
        runs = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
        one = np.add.reduceat(positives * of_cell[0][cell], runs)
        zero = np.add.reduceat(positives * of_cell[1][cell] + negatives * of_cell[2][cell], runs)
        group = place[runs] >> 30
        starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        lower = np.cumsum(zero) - zero
        lower -= np.repeat(lower[starts], np.diff(np.append(starts, len(runs))))
        below = np.add.reduceat(one.astype(np.float64) * (2 * lower + zero), starts)
        pairs = 2.0 * np.add.reduceat(one, starts) * np.add.reduceat(zero, starts)
        return group[starts], below / pairs


def pooled_aucs(ranked: Ranked, questions: Questions, shares: Completeness, is_wanted: NDArray[np.bool_]) -> Array:
    """AUC over all rows of the wanted questions, given what is known of the labels of each of their days.

    A positive that came stands for 1 / G positives and, where the others hide among the negatives, for 1 - 1 / G
    negatives; a negative that came for 1 / G negatives.
    """
    found, counts = np.full(len(questions.table), np.nan), questions.counts
    is_asked = is_wanted & (counts.positive.n > 0) & (counts.negative.n > 0)
    positive, negative = (
        np.round(WEIGHT_UNIT / np.where(share > 0, share, 1.0)).astype(np.int64)
        for share in (shares.positive, shares.negative)
    )
    whole = np.full_like(positive, WEIGHT_UNIT)
    weights = np.stack(
        [positive, whole - positive, whole] if shares.is_one_sided else [positive, np.zeros_like(positive), negative]
    )
    cells = ranked.cells_of(questions)
    group = ranked.groups.get_indexer(pd.Index(questions.table["group_id"].to_numpy(np.uint64)))
    number = questions.table["number"].to_numpy(np.int64)
    is_theirs = questions.spread(is_asked) & (cells >= 0)
    of_day = questions.spread(number)
    for one in np.unique(number[is_asked]):  # the groups of a question are answered together
        chosen = np.flatnonzero(is_theirs & (of_day == one))
        places = np.flatnonzero(is_asked & (number == one))
        groups, values = ranked.aucs(cells[chosen], weights[:, chosen])
        of_group = np.full(len(ranked.groups), np.nan)
        of_group[groups] = values
        found[places] = of_group[group[places]]
    return found


def hits_sql() -> str:
    """SQL of every score of a group in a state that has labelled rows, with their number by outcome."""
    return "select state, group_id, score, positives, negatives from quality_hits"
