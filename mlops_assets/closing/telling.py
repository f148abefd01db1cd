"""What people are told: one message per decision, with the incident's playbook in it; per owner one page a week."""

from collections.abc import Iterator
from datetime import date, timedelta

from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.notifier import Channel, Message
from mlops_assets.closing.incident_pages import incident_page
from mlops_assets.closing.standing import standing_before
from mlops_assets.closing.world import World
from mlops_assets.decisions import Kind
from mlops_assets.monitoring_loop.incidents import Incident

STALLED_PAGE = """No day closes, so nothing is watched: no drift, no quality, no new incident.

1. `mlops status {name}`: what the day waits for, and who writes.
2. `mlops check {name}`: is the schedule off? Is the daemon running?
3. Read the newest failed run of `{name}_daily` in Dagster; after a kill: `mlops recover {name}`.
"""


def message(world: World, decision: Row) -> Message:
    """The message that a decision asks for: a page if it is severe or no day closes, a ticket, or the week's digest.

    The tier names the channel, whoever is told: what is moderate reaches the accountable person as a ticket, too.
    """
    decision_id, title = decision["decision_id"], f"{world.name}, {decision['day']}: {decision['because']}"
    duty = world.service.raci.incident_response
    responsible, accountable = f"{duty.responsible} (responsible)", f"{duty.accountable} (accountable)"
    match decision["kind"]:
        case Kind.DIGEST:
            return _digest(world, decision)
        case Kind.STALLED:
            body = f"To: {accountable}\n\n{title}\n\n{STALLED_PAGE.format(name=world.name)}"
            return Message(decision_id, Channel.PAGE, title, body)
        case Kind.FAILED_RUN:
            return Message(decision_id, Channel.TICKET, title, f"To: {responsible}\n\n{title}")
    is_escalation = decision["kind"] == Kind.ESCALATE
    is_page = decision["evidence"]["tier"] == "severe"
    incident = incident_of(world, decision)
    page = incident_page(world, incident, decision["day"]) if incident else "The incident is closed already."
    channel, whom = Channel.PAGE if is_page else Channel.TICKET, accountable if is_escalation else responsible
    return Message(decision_id, channel, title, f"To: {whom}\n\n{title}\n\n{page}")


def incident_of(world: World, decision: Row) -> Incident | None:
    """The incident a decision is about, as it stood at the end of the decision's day; None: closed by then."""
    incident_id = decision["evidence"].get("incident_id", decision["decision_id"])
    return standing_before(world, decision["day"] + timedelta(days=1)).by_id.get(incident_id)


def _digest(world: World, decision: Row) -> Message:
    """The owner's page: all of their services, one after another."""
    owner, together = world.service.owner, [world, *others_of_owner(world, decision["day"])]
    found = {one.name: digest_of(one, decision) for one in together}
    said = {name: row["because"] if row else f"not closed through {decision['day']} yet" for name, row in found.items()}
    title = "; ".join(f"{name}, {decision['day']}: {words}" for name, words in said.items())
    pages = "\n\n".join(_week(one, decision) for one in together)
    body = f"To: {owner.name} <{owner.email}>\n\n{title}\n\n{pages}"
    return Message(decision["decision_id"], Channel.DIGEST, title, body)


def others_of_owner(world: World, day: date) -> list[World]:
    """The other services of the same owner that have a weekly page and live on a day, by name."""
    email = world.service.owner.email
    mine = [
        one for one in world.beside
        if one.owner.email == email and one.incidents.digest == "weekly"
        and one.first_day <= day and (one.last_day is None or day <= one.last_day)
    ]  # fmt: skip
    return [World(one, world.home, world.clock) for one in sorted(mine, key=lambda one: one.name)]


def digest_of(world: World, decision: Row) -> Row | None:
    """A service's own decision to send the page of the week that another one's is about."""
    rows = world.ledger.effective("decisions", world.name)
    return next((row for row in rows if row["kind"] == Kind.DIGEST and row["day"] == decision["day"]), None)


def told_with(world: World, decision: Row) -> str | None:
    """The decision of another service of the owner that has told this week already; None: nobody has."""
    return next((row["decision_id"] for one, row in _weeks(world, decision) if row and _is_done(one, row)), None)


def digest_waits(world: World, decision: Row) -> str | None:
    """Why the owner's page is not sent yet: a service that may still close the week, or that sends it for all."""
    for one, row in _weeks(world, decision):
        end = one.calendar.end_of(decision["day"]) + timedelta(hours=one.service.close_after_hours)
        if row is None and world.now() < end and one.closed_through() is not None:
            return f"waits for {one.name} to close {decision['day']}, until {end} UTC"
        if row is not None and not _is_done(one, row) and one.name < world.name:
            return f"{one.name} sends the page of the week"
    return None


def _weeks(world: World, decision: Row) -> Iterator[tuple[World, Row | None]]:
    for one in others_of_owner(world, decision["day"]):
        yield one, digest_of(one, decision)


def _is_done(world: World, decision: Row) -> bool:
    actions = world.ledger.effective("actions", world.name)
    mine = [row for row in actions if row["decision_id"] == decision["decision_id"] and row["state"] == "done"]
    return any(row["by"] != "replay" for row in mine)  # a replay sends nothing


def _week(world: World, decision: Row) -> str:
    from mlops_assets.status import status_lines, status_of

    return "\n".join(status_lines(status_of(world, decision["day"])))
