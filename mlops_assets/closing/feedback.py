"""Third step, reading: what the block's days were told by others, as facts: logged predictions and label events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import duckdb
import pandas as pd

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.engine import copy_sql, literal, put, quote, register_days, rows, run
from mlops_assets.closing.features import register_known
from mlops_assets.closing.known import CONFLICTING, KnownGeneration, SourceState
from mlops_assets.closing.world import World, source_columns
from mlops_assets.feedback_loop.attribution import (
    attributed_events_sql,
    attribution_profile_sql,
    candidates_sql,
    held_sql,
    told_days,
)
from mlops_assets.feedback_loop.labels import label_events_sql, label_timing_sql
from mlops_assets.feedback_loop.prediction_log import (
    conflicts_sql,
    judged_rows_sql,
    keep_first_rows_sql,
    log_events_sql,
    logged_rows_sql,
)
from mlops_assets.monitoring_loop.profiles import LOG, insert_profiles
from mlops_assets.service.prediction_log import ROLES, STATUSES
from mlops_assets.service.sources import Source
from mlops_assets.tables import BY_NAME

LOG_EVENTS = ("repeated", "conflicting", "late", "failed")
"""What can happen to a row of an external log; profiled under subject *log*."""


def register_block(
    world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date], known: Sequence[KnownGeneration]
) -> None:
    """Put ``days``, ``known``, ``block_days`` and ``listed`` into the engine, and an empty table of label events.

    ``known`` reaches back as far as outcomes that were told before can change hands on these days.
    """
    register_days(con, world.calendar, min(days), max(days))
    reach = min(days) - timedelta(days=told_days())
    register_known(con, [generation for generation in known if reach <= generation.listed_on <= max(days)])
    put(con, "block_days", pd.DataFrame({"day": pd.to_datetime(pd.Series(days))}))
    run(con, copy_sql("listed", listed_sql()))
    for name in ("labels", "conflicts"):
        run(con, BY_NAME[name].create_sql())


def listed_sql() -> str:
    """SQL of ``listed``: the generations that the block's days list, with the start of the listing day."""
    return """
        select k.*, d.start_at from known k join days d on d.day = k.listed_on
        where k.listed_on in (select day from block_days)
    """


def open_stored(
    world: World,
    con: duckdb.DuckDBPyConnection,
    source: Source,
    days: Sequence[date],
    known: Sequence[KnownGeneration],
    name: str,
) -> bool:
    """View the stored rows of a source that the block's days list; false if they list none."""
    arrivals = [k.arrival_day for k in known if k.source == source.name and k.listed_on in set(days)]
    if arrivals:
        columns = source_columns(source)
        world.shared.view(con, source.name, columns, name=name, first=min(arrivals), last=max(arrivals), is_open=True)
    return bool(arrivals)


def read_labels(
    world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date], known: Sequence[KnownGeneration]
) -> None:
    """Add the label events of the block's days to ``labels``, of definitions whose outcomes name their request."""
    for label in world.service.labels:
        source = world.service.source(label.source)
        if label.attribution == "same_request" and open_stored(world, con, source, days, known, "stored_labels"):
            run(con, label_events_sql(label, source, stored="stored_labels", listed="listed", into="labels"))


def attribute_labels(
    world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date], known: Sequence[KnownGeneration]
) -> None:
    """Add the label events of the block's days of definitions that share an entity with their requests.

    ``predictions`` has the block's days and ``attribution.history_days`` before them. Whom an outcome could have
    belonged to is profiled.
    """
    attributed = [label for label in world.service.labels if label.attribution != "same_request"]
    if not attributed:
        return
    back = [day for day in days_between(min(days) - timedelta(days=told_days()), max(days))]
    run(con, copy_sql("listed_back", listed_between_sql(back[0], back[-1])))
    for label in attributed:
        source = world.service.source(label.source)
        if not open_stored(world, con, source, back, known, "stored_labels"):
            continue
        found = candidates_sql(label, source, stored="stored_labels", listed="listed_back", predictions="predictions")
        run(con, copy_sql("candidates", found))
        run(con, copy_sql("held", held_sql("candidates")))
        run(con, attributed_events_sql(label, held="held", into="labels"))
        shares = dict.fromkeys(("unattributed", "several_candidates"), True)
        told = f"({attribution_profile_sql(label, 'candidates')})"
        insert_profiles(con, "profiles", told, "label_version", shares, {}, days)


def profile_label_timing(world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date]) -> None:
    """Profiles of how late labels came, how many only exist because of our own decision, and how many per KPI."""
    needs = any(label.needs_decision for label in world.service.labels)
    has_kpi = any(label.kpi is not None for label in world.service.labels)
    timing = label_timing_sql(labels="labels", predictions="predictions", needs_decision=needs, has_kpi=has_kpi)
    names = ("delay_hours", *(("own_decision",) if needs else ()), *(("per_kpi",) if has_kpi else ()))
    insert_profiles(con, "profiles", f"({timing})", "label_version", dict.fromkeys(names, True), {}, days)


