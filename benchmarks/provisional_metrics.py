"""Are metrics of days whose labels are still arriving unbiased, and do their intervals hold what they say?

A seeded simulation: 3,000 predictions a day, scores from a beta distribution, labels within a window of 30 days.
Half of what arrives comes fast and half slowly, weekends are slower than weekdays (so the hazard is neither
constant in age nor the same every day), and every day has its own speed. The completeness curve is estimated from
the triangle of the 100 days before, as the product does it; then days of age 1, 3, 7 and 14 are measured. Two kinds
of service: *positives arrive* (a request without a label counts as negative) and *both arrive* (negatives faster).
Printed: the truth, the mean of the raw and of the corrected value, and how often the 95 % interval holds the truth.
``--windows`` measures windows of 7, 14 and 28 days that end today, with labels of every age in them.

With a replayed home (MLOPS_HOME) and ``--service``: the flights' own case, every day measured at midnight beside
what it was in the end.

    python benchmarks/provisional_metrics.py
    python benchmarks/provisional_metrics.py --windows --repeat 300
    python benchmarks/provisional_metrics.py --service flight_delays
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.home import Home
from mlops_assets.adapters.people_sql import ask
from mlops_assets.feedback_loop.maturity import MIN_WEEKDAYS, Curve, Triangle, product_limit
from mlops_assets.monitoring_loop.metrics import Completeness, Counts, Estimate, Loss, Outcome, daily_auc, daily_ratio
from mlops_assets.monitoring_loop.metrics_curves import ScoreCurve, daily_curve_metric
from mlops_assets.monitoring_loop.metrics_windows import KnownDays, window_auc, window_ratio
from mlops_assets.monitoring_loop.quality_aucs import Ranked, pooled_aucs
from mlops_assets.monitoring_loop.quality_curves import DayCurve, daily_estimates, weights_of, window_estimates
from mlops_assets.monitoring_loop.questions import Questions, added
from mlops_assets.services import find_service

WINDOW, HISTORY, AGES, ROWS = 30, 100, (1, 3, 7, 14), 3000
LENGTHS = (7, 14, 28)
LEVELS = {"average_precision": 0.0, "precision_at_recall": 0.5, "recall_at_precision": 0.3}
"""Metrics of the whole order of the scores, and the recall or precision that they are fixed at."""
METRICS = ("positive_share", "brier", "log_loss", "calibration_ratio", "auc", *LEVELS)
TODAY = date(2024, 6, 7)
Array = NDArray[np.float64]


def scores(rng: np.random.Generator, n: int) -> tuple[Array, NDArray[np.bool_]]:
    """Scores with nine decimals, and outcomes of a model that is a little too sure of itself."""
    chance = rng.beta(1.0, 6.0, n)
    score = np.round(np.clip(chance * 1.1, 1e-6, 1 - 1e-6), 9)
    return score, rng.random(n) < chance


def arrival_ages(rng: np.random.Generator, n: int, day: date, *, is_fast: bool) -> NDArray[np.int64]:
    """The age in days at which each label arrives; never after the window."""
    slow = 1.5 if day.isoweekday() >= 6 else 1.0
    own = rng.gamma(40, 1 / 40)
    scale = np.where(rng.random(n) < 0.5, 1.5, 9.0) * slow * own * (0.4 if is_fast else 1.0)
    return np.minimum(rng.exponential(scale), WINDOW).astype(np.int64)


def counted(score: Array, outcome: NDArray[np.bool_], n: int, n_labelled: int) -> Counts:
    """One question's counts from rows that have an outcome."""
    order = np.argsort(score, kind="stable")
    score, outcome = score[order], outcome[order]
    upto = np.searchsorted(score, score, side="right"), np.searchsorted(score, score, side="left")
    negatives, positives = (np.append(0, np.cumsum(rows)) for rows in (~outcome, outcome))
    below = (negatives[upto[0]] + negatives[upto[1]])[outcome].astype(float)
    above = (2 * outcome.sum() - positives[upto[0]] - positives[upto[1]])[~outcome].astype(float)

    def of(chosen: Array, *, is_positive: bool) -> Outcome:
        losses = -np.log(chosen), -np.log(1 - chosen)
        own, other = losses if is_positive else losses[::-1]
        loss = Loss(*(np.array([x.sum()]) for x in (own, own**2, other, other**2, own * other)))
        powers = [np.array([(chosen**power).sum()]) for power in range(1, 5)]
        return Outcome(np.array([float(len(chosen))]), *powers, loss, is_positive)

    return Counts(
        np.array([float(n)]), np.array([float(n_labelled)]),
        of(score[outcome], is_positive=True), of(score[~outcome], is_positive=False),
        np.array([below.sum()]), np.array([(below**2).sum()]), np.array([(above**2).sum()]),
    )  # fmt: skip


