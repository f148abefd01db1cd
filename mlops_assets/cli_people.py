"""The verbs of people: each with a name, a reason, a rehearsal (``--dry-run``), and the next step in its answer."""

from datetime import date
from typing import TYPE_CHECKING, Any

import click

from mlops_assets.cli_options import DAY, verb, world_of, worlds_of
from mlops_assets.decisions import Kind

if TYPE_CHECKING:
    from mlops_assets.monitoring_loop.incidents import Answer


@verb("incident")
@click.option(
    "--as",
    "answer",
    required=True,
    type=click.Choice(["bad_data", "new_normal", "false_alarm"]),
    help="What it was. bad_data: its days leave baselines and trainings; new_normal: baselines start anew.",
)
@click.option("--from", "first", type=DAY, help="First bad day, or first day of the new normal. Default: its opening.")
@click.option("--until", "last", type=DAY, help="Last bad day. Default: the day it was last seen.")
def close(incident: str, *, answer: "Answer", first: date | None, last: date | None, **said: Any) -> str:
    """Close an open incident; counts from the first unclosed day on.

    \b
    Example: mlops close flight_delays-e1-2013-02-12-open_incident-weather --by ana --as bad_data --reason "sensor"
    """
    from mlops_assets.people import Closing, close_incident

    return close_incident(worlds_of(None), incident, Closing(answer, first, last), **said)


@verb("what", needs_reason=False)
def approve(what: str, **said: Any) -> str:
    """Take an incident, so that it is not escalated; or sign a model version that waits for it.

    Only who is responsible or accountable for model updates (RACI) may sign a version.

    \b
    Example: mlops approve flight_delays-e1-2013-02-28-retrain-retraining --by ana
    """
    from mlops_assets.people import approve as approved

    return approved(worlds_of(None), what, **said)


@verb("decision")
def reject(decision: str, **said: Any) -> str:
    """Refuse a model version that waits for a signature; the champion stays.

    \b
    Example: mlops reject flight_delays-e1-2013-02-28-retrain-retraining --by ana --reason "not before the holidays"
    """
    from mlops_assets.people import sign

    return sign(worlds_of(None), decision, "rejected", **said)


@verb("service")
def retrain(service: str, **said: Any) -> str:
    """Train as of the last closed day, at once; the gate decides as ever.

    \b
    Example: mlops retrain flight_delays --by ana --reason "the timetable changed"
    """
    from mlops_assets.people import retrain_now

    return retrain_now(world_of(service), **said)


@verb("service")
@click.option("--to", "version", help="A released version. Default: the last champion that was green, or the fallback.")
def rollback(service: str, version: str | None, **said: Any) -> str:
    """Give the champion's place back, at once.

    \b
    Example: mlops rollback flight_delays --by ana --reason "wrong on long flights" --dry-run
    """
    from mlops_assets.people import give_place

    return give_place(world_of(service), Kind.ROLLBACK, version, **said)


@verb("service")
@click.option("--to", "version", required=True, help="A released version.")
def promote(service: str, version: str, **said: Any) -> str:
    """Make a released version the champion, at once; only who may sign model updates.

    \b
    Example: mlops promote flight_delays --to 2013-02-28-champion-1f2e3d4c --by ana --reason "it was the better one"
    """
    from mlops_assets.people import give_place

    return give_place(world_of(service), Kind.PROMOTE, version, **said)


@verb("service")
def freeze(service: str, **said: Any) -> str:
    """Stop retraining; the champion goes on answering. Counts from the first unclosed day on.

    \b
    Example: mlops freeze flight_delays --by ana --reason "labels are being repaired"
    """
    from mlops_assets.people import set_frozen

    return set_frozen(world_of(service), True, **said)


@verb("service")
def unfreeze(service: str, **said: Any) -> str:
    """Allow retraining again; counts from the first unclosed day on.

    \b
    Example: mlops unfreeze flight_delays --by ana --reason "labels are repaired"
    """
    from mlops_assets.people import set_frozen

    return set_frozen(world_of(service), False, **said)


VERBS = (approve, close, freeze, promote, reject, retrain, rollback, unfreeze)