def listed_between_sql(first: date, last: date) -> str:
    """SQL of the generations that closings of some days list, in the shape of ``listed``."""
    return f"""
        select k.*, d.start_at from known k join days d on d.day = k.listed_on
        where k.listed_on between {literal(first)} and {literal(last)}
    """


def read_log(
    world: World, con: duckdb.DuckDBPyConnection, days: Sequence[date], known: Sequence[KnownGeneration]
) -> None:
    """Add what an external log brought on the block's days to ``predictions`` and ``conflicts``.

    ``predictions`` already has the closed days. Leaves temp table ``judged_log``, for ``profile_log``.
    """
    log = world.service.prediction_log
    if log is None:
        return
    source, version = world.service.source(log.source), world.service.feature_set.version
    if not open_stored(world, con, source, days, known, "stored_log"):
        return
    slices = {**log.context, **(world.service.context if world.service.is_monitor_only else {})}
    logged = logged_rows_sql(
        log, source, slices=slices, classes=world.service.label.classes, service=world.name, feature_version=version,
        stored="stored_log", listed="listed",
    )  # fmt: skip
    run(con, copy_sql("arrived_log", logged))
    run(con, copy_sql("judged_log", judged_rows_sql(log, arrived="arrived_log", known="predictions")))
    run(con, keep_first_rows_sql(log, judged="judged_log", into="predictions"))
    run(con, conflicts_sql(judged="judged_log", into="conflicts"))
    events = f"({log_events_sql(log, judged='judged_log', days=days, subject=LOG)})"
    insert_profiles(con, "profiles", events, "subject", dict.fromkeys(LOG_EVENTS, True), {}, days)


def conflicting_days_sql(days: Sequence[date]) -> str:
    """SQL of the days with conflicts: of rows that contradict others and of rows that are no answers how many there
    are, the first of them, the column, and what it says there."""
    column = "replace(differs, 'served_at', 'predicted_at')"
    return f"""
        select day, is_unfit, count(*), min(who), arg_min_null(differs, place), arg_min_null(says, place)
        from (select *, coalesce(request_id, '') as who, (who, source_key) as place,
                     json_extract_string(payload, {column}) as says from conflicts)
        where day in ({", ".join(literal(day) for day in days)}) group by day, is_unfit order by 1, 2
    """


def with_conflicts(
    world: World, con: duckdb.DuckDBPyConnection, states: Mapping[date, Sequence[SourceState]]
) -> dict[date, list[SourceState]]:
    """States of the sources, where the log that contradicts itself breaks its promise."""
    log = world.service.prediction_log
    found: dict[date, list[str]] = {}
    for day, is_unfit, n, who, what, says in rows(con, conflicting_days_sql(list(states))):
        words = unfit_words(n, who, what, says) if is_unfit else contradiction_words(n, who, what)
        found.setdefault(day, []).append(words)

    def stated(day: date, state: SourceState) -> SourceState:
        if log is None or state.source != log.source or day not in found:
            return state
        return replace(state, state=CONFLICTING, reason="; ".join(found[day]))

    return {day: [stated(day, state) for state in of_day] for day, of_day in states.items()}


def contradiction_words(n: int, who: str, what: str) -> str:
    """What is wrong with rows of a log that contradict earlier ones, and what to do."""
    return (
        f"{n} row(s) contradict an earlier row of the same request and model version, first request '{who}' in "
        f"{what}; the first row counts, see table conflicts. Log every answer once, or under its own request id"
    )


FIXES = {
    "role": f"Roles are {', '.join(ROLES)}: translate the log's words in prediction_log > role",
    "status": f"Statuses are {', '.join(STATUSES)}: translate the log's words in prediction_log > status",
    "served_at": "An answer is given before it is logged, and no months before: set the clock of the system that "
    "writes it, or name another column in prediction_log > served_at",
    "propensity": "A chance lies between 0 and 1: correct prediction_log > propensity",
}


def unfit_words(n: int, who: str, what: str, says: str | None) -> str:
    """What is wrong with rows of a log that are no answers, and what to do."""
    told = f" ('{says}')" if says is not None else ""
    fix = FIXES.get(what, f"Write down the {what} of every answer, or name another column in prediction_log > {what}")
    return f"{n} row(s) are no answers, first request '{who}' for its {what}{told}; see table conflicts. {fix}"


def prediction_days_sql(days: Sequence[date]) -> str:
    """SQL of the prediction days that predictions logged on some days are about."""
    return f"""
        select distinct prediction_day from {quote("predictions")}
        where day in ({", ".join(literal(day) for day in days)}) order by 1
    """
