"""What batch scoring writes down about an answer: what was decided on it and what it cost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from toy_stories import stored, untrained
from toy_world import a_service, a_world, close, deliver_all, span

from mlops_assets import ModelPolicy, ModelTier, RolloutPolicy
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


@pytest.mark.slow
def test_a_holdback_may_get_no_decision_at_all_and_the_others_still_do(tmp_path: Path) -> None:
    """From the first release on a tenth of the parcels is answered by nobody: their labels owe nothing to us."""
    declared = a_service().model
    rollout = declared.rollout.model_copy(update={"holdback_share": 0.1, "holdback_keeps": "no_decision"})
    model = declared.model_copy(update={"threshold": 0.3, "rollout": rollout})
    world = a_world(tmp_path, a_service(model=model))
    deliver_all(world.home.landing, span(0, 16))
    close(world, span(0, 16))
    asked = stored(world, "predictions").query("served and role != 'prior'")
    held = asked["role"] == "fallback"
    assert 0 < held.sum() < 0.3 * len(asked) and set(asked["bucket"][held] // 1000) == {0}
    assert asked["decision"][held].isna().all() and asked["decision"][~held].notna().all()
    assert asked["score"][held].notna().all()


def test_no_decision_needs_a_decision_to_leave_out() -> None:
    rollout = RolloutPolicy(holdback_share=0.1, holdback_keeps="no_decision")
    with pytest.raises(ValueError, match="leaves a decision out, and threshold is not declared; declare it, or leave"):
        ModelPolicy(**{**a_service().model.model_dump(), "rollout": rollout})


def test_without_a_fallback_nobody_is_held_back_and_the_prior_answers_everybody() -> None:
    rollout = RolloutPolicy(holdback_share=0.2)
    assert buckets_of("champion", ("champion",), rollout) == (0, 10_000)
    assert buckets_of("prior", (), rollout) == (0, 10_000)
    assert buckets_of("fallback", ("champion", "fallback"), RolloutPolicy()) == (0, 0)
