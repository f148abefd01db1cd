"""Small model grades for the tests; a factory must live in a module that can be imported by name."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

NOT_CALLABLE = 3


def boosted(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    columns = ColumnTransformer([("categories", encoder, list(categorical))], remainder="passthrough")
    booster = HistGradientBoostingClassifier(
        max_iter=15, max_leaf_nodes=7, categorical_features=list(range(len(categorical))), random_state=seed
    )
    return Pipeline([("encode", columns), ("boost", booster)])


def logistic(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    numeric = [name for name in features if name not in set(categorical)]
    columns = ColumnTransformer([("impute", SimpleImputer(), numeric)])
    return Pipeline([("numbers", columns), ("logistic", LogisticRegression(random_state=seed))])


def doubled(values: Any) -> Any:
    return values * 2


def homemade(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """Holds a function of ours, which nobody trusts."""
    return Pipeline([("double", FunctionTransformer(doubled)), ("logistic", LogisticRegression())])


def shapeless(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    return [1, 2, 3]
