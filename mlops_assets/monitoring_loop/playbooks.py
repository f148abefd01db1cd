"""The page an incident comes with: a Markdown template of its kind, filled in with what is known.

Shipped in ``mlops_assets/playbooks``; a service may name a folder with templates of its own. A ``$name`` in a
template is one of the facts below.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from mlops_assets.errors import DeclarationError
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.service.features import RequestView
from mlops_assets.service.service import MLService

SHIPPED = Path(__file__).parent.parent / "playbooks"
KINDS = ("delivery", "feature", "volume", "score", "quality", "operations", "other")
TIERS = ("unknown", "moderate", "severe")
NO_PLOTS = "No series is drawn."
NOT_ASKED = "Nothing is known of them."
_KIND_OF_CAUSE = {
    "drift:rows": "volume", "drift:score": "score", "drift": "feature", "quality": "quality",
    "objective": "operations", "operations": "operations", "training": "operations",
}  # fmt: skip
_TABLE_OF_CAUSE = {"quality": "rules", "objective": "objectives", "loop_sync": "loop_sync"}


def kind_of(service: MLService, incident: Incident) -> str:
    """Which template an incident takes: by what its cause names, a source's by whether a column of it moved."""
    if incident.cause in {source.name for source in service.sources}:
        return "feature" if incident.children else "delivery"
    named = _KIND_OF_CAUSE.get(incident.cause) or _KIND_OF_CAUSE.get(incident.cause.partition(":")[0])
    return named or "other"


def playbook(service: MLService, incident: Incident, plots: str = "", consequences: str = "") -> str:
    """The page of one incident, in Markdown.

    Args:
        plots: the series behind it, drawn.
        consequences: what it has led to, as lines of a list.

    Raises:
        DeclarationError: a template names a fact that does not exist.
    """
    known = {**facts(service, incident), "plots": plots or NO_PLOTS, "consequences": consequences or NOT_ASKED}
    tier = incident.tier if incident.tier in TIERS else "unknown"
    known["asked"] = _filled(service, f"tier-{tier}", known).strip()
    return _filled(service, kind_of(service, incident), known)


def _filled(service: MLService, name: str, known: Mapping[str, str]) -> str:
    path = template_path(service, name)
    try:
        return Template(path.read_text()).substitute(known)
    except (KeyError, ValueError) as error:
        raise DeclarationError(
            f"service '{service.name}' > incidents > playbooks > {path.name}",
            f"{error} is no fact.",
            f"Facts: {', '.join(sorted(known))}; write a dollar sign as $$.",
        ) from error


def template_path(service: MLService, name: str) -> Path:
    """The service's own template of this name if it has one, else the shipped one."""
    own = Path(service.incidents.playbooks) / f"{name}.md" if service.incidents.playbooks else None
    return own if own is not None and own.is_file() else SHIPPED / f"{name}.md"


def facts(service: MLService, incident: Incident) -> dict[str, str]:
    """What a template may name."""
    duty = service.raci.incident_response
    moved = [f"- {reason}" for reason in incident.children.values()] or [f"- {incident.text}"]
    return {
        "title": f"{incident.tier.capitalize()}: {incident.text}",
        "service": service.name,
        "purpose": service.purpose,
        "incident_id": incident.incident_id,
        "cause": incident.cause,
        "state": incident.state + (f", acknowledged by {incident.acknowledged_by}" if incident.acknowledged_by else ""),
        "tier": incident.tier,
        "opened_on": incident.opened_on.isoformat(),
        "last_seen": incident.last_seen.isoformat(),
        "upstream": upstream(service, incident.cause),
        "moved": "\n".join(moved),
        "level": incident.level_check.capitalize(),
        "owner": f"{service.owner.name} <{service.owner.email}>",
        "responsible": duty.responsible,
        "accountable": duty.accountable,
        "consulted": ", ".join(duty.consulted) or "nobody",
        "informed": ", ".join(duty.informed) or "nobody",
        "commands": "\n".join(commands(service, incident)),
    }


def upstream(service: MLService, cause: str) -> str:
    """The likely upstream source, and what reads it."""
    source = next((one for one in service.sources if one.name == cause), None)
    if source is None and cause.startswith("drift:"):
        source = service.source(service.request.source)
    if source is None:
        return f"`{cause}`"
    views = [view.name for view in service.views if not isinstance(view, RequestView) and view.source == source.name]
    read = f"; read by {', '.join(views)}" if views else ""
    whom = f"; ask {source.owner}" if source.owner else ""
    return f"source `{source.name}` ({source.description}), contract `{source.contract}.json`{read}{whom}"


def commands(service: MLService, incident: Incident) -> list[str]:
    """What to run: look, say that you have it, close it."""
    name, who = service.name, service.raci.incident_response.responsible
    days = f"day between '{incident.opened_on}' and '{incident.last_seen}'"
    columns = ", ".join(f"'{column}'" for column in sorted(incident.children) if re.fullmatch(r"\w+", column))
    queries = [drift_rows_sql(name, columns, days)] if columns else []
    table = _TABLE_OF_CAUSE.get(incident.cause.partition(":")[0])
    queries += [judged_rows_sql(name, table, days)] if table else []
    back = f"mlops rollback {name} --by '{who}' --reason '...' --dry-run   # who would take the champion's place"
    return [
        *(f'mlops sql "{query}"' for query in [*queries, contract_rows_sql(name, days)]),
        *([back] if incident.tier == "severe" and not service.is_monitor_only else []),
        f"mlops approve {incident.incident_id} --by '{who}'   # I have it",
        f"mlops close {incident.incident_id} --by '{who}' --as bad_data --reason '...'   # or new_normal, false_alarm",
    ]


def drift_rows_sql(service: str, columns: str, days: str) -> str:
    """SQL of what was expected and seen of the columns of an incident."""
    return (
        f"select day, column_name, statistic, value, expected, surprise, tier from {service}.drift "
        f"where {days} and column_name in ({columns}) order by day, column_name"
    )


def judged_rows_sql(service: str, table: str, days: str) -> str:
    """SQL of what was judged of quality, promised levels, or the loops' clocks meanwhile."""
    return (
        f"select day, tier, reason from {service}.{table} where {days} and tier in ('moderate', 'severe') order by day"
    )


def contract_rows_sql(service: str, days: str) -> str:
    """SQL of the promises of the service's sources that were broken meanwhile."""
    return f"select day, source, expectation, message from {service}.contracts where {days} and not success"
