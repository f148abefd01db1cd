"""A policy backtest for people, and as one JSON object."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mlops_assets.backtest.injecting import FAULT_DAYS
from mlops_assets.backtest.realised import Quality
from mlops_assets.backtest.result import Backtest, Counts, UnderPolicy

SHOWN_TRAININGS = 6
SHOWN_COLUMNS = 4
NOT_TRAINED = (
    "how good the answers had been after other retraining dates is not known without training: --train does it, in a "
    "copy of the home"
)


def as_object(found: Backtest) -> dict[str, Any]:
    """Everything, for programs; dates as text."""

    def under(one: UnderPolicy) -> dict[str, Any]:
        counts = asdict(one.counts)
        counts["retrainings"] = [{"day": str(day), "because": why} for day, why in one.counts.retrainings]
        counts["causes"] = dict(one.counts.causes)
        return {**asdict(one), "counts": counts}

    return {
        "service": found.service,
        "first": str(found.first),
        "last": str(found.last),
        "changes": [asdict(change) for change in found.changes],
        "quality": asdict(found.quality),
        "declared": under(found.declared),
        "proposed": under(found.proposed),
    }


def lines(found: Backtest) -> Iterator[str]:
    """The whole answer, declared beside proposed."""
    declared, proposed = found.declared, found.proposed
    yield f"{found.service}, {found.first} to {found.last}: {declared.counts.days} closed days; nothing was changed"
    for change in found.changes:
        yield f"  {change.field}: {change.before} -> {change.after}"
    if not found.changes:
        yield "  the file changes nothing: both columns are the declared policy"
    yield ""
    yield f"{'':<42}{'declared':>14}{'proposed':>14}"
    for what, one, other in _counted(declared.counts, proposed.counts):
        yield f"{what:<42}{one:>14}{other:>14}"
    yield from _causes(declared.counts, proposed.counts)
    yield ""
    yield from _trainings(found)
    yield ""
    yield from _faults(declared, proposed)
    yield from _blind(declared, proposed)


def _counted(declared: Counts, proposed: Counts) -> Iterator[tuple[str, str, str]]:
    def both(what: str, one: Any, other: Any) -> tuple[str, str, str]:
        first, second = ("-" if x is None else f"{x:,.1f}" if isinstance(x, float) else str(x) for x in (one, other))
        return what, first, second

    yield both("drift alarms (days x columns)", declared.drift_alarms, proposed.drift_alarms)
    yield both("alarms of rules over quality", declared.rule_alarms, proposed.rule_alarms)
    yield both("days that ask for a person", declared.alarmed_days, proposed.alarmed_days)
    yield both("of which break glass", declared.severe_days, proposed.severe_days)
    yield both("incidents opened", declared.incidents, proposed.incidents)
    yield both("of which severe", declared.incidents_severe, proposed.incidents_severe)
    yield both("told again: graver, or back after quiet", declared.told_again, proposed.told_again)
    yield both(
        "incidents a quarter of 91 days", declared.incidents / declared.quarters, proposed.incidents / proposed.quarters
    )
    yield both(
        "budget a quarter: false alarms of tier 2", declared.budget.tier2_a_quarter, proposed.budget.tier2_a_quarter
    )
    yield both("retrainings", len(declared.retrainings), len(proposed.retrainings))
    yield both("retrainings held back by a freeze", declared.held_back, proposed.held_back)
    yield both("rollbacks", declared.rollbacks, proposed.rollbacks)
    yield both("cost of trainings, CPU seconds", declared.cost_seconds, proposed.cost_seconds)
    yield both("cost of incidents, minutes of people", declared.cost_minutes, proposed.cost_minutes)


def _causes(declared: Counts, proposed: Counts) -> Iterator[str]:
    before, after = dict(declared.causes), dict(proposed.causes)
    for cause in sorted({*before, *after}, key=lambda one: (-before.get(one, 0), one)):
        yield f"  {'incidents of ' + cause:<40}{before.get(cause, 0):>14}{after.get(cause, 0):>14}"


def _trainings(found: Backtest) -> Iterator[str]:
    for name, one in (("declared", found.declared), ("proposed", found.proposed)):
        days = [f"{day} ({why.partition(':')[0]})" for day, why in one.counts.retrainings]
        more = f" and {len(days) - SHOWN_TRAININGS} more" if len(days) > SHOWN_TRAININGS else ""
        yield f"{name} trains on  {', '.join(days[:SHOWN_TRAININGS]) or 'no day'}{more}"
    yield f"quality as realised, under the releases that happened: {_quality(found.quality)}"
    if found.proposed.trained is None:
        yield f"  {NOT_TRAINED}"
    for name, one in (("declared", found.declared), ("proposed", found.proposed)):
        if one.trained is not None:
            yield f"  {name}, trained again in a copy: {_quality(one.trained)}"
        elif one.estimate is None:
            yield f"  {name}: no estimate, too few versions were released to know how they age"
        else:
            told = one.estimate
            yield (
                f"  {name}, ESTIMATE from how versions aged beside the fallback, if every training passed its "
                f"gate: {found.quality.metric} {told.value:.4f} "
                f"({told.low:.4f} to {told.high:.4f}), mean age {told.age_days:.1f} days, "
                f"was {told.realised_age_days:.1f}"
            )


def _quality(quality: Quality) -> str:
    if quality.served is None:
        return "no final label yet"
    beside = "" if quality.fallback is None else f", fallback {quality.fallback:.4f}"
    return f"{quality.metric} {quality.served:.4f}{beside} ({quality.labelled:,} labels of {quality.days} days)"


def _faults(declared: UnderPolicy, proposed: UnderPolicy) -> Iterator[str]:
    if not proposed.seen:
        return
    yield f"injected faults seen within {FAULT_DAYS} days, alarms that would not have been there without them"
    yield f"  {'fault':<20}{'episodes':>9}{'declared':>22}{'proposed':>22}{'same day':>10}{'delay':>7}"
    before = {one.fault: one for one in declared.seen}
    for one in proposed.seen:
        was = before[one.fault]
        shares = [f"{x.seen / x.episodes:.2f} ({x.low:.2f} to {x.high:.2f})" for x in (was, one)]
        delay = "-" if one.median_delay_days is None else f"{one.median_delay_days:g} d"
        yield (
            f"  {one.fault:<20}{one.episodes:>9}{shares[0]:>22}{shares[1]:>22}"
            f"{one.same_day / one.episodes:>10.2f}{delay:>7}"
        )
    yield ""


COLUMNS = {
    "day_shift": ("1 day", 10, ".3g"), "day_stds": ("in sd", 7, ".2f"), "week_shift": ("7 days", 10, ".3g"),
    "week_stds": ("in sd", 7, ".2f"), "spread_times": ("spread x", 10, ".2f"), "distance": ("distance", 10, ".2f"),
    "null_points": ("nulls pt", 10, ".1f"), "new_points": ("new pt", 8, ".1f"), "rows_share": ("rows", 8, ".0%"),
}  # fmt: skip
"""Numbers of a smallest shift: heading, width and form."""


def _blind(declared: UnderPolicy, proposed: UnderPolicy) -> Iterator[str]:
    yield "what the monitor cannot see: smaller shifts than these (80 % chance; blindest feature first)"
    heads = "".join(f"{head:>{width}}" for head, width, _form in COLUMNS.values())
    yield f"  {'feature':<34}{heads}{'declared, sd':>14}"
    before = {one.column: one.week_stds for one in declared.smallest}
    reasons: dict[str, list[str]] = {}
    for one in proposed.smallest:
        cells = [(getattr(one, name), width, form) for name, (_head, width, form) in COLUMNS.items()]
        told = "".join(_cell(*cell) for cell in [*cells, (before.get(one.column), 14, ".2f")])
        yield f"  {one.column:<34}{told}"
        for name, why in one.why.items():
            reasons.setdefault(f"{COLUMNS[name][0]}: {why}", []).append(one.column)
    for why, names in reasons.items():
        more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
        yield f"  - {why} ({', '.join(dict.fromkeys(names[:SHOWN_COLUMNS]))}{more})"


def _cell(number: float | None, width: int, form: str) -> str:
    return f"{'-' if number is None else format(number, form):>{width}}"
