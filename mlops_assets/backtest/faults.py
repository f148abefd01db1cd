"""What goes wrong, how much, and what it does to a stored profile: the catalogue of injected faults.

A fault takes the profiles of some days and gives them back as they would have been. Counts, sums and null shares are
exact; a histogram is moved as if the values of a bin lay evenly between its edges, and an open end was as wide as its
neighbour. ``benchmarks/monitor_faults.py`` breaks rows instead, which is exact and takes the rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Profiles = pd.DataFrame
"""Rows of one column and some days: ``n, nulls, total, squares, is_constant, out_of_range, new_category, counts,
edges``."""
Kind = Literal["number", "text", "rows"]


@dataclass(frozen=True)
class Fault:
    """One kind of fault: how profiles look under it, and on which columns it can happen.

    ``breaks`` gets the profiles of the faulty days and the standard deviation of the column's values before them.
    """

    name: str
    breaks: Callable[[Profiles, float], Profiles]
    on: tuple[Kind, ...] = ("number",)


def moved_counts(counts: Sequence[float], edges: Sequence[float], factor: float, offset: float) -> list[float]:
    """A histogram after every value x became ``factor * x + offset``.

    >>> moved_counts([0, 4, 0], [0.0, 2.0], 1.0, 1.0)
    [0.0, 2.0, 2.0]
    """
    ends = np.asarray(edges, dtype="float64")
    whole = np.asarray(counts, dtype="float64")
    width = np.diff(ends) if len(ends) > 1 else np.array([max(abs(float(ends[0])), 1.0)])
    borders = np.concatenate([[ends[0] - width[0]], ends, [ends[-1] + width[-1]]])
    below = np.concatenate([[0.0], np.cumsum(whole)])
    at = (ends - offset) / factor
    reached = np.interp(at, borders, below)
    if factor < 0:
        reached = whole.sum() - reached
    return [float(part) for part in np.diff(np.concatenate([[0.0], reached, [whole.sum()]]))]


def transformed(profiles: Profiles, factor: float, offset: float) -> Profiles:
    """Profiles after every value x became ``factor * x + offset``."""
    valued = profiles["n"] - profiles["nulls"]
    squares = factor**2 * profiles["squares"] + 2 * factor * offset * profiles["total"] + valued * offset**2
    pairs = zip(profiles["counts"], profiles["edges"], strict=True)
    counts = [moved_counts(c, e, factor, offset) if _is_binned(c, e) else c for c, e in pairs]
    ends = [c[0] + c[-1] if _is_binned(c, e) else np.nan for c, e in zip(counts, profiles["edges"], strict=True)]
    return profiles.assign(
        total=factor * profiles["total"] + valued * offset,
        squares=squares,
        counts=_column(counts, profiles),
        out_of_range=ends,
    )


def _column(values: Sequence[object], beside: Profiles) -> pd.Series:
    return pd.Series(list(values), index=beside.index, dtype="object")


def _is_binned(counts: object, edges: object) -> bool:
    return isinstance(counts, list | np.ndarray) and isinstance(edges, list | np.ndarray) and len(edges) > 0


def shifted(stds: float) -> Callable[[Profiles, float], Profiles]:
    """Every value moves by so many standard deviations."""
    return lambda profiles, std: transformed(profiles, 1.0, stds * std)


def scaled(times: float) -> Callable[[Profiles, float], Profiles]:
    """Every value in another unit."""
    return lambda profiles, std: transformed(profiles, times, 0.0)


def without(share: float) -> Callable[[Profiles, float], Profiles]:
    """A share of the values is missing, whichever they are."""

    def broken(profiles: Profiles, std: float) -> Profiles:
        valued, kept = profiles["n"] - profiles["nulls"], 1.0 - share
        parts = {name: profiles[name] * kept for name in ("total", "squares", "out_of_range", "new_category")}
        return profiles.assign(
            nulls=profiles["nulls"] + valued * share, counts=_column(_thinned(profiles, kept), profiles), **parts
        )

    return broken


def _thinned(profiles: Profiles, kept: float) -> list[object]:
    return [
        np.asarray(c, dtype="float64") * kept if isinstance(c, list | np.ndarray) else c for c in profiles["counts"]
    ]


def stuck(profiles: Profiles, std: float) -> Profiles:
    """The mean of the first day, all the time."""
    valued = profiles["n"] - profiles["nulls"]
    first = profiles.iloc[0]
    value = first["total"] / max(first["n"] - first["nulls"], 1)
    counts = [_one_bin(c, e, value) for c, e in zip(profiles["counts"], profiles["edges"], strict=True)]
    return profiles.assign(
        total=value * valued,
        squares=value * value * valued,
        is_constant=valued > 0,
        counts=_column(counts, profiles),
        out_of_range=0.0,
    )


def _one_bin(counts: object, edges: object, value: float) -> object:
    if not _is_binned(counts, edges):
        return counts
    whole = np.zeros_like(np.asarray(counts, dtype="float64"))
    whole[int(np.searchsorted(np.asarray(edges, dtype="float64"), value))] = float(np.sum(counts))  # type: ignore[call-overload]
    return whole


def renamed(profiles: Profiles, std: float) -> Profiles:
    """The most frequent text is spelt anew: nobody knows it."""
    counts = [np.asarray(c, dtype="float64").copy() for c in profiles["counts"]]
    moved = [float(c.max()) for c in counts]
    for one in counts:
        one[-1] += one.max()
        one[int(np.argmax(one[:-1]))] = 0.0
    return profiles.assign(counts=_column(counts, profiles), new_category=profiles["new_category"] + np.array(moved))


def halved_category(profiles: Profiles, std: float) -> Profiles:
    """Half of the most frequent text becomes the second most frequent one."""
    counts = [np.asarray(c, dtype="float64").copy() for c in profiles["counts"]]
    for one in counts:
        second, first = np.argsort(one)[-2:]
        one[second] += one[first] / 2
        one[first] /= 2
    return profiles.assign(counts=_column(counts, profiles))


def fewer(share: float) -> Callable[[Profiles, float], Profiles]:
    """Only a share of the rows arrived."""
    names = ("n", "nulls", "total", "squares", "out_of_range", "new_category")

    def broken(profiles: Profiles, std: float) -> Profiles:
        return profiles.assign(
            counts=_column(_thinned(profiles, share), profiles), **{name: profiles[name] * share for name in names}
        )

    return broken


SIZES = {
    "shift 0.5 sd": 0.5, "shift 1 sd": 1.0, "unit x1.6": 1.6, "sign flip": -1.0, "null 3 %": 0.03, "null 6 %": 0.06,
    "null 20 %": 0.20, "a third missing": 2 / 3,
}  # fmt: skip
"""What kinds of faults are called, and how large they are, here and in ``benchmarks/monitor_faults.py``."""

CATALOGUE = (
    *(Fault(name, shifted(SIZES[name])) for name in ("shift 0.5 sd", "shift 1 sd")),
    *(Fault(name, scaled(SIZES[name])) for name in ("unit x1.6", "sign flip")),
    *(Fault(name, without(SIZES[name]), ("number", "text")) for name in ("null 3 %", "null 20 %")),
    Fault("stuck", stuck),
    Fault("category renamed", renamed, ("text",)),
    Fault("categories mixed", halved_category, ("text",)),
    Fault("a third missing", fewer(SIZES["a third missing"]), ("rows",)),
)
