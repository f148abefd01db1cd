"""What batch scoring writes down about an answer: what was decided on it and what it cost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from toy_stories import stored, untrained
from toy_world import a_service, a_world, close, deliver_all, span

from mlops_assets import ModelTier, RolloutPolicy
from mlops_assets.adapters.engine import open_engine, put, run
from mlops_assets.closing.block import buckets_of, cost_of
from mlops_assets.feedback_loop.prediction_log import log_sql
from mlops_assets.tables import BY_NAME


def test_a_declared_threshold_makes_every_score_a_decision(tmp_path: Path) -> None:
    """The prior says 0.3 to everybody: at a threshold of 0.3 that is a yes."""
    model = untrained().model
    for threshold, decided in ((0.3, {True}), (0.31, {False}), (None, set())):
        world = a_world(tmp_path / str(threshold), untrained(model=model.model_copy(update={"threshold": threshold})))
        deliver_all(world.home.landing, span(0, 1))
        close(world, span(0, 1))
        assert set(stored(world, "predictions")["decision"].dropna()) == decided


def test_a_prediction_costs_what_its_tier_declares_and_the_prior_nothing() -> None:
    champion = ModelTier(factory="toy_world:linear", cost_per_prediction=0.02)
    model = a_service().model.model_copy(update={"champion": champion})
    assert [cost_of(model, role) for role in ("champion", "fallback", "prior")] == [0.02, None, 0.0]


def test_a_declared_holdback_keeps_the_fallbacks_answer() -> None:
    """A fifth of the requests, always the same ones, is answered by the fallback, and says so in its propensity."""
    rollout, roles = RolloutPolicy(holdback_share=0.2), ("champion", "fallback")
    scored = pd.DataFrame({"request_id": [f"r{n}" for n in range(1000)], "day": pd.Timestamp("2024-03-01")})
    with open_engine() as con:
        run(con, BY_NAME["predictions"].create_sql())
        for role in roles:
            lowest, below = buckets_of(role, roles, rollout)
            rows = scored.assign(
                model_version=role, role=role, from_bucket=lowest, to_bucket=below, score=0.5, feature_version="f",
                context="{}", predicted_at=pd.Timestamp("2024-03-01 08:00"), latency_ms=1.0, cost=0.0,
            )  # fmt: skip
            put(con, "scored", rows)
            run(con, log_sql("parcels", scored="scored", into="predictions", threshold=None))
        served = con.sql("select request_id, role, bucket, propensity from predictions where served").df()
    assert served["request_id"].is_unique and len(served) == 1000
    held, rest = served[served["role"] == "fallback"], served[served["role"] == "champion"]
    assert set(held["propensity"]) == {0.2} and (held["bucket"] < 2000).all() and 150 < len(held) < 250
    assert set(rest["propensity"]) == {0.8} and (rest["bucket"] >= 2000).all()


def test_without_a_fallback_nobody_is_held_back_and_the_prior_answers_everybody() -> None:
    rollout = RolloutPolicy(holdback_share=0.2)
    assert buckets_of("champion", ("champion",), rollout) == (0, 10_000)
    assert buckets_of("prior", (), rollout) == (0, 10_000)
    assert buckets_of("fallback", ("champion", "fallback"), RolloutPolicy()) == (0, 0)
