"""How a service stands, from the ledger alone: what is frozen and open, what is to be done, what may close next.

Imports nothing that costs time, so that ``mlops status`` and the sensors answer at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.landing import deliveries
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.extracting import is_landed
from mlops_assets.closing.world import World
from mlops_assets.decisions import Kind
from mlops_assets.monitoring_loop.incidents import Event, Incident, after, in_order, opened


@dataclass
class Standing:
    """What is open or frozen at the end of a day; a view over the ledger's events, carried through a block.

    ``incidents`` are those that nobody has closed, by cause. A freeze that a day decided holds while a severe
    incident is open; one that a person declared holds until a person lifts it. ``last_training`` and ``last_hold``
    are the newest days on which a training was decided on, or held back.
    """

    frozen_since: date | None = None
    is_frozen_by_person: bool = False
    incidents: dict[str, Incident] = field(default_factory=dict)
    last_training: date | None = None
    last_hold: date | None = None

    @property
    def open_causes(self) -> dict[str, str]:
        """Cause -> the incident that is open for it."""
        return {cause: incident.incident_id for cause, incident in self.incidents.items()}

    @property
    def by_id(self) -> dict[str, Incident]:
        """The open incidents by their id."""
        return {incident.incident_id: incident for incident in self.incidents.values()}

    def freeze(self, day: date, *, by_person: bool) -> None:
        """Retraining is frozen from this day on; an earlier freeze goes on."""
        self.frozen_since = self.frozen_since or day
        self.is_frozen_by_person = self.is_frozen_by_person or by_person

    def note(self, day: date, kind: Kind) -> None:
        """Take in a decision of the day."""
        if kind is Kind.FREEZE:
            self.freeze(day, by_person=False)
        elif kind is Kind.RETRAIN:
            self.last_training = day
        elif kind is Kind.HOLD_RETRAINING:
            self.last_hold = day

    def unfreeze(self) -> None:
        """A person lifts every freeze."""
        self.frozen_since, self.is_frozen_by_person = None, False

    def take(self, event: Event) -> None:
        """One event of an open incident; the last severe one that is closed takes the freeze with it."""
        incident = self.by_id.get(event.incident_id)
        if incident is None:
            return
        self.incidents[incident.cause] = after(incident, event)
        if event.event != "closed":
            return
        del self.incidents[incident.cause]
        is_grave = any(one.tier == "severe" for one in self.incidents.values())
        if not is_grave and not self.is_frozen_by_person:
            self.frozen_since = None

    def count_quiet_day(self, day: date) -> None:
        """A computed day is over: for every incident that was not seen on it, a quiet one."""
        for cause, incident in self.incidents.items():
            if incident.last_seen < day:
                self.incidents[cause] = replace(incident, quiet_days=incident.quiet_days + 1)


def standing_before(world: World, day: date) -> Standing:
    """What was frozen and open when ``day`` began; people's words count from their effective day on."""
    standing = Standing()
    computed = {d for d, row in world.ledger.closings(world.name).items() if d < day and row["state"] == "computed"}
    happened = _what_happened(world, day)
    for that_day in sorted({*happened, *computed}):
        for step in happened.get(that_day, []):
            step(standing)
        if that_day in computed:
            standing.count_quiet_day(that_day)
    return standing


Step = Callable[[Standing], None]
_EVENT_OF = {"acknowledge": "acknowledged", "close": "closed"}


def _what_happened(world: World, before: date) -> dict[date, list[Step]]:
    """The ledger's events as steps, per day in the order in which the day loop took them."""
    steps: list[tuple[date, int, Step]] = []
    for row in inputs(world):
        steps.append((row["effective_day"], 0, partial(apply_input, row=row)))
    for event in incident_events(world):
        steps.append((event.day, 1 if event.event in _EVENT_OF.values() else 3, partial(Standing.take, event=event)))
    for row in world.ledger.effective("incidents", world.name):
        steps.append((row["day"], 2, partial(open_incident, row=row)))
    for row in world.ledger.effective("decisions", world.name):
        steps.append((row["day"], 4, partial(Standing.note, day=row["day"], kind=Kind(row["kind"]))))
    found: dict[date, list[Step]] = {}
    for day, _order, step in sorted(steps, key=lambda one: one[:2]):
        if day < before:
            found.setdefault(day, []).append(step)
    return found


