"""Who answers which requests, beside the champion."""

from typing import Literal

from pydantic import Field

from mlops_assets.service.policy import Policy, Share


class RolloutPolicy(Policy):
    """``holdback_share`` of the requests, always the same ones by hash, stays with the fallback's answer, or, with
    ``holdback_keeps="no_decision"``, gets none: the fallback's score is logged as served, and nobody decides on it.

    Where a label exists only because of our own decision, those requests show what would have happened without the
    champion: 0.01 is 1 %. They are held back from the first release on; before it the prior answers everybody.
    """

    holdback_share: Share = Field(default=0.0, description="Share of requests, 0.01 = 1 %.")
    holdback_keeps: Literal["fallback", "no_decision"] = "fallback"
