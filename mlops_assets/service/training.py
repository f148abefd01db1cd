"""Model tiers, when to retrain, and what a candidate has to show."""

from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from mlops_assets.service.degradation import DegradationRule
from mlops_assets.service.policy import Days, Identifier, Policy, Share
from mlops_assets.service.rollout import RolloutPolicy


class ModelTier(Policy):
    """One grade of model: a factory ``package.module:function`` that returns an unfitted scikit-learn
    pipeline, given the feature names and the categorical ones among them.

    ``max_rows``: a fit learns from at most so many of its rows, drawn by a hash of seed and request id, so that a
    training costs the same in December as in March; None: from all. ``cost_per_prediction`` is money, in the
    currency of the service; None: not known.
    """

    factory: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    seed: int = 0
    max_rows: int | None = Field(default=None, ge=1000)
    cost_per_prediction: float | None = Field(default=None, ge=0)


class GatePolicy(Policy):
    """What a candidate must show on the newest mature days, which it was not fitted on."""

    judged_days: int = Field(default=14, ge=3)
    max_loss_increase_share: Share = Field(
        default=0.01, description="Non-inferiority margin: share of the champion's loss, 0.01 = 1 %."
    )
    champion_age_days: Days = Field(
        default=25, description="From this age on, being younger and not worse is reason enough."
    )
    min_labels: int = Field(default=200, ge=1)


class ModelPolicy(Policy):
    """How models of this service come to be.

    ``prior`` is the score of every request until the first release. ``cadence`` decides on the last day of
    each month (``monthly``) or on Sundays (``weekly``); ``approval`` says whether a passed gate is enough.
    ``threshold``: a score at or above it is a positive decision; None: nobody decides on the score alone.

    ``retrain_when`` retrains beside the cadence: rules over what was served, for instance *calibration_ratio
    over 14 days above 1.25*. After a decision to train, whatever its reason, such a rule stays silent for
    ``cool_down_days``: the days it looks at were answered by the version before. A freeze wins over both.
    """

    champion: ModelTier
    fallback: ModelTier
    prior: Share
    threshold: Share | None = None
    primary_metric: Literal["brier", "log_loss"] = "brier"
    training_window_days: int | None = Field(default=None, ge=1, description="None: all mature days.")
    cadence: Literal["monthly", "weekly", "never"] = "monthly"
    gate: GatePolicy = GatePolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    retrain_when: tuple[DegradationRule, ...] = ()
    cool_down_days: Days = 14
    first_training: date | None = Field(default=None, description="No training before this day.")
    approval: Literal["automatic", "sign_off"] = "automatic"
    registered_name: Identifier | None = None

    @model_validator(mode="after")
    def _there_is_a_decision_to_leave_out(self) -> "ModelPolicy":
        if self.rollout.holdback_keeps == "no_decision" and (self.threshold is None or not self.rollout.holdback_share):
            lacking = "threshold" if self.threshold is None else "rollout.holdback_share"
            raise ValueError(
                f"holdback_keeps 'no_decision' leaves a decision out, and {lacking} is not declared; declare it, or "
                "leave holdback_keeps out"
            )
        return self
