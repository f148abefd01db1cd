"""What a service promises, as ``mlops check`` shows it: everything is loaded, nothing runs."""

import importlib
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from mlops_assets.adapters.engine import literal
from mlops_assets.adapters.landing import deliveries
from mlops_assets.closing.meanings import new_meanings
from mlops_assets.closing.world import World
from mlops_assets.errors import DeclarationError, MlopsError, UnknownNameError
from mlops_assets.monitoring_loop.coverage import Around, Gap, gaps, proposed
from mlops_assets.monitoring_loop.events import known_events
from mlops_assets.monitoring_loop.own_metrics import load_metric
from mlops_assets.monitoring_loop.playbooks import KINDS, TIERS, template_path
from mlops_assets.service.degradation import VERSION
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.prediction_log import PredictionLog
from mlops_assets.service.service import MLService
from mlops_assets.service.sources import Expected, Source, SqlTable
from mlops_assets.service.training import ModelPolicy, ModelTier
from mlops_assets.tables import BY_NAME

MAX_CORE_METRICS = 3
NOISE_WINDOW = timedelta(days=180)
"""How far back the daily noise of a rule is measured."""
CONTROL_DAYS = 28

Line = tuple[str, str]


def promises(world: World) -> Iterator[Line]:
    """What was promised: (what, in words) per line.

    Raises:
        DeclarationError: a contract suite or a factory that cannot be loaded, or a label version that means something
            else than when it was first used.
    """
    service = world.service
    features = service.feature_set
    yield "owner", f"{service.owner.name} <{service.owner.email}>"
    yield "purpose", service.purpose
    last = service.last_day or "no end"
    yield (
        "days",
        f"{service.first_day} to {last}, {service.timezone}, closed after {service.close_after_hours:g} h",
    )
    for source in service.sources:
        yield f"source {source.name}", _source(world, source)
    yield "features", f"{len(features.names)} in {len(service.views)} views, version {features.version}"
    if world.lake.tables():  # asking would make a ledger
        new_meanings(world)
    label = service.label
    yield (
        "label",
        f"{label.version}: {label.value}, {label.window_hours:g} h; never labelled: {label.never_labelled}",
    )
    yield from _log(service.prediction_log) if service.prediction_log else ()
    yield from () if service.is_monitor_only else _model(world, service.model)
    yield from rules(world)
    yield from _quality(service)
    yield from _drift(world)


def _quality(service: MLService) -> Iterator[Line]:
    """What is measured of the answers, and what they are worth."""
    quality = service.quality
    slices = ", ".join(quality.slices) or "none"
    yield "quality", f"{', '.join(quality.core_metrics)} over {quality.windows_days} days; slices: {slices}"
    for metric in quality.own_metrics:
        load_metric(metric, where=f"service '{service.name}' > quality > own_metrics > {metric.name}")
        better = "less" if metric.lower_is_better else "more"
        yield f"metric {metric.name}", f"{metric.function}, {metric.unit}, {better} is better"
    if quality.kpi:
        yield "kpi", f"{quality.kpi.name}, {quality.kpi.unit}: {quality.kpi.value}"
    if quality.calibration:
        watched = quality.calibration
        yield (
            "calibration",
            f"moderate from z {watched.moderate_z:g} and observed / predicted outside of {watched.min_ratio:g} to "
            f"{watched.max_ratio:g}, over {watched.windows_days} mature days",
        )


def _drift(world: World) -> Iterator[Line]:
    """What is watched for drift, and what is known beforehand."""
    service, drift = world.service, world.service.drift
    yield (
        "drift",
        f"at most {drift.alarm_budget.tier2_a_quarter:g} false alarms a quarter, severe on "
        f"{len(drift.critical_features)} critical features, baseline {drift.baseline_days} days",
    )
    yield "critical features", critical_choice(world)
    yield from plain_rules(world)
    events = known_events(drift)
    check_announced(service, events)
    late = [event.id for event in events if not event.is_known_before]
    yield "known events", f"{len(events)}" + (f"; in hindsight: {', '.join(late)}" if late else "")


def critical_choice(world: World) -> str:
    """What is declared critical, who confirmed it, and what the newest candidate's importances propose."""
    drift, found = world.service.drift, proposed(newest_importance(world))
    by = f"confirmed by {drift.critical_confirmed_by}" if drift.critical_confirmed_by else "confirmed by nobody"
    says = f"proposed by importance: {', '.join(found)}" if found else "none proposed: no candidate was evaluated yet"
    return f"{', '.join(drift.critical_features) or 'none'}; {by}; {says}"


def check_announced(service: MLService, events: Sequence[KnownEvent]) -> None:
    """See that events announce new texts of texts, and ranges of numbers, that the service has.

    Raises:
        UnknownNameError: there is no such feature of that kind.
    """
    texts = set(service.feature_set.categorical)
    numbers = set(service.feature_set.names) - texts
    for event in events:
        for field, named, known in (
            ("new_categories", event.new_categories, texts),
            ("ranges", event.ranges, numbers),
        ):
            where = f"service '{service.name}' > drift > known_events > {event.id} > {field}"
            for name in named:
                if name not in known:
                    raise UnknownNameError(where=where, kind="feature of that kind", name=name, known=known)


