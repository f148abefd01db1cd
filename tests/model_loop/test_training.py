"""The same rows and recipe give the same model; a recipe that cannot be followed is refused in words."""

from datetime import date

import numpy as np
import pytest
from model_loop.small_world import CATEGORICAL, NAMES, weeks

from mlops_assets.errors import DeclarationError
from mlops_assets.model_loop.training import (
    fit_tier,
    make_estimator,
    model_version_name,
    plain_params,
    resolve_factory,
    score,
    train_key,
)
from mlops_assets.service.training import ModelTier

BOOSTED = ModelTier(factory="model_loop.factories:boosted", seed=3)


def labelled(per_day: int = 200):
    features, labels = weeks(5, per_day)
    return features.assign(value=labels["value"])


def test_a_refit_gives_the_same_bytes_whatever_the_order_of_the_rows():
    """Above 10,000 rows boosting holds some of them out to stop early: by their position."""
    rows = labelled(per_day=2100)
    scores = [
        score(fit_tier(BOOSTED, frame, NAMES, CATEGORICAL), rows, NAMES)
        for frame in (rows, rows, rows.sample(frac=1, random_state=1))
    ]

    assert scores[0].tobytes() == scores[1].tobytes() == scores[2].tobytes()
    assert np.array_equal(scores[0], np.round(scores[0], 9))


def test_missing_values_and_unseen_categories_are_scored():
    rows = labelled()
    model = fit_tier(BOOSTED, rows, NAMES, CATEGORICAL)
    odd = rows.head(3).copy()
    odd["speed"] = np.nan
    odd["carrier_code"] = [None, "ZZ", "AA"]

    assert np.isfinite(score(model, odd, NAMES)).all()
    assert np.isfinite(score(model, odd.assign(carrier_code=None), NAMES)).all()
    assert score(model, rows.head(0), NAMES).shape == (0,)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "model_loop.nowhere:boosted",
            "model > factory 'model_loop.nowhere:boosted': there is no module 'model_loop.nowhere'. "
            "Write package.module:function of an importable module.",
        ),
        (
            "model_loop.factories:bosted",
            "model > factory 'model_loop.factories:bosted': module 'model_loop.factories' has no 'bosted'. "
            "Name a function that is defined there.",
        ),
        (
            "model_loop.factories:NOT_CALLABLE",
            "model > factory 'model_loop.factories:NOT_CALLABLE': 'NOT_CALLABLE' is a int. "
            "Name a function that returns an estimator.",
        ),
    ],
)
def test_a_factory_that_does_not_resolve_is_named(factory, message):
    with pytest.raises(DeclarationError) as refused:
        resolve_factory(factory)

    assert str(refused.value) == message


def test_a_factory_that_gives_no_classifier_is_named():
    with pytest.raises(DeclarationError, match="returned a list, which has no fit and predict_proba"):
        make_estimator(ModelTier(factory="model_loop.factories:shapeless"), NAMES, CATEGORICAL)


def test_the_train_key_follows_everything_that_decides_a_fit():
    params = plain_params(make_estimator(BOOSTED, NAMES, CATEGORICAL))
    given = {
        "service": "flights", "fingerprint": "f" * 32, "part": "fit", "tier": BOOSTED, "feature_version": "v1",
        "params": params,
    }  # fmt: skip
    other = {
        "service": "trains", "fingerprint": "e" * 32, "part": "all", "feature_version": "v2",
        "tier": ModelTier(factory="model_loop.factories:boosted", seed=4), "params": params | {"boost__max_iter": "16"},
    }  # fmt: skip
    fewer = given | {"tier": BOOSTED.model_copy(update={"max_rows": 1000})}
    keys = [train_key(**given), train_key(**fewer), *(train_key(**(given | {k: v})) for k, v in other.items())]

    assert train_key(**given) == keys[0]
    assert len(set(keys)) == len(keys)
    assert params["boost__max_iter"] == "15"


def test_a_version_is_named_after_its_day_tier_and_key():
    assert model_version_name(date(2013, 1, 31), "fallback", "0123456789") == "2013-01-31-fallback-01234567"
