"""Measure: the labelled rows of every group by score, lowest first, and what an AUC needs of that order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.metrics import Array
from mlops_assets.monitoring_loop.quality_counts import BINS, HISTOGRAM_FROM

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SCORE_UNIT = 10**9
"""Scores are counted in 1e-9: they are stored with nine decimals."""
STEPS = BINS * 2 / np.pi
PIECE = 8192
"""Rows that go through at a time: their arrays stay in the processor's cache, and their sums mostly exact."""
CHUNK = 1024
"""Histograms of so many cells or groups are counted at a time."""
HITS = ["number", "score", "positives", "negatives"]
BELOW = ["below", "below_squares", "above_squares"]


@dataclass(frozen=True)
class CellScores:
    """The scores of the rows, each of which lies in a cell; a group is a number of cells.

    ``n`` are the rows of each cell by outcome. Groups of ``HISTOGRAM_FROM`` labelled rows and more add up the
    histograms of their cells, in which all scores of a bin are taken for its middle; the rows of smaller ones are
    sorted.
    """

    of_row: NDArray[np.int32]
    outcome: NDArray[np.uint8]
    score: NDArray[np.int32]
    n: Array

    def of_groups(self, of_cell: Ints, groups: int) -> Ints:
        """Rows of ``HITS``: labelled rows of each group (the group of each cell, -1: none) at each score."""
        is_in = of_cell >= 0
        labelled = np.bincount(of_cell[is_in], weights=self.n[is_in, :2].sum(axis=1), minlength=groups)
        is_large = labelled >= HISTOGRAM_FROM
        parts: list[Ints] = []
        if is_large.any():
            parts += added(self.of_cells, of_cell, np.flatnonzero(is_large))
        if not is_large.all():
            parts.append(self.sorted_rows(np.where(is_in & ~is_large[of_cell], of_cell, -1)))
        if len(parts) == 1:
            return parts[0]
        found = np.concatenate(parts, axis=1)
        return found[:, np.argsort(found[0], kind="stable")]

    def sorted_rows(self, of_cell: Ints) -> Ints:
        """Of the cells of small groups: their rows, one by one, those of one score together."""
        is_in = (of_cell >= 0)[self.of_row] & (self.outcome < 2)
        packed = (of_cell[self.of_row[is_in]] << 31) | (self.score[is_in].astype(np.int64) << 1) | self.outcome[is_in]
        packed.sort()
        if not len(packed):
            return np.empty((4, 0), dtype=np.int64)
        place = packed >> 1
        starts = np.append(0, np.flatnonzero(place[1:] != place[:-1]) + 1)
        positives = np.add.reduceat(packed & 1, starts)
        n = np.diff(np.append(starts, len(packed)))
        return np.stack([place[starts] >> 30, place[starts] & (2**30 - 1), positives, n - positives])

    @cached_property
    def of_cells(self) -> Ints:
        """Histograms of all cells, without what is empty: cell, bin, positives, negatives."""
        found = []
        for first in range(0, len(self.n), CHUNK):
            size = min(CHUNK, len(self.n) - first)
            counts = np.zeros(size * BINS * 2, dtype=np.int32)
            for start in range(0, len(self.score), PIECE):
                self.count_piece(slice(start, start + PIECE), first, size, counts)
            at = np.flatnonzero(counts.view(np.int64))  # both outcomes of a bin in one look
            found.append(np.stack([at // BINS + first, at % BINS, counts[at * 2 + 1], counts[at * 2]]))
        return np.concatenate(found, axis=1)

    def count_piece(self, piece: slice, first: int, size: int, counts: NDArray[np.int32]) -> None:
        """Count some rows of ``size`` cells from ``first`` on into cell, bin and outcome."""
        key = np.minimum((STEPS * np.arcsin(np.sqrt(self.score[piece] / SCORE_UNIT))).astype(np.int64), BINS - 1)
        cell, outcome = self.of_row[piece], self.outcome[piece]
        key += (cell - first) * np.int64(BINS)
        key *= 2
        key += outcome
        is_counted = outcome < 2
        if size < len(self.n):
            is_counted &= (cell >= first) & (cell < first + size)
        np.add.at(counts, key if is_counted.all() else key[is_counted], np.int32(1))


def added(hits: Ints, of_cell: Ints, large: Ints) -> Iterator[Ints]:
    """Histograms of groups from those of their cells, a few groups at a time."""
    middles = np.rint(SCORE_UNIT * np.sin((np.arange(BINS) + 0.5) * np.pi / (2 * BINS)) ** 2).astype(np.int64)
    cell, bins, positives, negatives = hits
    is_in = of_cell >= 0
    if len(large) == is_in.sum() and (np.diff(of_cell[is_in]) > 0).all():  # each group is one cell
        kept = is_in[cell]
        yield np.stack([of_cell[cell], middles[bins], positives, negatives])[:, kept]
        return
    for start in range(0, len(large), CHUNK):
        some = large[start : start + CHUNK]
        place = np.full(int(of_cell.max()) + 2, -1, dtype=np.int64)  # the last one is that of -1
        place[some] = np.arange(len(some))
        at = place[of_cell[cell]]
        is_in = at >= 0
        key, size = at[is_in] * BINS + bins[is_in], len(some) * BINS
        of_group = [np.bincount(key, weights=n[is_in], minlength=size) for n in (positives, negatives)]
        filled = np.flatnonzero(of_group[0] + of_group[1])
        counts = [n[filled].astype(np.int64) for n in of_group]
        yield np.stack([some[filled // BINS], middles[filled % BINS], *counts])


def placements(ordered: Ints, size: int) -> dict[str, Array]:
    """What an AUC needs of each group: see ``metrics.Counts``."""
    found = {name: np.zeros(size) for name in BELOW}
    number, _, positives, negatives = ordered
    if not len(number):
        return found
    starts = np.append(0, np.flatnonzero(number[1:] != number[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(number)))

    def upward(counts: Ints) -> tuple[Ints, Ints]:
        total = np.cumsum(counts)
        before = np.repeat(total[starts] - counts[starts], lengths)
        return total - before, np.repeat(np.add.reduceat(counts, starts), lengths)

    negatives_so_far, _ = upward(negatives)
    positives_so_far, all_positives = upward(positives)
    below = (2 * negatives_so_far - negatives).astype(np.float64)
    above = (2 * (all_positives - positives_so_far) + positives).astype(np.float64)
    each = {"below": below * positives, "below_squares": below**2 * positives, "above_squares": above**2 * negatives}
    for name, values in each.items():
        found[name][number[starts]] = np.add.reduceat(values, starts)
    return found
