"""How good the answers really were, and what that says about training on other days. Measured under the releases that
happened; anything else is an estimate and says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from scipy.special import stdtrit

from mlops_assets.adapters.engine import literal, open_engine, rows
from mlops_assets.closing.world import World
from mlops_assets.tables import BY_NAME

MIN_VERSIONS = 4
"""Fewer versions say nothing about how versions age."""


@dataclass(frozen=True)
class Quality:
    """Mean loss over some prediction days whose labels are final, weighted by their labels."""

    metric: str
    days: int
    labelled: int
    served: float | None
    fallback: float | None


@dataclass(frozen=True)
class Ageing:
    """What a day of age costs: the slope of daily loss on the champion's age, with its 95 % interval."""

    loss_a_day: float
    low: float
    high: float
    versions: int


@dataclass(frozen=True)
class Estimate:
    """Mean loss if the champion had been trained on other days; an estimate, nothing was trained."""

    age_days: float
    realised_age_days: float
    value: float
    low: float
    high: float


Losses = Mapping[date, tuple[float, int]]
"""Prediction day -> mean loss and labels."""


def losses_sql(metric: str, label_version: str, role: str, first: date, last: date) -> str:
    """SQL of ``(prediction_day, value, n_labelled)``: the newest final loss of whole days, as one role had it."""
    return f"""
        select prediction_day, arg_max(value, day), arg_max(n_labelled, day) from quality
        where metric = {literal(metric)} and role = {literal(role)} and slice = 'all' and window_days = 1
          and label_version = {literal(label_version)} and state in ('final', 'restated') and value is not null
          and prediction_day between {literal(first)} and {literal(last)}
        group by prediction_day order by prediction_day
    """


def metric_of(world: World) -> str:
    """The loss that is watched: the model's primary one; of a service that answers no yes or no, its first metric."""
    if world.service.task != "binary":
        return world.service.quality.core_metrics[0]
    return world.service.watched_loss


def daily_losses(world: World, days: Sequence[date], role: str) -> Losses:
    """The loss of every prediction day that was final at the end of the last one."""
    first, last = min(days), max(days)
    with open_engine() as con:
        world.lake.view(con, "quality", BY_NAME["quality"].columns, first=first, last=last)
        query = losses_sql(metric_of(world), world.service.label.version, role, first, last)
        return {day: (value, int(n)) for day, value, n in rows(con, query)}


def realised(world: World, days: Sequence[date]) -> Quality:
    """Mean loss of what was served, and of the fallback on the same days where it has one."""
    served, fallback = daily_losses(world, days, "served"), daily_losses(world, days, "fallback")
    labelled = sum(n for _, n in served.values())
    return Quality(metric_of(world), len(served), labelled, mean_loss(served), mean_loss(fallback))


def mean_loss(losses: Losses) -> float | None:
    """Weighted by labels; None without any.

    >>> mean_loss({date(2024, 3, 1): (0.2, 10), date(2024, 3, 2): (0.1, 30)})
    0.125
    """
    labelled = sum(n for _, n in losses.values())
    return round(sum(value * n for value, n in losses.values()) / labelled, 9) if labelled else None


def beside(losses: Losses, control: Losses) -> Losses:
    """Daily loss less that of the control, on the days on which both are known; without a control as it is.

    The fallback answers the same requests, so hard days leave no trace in the difference. It ages as well, if less:
    what is left of ageing is a lower bound.
    """
    if not control:
        return losses
    return {day: (value - control[day][0], n) for day, (value, n) in losses.items() if day in control}


def champions(world: World, days: Sequence[date]) -> dict[date, tuple[str, int]]:
    """Day -> the version that held the champion's role when it began, and how many days ago it was trained."""
    held = {day: world.holders(world.calendar.start_of(day)).get("champion") for day in days}
    trained = {row["model_version"]: world.trained_on(row["model_version"]) for row in held.values() if row}
    return {day: (row["model_version"], (day - trained[row["model_version"]]).days) for day, row in held.items() if row}


def ageing_of(losses: Losses, held: Mapping[date, tuple[str, int]]) -> Ageing | None:
    """How the loss grows while a version ages: one slope within versions, so that each is its own control.

    Ordinary least squares with a mean per version; the version is the unit of the interval (a jackknife that leaves
    one out). ``losses`` may be differences from a control. As in
    D. Vela et al., *Temporal quality degradation in AI models*, Scientific Reports 12 (2022), loss is
    taken as a function of the time since training; whatever else changes within a version's time is in it too.
    """
    by_version: dict[str, list[tuple[int, float]]] = {}
    for day, (version, age) in sorted(held.items()):
        if day in losses:
            by_version.setdefault(version, []).append((age, losses[day][0]))
    sums = []
    for points in by_version.values():
        ages, values = (np.array(column, dtype="float64") for column in zip(*points, strict=True))
        apart = ages - ages.mean()
        sums.append((float((apart * (values - values.mean())).sum()), float((apart * apart).sum())))
    together, squares = (np.array(column) for column in zip(*sums, strict=True)) if sums else (np.zeros(0),) * 2
    versions = int((squares > 0).sum())
    if versions < MIN_VERSIONS:
        return None
    slope = float(together.sum() / squares.sum())
    without = (together.sum() - together) / (squares.sum() - squares)
    variance = (len(sums) - 1) / len(sums) * float(((without - without.mean()) ** 2).sum())
    half = float(stdtrit(versions - 1, 0.975)) * variance**0.5
    return Ageing(round(slope, 9), round(slope - half, 9), round(slope + half, 9), versions)


def estimate(
    losses: Losses, held: Mapping[date, tuple[str, int]], trainings: Sequence[date], ageing: Ageing | None
) -> Estimate | None:
    """The mean loss if these days had trained, every training had passed its gate and answered from the next day on."""
    value = mean_loss({day: loss for day, loss in losses.items() if day in held})
    ages = {day: max((t for t in trainings if t < day), default=None) for day in held}
    known = {day: (day - trained).days for day, trained in ages.items() if trained is not None and day in losses}
    if ageing is None or value is None or not known:
        return None
    age = float(np.mean(list(known.values())))
    was = float(np.mean([held[day][1] for day in known]))
    low, high = sorted((ageing.low * (age - was), ageing.high * (age - was)))
    found = (value + ageing.loss_a_day * (age - was), value + low, value + high)
    return Estimate(round(age, 2), round(was, 2), *(round(one, 9) for one in found))


def training_seconds(world: World) -> float | None:
    """The median CPU seconds of the service's trainings, as ledger table ``trainings`` has them; None: none was."""
    took = [row["cpu_seconds"] for row in world.ledger.effective("trainings", world.name)]
    return round(float(np.median(took)), 3) if took else None
