"""Which features does a candidate depend on? What shuffling each of them adds to its loss on rows it has not seen."""

from collections.abc import Callable, Sequence
from math import fsum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Loss = Callable[[Floats, Floats], float]

MAX_ROWS = 1000
"""Judged rows that are shuffled: the error of an importance falls with their root, the time grows with them."""
IMPORTANCE = "importance"
"""Its name among the metrics of ``evaluation``; the slice names the feature."""
SEED = 7


def permutation_importance(
    rows: pd.DataFrame,
    names: Sequence[str],
    *,
    scores: Callable[[pd.DataFrame], Floats],
    loss: Loss,
) -> dict[str, float]:
    """Feature -> mean loss with the feature shuffled among the rows, minus the loss as it is; 9 decimals.

    About zero: the model does not need it, or another feature says the same. All features are shuffled by the same
    order, and the rows are every n-th of the given ones, so the same rows give the same numbers.

    Args:
        rows: judged rows in a fixed order, with ``value`` and the features.
        names: the features.
        scores: what the model says to such rows.
        loss: of outcomes and scores.

    Source: L. Breiman, Random Forests, Machine Learning 45 (2001), 5-32.
    """
    sample = rows.iloc[:: max(1, -(-len(rows) // MAX_ROWS))].reset_index(drop=True)
    outcomes = sample["value"].to_numpy(dtype="float64")
    order = np.random.default_rng(SEED).permutation(len(sample))
    before = loss(outcomes, scores(sample))
    shuffled = {name: sample.assign(**{name: sample[name].to_numpy()[order]}) for name in names}
    return {name: round(fsum((loss(outcomes, scores(table)), -before)), 9) for name, table in shuffled.items()}
