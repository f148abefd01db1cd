"""Judge: did the service keep what it promised, how fast does it spend its error budget, and when will it break?

One row per objective and day. Pure: a row reads the counts of its own day and the rows of the window before it.
The burn rate of a day is its share of bad events over the share that the objective allows: 1 spends the budget
of the window exactly. A day alone is believed from ``min_events`` on and pages from ``max_burn`` on, because that
many times too fast the budget of four weeks is gone in two days (B. Beyer et al., The Site Reliability Workbook,
2018, ch. 5). Cost has a limit and no budget: its event is the day.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import fsum, log, sqrt

import duckdb
from scipy.special import stdtrit

from mlops_assets.adapters.engine import literal, quote, rows
from mlops_assets.monitoring_loop.operations import bin_of
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.monitoring_loop.quality_counts import SERVED
from mlops_assets.service.operations import LatencyObjective, Objective, OperationsPolicy, QualityObjective

COST = "cost_per_1000"
PRICE = "coalesce(billed_per_1000, cost_per_1000)"
"""What 1,000 predictions cost: by the bill if one came, else by what each of them says."""
GROWTH_DAYS = 28
"""Days that a growth is read from."""
MIN_GROWTH_DAYS = 14
FARTHEST_DAYS = 365
"""A crossing further ahead than this is not worth a date."""
MIN_EXPLAINED_SHARE = 0.5
"""A slice is named from this share of a rise on, if that is twice its share of the events."""


@dataclass(frozen=True)
class Measured:
    """One objective on one day: events, bad ones, and the level that people read (None: nothing to read)."""

    day: date
    objective: str
    n: int
    bad: int
    value: float | None


@dataclass(frozen=True)
class Crossing:
    """The day on which a limit is crossed at the current growth, with the 95 % bounds of the growth.

    ``high`` None: the growth may also be too slow to cross within ``FARTHEST_DAYS``.
    """

    day: date
    low: date
    high: date | None


@dataclass(frozen=True)
class Level:
    """One row of table ``objectives``."""

    day: date
    objective: str
    n: int
    bad: int
    value: float | None
    limit: float | None
    burn: float | None
    budget_spent: float | None
    broken_days: int
    crosses_on: date | None
    crosses_low: date | None
    crosses_high: date | None
    slice: str | None
    tier: str
    reason: str


def judge_objectives(
    policy: OperationsPolicy, measured: Iterable[Measured], history: Iterable[Measured]
) -> list[Level]:
    """The rows of table ``objectives``, in day order.

    Args:
        policy: what was promised.
        measured: the days to judge; days of an objective that is not declared are left out.
        history: the days before them, from ``history_days(policy)`` back.
    """
    past: dict[str, list[Measured]] = {}
    for one in sorted(history, key=lambda one: one.day):
        past.setdefault(one.objective, []).append(one)
    levels = []
    for one in sorted(measured, key=lambda one: (one.day, one.objective)):
        days = past.setdefault(one.objective, [])
        objective = policy.objective(one.objective)
        if objective is not None:
            levels.append(judge_budget(objective, one, days, warn_days=policy.warn_days))
        elif one.objective == COST and policy.max_cost_per_1000 is not None:
            levels.append(judge_cost(policy, one, days))
        days.append(one)
    return levels


def history_days(policy: OperationsPolicy) -> int:
    """Days before a judged day that its rows can read."""
    return max([GROWTH_DAYS, *(objective.window_days for objective in policy.objectives)])


def judge_budget(objective: Objective, today: Measured, past: Sequence[Measured], *, warn_days: int) -> Level:
    """One objective on one day; ``past`` are its earlier days, oldest first."""
    allowed = 1 - objective.good_share
    window = [one for one in past if one.day > today.day - timedelta(days=objective.window_days)] + [today]
    eventful = [one for one in [*past, today] if one.n]
    burn = today.bad / today.n / allowed if today.n else None
    spent = sum(one.bad for one in window) / (allowed * total) if (total := sum(one.n for one in window)) else None
    broken = sum(one.bad > allowed * one.n for one in eventful[-objective.of_days :])
    limit = objective.limit_ms if isinstance(objective, LatencyObjective) else getattr(objective, "limit", None)
    crossing = forecast(past, today, limit) if isinstance(objective, LatencyObjective) else None
    level = Level(
        today.day, today.objective, today.n, today.bad, today.value, limit, rounded(burn), rounded(spent), broken,
        *dates_of(crossing), None, "stable", "kept",
    )  # fmt: skip
    if not today.n:
        return replace(level, reason="no events")
    if burn is not None and burn >= objective.max_burn and today.n >= objective.min_events:
        return replace(level, tier=objective.tier, reason=f"{said(level)}: budget spent {burn:.0f} times too fast")
    if today.bad > allowed * today.n and broken >= objective.broken_days:
        words = f"{said(level)}: promise broken on {broken} of the last {min(objective.of_days, len(eventful))} days"
        return replace(level, tier=objective.tier, reason=words)
    return ahead(level, crossing, warn_days)


def judge_cost(policy: OperationsPolicy, today: Measured, past: Sequence[Measured]) -> Level:
    """Cost per 1,000 predictions beside its limit; the event is the day."""
    limit = policy.max_cost_per_1000
    eventful = [one for one in [*past, today] if one.n]
    broken = sum(one.bad for one in eventful[-policy.cost_of_days :])
    crossing = forecast(past, today, limit)
    level = Level(
        today.day, today.objective, today.n, today.bad, today.value, limit, None, None, broken,
        *dates_of(crossing), None, "stable", "kept",
    )  # fmt: skip
    if not today.n:
        return replace(level, reason="no cost is known")
    if today.bad and broken >= policy.cost_broken_days:
        words = f"{said(level)} on {broken} of the last {min(policy.cost_of_days, len(eventful))} days"
        return replace(level, tier="moderate", reason=words)
    return ahead(level, crossing, policy.warn_days)


def dates_of(crossing: Crossing | None) -> tuple[date | None, date | None, date | None]:
    """The three dates of a crossing, as they are stored."""
    return (crossing.day, crossing.low, crossing.high) if crossing else (None, None, None)


def ahead(level: Level, crossing: Crossing | None, warn_days: int) -> Level:
    """A kept promise that will soon be broken at the current growth; one that is broken already has no date."""
    if crossing is None:
        return level
    until = crossing.high or f"more than {FARTHEST_DAYS} days from now"
    words = (
        f"{level.objective}: at the current growth above {level.limit:g} on {crossing.day} ({crossing.low} to {until})"
    )
    is_near = crossing.day <= level.day + timedelta(days=warn_days)
    return replace(level, tier="moderate" if is_near else "stable", reason=words)


def said(level: Level) -> str:
    """What was measured, as a person would say it."""
    if level.objective == COST:
        return f"cost per 1,000 predictions {level.value:.4g}, limit {level.limit:g}"
    share = f"{level.bad / level.n:.1%} of {level.n:,} bad" if level.n > 1 else "bad"
    read = "" if level.value is None else f" {level.value:.4g}"
    beside = "" if level.limit is None else f", limit {level.limit:g}"
    return f"{level.objective}{read}{beside} ({share})"


def rounded(value: float | None) -> float | None:
    """A number as it is stored."""
    return None if value is None else round(value, 9)


def forecast(past: Sequence[Measured], today: Measured, limit: float | None) -> Crossing | None:
    """When a level that grows by a constant share a day crosses its limit; None: it does not grow, or is above.

    Least squares of the logarithm over the last ``GROWTH_DAYS`` days. The bounds are those of the slope (Student's
    t): a slope whose lower bound is not above zero is no growth. Neither is a step, which two levels describe better
    than a line: another version answers since then.
    """
    since = today.day - timedelta(days=GROWTH_DAYS)
    series = [(one.day, one.value) for one in [*past, today] if one.day > since]
    points = [((day - today.day).days, log(value)) for day, value in series if value is not None and value > 0]
    if limit is None or len(points) < MIN_GROWTH_DAYS or today.value is None or not 0 < today.value < limit:
        return None
    middle = fsum(x for x, _ in points) / len(points)
    mean = fsum(y for _, y in points) / len(points)
    spread = fsum((x - middle) ** 2 for x, _ in points)
    slope = fsum((x - middle) * (y - mean) for x, y in points) / spread
    rest = fsum((y - mean - slope * (x - middle)) ** 2 for x, y in points)
    if rest >= rest_of_step([y for _, y in points]):
        return None
    half = float(stdtrit(len(points) - 2, 0.975)) * sqrt(rest / (len(points) - 2) / spread)
    to_go = log(limit) - (mean - slope * middle)
    if slope - half <= 0 or to_go <= 0 or to_go / slope > FARTHEST_DAYS:
        return None
    latest = to_go / (slope - half)
    return Crossing(
        today.day + timedelta(days=max(1, round(to_go / slope))),
        today.day + timedelta(days=max(1, round(to_go / (slope + half)))),
        today.day + timedelta(days=round(latest)) if latest <= FARTHEST_DAYS else None,
    )


def rest_of_step(values: Sequence[float]) -> float:
    """Sum of squares that the best two levels, one before and one after some day, leave unexplained.

    >>> rest_of_step([1.0, 1.0, 5.0, 5.0])
    0.0
    """

    def around_mean(part: Sequence[float]) -> float:
        mean = fsum(part) / len(part)
        return fsum((value - mean) ** 2 for value in part)

    return min(around_mean(values[:cut]) + around_mean(values[cut:]) for cut in range(1, len(values)))


Amounts = Mapping[str, tuple[float, float]]
"""Slice (``all`` among them) -> events, and how much of the bad they hold: bad events, or money."""


def explaining_slice(today: Amounts, usual: Amounts) -> tuple[str, float] | None:
    """The slice that explains most of a rise, and the share it explains; None: the rise is everywhere.

    The excess of a slice is its amount minus what its events would hold at the rate of its usual days; a slice
    that never was takes the rate of all. It is named if it explains half of the excess of all, and twice as much
    as its share of the events: a large slice holds half of everything without being the cause.

    >>> explaining_slice({"all": (100, 40), "to=SFO": (20, 35), "to=LAX": (80, 5)}, {"all": (1000, 100)})
    ('to=SFO', 1.0)
    """
    events, amount = today["all"]
    usual_events, usual_amount = usual.get("all", (0.0, 0.0))
    everywhere = usual_amount / usual_events if usual_events else 0.0
    excess = amount - events * everywhere
    if excess <= 0:
        return None
    found = []
    for name, (n, held) in sorted(today.items()):
        before, before_held = usual.get(name, (0.0, 0.0))
        rate = before_held / before if before else everywhere
        share = min((held - n * rate) / excess, 1.0)
        if name != "all" and share >= max(MIN_EXPLAINED_SHARE, 2 * n / events):
            found.append((share, name))
    return (max(found)[1], round(max(found)[0], 9)) if found else None


def read_events(
    con: duckdb.DuckDBPyConnection,
    policy: OperationsPolicy,
    *,
    operations: str,
    freshness: str,
    quality: str,
    days: Sequence[date],
    higher_is_better: Collection[str],
) -> list[Measured]:
    """What each declared objective counts on each day; a day without events has none, and a row that says so.

    Args:
        operations, freshness, quality: relations of these tables' shapes that hold the days.
        higher_is_better: metrics of quality of which more is better.
    """
    found = {(day, name): (n, bad, value) for day, name, n, bad, value in rows(con, events_sql(
        operations, freshness, quality, policy, days, higher_is_better))}  # fmt: skip
    names = [objective.of for objective in policy.objectives] + [COST] * (policy.max_cost_per_1000 is not None)
    return [Measured(day, name, *found.get((day, name), (0, 0, None))) for day in days for name in sorted(names)]


def events_sql(
    operations: str,
    freshness: str,
    quality: str,
    policy: OperationsPolicy,
    days: Sequence[date],
    higher_is_better: Collection[str],
) -> str:
    """SQL of ``(day, objective, events, bad ones, level)``: whatever answered, on slice *all*."""
    of_days = f"day in ({', '.join(map(literal, days))})"
    served = f"from {quote(operations)} where version = {literal(SERVED)} and slice = {literal(ALL)} and {of_days}"
    latency, measured = policy.objective("latency"), policy.objective("quality")
    limit = bin_of(latency.limit_ms) if isinstance(latency, LatencyObjective) else 0
    is_bad, metric = "false", "brier"
    if isinstance(measured, QualityObjective):
        metric = measured.metric
        is_bad = f"value {'<' if metric in higher_is_better else '>'} {measured.limit!r}"
    return f"""
        select day, 'errors', n, errors + timeouts, error_share {served}
        union all
        select day, 'latency', list_sum(latency_counts)::bigint, {above_sql(limit)}, p95_ms {served}
               and latency_counts is not null
        union all
        select day, 'label_delay', matured - unlabelled, slow_labels,
               round(slow_labels / nullif(matured - unlabelled, 0), 9) {served} and matured is not null
        union all
        select day, {literal(COST)}, 1, ({PRICE} > {policy.max_cost_per_1000 or 0!r})::bigint, {PRICE}
               {served} and {PRICE} is not null
        union all
        select day, 'freshness', count(*), count_if(state in ('stale', 'missing')),
               max(age_hours) filter (where max_age_hours is not null)
        from {quote(freshness)} where state <> 'not_expected' and {of_days} group by day
        union all
        select day, 'quality', count(*), count_if({is_bad}), round(favg(value), 9)
        from {quote(quality)} where version = {literal(SERVED)} and slice = {literal(ALL)} and window_days = 1
         and metric = {literal(metric)} and state = 'final' and {of_days} group by day
    """


def above_sql(limit: int) -> str:
    """SQL of how many latencies of a row's histogram lie in bins above one."""
    pairs = "list_zip(latency_bins, latency_counts)"
    kept = f"list_transform(list_filter({pairs}, lambda one: one[1] > {limit}), lambda one: one[2])"
    return f"coalesce(list_sum({kept}), 0)::bigint"


def amounts_sql(operations: str, objective: str, policy: OperationsPolicy, first: date, last: date) -> str:
    """SQL of ``(slice, events, bad or money)`` of whatever answered, over the days from first to last."""
    latency = policy.objective("latency")
    limit = bin_of(latency.limit_ms) if isinstance(latency, LatencyObjective) else 0
    events, amount = {
        "errors": ("n", "errors + timeouts"),
        "latency": ("list_sum(latency_counts)", above_sql(limit)),
        "label_delay": ("matured - unlabelled", "slow_labels"),
        "unlabelled": ("matured", "unlabelled"),
        COST: ("coalesce(billed_n, n_costed)", "coalesce(billed, cost)"),
    }[objective]
    return f"""
        select slice, coalesce(sum({events}), 0)::double, coalesce(sum({amount}), 0)::double
        from {quote(operations)} where version = {literal(SERVED)} and day between {literal(first)} and {literal(last)}
        group by slice order by slice
    """
