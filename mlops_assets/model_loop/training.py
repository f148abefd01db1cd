"""Fit one model, reproducibly: the same rows and recipe give the same scores, to the last bit on one machine."""

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.errors import DeclarationError
from mlops_assets.service.training import ModelTier

Factory = Callable[[Sequence[str], Sequence[str], int], Any]
"""``factory(feature names, categorical ones among them, seed)`` gives an unfitted scikit-learn estimator."""

DECIMALS = 9
"""Decimals of a score: decisions are taken on the stored value."""


def resolve_factory(reference: str) -> Factory:
    """The function that ``package.module:function`` names.

    Raises:
        DeclarationError: no such module, no such name in it, or it cannot be called.
    """
    where = f"model > factory '{reference}'"
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise DeclarationError(
            where, f"there is no module '{error.name}'.", "Write package.module:function of an importable module."
        ) from error
    factory = getattr(module, name, None)
    if factory is None:
        raise DeclarationError(
            where, f"module '{module_name}' has no '{name}'.", "Name a function that is defined there."
        )
    if not callable(factory):
        raise DeclarationError(
            where, f"'{name}' is a {type(factory).__name__}.", "Name a function that returns an estimator."
        )
    return factory  # type: ignore[no-any-return]


def make_estimator(tier: ModelTier, feature_names: Sequence[str], categorical: Sequence[str]) -> Any:
    """The unfitted estimator of a tier.

    Raises:
        DeclarationError: the factory does not resolve, or what it returns cannot give probabilities.
    """
    estimator = resolve_factory(tier.factory)(tuple(feature_names), tuple(categorical), tier.seed)
    if not (hasattr(estimator, "fit") and hasattr(estimator, "predict_proba")):
        raise DeclarationError(
            f"model > factory '{tier.factory}'",
            f"it returned a {type(estimator).__name__}, which has no fit and predict_proba.",
            "Return a scikit-learn classifier or pipeline.",
        )
    return estimator


def fit_tier(tier: ModelTier, frame: pd.DataFrame, feature_names: Sequence[str], categorical: Sequence[str]) -> Any:
    """Fit a tier on ``frame(request_id, value, <features>)``.

    Rows are put in order of request id, because boosting depends on it (another order moved scores by up to
    .21); numbers are float64, categories text; one thread, because two on a busy machine take twenty times
    longer. ``value`` 1 is the outcome whose chance the model gives.

    Raises:
        DeclarationError: see ``make_estimator``.
        ValueError: scikit-learn cannot fit these rows (only one outcome among them, say).
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = make_estimator(tier, feature_names, categorical)
    ordered = frame.sort_values("request_id", kind="stable")
    outcomes = ordered["value"].to_numpy(dtype="float64").astype(np.int64)
    with threadpool_limits(limits=1):
        model.fit(model_inputs(ordered, feature_names, categorical), outcomes)
    return model


def model_inputs(
    frame: pd.DataFrame, feature_names: Sequence[str], categorical: Sequence[str] | None = None
) -> pd.DataFrame:
    """The features of a frame as models get them: float64 with NaN, and text (``str``) with NaN.

    ``categorical`` None: columns that are not numbers are text, as they come out of the ``features`` table.
    """

    def typed(name: str) -> Any:
        column = frame[name]
        is_number = pd.api.types.is_numeric_dtype(column.dtype)
        if not is_number if categorical is None else name in categorical:
            return column.astype("str").to_numpy(dtype=object, na_value=np.nan)
        return column.to_numpy(dtype="float64", na_value=np.nan)

    inputs = pd.DataFrame({name: typed(name) for name in feature_names})
    texts = [name for name in feature_names if inputs[name].dtype != np.float64]
    return inputs.astype(dict.fromkeys(texts, "str"))


def score(model: Any, frame: pd.DataFrame, feature_names: Sequence[str]) -> NDArray[np.float64]:
    """Chance of the positive outcome per row of ``frame``, with 9 decimals, in the order of its rows."""
    from threadpoolctl import threadpool_limits

    if frame.empty:
        return np.empty(0)
    with threadpool_limits(limits=1):
        chances = model.predict_proba(model_inputs(frame, feature_names))[:, 1]
    return np.asarray(np.round(chances, DECIMALS), dtype=np.float64)


def source_hash(tier: ModelTier) -> str:
    """SHA-256 of the source of the module that defines the tier's factory."""
    module = inspect.getmodule(resolve_factory(tier.factory))
    if module is None:
        raise DeclarationError(
            f"model > factory '{tier.factory}'", "its module cannot be found.", "Define it in a file."
        )
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest()


def plain_params(estimator: Any) -> dict[str, str]:
    """Parameters of an estimator that are plain values or lists of them, by name; for MLflow and the train key."""
    plain = (str, int, float, bool, type(None))
    found = {}
    for name, value in sorted(estimator.get_params(deep=True).items()):
        if isinstance(value, plain) or (isinstance(value, list | tuple) and all(isinstance(v, plain) for v in value)):
            found[name] = repr(value)
    return found


def train_key(
    *,
    service: str,
    fingerprint: str,
    part: str,
    tier: ModelTier,
    feature_version: str,
    params: Mapping[str, str],
) -> str:
    """Hex SHA-256 of everything that decides a fit: same key, same model.

    Args:
        fingerprint: of the snapshot; ``part``: which of its rows (``fit`` or ``all``).
        params: ``plain_params`` of the unfitted estimator. The factory, its seed, its ``max_rows`` and the source
            of its module are taken from ``tier``.
    """
    parts = {
        "service": service, "fingerprint": fingerprint, "part": part, "factory": tier.factory,
        "source": source_hash(tier), "seed": tier.seed, "max_rows": tier.max_rows, "feature_version": feature_version,
        "params": dict(params),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def model_version_name(day: date, tier: str, key: str) -> str:
    """``<training day>-<tier>-<first 8 of the train key>``.

    >>> model_version_name(date(2013, 1, 31), "champion", "c0ffee1234")
    '2013-01-31-champion-c0ffee12'
    """
    return f"{day}-{tier}-{key[:8]}"
