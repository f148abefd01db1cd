"""The week's report on the alarm budget: what people were asked in 91 days, and what they answered (ledger alone)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.commit import DayJudgement
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.alarm_budget import EVERYTHING, QUARTER_DAYS, Asked, BudgetRow, budget_rows, in_words
from mlops_assets.monitoring_loop.findings import RANK


def is_report_day(day: date) -> bool:
    """The last day of an ISO week."""
    return day.isoweekday() == 7


def budget_of(world: World, day: date, judged: Sequence[DayJudgement] = ()) -> list[BudgetRow]:
    """The report as of the end of a day; ``judged`` are the days before it that are not written yet, and itself."""
    first = day - timedelta(days=QUARTER_DAYS - 1)
    fresh = {judgement.day for judgement in judged}

    def told(table: str, rows: Sequence[Row]) -> list[Row]:
        stored = [row for row in world.ledger.effective(table, world.name) if row["day"] not in fresh]
        return [row for row in [*stored, *rows] if row["day"] <= day]

    opened = told("incidents", [row for one in judged for row in one.incidents])
    events = told("incident_events", [row for one in judged for row in one.incident_events])
    seen = Counter(row["incident_id"] for row in events if row["event"] == "seen" and row["day"] >= first)
    answers = {row["incident_id"]: row["evidence"]["as"] for row in events if row["event"] == "closed"}
    tiers: dict[str, str] = {row["incident_id"]: row["tier"] for row in opened}
    for row in events:
        if RANK.get(row["tier"], 0) > RANK.get(tiers.get(row["incident_id"], ""), 0):
            tiers[row["incident_id"]] = row["tier"]
    asked = [
        Asked(row["cause"], tiers[row["incident_id"]], seen[row["incident_id"]], answers.get(row["incident_id"]))
        for row in opened
        if row["day"] >= first
    ]
    days = (day - max(first, world.service.first_day)).days + 1
    return budget_rows(day, days, asked, world.service.drift.alarm_budget, world.name)


def ledger_rows(world: World, epoch: int, rows: Sequence[BudgetRow]) -> list[Row]:
    """Rows of ledger table ``alarm_budget``."""
    return [{"service": world.name, "epoch": epoch, **asdict(row)} for row in rows]


def newest_report(world: World, by: date) -> list[Row]:
    """The newest report by the end of a day, everything first; empty before the first Sunday."""
    rows = [row for row in world.ledger.effective("alarm_budget", world.name) if row["day"] <= by]
    last = max((row["day"] for row in rows), default=None)
    found = [row for row in rows if row["day"] == last]
    return sorted(found, key=lambda row: (row["budget"] is None, -row["incidents"], row["scope"]))


def budget_lines(rows: Sequence[Row]) -> list[str]:
    """The report for people: everything, and the causes about which there is something to say."""
    told = [BudgetRow(**{name: row[name] for name in BudgetRow.__dataclass_fields__}) for row in rows]
    return [in_words(row) for row in told if row.scope == EVERYTHING or row.suggestion]
