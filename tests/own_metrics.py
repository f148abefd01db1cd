"""Metrics that the services of some stories bring themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd


def minutes_beyond_twenty(rows: pd.DataFrame) -> float:
    """Mean minutes of error beyond twenty, as often as each row counts."""
    beyond = np.maximum((rows["score"] - rows["value"]).abs() - 20, 0)
    return float(np.average(beyond, weights=rows["weight"]))


def share_of_arm_a(rows: pd.DataFrame) -> float:
    """Share of the value that arm a has; what it reads of the context is text."""
    rows["is_mine"] = rows["arm"] == "a"  # its own copy: nobody else sees this
    return float(rows.loc[rows["is_mine"], "value"].sum() / rows["value"].sum())


def broken_on_short_days(rows: pd.DataFrame) -> float:
    """Written for large days only."""
    if len(rows) < 100:
        raise KeyError("price")
    return float(len(rows))


def brier(rows: pd.DataFrame) -> float:
    """What the package has too."""
    return float(((rows["score"] - rows["value"]) ** 2).mean())
