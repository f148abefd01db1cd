"""How a service stands, from the ledger alone: what is frozen and open, what is to be done, what may close next.

Imports nothing that costs time, so that ``mlops status`` and the sensors answer at once.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from mlops_assets.adapters.landing import SUFFIXES
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.world import World
from mlops_assets.decisions import Kind


@dataclass
class Standing:
    """What is open or frozen at the end of a day; a view over the ledger's events, carried through a block.

    ``last_training`` and ``last_hold`` are the newest days on which a training was decided on, or held back.
    """

    frozen_since: date | None = None
    open_causes: dict[str, str] = field(default_factory=dict)
    last_training: date | None = None
    last_hold: date | None = None

    def note(self, day: date, kind: Kind) -> None:
        """Take in a decision of the day."""
        if kind is Kind.FREEZE:
            self.frozen_since = day
        elif kind is Kind.RETRAIN:
            self.last_training = day
        elif kind is Kind.HOLD_RETRAINING:
            self.last_hold = day


def standing_before(world: World, day: date) -> Standing:
    """What was frozen and open when ``day`` began; people's words count from their effective day on."""
    standing = Standing()
    decided = [row for row in world.ledger.effective("decisions", world.name) if row["day"] < day]
    for row in sorted(decided, key=lambda row: row["day"]):
        standing.note(row["day"], Kind(row["kind"]))
    for row in world.ledger.effective("incidents", world.name):
        if row["day"] < day and row["event"] == "opened":
            standing.open_causes[row["cause"]] = row["incident_id"]
    for row in inputs(world):
        if row["effective_day"] < day:
            apply_input(standing, row)
    return standing


def inputs(world: World) -> list[Row]:
    """What people said, oldest effective day first."""
    said = world.ledger.rows("inputs", world.name)
    return sorted(said, key=lambda row: (row["effective_day"], row["recorded_at"]))


def apply_input(standing: Standing, row: Row) -> None:
    """One person's word: a freeze, an unfreeze, or the closing of an incident."""
    day = row["effective_day"]
    if row["kind"] == "freeze":
        standing.frozen_since = day
    elif row["kind"] == "unfreeze" and (standing.frozen_since is None or standing.frozen_since <= day):
        standing.frozen_since = None
    elif row["kind"] == "close":
        standing.open_causes = {c: i for c, i in standing.open_causes.items() if i != row["subject"]}


def pending_decisions(world: World) -> list[Row]:
    """Decisions that no *done* action answers, oldest first, each with the number of the next attempt."""
    actions = world.ledger.effective("actions", world.name)
    done = {row["decision_id"] for row in actions if row["state"] == "done"}
    tried: dict[str, int] = {}
    for row in actions:
        if row["state"] == "intended":
            tried[row["decision_id"]] = max(tried.get(row["decision_id"], 0), row["attempt"])
    decisions = world.ledger.effective("decisions", world.name)
    return [
        {**row, "attempt": tried.get(row["decision_id"], 0) + 1} for row in decisions if row["decision_id"] not in done
    ]


@dataclass(frozen=True)
class Closable:
    """The first unclosed day, whether it may close now, and if not, what it waits for."""

    day: date | None
    is_closable: bool
    reason: str


def first_closable(world: World) -> Closable:
    """The first unclosed day, asked at the service's own time (PROTOCOL.md 2)."""
    day = world.first_unclosed()
    last = world.service.last_day
    if last is not None and day > last:
        return Closable(None, False, f"every day up to {last} is closed")
    holder = world.ledger.holder(world.name)
    if holder is not None:
        return Closable(day, False, f"{holder['holder']} (process {holder['pid']}) is writing '{world.name}'")
    waits = waits_for(world, day, world.now())
    return Closable(day, waits is None, waits or f"{day} may close")


def waits_for(world: World, day: date, now: datetime) -> str | None:
    """What a day waits for at an instant; None: nothing, it may close."""
    end = world.calendar.end_of(day)
    if now < end:
        return f"{day} ends at {end} UTC"
    deadline = end + timedelta(hours=world.service.close_after_hours)
    if now >= deadline:
        return None
    for source in world.service.sources:
        is_there = any((world.home.landing / source.name / f"{day}{suffix}").exists() for suffix in SUFFIXES)
        if source.expected.covers(day) and not is_there:
            return f"{day} waits for {source.name}/{day}.* until {deadline} UTC"
    return None
