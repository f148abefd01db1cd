"""Judge: the plain rules that everybody knows, beside the measured method, so that they can be compared.

A rule that is only recorded has tier ``stable`` and says in its reason what it would have done; a rule that was
declared as ``moderate`` opens incidents like any other finding. Without a measured scale most of them fire nearly
every day on data whose days differ (``python benchmarks/monitor.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from mlops_assets.monitoring_loop.baseline import Bools, Floats
from mlops_assets.monitoring_loop.distances import (
    MAX_BINS,
    Reference,
    gap_chance,
    largest_gap,
    plain_distance,
    reference,
    stability_index,
    transport,
)
from mlops_assets.monitoring_loop.grid import Grid
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.drifting import DriftRule
from mlops_assets.service.monitoring import DriftPolicy

RULE_DAYS = 30
MIN_RULE_DAYS = 12
Row = tuple[date, str, str, str, str, str, float, float, float, float, float, str | None, str, str]


def ruled(series: pd.DataFrame, grid: Grid, days: Sequence[date], policy: DriftPolicy) -> Iterator[Row]:
    """One row per declared rule, column and day: the rule's number, and whether it would have fired."""
    if not policy.rules:
        return
    measured = measures(series, grid, {rule.measure for rule in policy.rules})
    for rule in policy.rules:
        values = measured[rule.measure]
        for day in days:
            at = grid.position(day)
            for position, (subject, column) in enumerate(grid.keys):
                value = round(float(values[position, at]), 9)
                if not np.isnan(value):
                    tier, reason = verdict_of(rule, column, value)
                    nothing = float("nan")
                    yield (
                        *(day, subject, ALL, column, f"rule_{rule.measure}", "trailing", value, nothing, nothing),
                        *(nothing, nothing, None, tier, reason),
                    )


@dataclass(frozen=True)
class RuleRecord:
    """What a rule would have done on some days: alarms (one per column and day), and on how many of the days."""

    rule: DriftRule
    alarms: int
    alarmed_days: int
    days: int

    def in_words(self) -> str:
        """One line for people.

        >>> RuleRecord(DriftRule(measure="psi", threshold=0.2), 2400, 91, 91).in_words()
        'psi above 0.2: would have given 2400 alarms on 91 of the last 91 days'
        """
        side = "below" if self.rule.measure == "ks" else "above"
        would = "gave or would have given" if self.rule.tier == "moderate" else "would have given"
        return (
            f"{self.rule.measure} {side} {self.rule.threshold:g}: {would} {self.alarms} alarms on "
            f"{self.alarmed_days} of the last {self.days} days"
        )


def records(series: pd.DataFrame, days: Sequence[date], policy: DriftPolicy) -> list[RuleRecord]:
    """What each declared rule would have done on these days, whether or not it was declared then."""
    if not policy.rules or not days:
        return []
    grid = Grid.of(series, min(days), max(days), policy, ())
    measured = measures(series, grid, {rule.measure for rule in policy.rules})
    at = [grid.position(day) for day in days]
    found = []
    for rule in policy.rules:
        values = np.round(measured[rule.measure][:, at], 9)
        with np.errstate(invalid="ignore"):
            fires = values < rule.threshold if rule.measure == "ks" else values > rule.threshold
        found.append(RuleRecord(rule, int(fires.sum()), int(fires.any(axis=0).sum()), len(days)))
    return found


def verdict_of(rule: DriftRule, column: str, value: float) -> tuple[str, str]:
    """Tier and reason of a rule's number.

    >>> verdict_of(DriftRule(measure="psi", threshold=0.2), "delay", 0.31)
    ('stable', 'would fire: psi 0.31 above 0.2')
    """
    fires = value < rule.threshold if rule.measure == "ks" else value > rule.threshold
    said = f"{rule.measure} {value:.3g} {'below' if rule.measure == 'ks' else 'above'} {rule.threshold:g}"
    if not fires:
        return "stable", "as expected"
    return ("moderate", f"{column}: {said}") if rule.tier == "moderate" else ("stable", f"would fire: {said}")


