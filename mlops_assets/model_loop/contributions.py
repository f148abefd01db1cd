"""How much each feature moved one score: the score beside the one that a typical value would have given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Scorer = Callable[[pd.DataFrame], NDArray[np.float64]]


def contributions(row: pd.DataFrame, typical: Mapping[str, Any], *, names: Sequence[str], score: Scorer) -> pd.Series:
    """Score minus the score with one feature at its typical value, largest first; one entry per feature.

    It asks the model itself, whatever kind it is. The parts do not add up to the score: features that say the same
    thing hide each other.

    Args:
        row: one row with the features of one request.
        typical: feature -> the value it usually has; missing stands for a feature without one.
        names: the features of the model.
        score: chance of the positive outcome of each row.

    Source: leave-one-feature-out explanation, M. Robnik-Sikonja and I. Kononenko, IEEE Transactions on Knowledge
    and Data Engineering 20 (2008), 589-600.
    """
    tried = pd.concat([row] * (len(names) + 1), ignore_index=True)
    for place, name in enumerate(names, start=1):
        tried.loc[place, name] = typical.get(name, np.nan)
    scores = score(tried)
    moved = pd.Series(scores[0] - scores[1:], index=list(names))
    return moved[moved.abs().sort_values(ascending=False, kind="stable").index]