def _log(log: PredictionLog) -> Iterator[Line]:
    kept = ", ".join((*log.features, *log.context)) or "nothing else"
    yield "prediction log", f"{log.source}: {log.score} by {log.model_version}, served at {log.served_at}; kept: {kept}"


def _model(world: World, model: ModelPolicy) -> Iterator[Line]:
    for name in ("champion", "fallback"):
        tier: ModelTier = getattr(model, name)
        yield name, f"{tier.factory} -> {load_factory(world, name, tier)}"
    yield "retraining", f"{model.cadence}, approval {model.approval}, prior {model.prior:g}"
    yield (
        "gate",
        f"{model.primary_metric} on {model.gate.judged_days} judged days, at most "
        f"{model.gate.max_loss_increase_share:.1%} worse, at least {model.gate.min_labels} labels",
    )


def rules(world: World) -> Iterator[Line]:
    """Every sentence about quality, what it leads to, and how often it would be wrong."""
    from mlops_assets.closing.hindsight import judged_days
    from mlops_assets.monitoring_loop.false_alarms import in_words, noise_of

    service = world.service
    last = world.closed_through() if "quality" in world.lake.tables() else None  # asking would make a ledger
    declared = [(rule, f"incident ({rule.tier})") for rule in service.quality.degradation]
    declared += [(rule, f"retraining, then silent for {service.model.cool_down_days} days")
                 for rule in service.retrain_when]  # fmt: skip
    changes: dict[str, list[float]] = {}
    for judgement in judged_days(world, last - NOISE_WINDOW, last) if declared and last else ():
        for found in judgement.evaluations:
            if found.change is not None:
                changes.setdefault(found.rule, []).append(found.change)
    for rule, consequence in declared:
        yield "rule", f"{rule.sentence} -> {consequence}; {in_words(rule, noise_of(changes.get(rule.sentence, [])))}"


def plain_rules(world: World) -> Iterator[Line]:
    """Every plain rule over inputs with what it would have done in the last closed quarter."""
    from mlops_assets.closing.hindsight import rule_records

    declared = world.service.drift.rules
    last = world.closed_through() if declared and "profiles" in world.lake.tables() else None
    for record in rule_records(world, last) if last else ():
        yield "plain rule", f"{record.in_words()} ({record.rule.tier})"
    for rule in declared if last is None else ():
        yield "plain rule", f"{rule.measure} {rule.threshold:g} ({rule.tier}): no day is closed yet"


def _source(world: World, source: Source) -> str:
    from mlops_assets.feature_loop.contracts import load_suite

    path = world.contracts / f"{source.contract}.json"
    if not path.is_file():
        raise DeclarationError(
            f"service '{world.name}' > sources > {source.name} > contract",
            f"there is no suite {path.name} in {path.parent}.",
            "Write it, or name another one.",
        )
    expected = source.expected
    table = f"table {source.table.table} of ${source.table.url_variable}, " if source.table else ""
    return (
        f"{table}{len(load_suite(path))} expectations, due {_due(expected)}, "
        f"missing day: {source.on_missing_day}, bad row: {source.on_bad_row}; "
        f"landing: {_lying(world, source)}"
    )


def _due(expected: Expected) -> str:
    """When files are due, in words."""
    if expected.cadence == "list":
        return f"on {len(expected.days)} days, {expected.days[0]}..{expected.days[-1]}"
    until = f"..{expected.last or ''}" if expected.cadence == "daily" else ""
    return f"{expected.cadence} {expected.first}{until}"


def _lying(world: World, source: Source) -> str:
    """Which days of landing are there."""
    days = [delivery.day for delivery in deliveries(world.home.landing, source.name, date.max)]
    if not days:
        return "no file"
    gaps = sum(
        source.expected.covers(date.fromordinal(number)) and date.fromordinal(number) not in set(days)
        for number in range(days[0].toordinal(), days[-1].toordinal() + 1)
    )
    return f"{len(days)} days, {days[0]}..{days[-1]}" + (f", {gaps} missing in between" if gaps else "")


def load_factory(world: World, name: str, tier: ModelTier) -> str:
    """The name of what a tier's factory makes, called with the declared feature names.

    Raises:
        DeclarationError: the factory's module or function does not exist.
    """
    module, _, attribute = tier.factory.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise DeclarationError(
            f"service '{world.name}' > model > {name} > factory",
            f"{error}.",
            "Write package.module:function.",
        ) from error
    features = world.service.feature_set
    return type(factory(features.names, features.categorical, tier.seed)).__name__