@dataclass(frozen=True)
class Day:
    """The counts of a day, and the rows behind them."""

    counts: Counts
    curve: ScoreCurve

    @classmethod
    def of(cls, score: Array, outcome: NDArray[np.bool_], n: int, n_labelled: int) -> "Day":
        """From rows that have an outcome."""
        order = np.argsort(-score, kind="stable")
        positives = outcome[order].astype(np.float64)
        return cls(counted(score, outcome, n, n_labelled), ScoreCurve(score[order], positives, 1 - positives))


def estimate(metric: str, day: Day, known: Completeness) -> Estimate:
    """A metric of one day."""
    if metric in LEVELS:
        found = daily_curve_metric(metric, day.curve, weights_of(known, 0), LEVELS[metric])
        return Estimate(*(np.array([bound]) for bound in found))
    return daily_auc(day.counts, known) if metric == "auc" else daily_ratio(metric, day.counts, known)


def history(rng: np.random.Generator) -> Triangle:
    """What had arrived by each age on the days before today."""
    first = TODAY - timedelta(days=HISTORY - 1)
    triangle = Triangle.empty(first, TODAY, WINDOW)
    for place in range(HISTORY):
        day = first + timedelta(days=place)
        _, outcome = scores(rng, ROWS)
        for y, (n, is_fast) in enumerate(((int(outcome.sum()), False), (int((~outcome).sum()), True))):
            ages = arrival_ages(rng, n, day, is_fast=is_fast)
            triangle.arrived[place, :, y, 0] = np.cumsum(np.bincount(ages, minlength=WINDOW + 1))
    return triangle


def known_at(curve: Curve, age: int, *, is_one_sided: bool) -> Completeness:
    """The completeness of one question."""
    parts = (*curve.share[age, :, 0], *curve.variance[age, :, 0], curve.covariance[age, 0])
    return Completeness(*(np.array([part]) for part in parts), is_one_sided)


def fresh_day(
    rng: np.random.Generator, triangle: Triangle, age: int, *, is_one_sided: bool
) -> tuple[Day, Completeness]:
    """A new day at an age, and its completeness as known today."""
    day = TODAY - timedelta(days=age)
    curve = product_limit(triangle, TODAY, weekday=day.isoweekday())
    if curve.days[0] < MIN_WEEKDAYS:
        curve = product_limit(triangle, TODAY)
    score, outcome = scores(rng, ROWS)
    has_arrived = np.zeros(ROWS, dtype=bool)
    for chosen, is_fast in ((outcome, False), (~outcome, True)):
        has_arrived[chosen] = arrival_ages(rng, int(chosen.sum()), day, is_fast=is_fast) <= age
    known = known_at(curve, age, is_one_sided=is_one_sided)
    if is_one_sided:
        return Day.of(score, outcome & has_arrived, ROWS, int((outcome & has_arrived).sum())), known
    return Day.of(score[has_arrived], outcome[has_arrived], ROWS, int(has_arrived.sum())), known


def truth(rng: np.random.Generator) -> dict[str, float]:
    """Every metric over two million rows."""
    score, outcome = scores(rng, 2_000_000)
    day = Day.of(score, outcome, len(score), len(score))
    return {metric: float(estimate(metric, day, Completeness.whole(1)).value[0]) for metric in METRICS}


