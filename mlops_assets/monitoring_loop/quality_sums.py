"""Measure: sums and score orders of all groups at once; a group is a version, or whatever answered, in a slice.

Every row falls into one cell per slice name, one ``bincount`` per sum serves all cells, and groups add cells up, sums
and score histograms alike (``quality_scores.py``): a tenth of the CPU of a loop over scikit-learn
(``benchmarks/daily_quality.py``). Rows go through in pieces that stay in the processor's cache. Sums are sums of whole
numbers that a double holds exactly, so neither the order of the rows nor the company of other days changes a bit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mlops_assets.monitoring_loop.metrics import LOSS_UNIT, Array
from mlops_assets.monitoring_loop.quality_counts import (
    LABELLED_MARK,
    POWERS,
    SCORED_MARK,
    SERVED_MARK,
    SLICED_MARK,
    SUMS,
    named_groups_sql,
)
from mlops_assets.monitoring_loop.quality_scores import HITS, PIECE, SCORE_UNIT, Bools, CellScores, Ints, placements

Codes = NDArray[np.uint64]
Halves = tuple[Array, Array]
HALF = 2.0**26
"""Sums of whole numbers are kept as multiples of this and the rest: each half stays below 2**53."""
EXACT = 0.99 * 2.0**53
"""Up to here a sum of whole numbers, added in any order as doubles, is exact; the check has an error of its own."""
SMALLEST = 2.220446049250313e-16
"""Log loss cuts chances off here, as scikit-learn does."""


@dataclass(frozen=True)
class CellNames:
    """What the rows of each cell have in common: ``who`` and ``part`` stand for names, ``marks`` are *served* and
    *sliced*."""

    state: Ints
    who: Codes
    part: Codes
    marks: Ints


@dataclass(frozen=True)
class Marked:
    """One row per prediction and state: its score, its outcome (0, 1, or 2: not known), and its cell per slice name.

    ``marks`` are those of ``quality_counts.flat_sql``.
    """

    score: NDArray[np.int32]
    marks: NDArray[np.uint8]
    outcome: NDArray[np.uint8]
    cells: tuple[tuple[NDArray[np.int32], CellNames], ...]

    @classmethod
    def of(cls, flat: pa.Table, slices: int) -> "Marked":
        """From the rows of ``quality_flat``, a batch at a time: arrays of a day cost more in page faults than all
        that is computed with them. Without slices all rows share one."""
        score, marks = np.empty(len(flat), dtype=np.int32), np.empty(len(flat), dtype=np.uint8)
        every = [Placer(len(flat)) for _ in range(max(slices, 1))]
        start = 0
        for batch in flat.to_batches(max_chunksize=BATCH):
            at = slice(start, start + len(batch))
            columns = {name: batch.column(name).to_numpy() for name in ("state", "who", "score", "marks")}
            score[at], marks[at] = columns["score"], columns["marks"]
            key = columns["state"].astype(np.uint64)
            key *= ODD
            key ^= columns["who"]
            columns["marks"] = columns["marks"] >> 2 & 3
            key += columns["marks"]
            for number, placer in enumerate(every):
                part = batch.column(f"code_{number}").to_numpy() if slices else np.zeros(len(batch), dtype=np.uint64)
                placer.place(at, key + part * ODD, {**columns, "part": part})
            start += len(batch)
        return cls(score, marks, OUTCOMES[marks], tuple((placer.of_row, placer.names()) for placer in every))


OUTCOMES = np.where(np.arange(256) & SCORED_MARK, np.arange(256) & 3, 2).astype(np.uint8)
"""The outcome of each combination of marks."""
ODD = np.uint64(0x9E3779B97F4A7C15)
"""2**64 by the golden ratio: what is multiplied by it spreads over all bits."""
BATCH = 1 << 16


class Placer:
    """Gives every row the number of its cell; cells are numbered as they come."""

    def __init__(self, rows: int) -> None:
        self.of_row = np.empty(rows, dtype=np.int32)
        self.known: dict[int, int] = {}
        self.cells: list[tuple[int, ...]] = []

    def place(self, at: slice, keys: Codes, columns: Mapping[str, NDArray[Any]]) -> None:
        """Number the rows of a batch, which are of one cell where they have the same key."""
        codes, found = pd.factorize(keys)
        new = [place for place, key in enumerate(found.tolist()) if key not in self.known]
        if new:
            row = np.empty(len(found), dtype=np.int64)
            row[codes] = np.arange(len(codes))
            named = [columns[name][row[new]].tolist() for name in ("state", "who", "part", "marks")]
            self.known.update(zip(found[new].tolist(), range(len(self.known), len(self.known) + len(new)), strict=True))
            self.cells += zip(*named, strict=True)
        self.of_row[at] = np.array([self.known[key] for key in found.tolist()], dtype=np.int32)[codes]

    def names(self) -> CellNames:
        """What the rows of each cell have in common."""
        state, who, part, marks = zip(*self.cells, strict=True) if self.cells else ((), (), (), ())
        return CellNames(
            np.array(state, dtype=np.int64), np.array(who, dtype=np.uint64), np.array(part, dtype=np.uint64),
            np.array(marks, dtype=np.int64),
        )  # fmt: skip


def coded(values: NDArray[np.generic]) -> Ints:
    """Small numbers in place of values."""
    return np.asarray(pd.factorize(values)[0], dtype=np.int64)


def terms(score: NDArray[np.int32], outcome: NDArray[np.uint8], *, is_crossed: bool) -> Iterator[tuple[str, Array]]:
    """What is summed over rows, by name: powers of the score and losses; ``is_crossed``: also of the other outcome."""
    chance = score / SCORE_UNIT
    power = chance
    for name in POWERS:
        yield name, power
        power = power * chance
    is_positive, lost = outcome == 1, SCORE_UNIT - score
    own = surprise(np.where(is_positive, score, lost))
    yield "own", own
    yield "own_squares", own * own
    if is_crossed:
        other = surprise(np.where(is_positive, lost, score))
        yield "other", other
        yield "other_squares", other * other
        yield "product", own * other


def surprise(chance: NDArray[np.int32]) -> Array:
    """Log loss of what happened although its chance was this, in units of a score."""
    found = chance / SCORE_UNIT
    np.maximum(found, SMALLEST, out=found)
    np.log(found, out=found)
    return np.negative(found, out=found)


@dataclass(frozen=True)
class Cells:
    """The finest parts of the rows under one slice name: state, who, slice, whether sliced and whether served.

    ``n`` and sums are (cell, outcome), the latter of values in units of 1e-12, as multiples of 2**26 and the rest.
    """

    names: CellNames
    n: Array
    labelled: Array
    sums: Mapping[str, Halves]

    @classmethod
    def of(cls, marked: Marked, place: int, *, is_crossed: bool) -> "Cells":
        """Count the rows and add up all terms, piece by piece."""
        of_row, names = marked.cells[place]
        cells, sums = len(names.state), {name: list[Array]() for name in SUMS}
        n, piece = np.zeros(cells * 32), max(PIECE, 16 * cells)
        for start in range(0, len(of_row), piece):
            at = slice(start, start + piece)
            key = of_row[at].astype(np.int64)
            n += np.bincount(key * 32 + (marked.marks[at] & LABELLED_MARK | marked.outcome[at]), minlength=cells * 32)
            key = key * 3 + marked.outcome[at]
            for name, values in terms(marked.score[at], marked.outcome[at], is_crossed=is_crossed):
                sums[name] += summed(values, key, cells * 3)
        by_label = n.reshape(cells, 2, 16)
        return cls(
            names, by_label.sum(axis=1)[:, :3], by_label[:, 1].sum(axis=1),
            {name: halves(np.stack(found), cells) for name, found in sums.items() if found},
        )  # fmt: skip


def summed(values: Array, key: Ints, size: int) -> list[Array]:
    """Sums per key of values in units of 1e-12: exact ones, in one array or, where that would not do, in two."""
    whole = values * LOSS_UNIT
    np.rint(whole, out=whole)
    if whole.sum() < EXACT:
        return [counted(key, whole, size)]
    upper = np.floor(whole / HALF)
    return [counted(key, upper, size) * HALF, counted(key, whole - upper * HALF, size)]


def halves(sums: Array, cells: int) -> Halves:
    """Rows of sums added up per cell and outcome, in two halves."""
    upper = np.floor(sums / HALF)
    rest = sums - upper * HALF
    return upper.sum(axis=0).reshape(cells, 3), rest.sum(axis=0).reshape(cells, 3)


def counted(key: Ints, weights: Array, size: int) -> Array:
    """Sums of weights per key."""
    return np.asarray(np.bincount(key, weights=weights, minlength=size), dtype=np.float64)


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


def all_groups(names: CellNames, facet: int) -> Iterator[Groups]:
    """Versions and whatever answered, in every slice of one name; with the first name also in slice *all*."""
    everywhere, is_sliced = np.ones(len(names.state), dtype=bool), names.marks & (SLICED_MARK >> 2) != 0
    served, state = names.marks & (SERVED_MARK >> 2) != 0, coded(names.state)
    who, part = coded(names.who), coded(names.part)
    who = coded(who * (int(state.max(initial=-1)) + 1) + state)
    width = int(part.max(initial=-1)) + 1
    if facet <= 0:
        yield Groups.of(who, everywhere, facet=-1, is_served=False)
        yield Groups.of(state, served, facet=-1, is_served=True)
    if facet >= 0:
        yield Groups.of(who * width + part, is_sliced, facet=facet, is_served=False)
        yield Groups.of(state * width + part, is_sliced & served, facet=facet, is_served=True)


def count_groups(con: duckdb.DuckDBPyConnection, flat: pa.Table, slices: int, *, is_crossed: bool) -> None:
    """Put ``quality_counts`` and ``quality_hits`` into the engine, from the rows of ``quality_flat``.

    Args:
        slices: how many slice names the rows have.
    """
    marked = Marked.of(flat, slices)
    counts: list[pa.Table] = [no_counts()]
    hits: list[Ints] = [np.empty((4, 0), dtype=np.int64)]
    known = 0
    for place, (of_row, names) in enumerate(marked.cells):
        cells = Cells.of(marked, place, is_crossed=is_crossed)
        scores = CellScores(of_row, marked.outcome, marked.score, cells.n)
        for groups in all_groups(names, place if slices else -1):
            if not len(groups.cell):
                continue
            ordered = scores.of_groups(groups.of_cell, len(groups.cell))
            found = counts_of_groups(cells, groups)
            number = known + np.arange(len(groups.cell))
            counts.append(pa.table({"number": number, **found, **placements(ordered, len(number))}))
            hits.append(np.concatenate([number[ordered[:1]], ordered[1:]]))
            known += len(number)
    put_named(con, pa.concat_tables(counts), np.concatenate(hits, axis=1))


GROUP = ["number", "who", "code", "state", "facet", "is_served"]
NAMES = ["state", "group_id", "version", "role", "slice"]


def put_named(con: duckdb.DuckDBPyConnection, counts: pa.Table, hits: Ints) -> None:
    """Put the counts and the scores of the groups that have a name into the engine, which reads them where they are."""
    con.register("quality_groups", counts.select(GROUP))
    named = con.sql(named_groups_sql()).to_arrow_table()
    con.unregister("quality_groups")
    number = named["number"].to_numpy()
    sums = counts.drop_columns(GROUP).take(number)
    columns = {name: named[name] for name in NAMES} | {name: sums[name] for name in sums.column_names}
    con.register("quality_counts", pa.table(columns))
    place = np.full(len(counts), -1, dtype=np.int64)
    place[number] = np.arange(len(number))
    place = place[hits[0]]
    is_named = place >= 0
    by_group = {name: named[name].to_numpy()[place[is_named]] for name in ("state", "group_id")}
    con.register("quality_hits", pa.table({**by_group, **dict(zip(HITS[1:], hits[1:, is_named], strict=True))}))


def no_counts() -> pa.Table:
    """The counts of no group."""
    names = [*GROUP, "n", "n_labelled", "positives", "negatives"]
    sums = [f"{name}_{y}" for name in SUMS for y in (1, 0)]
    kinds = dict.fromkeys([*names, *sums, *placements(np.empty((4, 0), np.int64), 0)], "float64")
    kinds |= dict.fromkeys(["number", "state", "facet"], "int64") | {"who": "uint64", "code": "uint64"}
    kinds |= {"is_served": "bool"}
    return pa.table({name: np.empty(0, dtype=kind) for name, kind in kinds.items()})


def counts_of_groups(cells: Cells, groups: Groups) -> dict[str, object]:
    """Predictions, labels and sums of each group; a sum that was not asked for is 0."""
    n, names, cell = groups.added(cells.n), cells.names, groups.cell
    found: dict[str, object] = {
        "who": names.who[cell], "code": names.part[cell], "state": names.state[cell],
        "facet": np.full(len(cell), groups.facet), "is_served": np.full(len(cell), groups.is_served),
        "n": n.sum(axis=1), "n_labelled": groups.added(cells.labelled), "positives": n[:, 1], "negatives": n[:, 0],
    }  # fmt: skip
    for name in SUMS:
        if name in cells.sums:
            upper, rest = (groups.added(half) for half in cells.sums[name])
            total = upper * HALF + rest
        else:
            total = np.zeros_like(n)
        found |= {f"{name}_{y}": total[:, y] for y in (1, 0)}
    return found
