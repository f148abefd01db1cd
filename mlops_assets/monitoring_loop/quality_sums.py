"""Measure: sums and score orders of all groups at once; a group is a version, or whatever answered, in a slice.

Every row falls into one cell per slice name, one ``bincount`` per sum serves all cells, and groups add cells up: a
third of the CPU of a loop over scikit-learn (``benchmarks/daily_quality.py``), half of it for reading names and rows;
the hash aggregation in the engine that stood here before took two thirds. Sums are sums of whole numbers, in two halves
that a double holds exactly, so neither the order of the rows nor the company of other days changes a bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import run
from mlops_assets.monitoring_loop.metrics import LOSS_UNIT, Array
from mlops_assets.monitoring_loop.quality_counts import (
    BINS,
    HISTOGRAM_FROM,
    POWERS,
    SUMS,
    counts_sql,
    hits_sql,
    marked_rows_sql,
    named_groups_sql,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Halves = tuple[Array, Array]
SCORE_UNIT = 10**9
"""Scores are counted in 1e-9: they are stored with nine decimals."""
HALF = 2.0**26
"""Whole numbers are summed as multiples of this and the rest: each half of a sum stays below 2**53."""
SMALLEST = 2.220446049250313e-16
"""Log loss cuts chances off here, as scikit-learn does."""
CHUNK = 1024
"""Histograms of so many large groups are counted at a time."""


@dataclass(frozen=True)
class Marked:
    """One row per prediction and state: codes of who answered (in which state) and of each of its slices.

    ``states`` names the state of each code. ``outcome`` is 0, 1, or 2: not known. ``marks`` has bits for: served, of a
    state whose slices are asked for (sliced), labelled.
    """

    source: Ints
    state: Ints
    states: Ints
    who: Ints
    slices: tuple[Ints, ...]
    marks: NDArray[np.uint8]
    outcome: Ints
    score: NDArray[np.int32]

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, slices: int) -> "Marked":
        """Read them from ``quality_flat``; without slices all rows share one."""
        fetched: Any = con.execute(marked_rows_sql(slices)).fetchnumpy()
        cells = {name: np.asarray(column) for name, column in fetched.items()}
        found = [coded(cells[f"hash_{n}"]) for n in range(slices)]
        found = found or [np.zeros(len(cells["source"]), dtype=np.int64)]
        state, states = pd.factorize(cells["state"])
        who = coded(cells["who"])
        who += state * (int(who.max(initial=-1)) + 1)
        return cls(
            cells["source"], state, np.asarray(states, dtype=np.int64), who, tuple(found), cells["marks"],
            (cells["marks"] & 3).astype(np.int64), cells["score"],
        )  # fmt: skip


SERVED_MARK, SLICED_MARK, LABELLED_MARK = 4, 8, 16


def coded(values: NDArray[Any]) -> Ints:
    """Small numbers in place of values."""
    return np.asarray(pd.factorize(values)[0], dtype=np.int64)


def terms(marked: Marked, *, is_crossed: bool) -> Iterator[tuple[str, Array]]:
    """What is summed over rows, by name: powers of the score and losses; ``is_crossed``: also of the other outcome.

    One at a time: arrays of a day that live together cost more in page faults than their arithmetic.
    """
    chance = marked.score / SCORE_UNIT
    power = chance
    for name in POWERS:
        yield name, power
        power = power * chance
    is_positive = marked.outcome == 1
    lost = (SCORE_UNIT - marked.score) / SCORE_UNIT
    own = -np.log(np.maximum(np.where(is_positive, chance, lost), SMALLEST))
    yield "own", own
    yield "own_squares", own * own
    if is_crossed:
        other = -np.log(np.maximum(np.where(is_positive, lost, chance), SMALLEST))
        yield "other", other
        yield "other_squares", other * other
        yield "product", own * other


@dataclass(frozen=True)
class Cells:
    """The finest parts of the rows under one slice name: state, who, slice, whether sliced and whether served.

    ``of_row`` is each row's cell, ``row`` a row of each cell. Sums are (cell, outcome).
    """

    of_row: Ints
    row: Ints
    state: Ints
    who: Ints
    slice: Ints
    is_sliced: Bools
    served: Bools
    n: Array
    labelled: Array
    sums: Mapping[str, Halves]

    @classmethod
    def of(cls, marked: Marked, codes: Ints, *, is_crossed: bool) -> "Cells":
        """Count them; sums are of values in units of 1e-12, as multiples of 2**26 and the rest."""
        key = marked.who * (int(codes.max(initial=-1)) + 1) + codes
        key *= 4
        key += (marked.marks >> 2) & 3
        of_row = coded(key)
        cells = int(of_row.max(initial=-1)) + 1
        row = np.zeros(cells, dtype=np.int64)
        row[of_row[::-1]] = np.arange(len(of_row))[::-1]
        marks, is_labelled = marked.marks[row], marked.marks >= LABELLED_MARK
        return cls(
            of_row, row, marked.state[row], marked.who[row], codes[row], marks & SLICED_MARK != 0,
            marks & SERVED_MARK != 0, by_outcome(of_row * 3 + marked.outcome, None, cells),
            np.bincount(of_row[is_labelled], minlength=cells).astype(np.float64),
            split_sums(marked, of_row * 3 + marked.outcome, cells, is_crossed=is_crossed),
        )  # fmt: skip


def by_outcome(key: Ints, values: Array | None, cells: int) -> Array:
    """Sums per cell and outcome."""
    return np.bincount(key, weights=values, minlength=cells * 3).reshape(cells, 3).astype(np.float64)


def split_sums(marked: Marked, key: Ints, cells: int, *, is_crossed: bool) -> dict[str, Halves]:
    """Exact sums of all terms, in two halves; two buffers serve all of them, for the sake of the page faults."""
    upper, rest = np.empty(len(key)), np.empty(len(key))
    found = {}
    for name, values in terms(marked, is_crossed=is_crossed):
        np.multiply(values, LOSS_UNIT, out=rest)
        np.rint(rest, out=rest)
        np.multiply(rest, 1 / HALF, out=upper)
        np.floor(upper, out=upper)
        of_upper = by_outcome(key, upper, cells)
        upper *= HALF
        rest -= upper
        found[name] = (of_upper, by_outcome(key, rest, cells))
    return found


@dataclass(frozen=True)
class Groups:
    """Groups as sums of cells: ``of_cell`` is the group of each cell, -1 for none; ``cell`` is one of each group."""

    of_cell: Ints
    cell: Ints
    facet: int
    is_served: bool

    @classmethod
    def of(cls, keys: Ints, is_in: Bools, *, facet: int, is_served: bool) -> "Groups":
        """The cells that share a key."""
        of_cell = np.full(len(keys), -1, dtype=np.int64)
        of_cell[is_in] = coded(keys[is_in])
        cell = np.zeros(int(of_cell.max(initial=-1)) + 1, dtype=np.int64)
        cell[of_cell[is_in][::-1]] = np.flatnonzero(is_in)[::-1]
        return cls(of_cell, cell, facet, is_served)

    def added(self, of_cells: Array) -> Array:
        """Sums of cells as sums of groups; all are whole numbers, so any order will do."""
        is_in = self.of_cell >= 0
        found = np.zeros((len(self.cell), *of_cells.shape[1:]))
        np.add.at(found, self.of_cell[is_in], of_cells[is_in])
        return found


def all_groups(cells: Cells, facet: int) -> Iterator[Groups]:
    """Versions and whatever answered, in every slice of one name; with the first name also in slice *all*."""
    width = int(cells.slice.max(initial=-1)) + 1
    everywhere = np.ones(len(cells.row), dtype=bool)
    if facet <= 0:
        yield Groups.of(cells.who, everywhere, facet=-1, is_served=False)
        yield Groups.of(cells.state, cells.served, facet=-1, is_served=True)
    if facet >= 0:
        is_in = cells.is_sliced
        yield Groups.of(cells.who * width + cells.slice, is_in, facet=facet, is_served=False)
        yield Groups.of(cells.state * width + cells.slice, is_in & cells.served, facet=facet, is_served=True)


def count_groups(con: duckdb.DuckDBPyConnection, slices: int, *, is_crossed: bool) -> None:
    """Make ``quality_counts`` and ``quality_hits`` from ``quality_flat``, which has ``slices`` slice names."""
    marked = Marked.read(con, slices)
    bins = np.minimum((BINS * 2 / np.pi * np.arcsin(np.sqrt(marked.score / SCORE_UNIT))).astype(np.int64), BINS - 1)
    counted, hits, known = [], [], 0
    for place, codes in enumerate(marked.slices):
        cells = Cells.of(marked, codes, is_crossed=is_crossed)
        for groups in all_groups(cells, place if slices else -1):
            if not len(groups.cell):
                continue
            found = counts_of_groups(marked, cells, groups)
            ordered = scores_of_groups(marked, bins, groups.of_cell[cells.of_row], found)
            counted.append(found.assign(**placements(ordered, len(found)), number=known + np.arange(len(found))))
            hits.append(ordered.assign(number=ordered["number"] + known))
            known += len(found)
    for name, frames, empty in (("counted", counted, COUNTED), ("hits", hits, HITS)):
        con.register(f"quality_{name}_found", pd.concat(frames) if frames else pd.DataFrame(columns=empty, dtype=float))
    for query in (named_groups_sql(slices), hits_sql(), counts_sql()):
        run(con, query)
    for name in ("counted", "hits"):
        con.unregister(f"quality_{name}_found")


HITS = ["number", "score", "positives", "negatives"]
BELOW = ["below", "below_squares", "above_squares"]
WIDE = [f"{name}_{y}" for y in (1, 0) for name in SUMS]
COUNTED = [
    "number",
    "source",
    "state",
    "facet",
    "is_served",
    "n",
    "n_labelled",
    "positives",
    "negatives",
    *WIDE,
    *BELOW,
]


def counts_of_groups(marked: Marked, cells: Cells, groups: Groups) -> pd.DataFrame:
    """Predictions, labels and sums of each group; a sum that was not asked for is 0."""
    n = groups.added(cells.n)
    found: dict[str, object] = {
        "source": marked.source[cells.row[groups.cell]], "state": marked.states[cells.state[groups.cell]],
        "facet": groups.facet, "is_served": groups.is_served,
        "n": n.sum(axis=1), "n_labelled": groups.added(cells.labelled), "positives": n[:, 1], "negatives": n[:, 0],
    }  # fmt: skip
    for name in SUMS:
        if name in cells.sums:
            upper, rest = (groups.added(half) for half in cells.sums[name])
            total = upper * HALF + rest
        else:
            total = np.zeros_like(n)
        found |= {f"{name}_{y}": total[:, y] for y in (1, 0)}
    return pd.DataFrame(found)


def scores_of_groups(marked: Marked, bins: Ints, group: Ints, counted: pd.DataFrame) -> pd.DataFrame:
    """Labelled rows of each group at each score, lowest first.

    From ``HISTOGRAM_FROM`` rows on, the scores of a bin are all taken for its middle.
    """
    is_large = (counted["positives"] + counted["negatives"]).to_numpy() >= HISTOGRAM_FROM
    is_in = (group >= 0) & (marked.outcome < 2)
    of_large = is_in & is_large[group]
    parts = [*binned(group, bins, marked.outcome, of_large, np.flatnonzero(is_large))]
    rest = is_in & ~of_large
    packed = (group[rest] << 31) | (marked.score[rest].astype(np.int64) << 1) | marked.outcome[rest]
    packed.sort()
    if len(packed):
        place = packed >> 1
        starts = np.append(0, np.flatnonzero(place[1:] != place[:-1]) + 1)
        positives = np.add.reduceat(packed & 1, starts)
        n = np.diff(np.append(starts, len(packed)))
        parts.append(np.stack([place[starts] >> 30, place[starts] & (2**30 - 1), positives, n - positives]))
    found = np.concatenate(parts, axis=1) if parts else np.empty((4, 0), dtype=np.int64)
    order = np.argsort(found[0], kind="stable")
    return pd.DataFrame(dict(zip(HITS, found[:, order], strict=True)))


def binned(group: Ints, bins: Ints, outcome: Ints, is_in: Bools, large: Ints) -> Iterator[Ints]:
    """Histograms of the large groups, a few at a time: number, middle of the bin, positives, negatives."""
    middles = np.rint(SCORE_UNIT * np.sin((np.arange(BINS) + 0.5) * np.pi / (2 * BINS)) ** 2).astype(np.int64)
    for start in range(0, len(large), CHUNK):
        some = large[start : start + CHUNK]
        local = np.full(int(group.max()) + 2, -1, dtype=np.int64)
        local[some] = np.arange(len(some))
        chosen = local[group]
        rows = is_in & (chosen >= 0)
        key = (chosen[rows] * BINS + bins[rows]) * 2 + outcome[rows]
        counts = np.bincount(key, minlength=len(some) * BINS * 2).reshape(len(some), BINS, 2)
        at, bin_of = np.nonzero(counts.any(axis=2))
        yield np.stack([some[at], middles[bin_of], counts[at, bin_of, 1], counts[at, bin_of, 0]])


def placements(ordered: pd.DataFrame, size: int) -> dict[str, Array]:
    """What an AUC needs of each group: see ``metrics.Counts``."""
    found = {name: np.zeros(size) for name in BELOW}
    if ordered.empty:
        return found
    number, positives, negatives = (ordered[name].to_numpy(np.int64) for name in ("number", "positives", "negatives"))
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