def simulate(repeat: int, seed: int, metrics: Sequence[str]) -> Iterator[str]:
    """The table, line by line."""
    right = truth(np.random.default_rng(seed))
    yield (
        f"{'':<17}{'metric':<19}{'age':>4}{'known':>8}{'truth':>9}{'raw':>9}{'corrected':>11}"
        f"{'bias / se':>11}{'coverage':>10}"
    )
    for title, is_one_sided in (("positives arrive", True), ("both arrive", False)):
        rng = np.random.default_rng(seed + is_one_sided)
        found: dict[tuple[str, int], list[tuple[float, float, float, float]]] = {}
        shares: dict[int, list[float]] = {age: [] for age in AGES}
        for _ in range(repeat):
            triangle = history(rng)
            for age in AGES:
                day, known = fresh_day(rng, triangle, age, is_one_sided=is_one_sided)
                shares[age].append(float(known.positive[0]))
                whole = Completeness.whole(1, is_one_sided=is_one_sided)
                for metric in metrics:
                    raw, now = estimate(metric, day, whole), estimate(metric, day, known)
                    numbers = (raw.value, now.value, now.low, now.high)
                    found.setdefault((metric, age), []).append(tuple(float(x[0]) for x in numbers))  # type: ignore[arg-type]
        for (metric, age), rows in sorted(found.items(), key=lambda item: (METRICS.index(item[0][0]), item[0][1])):
            yield line(title, metric, age, float(np.mean(shares[age])), right[metric], np.array(rows))


def of_window(days: Sequence[Counts]) -> Counts:
    """The counts of several days, one entry each."""

    def joined(parts: Sequence[Any]) -> Any:
        if not hasattr(parts[0], "__dataclass_fields__"):
            return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else parts[0]
        names = parts[0].__dataclass_fields__
        return type(parts[0])(*(joined([getattr(part, name) for part in parts]) for name in names))

    found: Counts = joined(days)
    return found


def days_known(triangle: Triangle, length: int, *, is_one_sided: bool) -> KnownDays:
    """What is known of the labels of the days of a window that ends today, newest first."""
    found, errors, curves = [], [], []
    for age in range(length):
        curves.append((TODAY - timedelta(days=age)).isoweekday())
        curve = product_limit(triangle, TODAY, weekday=curves[-1])
        if curve.days[0] < MIN_WEEKDAYS:
            curve, curves[-1] = product_limit(triangle, TODAY), 0
        found.append((*curve.share[age, :, 0], *curve.variance[age, :, 0], curve.covariance[age, 0]))
        errors.append(curve.error[age, :, 0])
    shares = Completeness.of(np.array(found), is_one_sided=is_one_sided)
    return KnownDays(shares, np.array(errors)[:, 0], np.array(errors)[:, 1], np.array(curves))


@dataclass(frozen=True)
class Long:
    """A window as the package asks about it."""

    questions: Questions
    curves: list[DayCurve]
    ranked: Ranked

    @classmethod
    def of(cls, days: Sequence[Day]) -> "Long":
        """From its days."""
        counts, states = of_window([day.counts for day in days]), np.arange(len(days))
        table = pd.DataFrame({"number": [0], "group_id": np.array([0], dtype=np.uint64), "window_days": [len(days)]})
        starts = np.zeros(1, dtype=np.int64)
        questions = Questions(table, counts, states, starts, added(counts, starts))
        score = np.concatenate([np.rint(day.curve.score * 1e9).astype(np.int64) for day in days])
        state = np.repeat(states, [len(day.curve.score) for day in days])
        order = np.argsort(score, kind="stable")
        positive = np.concatenate([day.curve.positives for day in days]).astype(np.int64)[order]
        cells = pd.Index(states), pd.Index(np.array([0], dtype=np.uint64))
        ranked = Ranked(score[order], state[order], positive, 1 - positive, *cells)
        return cls(questions, [(place, day.curve) for place, day in enumerate(days)], ranked)

    def estimate(self, metric: str, known: KnownDays) -> Estimate:
        """A metric of the window."""
        counts, starts, one = self.questions.daily, self.questions.starts, np.ones(1, dtype=bool)
        if metric == "auc":
            pooled = pooled_aucs(self.ranked, self.questions, known.shares, one)
            return window_auc(pooled, counts, starts, known)
        if metric in LEVELS:
            asked = metric, LEVELS[metric], self.questions, [self.curves]
            _, raw = daily_estimates(*asked, Completeness.whole(1, is_one_sided=known.shares.is_one_sided))
            return Estimate(*window_estimates(*asked, known, raw))
        return window_ratio(metric, counts, starts, known)