def incident_events(world: World) -> list[Event]:
    """Everything that happened to the service's incidents, in the order in which it counts."""
    rows = world.ledger.effective("incident_events", world.name)
    names = ("day", "incident_id", "event", "tier", "text", "evidence")
    return in_order(Event(**{name: row[name] for name in names}) for row in rows)


def bad_days(world: World, by: date) -> frozenset[date]:
    """Days that people called bad data when they closed an incident; their word counts from its effective day on."""
    said = [one.evidence for one in incident_events(world) if one.event == "closed" and one.day <= by]
    return frozenset(
        day
        for answer in said
        if answer["as"] == "bad_data"
        for day in days_between(date.fromisoformat(answer["from"]), date.fromisoformat(answer["until"]))
    )


def open_incident(standing: Standing, row: Row) -> None:
    """One row of ledger table ``incidents``."""
    incident = opened(row["incident_id"], row["cause"], row["day"], row["tier"], row["text"])
    standing.incidents[incident.cause] = incident


def inputs(world: World) -> list[Row]:
    """What people said, oldest effective day first."""
    said = world.ledger.rows("inputs", world.name)
    return sorted(said, key=lambda row: (row["effective_day"], row["recorded_at"]))


def apply_input(standing: Standing, row: Row) -> None:
    """One person's word about retraining: a freeze or an unfreeze."""
    if row["kind"] == "freeze":
        standing.freeze(row["effective_day"], by_person=True)
    elif row["kind"] == "unfreeze":
        standing.unfreeze()


def events_of_inputs(standing: Standing, said: Sequence[Row]) -> list[Event]:
    """What the words of one day mean for the open incidents; a word about any other incident is void."""
    open_ones = standing.by_id
    events = [
        Event(
            row["effective_day"], row["subject"], _EVENT_OF[row["kind"]], open_ones[row["subject"]].tier, row["reason"],
            {"by": row["by"], **(row["details"] or {})},
        )
        for row in said
        if row["kind"] in _EVENT_OF and row["subject"] in open_ones
    ]  # fmt: skip
    return in_order(events)


def proposals(world: World) -> dict[str, list[Row]]:
    """Decision -> the versions it trained that wait for a signature."""
    signed = {row["decision_id"] for row in world.ledger.effective("sign_offs", world.name)}
    found: dict[str, list[Row]] = {}
    for row in world.ledger.effective("proposals", world.name):
        if row["decision_id"] not in signed:
            found.setdefault(row["decision_id"], []).append(row)
    return found


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
    waits = waits_for(world, day, world.now()) or lacks_landing(world)
    return Closable(day, waits is None, waits or f"{day} may close")


def lacks_landing(world: World) -> str | None:
    """Why nothing can be closed from here: no landing zone, or a new service of which no file ever came; None: it can.

    A wrong folder would close day after day as missing, and what is closed stays. A service that reads a table brings
    its files itself.
    """
    sources, landing = world.service.sources, world.home.landing
    is_there = landing.is_dir() and (
        world.closed_through() is not None or any(deliveries(landing, source.name, date.max) for source in sources)
    )
    if is_there or any(source.table is not None for source in sources):
        return None
    return (
        f"service '{world.name}': no file of its sources lies in the landing zone {landing}. Deliver one, or name the "
        f"right folder with MLOPS_LANDING or MLOPS_HOME"
    )


def waits_for(world: World, day: date, now: datetime) -> str | None:
    """What a day waits for at an instant; None: nothing, it may close."""
    end = world.calendar.end_of(day)
    if now < end:
        return f"{day} ends at {end} UTC"
    deadline = end + timedelta(hours=world.service.close_after_hours)
    if now >= deadline:
        return None
    for source in world.service.sources:
        if source.expected.covers(day) and not is_landed(world, source, day):
            of_table = f" (rows of table '{source.table.table}')" if source.table else ""
            return f"{day} waits for {source.name}/{day}.*{of_table} until {deadline} UTC"
    return None
