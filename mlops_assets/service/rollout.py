"""Who answers which requests, beside the champion."""

from pydantic import Field

from mlops_assets.service.policy import Policy, Share


class RolloutPolicy(Policy):
    """``holdback_share`` of the requests, always the same ones by hash, stays with the fallback's answer.

    Where a label exists only because of our own decision, those requests show what would have happened without the
    champion: 0.01 is 1 %. They are held back from the first release on; before it the prior answers everybody.
    """

    holdback_share: Share = Field(default=0.0, description="Share of requests, 0.01 = 1 %.")