def simulate_windows(repeat: int, seed: int, metrics: Sequence[str]) -> Iterator[str]:
    """The table of windows that end today, line by line."""
    right = truth(np.random.default_rng(seed))
    named = ("days", 4), ("known", 8), ("truth", 9), ("raw", 9), ("corrected", 11), ("bias / se", 11), ("coverage", 10)
    yield f"{'':<17}{'metric':<19}" + "".join(f"{name:>{width}}" for name, width in named)
    for title, is_one_sided in (("positives arrive", True), ("both arrive", False)):
        rng = np.random.default_rng(seed + is_one_sided)
        found: dict[tuple[str, int], list[tuple[float, ...]]] = {}
        for _ in range(repeat):
            triangle = history(rng)
            fresh = [fresh_day(rng, triangle, age, is_one_sided=is_one_sided)[0] for age in range(max(LENGTHS))]
            for length in LENGTHS:
                window, known = Long.of(fresh[:length]), days_known(triangle, length, is_one_sided=is_one_sided)
                whole = KnownDays.whole(length, is_one_sided=is_one_sided)
                for metric in metrics:
                    raw, now = (window.estimate(metric, shares) for shares in (whole, known))
                    numbers = (raw.value, now.value, now.low, now.high, known.shares.positive.mean(keepdims=True))
                    found.setdefault((metric, length), []).append(tuple(float(x[0]) for x in numbers))
        for (metric, length), rows in sorted(found.items(), key=lambda item: (METRICS.index(item[0][0]), item[0][1])):
            cells = np.array(rows)
            yield line(title, metric, length, float(cells[:, 4].mean()), right[metric], cells[:, :4])


def line(title: str, metric: str, age: int, share: float, right: float, rows: Array) -> str:
    """One line of the table."""
    raw, value, low, high = rows.T
    bias = (value.mean() - right) / (value.std(ddof=1) / np.sqrt(len(value)))
    held = np.mean((low <= right) & (right <= high))
    means = f"{share:>8.3f}{right:>9.4f}{raw.mean():>9.4f}{value.mean():>11.4f}"
    return f"{title:<17}{metric:<19}{age:>4}{means}{bias:>11.1f}{held:>10.1%}"


def at_midnight_sql(service: str) -> str:
    """SQL of the share of positives in what was served, per day: at its midnight, raw and corrected, and final."""
    return f"""
        with asked as (
            from {service}.quality where metric = 'positive_share' and version = 'served' and slice = 'all'
            and window_days = 1
        )
        select fresh.raw_value, fresh.value, fresh.low, fresh.high, final.value
        from asked as fresh join asked as final using (prediction_day)
        where fresh.day = fresh.prediction_day and fresh.state = 'provisional' and final.state = 'final'
    """


def replayed(name: str) -> Iterator[str]:
    """The service's own days, at midnight and in the end."""
    answer = ask([find_service(name)], Home.from_environment(), at_midnight_sql(name))
    rows = np.array(answer.rows, dtype=float)
    raw, value, low, high, final = rows.T
    difference = value - final
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    held = np.mean((low <= final) & (final <= high))
    yield f"{len(rows)} days: share of positives at midnight {raw.mean():.4f} raw, {value.mean():.4f} corrected"
    yield f"in the end {final.mean():.4f}; corrected - final: mean {difference.mean():+.4f}, standard error {error:.4f}"
    yield f"the interval at midnight held the final value on {held:.1%} of days"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the simulation, or what a replayed service gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1000, help="simulated days per age (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=METRICS, metavar="METRIC", help="some of them")
    parser.add_argument("--windows", action="store_true", help="windows that end today, in place of single days")
    parser.add_argument("--service", help="measure the days of this replayed service instead")
    asked = parser.parse_args(arguments)
    simulated = simulate_windows if asked.windows else simulate
    for text in replayed(asked.service) if asked.service else simulated(asked.repeat, asked.seed, asked.metrics):
        print(text)


if __name__ == "__main__":
    main()
