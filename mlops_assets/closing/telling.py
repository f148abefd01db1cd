"""What people are told: one message per decision, with the incident's playbook in it."""

from datetime import timedelta

from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.notifier import Channel, Message
from mlops_assets.closing.standing import standing_before
from mlops_assets.closing.world import World
from mlops_assets.decisions import Kind
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.monitoring_loop.playbooks import playbook


def message(world: World, decision: Row) -> Message:
    """The message that a decision asks for: a page if it is grave or nobody came, a ticket, or the week's digest."""
    title = f"{world.name}, {decision['day']}: {decision['because']}"
    duty = world.service.raci.incident_response
    if decision["kind"] == Kind.DIGEST.value:
        owner = world.service.owner
        body = f"To: {owner.name} <{owner.email}>\n\n{title}\n\n{_week(world, decision)}"
        return Message(decision["decision_id"], Channel.DIGEST, title, body)
    is_escalation = decision["kind"] == Kind.ESCALATE.value
    is_page = is_escalation or decision["evidence"]["tier"] == "severe"
    whom = f"{duty.accountable} (accountable)" if is_escalation else f"{duty.responsible} (responsible)"
    incident = incident_of(world, decision)
    page = playbook(world.service, incident) if incident else "The incident is closed already."
    channel = Channel.PAGE if is_page else Channel.TICKET
    return Message(decision["decision_id"], channel, title, f"To: {whom}\n\n{title}\n\n{page}")


def incident_of(world: World, decision: Row) -> Incident | None:
    """The incident a decision is about, as it stood at the end of the decision's day; None: closed by then."""
    incident_id = decision["evidence"].get("incident_id", decision["decision_id"])
    return standing_before(world, decision["day"] + timedelta(days=1)).by_id.get(incident_id)


def _week(world: World, decision: Row) -> str:
    from mlops_assets.status import status_lines, status_of

    return "\n".join(status_lines(status_of(world, decision["day"])))
