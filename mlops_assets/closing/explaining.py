"""Third step, explaining: a rule over quality that broke says whether other requests came or the world changed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.closing.block import Block
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.decomposition import MEASURES, Explanation, explain_change
from mlops_assets.monitoring_loop.degradation import INCIDENT, Evaluation
from mlops_assets.monitoring_loop.rules import QualityJudgement

LONGEST_DAYS, SHORTEST_DAYS = 14, 7
"""A window is explained over so many days: fewer say nothing about days, more forget the change."""
BEFORE_DAYS = 21
"""Days before the window that it is compared with; with it they lie within what a block has at hand."""


def explained_quality(world: World, block: Block, judged: Sequence[QualityJudgement]) -> list[QualityJudgement]:
    """The same judgements; what broke and asks for a person has its explanation in its reason."""
    if world.service.task != "binary":  # the loss that is taken apart is that of a chance
        return list(judged)
    known: dict[tuple[date, date, int, str], str] = {}

    def explained(found: Evaluation) -> Evaluation:
        if found.state != "broken" or found.leads_to != INCIDENT or found.prediction_day is None:
            return found
        length = min(max(found.window_days, SHORTEST_DAYS), LONGEST_DAYS)
        key = (found.day, found.prediction_day, length, measure_of(world, found.metric))
        if key not in known:
            explanation = explanation_of(world, block, *key)
            known[key] = f"; {explanation.in_words()}" if explanation else ""
        return replace(found, reason=found.reason + known[key])

    return [replace(one, evaluations=tuple(map(explained, one.evaluations))) for one in judged]


def measure_of(world: World, metric: str) -> str:
    """What is taken apart for a metric: itself if it can be, else the loss that is watched."""
    return metric if metric in MEASURES else world.service.watched_loss


def explanation_of(world: World, block: Block, as_of: date, last: date, length: int, metric: str) -> Explanation | None:
    """Why a measure of the window that ends on ``last`` differs from that of the weeks before it."""
    first = last - timedelta(days=length - 1)
    before = list(days_between(first - timedelta(days=BEFORE_DAYS), first - timedelta(days=1)))
    return explain_change(
        block.con, predictions="predictions", labels="labels", label=world.service.label,
        slices=list(world.service.quality.slices), metric=metric,
        after=list(days_between(first, last)), before=before, as_of=as_of,
    )  # fmt: skip