def measures(series: pd.DataFrame, grid: Grid, wanted: set[str]) -> dict[str, Floats]:
    """The numbers of the rules on the whole grid, (series, day)."""
    found: dict[str, Floats] = {}
    if wanted & {"mean_days", "mean_values"}:
        found |= mean_measures(grid)
    if wanted & {"psi", "js", "ks", "wasserstein"}:
        counts = np.where(grid.is_usable[..., None], grid.counts, 0.0)
        beside = reference(np.where(grid.in_baseline[..., None], grid.counts, 0.0), grid.binned, same_weekday=1)
        n = counts.sum(axis=-1)
        is_judged = (n > 0) & (beside.days >= MIN_RULE_DAYS)
        gap = largest_gap(counts, beside)
        widths, is_number = bin_widths(series, grid)
        with np.errstate(divide="ignore", invalid="ignore"):
            found |= {
                "psi": stability_index(counts, beside),
                "js": plain_distance(counts, beside),
                "ks": np.where(is_number[:, None], gap_chance(gap, n, beside.effective), np.nan),
                "wasserstein": np.where(is_number[:, None], _normed(counts, beside, widths), np.nan),
            }
        found |= {name: np.where(is_judged, found[name], np.nan) for name in ("psi", "js", "ks", "wasserstein")}
    return found


def mean_measures(grid: Grid) -> dict[str, Floats]:
    """Distance of the mean from the mean of the 30 days before, over two standard deviations: of days, of values."""
    counts = grid.values("n") - grid.values("nulls")
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(counts > 0, grid.values("total") / counts, np.nan)
        squares = np.where(counts > 0, grid.values("squares") / counts, np.nan)
    known = np.where(grid.in_baseline, means, np.nan)
    by_days, by_values = np.full_like(means, np.nan), np.full_like(means, np.nan)
    for at in range(RULE_DAYS, means.shape[1]):
        before, second = known[:, at - RULE_DAYS : at], squares[:, at - RULE_DAYS : at]
        there = ~np.isnan(before)
        number = there.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.where(there, before, 0.0).sum(axis=1) / number
            apart = np.where(there, before - middle[:, None], 0.0)
            day_std = np.sqrt((apart * apart).sum(axis=1) / (number - 1))
            value_std = np.sqrt(np.maximum(np.where(there, second, 0.0).sum(axis=1) / number - middle * middle, 0.0))
            far = np.where(number >= MIN_RULE_DAYS, np.abs(means[:, at] - middle), np.nan)
            by_days[:, at] = np.where(day_std > 0, far / day_std, np.nan)
            by_values[:, at] = np.where(value_std > 0, far / value_std, np.nan)
    return {"mean_days": by_days, "mean_values": by_values}


def bin_widths(series: pd.DataFrame, grid: Grid) -> tuple[Floats, Bools]:
    """Distances between the middles of neighbouring bins, (series, bin), and which series are numbers."""
    widths = np.zeros((len(grid.keys), MAX_BINS))
    is_number = np.zeros(len(grid.keys), dtype=bool)
    if "edges" not in series:
        return widths, is_number
    newest = series[series["edges"].notna()].drop_duplicates(["subject", "column_name"], keep="last")
    edges = {(row.subject, row.column_name): np.asarray(row.edges) for row in newest.itertuples()}
    for position, key in enumerate(grid.keys):
        if key in edges and len(edges[key]) > 1:
            ends = edges[key]
            middles = np.concatenate([[ends[0]], (ends[1:] + ends[:-1]) / 2, [ends[-1]]])
            widths[position, : len(ends)] = np.diff(middles)
            is_number[position] = True
    return widths, is_number


def _normed(counts: Floats, beside: Reference, widths: Floats) -> Floats:
    """Wasserstein distance over the standard deviation of the reference, both over the bins."""
    middles = np.concatenate([np.zeros((len(widths), 1)), np.cumsum(widths, axis=1)[:, :-1]], axis=1)[:, None, :]
    share = beside.counts / beside.total[..., None]
    mean = (share * middles).sum(axis=-1, keepdims=True)
    std = np.sqrt((share * (middles - mean) ** 2).sum(axis=-1))
    found: Floats = np.where(std > 0, transport(counts, beside, widths) / std, np.nan)
    return found
