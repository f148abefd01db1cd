"""One writer at a time: how somebody waits who wants to close days while another does."""

import time
from collections.abc import Callable

from mlops_assets.closing.world import SHARED, World
from mlops_assets.errors import LeaseHeldError

POLL_SECONDS = 1.0


def wait_for_lease(world: World, *, seconds: float, say: Callable[[str], None]) -> None:
    """Wait until nobody else writes this service or its sources.

    Raises:
        LeaseHeldError: somebody still does after ``seconds``; names who.
    """
    deadline = time.monotonic() + seconds
    said = False
    while holder := world.ledger.holder(world.name) or world.ledger.holder(SHARED):
        who = f"{holder['holder']} (process {holder['pid']} on {holder['host']})"
        if time.monotonic() >= deadline:
            raise LeaseHeldError(
                f"service '{world.name}' is still being written by {who} after {seconds:.0f} s. "
                "One writer at a time: wait for it, or end it, then run the same command again."
            )
        if not said:
            say(f"{who} is writing service '{world.name}'; waiting up to {seconds:.0f} s for it")
            said = True
        time.sleep(POLL_SECONDS)
