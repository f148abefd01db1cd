"""Judge: which declared thing is watched by nobody, promised by nobody, or switched off without a reason?

Pure: from the declaration and a few facts about what lies around it to a list of gaps. A gap is no error: it is
what an owner should know before an incident shows it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date

import sqlglot
from sqlglot import exp

from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.features import LatestView, RequestView, View, WindowView
from mlops_assets.service.operations import SwitchedOff
from mlops_assets.service.service import MLService

TOP_FEATURES = 5
CRITICAL = "critical"
MAX_CRITICAL = 10
"""With more critical features than this nobody knows which of them matters."""


@dataclass(frozen=True)
class Around:
    """What lies around a declaration.

    Attributes:
        expected_columns: source -> columns that an expectation of its contract suite names.
        importance: feature -> loss that shuffling it adds, from the newest candidate's evaluation; empty: none yet.
        playbooks: names of the playbook pages that exist.
        needed_playbooks: names of the pages that incidents of this service open.
        switched_off: sensors and schedules that do not run.
        events: the declared known events.
        today: for expiries.
    """

    expected_columns: Mapping[str, Collection[str]]
    importance: Mapping[str, float] = field(default_factory=dict)
    playbooks: Collection[str] = ()
    needed_playbooks: Collection[str] = ()
    switched_off: Collection[str] = ()
    events: Collection[KnownEvent] = ()
    today: date = date.min


@dataclass(frozen=True)
class Gap:
    """One thing and what it lacks: monitor, owner, playbook, label, contract, reason or attention."""

    thing: str
    lacks: str
    fix: str

    def in_words(self) -> str:
        """One line for people."""
        return f"{self.thing} has no {self.lacks}: {self.fix}"


def gaps(service: MLService, around: Around) -> list[Gap]:
    """Everything that nobody watches, promised or explains, in a fixed order."""
    return [
        *without_contract(service, around),
        *without_promise(service),
        *without_monitor(service),
        *critical_ones(service, around),
        *without_playbook(around),
        *without_reason(service, around),
        *expired_events(around),
    ]


def columns_read(view: View) -> set[str]:
    """Columns of its source that a view computes features from."""
    if isinstance(view, RequestView):
        return set()
    if isinstance(view, WindowView):
        expressions = [aggregate.expression for aggregate in view.aggregates.values()]
    else:
        expressions = list(view.features.values())
    trees = [sqlglot.parse_one(text, dialect="duckdb") for text in expressions]
    return {column.name.lower() for tree in trees for column in tree.find_all(exp.Column)}


def without_contract(service: MLService, around: Around) -> Iterator[Gap]:
    """Sources without an owner or a single expectation; columns that feed features and that no expectation names."""
    read: dict[str, set[str]] = {source.name: set() for source in service.sources}
    for view in service.views:
        if not isinstance(view, RequestView):
            read[view.source] |= columns_read(view)
    for source in service.sources:
        if not source.owner:
            yield Gap(f"source {source.name}", "owner", "name whom to ask when it breaks in Source.owner")
        named = {column.lower() for column in around.expected_columns.get(source.name, ())}
        if not named:
            yield Gap(f"source {source.name}", "contract", f"write expectations into suite '{source.contract}'")
        elif bare := sorted(read[source.name] - named):
            yield Gap(f"source {source.name}, column {', '.join(bare)}", "contract", "features are computed from it")


def without_promise(service: MLService) -> Iterator[Gap]:
    """Levels that nobody promised, so that nobody notices when they are missed."""
    operations = service.operations
    for of, what in (
        ("latency", "answering time"), ("errors", "failed answers"), ("freshness", "age of features"),
        ("label_delay", "delay of labels"),
    ):  # fmt: skip
        if operations.objective(of) is None:
            yield Gap(what, "promised level", f"declare an objective '{of}' in operations.objectives")
    if operations.max_cost_per_1000 is None:
        yield Gap("cost", "promised level", "declare operations.max_cost_per_1000")
    if service.is_monitor_only:  # costs come with the log, and who trains the model answers for its age
        return
    for name in ("champion", "fallback"):
        if getattr(service.model, name).cost_per_prediction is None:
            yield Gap(f"cost of the {name}", "known value", f"declare model.{name}.cost_per_prediction")
    if operations.max_model_age_days is None:
        yield Gap("age of the champion", "promised level", "declare operations.max_model_age_days")


def without_monitor(service: MLService) -> Iterator[Gap]:
    """Views, labels and quality that no monitor looks at."""
    for view in service.views:
        if isinstance(view, LatestView) and view.max_age_hours > 24 * 31:
            yield Gap(f"view {view.name}", "useful freshness limit", f"max_age_hours is {view.max_age_hours:g}")
    quality = service.quality
    if not quality.degradation:
        yield Gap("falling quality", "monitor", "declare a sentence in quality.degradation")
    if not service.slices:
        yield Gap("parts of the traffic", "monitor", "declare quality.slices: a harm to one group hides in the whole")


def critical_ones(service: MLService, around: Around) -> Iterator[Gap]:
    """Critical features: some, not too many, and those that the newest candidate depends on most."""
    critical = service.drift.critical_features
    if len(critical) > MAX_CRITICAL:
        yield Gap(f"each of {len(critical)} critical features", "priority", f"keep the {MAX_CRITICAL} that matter most")
    if critical and service.drift.critical_confirmed_by not in (service.owner.name, service.owner.email):
        fix = f"{service.owner.name} confirms it by name in drift.critical_confirmed_by"
        yield Gap("the choice of critical features", "confirmation by the owner", fix)
    if service.is_monitor_only:
        return
    if not around.importance:
        yield Gap("the choice of critical features", "evidence yet", "no candidate was evaluated with importances")
        return
    known = excused(service)
    for feature in proposed(around.importance):
        if feature not in critical and f"{CRITICAL}:{feature}" not in known:
            added = f"shuffled, it adds {around.importance[feature]:.4f} loss"
            thing = f"feature {feature}, among the top {TOP_FEATURES} ({added}),"
            fix = f"confirm it in drift.critical_features, or excuse '{CRITICAL}:{feature}' in operations.switched_off"
            yield Gap(thing, "declared criticality", fix)


def proposed(importance: Mapping[str, float]) -> list[str]:
    """The features that an owner is asked to confirm as critical: the most important ones that matter at all.

    >>> proposed({"a": 0.1, "b": -0.01, "c": 0.2})
    ['c', 'a']
    """
    ranked = sorted((-added, name) for name, added in importance.items() if added > 0)
    return [name for _added, name in ranked[:TOP_FEATURES]]


def without_playbook(around: Around) -> Iterator[Gap]:
    """Incidents that would open a page that does not exist."""
    for name in sorted(set(around.needed_playbooks) - set(around.playbooks)):
        yield Gap(f"incident '{name}'", "playbook", f"write the page {name}.md")


def excused(service: MLService) -> dict[str, SwitchedOff]:
    """What is off on purpose, by name."""
    return {one.name: one for one in service.operations.switched_off}


def without_reason(service: MLService, around: Around) -> Iterator[Gap]:
    """What is switched off without somebody who answers for it, and excuses that have expired."""
    known = excused(service)
    for name in sorted({*around.switched_off, *muted(service)}):
        if name not in known:
            yield Gap(f"{name}, which is off,", "owner, reason and expiry", "declare it in operations.switched_off")
    for name, one in sorted(known.items()):
        if one.until < around.today:
            yield Gap(f"{name}, off by {one.by} until {one.until},", "valid excuse", "switch it on, or renew it")


def muted(service: MLService) -> list[str]:
    """Names of what the declaration switches off, or lets record and tell nobody.

    Plain rules and sentences about quality that are only recorded count: a rule that tells nobody looks like one.
    """
    quality, drift, is_theirs = service.quality, service.drift, service.is_monitor_only
    switches = {
        "calibration": quality.calibration is None and service.task == "binary",
        "harm": quality.harm is None,
        "digest": service.incidents.digest == "never",
        "rollback": not service.rollback.on and not is_theirs,
        "retraining": not is_theirs and service.model.cadence == "never" and not service.retrain_when,
        "training_growth": not is_theirs and service.operations.max_training_growth is None,
        "scoring_growth": not is_theirs and service.operations.max_scoring_growth is None,
    }
    silent = [f"rule:{rule.measure}" for rule in drift.rules if rule.tier == "recorded"]
    silent += [f"rule:{rule.sentence}" for rule in quality.degradation if rule.tier == "expected"]
    return [*(name for name, is_off in switches.items() if is_off), *silent]


def expired_events(around: Around) -> Iterator[Gap]:
    """Known events that go on and are believed no more: they mute nothing, and nobody may have noticed."""
    for event in around.events:
        if event.expiry < around.today <= event.end:
            thing = f"known event {event.id}, declared by {event.owner} until {event.expiry},"
            yield Gap(thing, "valid expiry", f"it goes on until {event.end}; renew it, or let it end")
