"""When the champion gives its place back without a person."""

from typing import Literal

from pydantic import Field

from mlops_assets.service.policy import Policy


class RollbackPolicy(Policy):
    """Automatic rollback: a severe finding of one of these kinds, at most once in ``window_days``.

    ``quality``: a declared rule over labels is broken; ``objective``: a promised level of latency, errors or quality
    that was declared severe is missed. Only answers of the champion count: a breach about days before it took the
    place is none of its doing. A shift of inputs alone never rolls back. The second time within the window people are
    paged and decide. An empty ``on`` switches it off.
    """

    on: tuple[Literal["quality", "objective"], ...] = ("quality", "objective")
    window_days: int = Field(default=14, ge=1)
