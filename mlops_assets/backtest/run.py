"""The policy backtest from end to end."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mlops_assets.backtest.detectable import smallest_shifts
from mlops_assets.backtest.injecting import Seen, injected, series_count
from mlops_assets.backtest.policy import with_policy
from mlops_assets.backtest.realised import (
    ageing_of,
    beside,
    champions,
    daily_losses,
    estimate,
    realised,
    training_seconds,
)
from mlops_assets.backtest.replaying import closed_range, judge_again
from mlops_assets.backtest.result import Backtest, UnderPolicy, counts_of, retrainings_of
from mlops_assets.closing.world import World
from mlops_assets.service.service import MLService

Counting = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a display: what is counted, and how many there are; what it gives is told how many are done."""


@dataclass(frozen=True)
class Asked:
    """What a backtest is asked: policy, range, how many dates each fault is injected on (0: none), whether to train."""

    policy: Path
    first: date | None = None
    last: date | None = None
    dates: int = 2
    seed: int = 1
    is_trained: bool = False


def backtest(world: World, asked: Asked, counting: Counting) -> Backtest:
    """What a policy would have done over closed days, beside the declared one; nothing in the home changes.

    Raises:
        DeclarationError: the policy file is wrong.
        RangeError: no day of the range is closed.
    """
    proposed, changes = with_policy(world.service, asked.policy, is_trained=asked.is_trained)
    days = closed_range(world, asked.first, asked.last)
    return Backtest(
        service=world.name,
        first=min(days),
        last=max(days),
        changes=changes,
        quality=realised(world, days),
        declared=under(world, world.service, days, asked, counting, "declared"),
        proposed=under(world, proposed, days, asked, counting, "proposed"),
    )


def under(
    world: World, service: MLService, days: Sequence[date], asked: Asked, counting: Counting, name: str
) -> UnderPolicy:
    """Everything about one policy."""
    with counting(f"{name}: days", len(days)) as told:
        judged = judge_again(world, service, days, told)
    seen: tuple[Seen, ...] = ()
    if asked.dates:
        with counting(f"{name}: faults, dates", asked.dates) as told:
            seen = injected(world, judged, dates=asked.dates, seed=asked.seed, told=told)
    trained = None
    if asked.is_trained:
        from mlops_assets.backtest.retrained import quality_when_trained

        with counting(f"{name}: trained, days", (max(days) - service.first_day).days + 1) as told:
            trained = quality_when_trained(world, service, days, told)
    losses, held = daily_losses(world, days, "served"), champions(world, days)
    ageing = ageing_of(beside(losses, daily_losses(world, days, "fallback")), held)
    return UnderPolicy(
        counts=counts_of(judged, training_seconds(world)),
        seen=seen,
        smallest=smallest_shifts(judged.drift, service.drift, series_count(judged.drift)),
        estimate=estimate(losses, held, retrainings_of(judged), ageing),
        trained=trained,
    )
