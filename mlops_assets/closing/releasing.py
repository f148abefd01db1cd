"""Who answers: role changes in the ledger, by a gate, a rollback or a person; MLflow's aliases are their projection."""

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from math import ceil

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.standing import incident_events
from mlops_assets.closing.world import World
from mlops_assets.decisions import Decision, Kind
from mlops_assets.errors import LedgerError, UnknownNameError
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.incidents import Incident
from mlops_assets.monitoring_loop.rollbacks import Tenure, answered_on, is_breach, rollback, target
from mlops_assets.service.feature_versions import why_not_rolled_back


def automatic_rollback(
    world: World, day: date, findings: Sequence[Finding], incidents: Collection[Incident]
) -> Decision | None:
    """The rollback that a judged day asks for; ``incidents`` are the open ones, those of the block included."""
    if not any(one.tier == "severe" for one in findings):
        return None
    end = world.calendar.end_of(day)
    champion = world.holders(end).get("champion")
    earlier = [
        row["day"]
        for row in world.ledger.effective("decisions", world.name)
        if row["kind"] == Kind.ROLLBACK.value and row["day"] < day and "by" not in row["evidence"]
    ]
    return rollback(
        findings, world.service.rollback, day=day, champion=champion["model_version"] if champion else None,
        since=world.calendar.day_of(champion["effective_at"]) if champion else None,
        to=rollback_target(world, day, incidents), last_rollback=max(earlier, default=None),
        label_days=_label_days(world),
    )  # fmt: skip


def _label_days(world: World) -> int:
    """Days from an answer to the day on which its label is final."""
    return ceil(world.service.label.window / timedelta(days=1))


def rollback_target(world: World, day: date, incidents: Collection[Incident]) -> Tenure | None:
    """Who would take the champion's place at the end of a day; nobody whose features cannot be computed any more."""
    mature_days = world.service.label.window // timedelta(days=1) + 1
    opened = {
        answered_on(one.cause, one.opened_on, label_days=_label_days(world))
        for one in incidents
        if is_breach(one.cause)
    }
    barred = {row["model_version"] for row in world.releases() if world.lost_columns(row["feature_version"])}
    return target(tenures(world, day), opened | breaches(world, day), mature_days=mature_days, barred=barred)


def tenures(world: World, day: date) -> list[Tenure]:
    """Who held which role when, up to the end of a day, oldest first."""
    end = world.calendar.end_of(day)
    released = [row for row in world.releases() if row["effective_at"] <= end]
    found = []
    for number, row in enumerate(released):
        later = next((r for r in released[number + 1 :] if r["role"] == row["role"]), None)
        last = world.calendar.day_of(later["effective_at"]) - timedelta(days=1) if later else None
        found.append(Tenure(row["role"], row["model_version"], world.calendar.day_of(row["effective_at"]), last))
    return found


def breaches(world: World, day: date) -> set[date]:
    """Days whose answers an incident about quality or a promise is about, without those called false alarms."""
    false = {
        one.incident_id
        for one in incident_events(world)
        if one.event == "closed" and one.evidence["as"] == "false_alarm" and one.day <= day
    }
    return {
        answered_on(row["cause"], row["day"], label_days=_label_days(world))
        for row in world.ledger.effective("incidents", world.name)
        if is_breach(row["cause"]) and row["day"] < day and row["incident_id"] not in false
    }


def release_of(world: World, model_version: str) -> Row:
    """The first release of a version: where its file, features and training are named.

    Raises:
        UnknownNameError: it never was released.
        LedgerError: a source no longer declares what its features are computed from.
    """
    known = {row["model_version"]: row for row in reversed(world.releases())}
    if model_version not in known:
        raise UnknownNameError(
            where=f"service '{world.name}'", kind="released version", name=model_version, known=known
        )
    may_answer(world, known[model_version])
    return known[model_version]


def may_answer(world: World, version: Row) -> None:
    """A version whose columns are gone answers nothing: its days would block.

    Args:
        world: the service.
        version: a release or a proposal.

    Raises:
        LedgerError: a source no longer declares what its features are computed from; names the columns.
    """
    features = world.feature_set(version["feature_version"])
    if why := why_not_rolled_back(version["model_version"], features, world.service.sources):
        raise LedgerError(f"service '{world.name}': {why}")


def change_champion(world: World, decision: Row, now: datetime) -> str:
    """Give the champion's place to the version that a decision names, once; what held it stays stored."""
    version = decision["evidence"]["to"]
    event = {name: decision[name] for name in ("service", "epoch", "day", "decision_id")}
    effective_at = max(world.calendar.end_of(decision["day"]), now)
    row = {**release_of(world, version), **event, "role": "champion", "effective_at": effective_at}
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "releases", [row])
    return f"{version} is champion from {effective_at} UTC on"


def reconcile(world: World) -> None:
    """Make MLflow's aliases say what the ledger says; they are its projection."""
    newest: dict[str, str | None] = {"champion": None, "fallback": None}
    newest |= {row["role"]: row["model_version"] for row in world.releases()}
    world.registry.reconcile_aliases(newest)


def may_sign(world: World, by: str) -> None:
    """Only who is responsible or accountable for model updates signs them.

    Raises:
        LedgerError: somebody else; names who may.
    """
    duty = world.service.raci.model_updates
    if by not in (duty.responsible, duty.accountable):
        raise LedgerError(
            f"service '{world.name}': '{by}' may not sign model updates. "
            f"Responsible: {duty.responsible}; accountable: {duty.accountable}."
        )
