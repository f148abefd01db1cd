"""What batch scoring writes down about an answer: what was decided on it and what it cost."""

from __future__ import annotations

from pathlib import Path

from toy_stories import stored, untrained
from toy_world import a_service, a_world, close, deliver_all, span

from mlops_assets import ModelTier
from mlops_assets.closing.block import cost_of


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