def uncovered(world: World) -> list[Gap]:
    """What of the declaration nobody watches, promised or explains; reads what lies around it, writes nothing."""
    expected = {source.name: expected_columns(world, source) for source in world.service.sources}
    pages = {*KINDS, *(f"tier-{tier}" for tier in TIERS)}
    around = Around(
        expected, newest_importance(world), needed_playbooks=pages,
        playbooks={name for name in pages if template_path(world.service, name).is_file()},
        switched_off=stopped(world), events=known_events(world.service.drift),
        today=today_of(world),
    )  # fmt: skip
    return gaps(world.service, around)


def today_of(world: World) -> date:
    """The service's own day: excuses and events of a demo end in its year, not in the wall clock's."""
    if world.service.clock == "wall":
        return world.calendar.day_of(world.clock())
    has_history = "quality" in world.lake.tables()  # asking would make a ledger
    return world.calendar.day_of(world.now()) if has_history else world.service.first_day


def expected_columns(world: World, source: Source) -> set[str]:
    """Columns that an expectation of the source's suite names."""
    from mlops_assets.feature_loop.contracts import load_suite

    path = world.contracts / f"{source.contract}.json"
    named: set[str] = set()
    for expectation in load_suite(path) if path.is_file() else []:
        for name, value in expectation.kwargs.items():
            if name.startswith("column"):
                named |= set(value) if isinstance(value, list) else {str(value)}
    return named


def importance_sql() -> str:
    """SQL of ``(feature, added loss)`` of the newest candidate."""
    return """
        select replace(slice, 'feature=', ''), value from evaluation
        where metric = 'importance' and day = (select max(day) from evaluation where metric = 'importance')
        order by version, slice
    """


def newest_importance(world: World) -> dict[str, float]:
    """Feature -> loss that shuffling it adds, of the newest candidate; empty before there is one."""
    from mlops_assets.adapters.engine import open_engine, rows

    if "evaluation" not in world.lake.tables():
        return {}
    with open_engine() as con:
        world.lake.view(con, "evaluation", BY_NAME["evaluation"].columns)
        return dict(rows(con, importance_sql()))


def stopped(world: World) -> list[str]:
    """Schedules and sensors of the service that a person switched off in Dagster."""
    if not (world.home.dagster / "schedules").is_dir():
        return []
    from mlops_assets.adapters.dagster_home import stopped_instigators

    return [name for name in stopped_instigators(world.home) if name.startswith(f"{world.name}_")]


def warnings(world: World) -> Iterator[str]:
    """What is allowed and still a bad idea."""
    service = world.service
    if len(service.quality.core_metrics) > MAX_CORE_METRICS:
        yield (
            f"{len(service.quality.core_metrics)} core metrics: with more than {MAX_CORE_METRICS} nobody looks "
            "at any; keep the ones that a decision hangs on"
        )
    if not service.drift.critical_features:
        yield "no critical features: drift can freeze retraining only on the score"
    yield from _unmeasured_rules(service)
    yield from _missing_controls(world)
    if not service.is_monitor_only and service.model.cadence == "never":
        yield "cadence 'never': the model ages until a person retrains it"
    for source in service.sources:
        if source.table is not None:
            yield from _unreadable(source, source.table)
        elif not deliveries(world.home.landing, source.name, date.max):
            yield f"source {source.name}: no file in {world.home.landing / source.name}"


def _unreadable(source: Source, table: SqlTable) -> Iterator[str]:
    """Why a table cannot be read as declared; nothing if it can."""
    from mlops_assets.adapters.sql_tables import open_table

    try:
        with open_table(source, table):
            return
    except MlopsError as error:
        yield str(error)


def _unmeasured_rules(service: MLService) -> Iterator[str]:
    """Rules about a metric that nobody measures: they would be learning for ever."""
    measured = {*service.quality.measured, *([service.quality.kpi.name] if service.quality.kpi else [])}
    for rule in (*service.quality.degradation, *service.retrain_when):
        if rule.metric not in measured:
            yield f"rule '{rule.sentence}': '{rule.metric}' is not measured; measured: {', '.join(sorted(measured))}"


def _missing_controls(world: World) -> Iterator[str]:
    """Rules whose control has answered nothing in the newest closed weeks: they are learning."""
    from mlops_assets.adapters.engine import open_engine, rows

    declared = [rule for rule in (*world.service.quality.degradation, *world.service.retrain_when) if rule.has_control]
    last = world.closed_through() if declared and "quality" in world.lake.tables() else None
    if last is None:
        return
    with open_engine() as con:
        columns = BY_NAME["quality"].columns
        world.lake.view(con, "quality", columns, first=last - timedelta(days=CONTROL_DAYS), last=last)
        answered = {name for row in rows(con, answerers_sql()) for name in row}
    for rule in declared:
        if rule.compared_with not in answered:
            yield f"rule '{rule.sentence}': {rule.control} answered nothing in the newest {CONTROL_DAYS} closed days"


def answerers_sql() -> str:
    """SQL of the roles and the model versions (as rules name them) that have rows of quality."""
    return f"select distinct role, {literal(VERSION)} || version from quality where window_days = 1 and slice = 'all'"
