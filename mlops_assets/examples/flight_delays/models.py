"""The two model grades of the flight service: gradient boosting, and a cheap logistic fallback.

``benchmarks/model_cost.py`` compares these recipes with others: Brier score, AUC and CPU seconds of a year.
"""

from collections.abc import Sequence
from typing import Any


def champion(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """Gradient boosting on all features; missing values are its own business, categories are encoded first."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan
    )  # fmt: skip
    columns = ColumnTransformer(
        [("categories", encoder, list(categorical))], remainder="passthrough", verbose_feature_names_out=False
    )
    booster = HistGradientBoostingClassifier(
        learning_rate=0.15, max_iter=40, max_leaf_nodes=31, min_samples_leaf=300, l2_regularization=50.0, max_bins=64,
        categorical_features=list(range(len(categorical))) or None, early_stopping=False, random_state=seed,
    )  # fmt: skip
    return Pipeline([("encode", columns), ("boost", booster)])


def fallback(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """Logistic regression on imputed, scaled numbers without the categories: cheap, and hard to break."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    numeric = [name for name in features if name not in set(categorical)]
    scaled = Pipeline([("impute", SimpleImputer(strategy="mean")), ("scale", StandardScaler())])
    return Pipeline(
        [
            ("numbers", ColumnTransformer([("scaled", scaled, numeric)])),
            ("logistic", LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-2, random_state=seed)),
        ]
    )
