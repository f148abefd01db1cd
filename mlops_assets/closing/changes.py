"""The change log: what changed behind the numbers, on the day on which it first counts (ledger table ``changes``).

Numbers that move without a line here moved because the world did. The first closing of a service writes what
everything stands at; later closings write only what differs from the newest line before them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from platform import python_version

from mlops_assets.adapters.engine import rows
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.block import Block
from mlops_assets.closing.standing import inputs
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.events import known_events
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.labels import LabelDefinition

ON = "on"

WATCHED_PACKAGES = (
    "deltalake",
    "duckdb",
    "mlflow",
    "mlops-assets",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "sqlglot",
)
"""Packages whose version can change a number."""


def changes_of(world: World, block: Block, days: Sequence[date]) -> dict[date, list[Row]]:
    """The rows of ``changes`` per day, oldest first; a day on which nothing changed has none."""
    known = standing_at(world, min(days))
    epoch = world.ledger.epoch(world.name)
    restated, promised = restated_rows(block), declared(world)
    events = known_events(world.service.drift)
    found: dict[date, list[Row]] = {}
    for day in sorted(days):
        states = {**promised, **roles(world, day), **events_on(events, day, known)}
        told = [(kind, subject, known.get((kind, subject), ""), after, "", reason)
                for (kind, subject), (after, reason) in sorted(states.items())
                if known.get((kind, subject)) != after]  # fmt: skip
        known |= {(kind, subject): after for kind, subject, _before, after, _by, _reason in told}
        told += [(f"owner:{row['kind']}", row["input_id"], "", row["subject"], row["by"], row["reason"])
                 for row in inputs(world) if row["effective_day"] == day]  # fmt: skip
        if restated.get(day):
            told.append(
                ("restated", "quality", "", f"{restated[day]} rows", "", "a label was corrected after its window")
            )
        names = ("kind", "subject", "before", "after", "by", "reason")
        event = {"service": world.name, "epoch": epoch, "day": day}
        found[day] = [{**event, **dict(zip(names, one, strict=True))} for one in told]
    return found


def standing_at(world: World, day: date) -> dict[tuple[str, str], str]:
    """What the change log says of everything when a day begins: (kind, subject) -> newest ``after``."""
    told = world.ledger.effective("changes", world.name)
    return {(row["kind"], row["subject"]): row["after"] for row in told if row["day"] < day}


def declared(world: World) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, subject) -> (what it stands at, why it matters) of everything that is declared or installed."""
    service = world.service
    found = {
        ("features", "feature_version"): (service.feature_set.version, "the declaration of the features"),
        ("label", "definition"): (label_definition(service.label), "what the label means"),
        ("owner", "service"): (f"{service.owner.name} <{service.owner.email}>", "who answers for the service"),
    }
    for source in service.sources:
        path = world.contracts / f"{source.contract}.json"
        suite = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "none"
        found["contract", source.name] = (suite, f"fingerprint of suite {source.contract}")
    return found | {("dependency", name): (number, "installed") for name, number in installed()}


def events_on(
    events: Sequence[KnownEvent], day: date, known: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind, subject) -> (state, why) of the known events: each begins and ends on a day, and what is known grows.

    An event that was over before anybody looked has no line.
    """
    found = {("events", "known"): (events_known(events, day), "which planned changes were known by then")}
    for event in events:
        is_on = event.covers(day)
        if is_on or known.get(("event", event.id), "").startswith(ON):
            found["event", event.id] = (f"{ON}, {event.kind}" if is_on else "over", event.reason)
    return found


def events_known(events: Sequence[KnownEvent], day: date) -> str:
    """How many events were declared by the end of a day, and a fingerprint of what they say.

    >>> events_known([], date(2013, 7, 1))
    '0 e3b0c442'
    """
    told = sorted(event.model_dump_json() for event in events if event.declared_on <= day)
    return f"{len(told)} {hashlib.sha256(''.join(told).encode()).hexdigest()[:8]}"


def label_definition(label: LabelDefinition) -> str:
    """A label definition as one text: its version, and a fingerprint of what it reads.

    What is left at its default is left out: a field that a newer release of this package adds changes no meaning.

    >>> label = LabelDefinition(version="late", source="a", request_id="id", value="x > 1", window_hours=1,
    ...                         never_labelled="none")
    >>> label_definition(label).partition(" ")[0]
    'late'
    """
    meaning = label.model_dump_json(exclude={"version", "never_labelled"}, exclude_defaults=True)
    return f"{label.version} {hashlib.sha256(meaning.encode()).hexdigest()[:8]}"


@cache
def installed() -> tuple[tuple[str, str], ...]:
    """(package, version) of what can change a number, Python first."""
    return ("python", python_version()), *((name, version(name)) for name in WATCHED_PACKAGES)


def roles(world: World, day: date) -> dict[tuple[str, str], tuple[str, str]]:
    """(model, role) -> (version, decision) of everybody who holds a role on a day."""
    last = world.calendar.last_instant(day)
    return {("model", role): (row["model_version"], row["decision_id"]) for role, row in world.holders(last).items()}


def restated_rows_sql() -> str:
    """SQL of ``(day, rows)``: quality that a correction restated."""
    return "select day, count(*) from quality where state = 'restated' group by day"


def restated_rows(block: Block) -> dict[date, int]:
    """Day -> rows of ``quality`` that a late correction restated on it."""
    return dict(rows(block.con, restated_rows_sql()))
