"""How often do the quality monitors of a replayed home speak up? The same rules, over its stored ``quality``.

Reads the flights' home (``MLOPS_HOME``), writes nothing, has no random part::

    python benchmarks/quality_alarms.py

Prints, for today's declaration: the days on which each rule asked for something, runs of such days at most a week
apart (an incident would be one run), per quarter; and the verdict on every day of the controller furlough.
"""

from collections import Counter
from datetime import date, timedelta

from mlops_assets.adapters.home import Home
from mlops_assets.closing.hindsight import judged_days
from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays.service import flight_delays
from mlops_assets.monitoring_loop.actions import reasons_to_retrain
from mlops_assets.monitoring_loop.rules import QualityJudgement

FURLOUGH = (date(2013, 4, 21), date(2013, 4, 29))
QUIET_DAYS = 7
"""Alarms further apart than this are two incidents."""


def runs(days: list[date]) -> list[tuple[date, date]]:
    """Days at most a week apart, as (first, last)."""
    found: list[tuple[date, date]] = []
    for day in sorted(days):
        if found and day - found[-1][1] <= timedelta(days=QUIET_DAYS):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def print_rules(found: list[QualityJudgement]) -> None:
    """Per rule: days that spoke, and their runs."""
    spoke: dict[str, list[date]] = {}
    for judgement in found:
        for e in judgement.evaluations:
            if e.state == "broken" or e.tier != "stable":
                spoke.setdefault(f"{e.leads_to}: {e.rule}", []).append(judgement.day)
    for rule, days in sorted(spoke.items()):
        told = ", ".join(f"{a:%m-%d}" if a == b else f"{a:%m-%d}..{b:%m-%d}" for a, b in runs(days))
        print(f"{rule}\n    {len(days)} days, {len(runs(days))} runs: {told}")


def print_quarters(found: list[QualityJudgement], world: World) -> None:
    """Incidents a quarter: per cause, runs of days at most a week apart."""
    causes: dict[str, list[date]] = {}
    for judgement in found:
        for finding in judgement.findings(world.service.label.source):
            if finding.tier != "expected":
                causes.setdefault(finding.cause, []).append(judgement.day)
    per_quarter = Counter((a.year, (a.month + 2) // 3) for days in causes.values() for a, _ in runs(days))
    print("incidents a quarter (per cause, runs of days at most a week apart):")
    print("    " + ", ".join(f"{year} Q{quarter}: {n}" for (year, quarter), n in sorted(per_quarter.items())))


def print_trainings(found: list[QualityJudgement], world: World) -> None:
    """Days on which a training would be due, cool-down counted, nothing frozen."""
    newest: date | None = None
    print("trainings:")
    for judgement in found:
        reasons = reasons_to_retrain(
            world.service.model, judgement.day, judgement.reasons_to_retrain,
            last_training=newest, last_hold=None, is_frozen=False,
        )  # fmt: skip
        if reasons:
            newest = judgement.day
            print(f"    {judgement.day}  {'; '.join(reasons)}")


def main() -> None:
    """Print everything."""
    world = World(flight_delays, Home.from_environment())
    last = world.closed_through()
    if last is None:
        raise SystemExit("no closed day in this home; run `mlops replay flight_delays` first")
    found = judged_days(world, world.service.first_day, last)
    print(f"{len(found)} days, {found[0].day} to {found[-1].day}")
    print_rules(found)
    print_quarters(found, world)
    print_trainings(found, world)
    print("the furlough of 21-27 April, as known at the end of each day:")
    for judgement in found:
        if FURLOUGH[0] <= judgement.day <= FURLOUGH[1]:
            reasons = [f"{f.tier}: {f.reason}" for f in judgement.findings(world.service.label.source)]
            print(f"    {judgement.day}  {'; '.join(reasons) or 'nothing'}")


if __name__ == "__main__":
    main()
