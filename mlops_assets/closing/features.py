"""Second step: features, their freshness and their profiles, for the whole range in one pass per set of generations.

What no decision touches. Rows of an unclosed day are provisional until its closing names their version.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta

import duckdb

from mlops_assets.adapters.engine import (
    columns_of,
    copy_sql,
    daily_fingerprints_sql,
    fingerprint_sql,
    literal,
    open_engine,
    put,
    quote,
    register_days,
    rows,
    run,
)
from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.binning import frozen_bins
from mlops_assets.closing.known import (
    KnownGeneration,
    blocked_days,
    inputs_fingerprints,
    is_log,
    known_for,
    segments,
    source_states,
    visible,
)
from mlops_assets.closing.releasing import rollback_target
from mlops_assets.closing.world import World, arrow, source_columns
from mlops_assets.feature_loop.freshness import measure_freshness
from mlops_assets.feature_loop.ingest import effective_rows_sql
from mlops_assets.feature_loop.point_in_time import compute_features, spine_sql
from mlops_assets.feedback_loop.told import told_sql
from mlops_assets.monitoring_loop.profiles import profile_features
from mlops_assets.service.features import FeatureSet, StaticView
from mlops_assets.service.sources import Source
from mlops_assets.tables import BY_NAME, Column

STEP_TABLES = ("features", "freshness", "profiles")
"""Tables that this step writes; the day loop adds the scores' profiles."""


def needed_versions(world: World, days: Sequence[date]) -> list[str]:
    """Feature versions that a range needs: the declared one, those of every holder in it, and of rollback targets.

    A rollback target is whom a champion of the range would give its place back to, as known when it took the place:
    what is found out later may be found out within the range. A version that reads a column which is gone is left
    out: it blocks the days on which it holds a role, and nothing is rolled back to it.
    """
    start, end = world.calendar.start_of(min(days)), world.calendar.end_of(max(days))
    released = [row for row in world.releases() if row["effective_at"] < end]
    holding: list[Row] = []
    for role in sorted({row["role"] for row in released}):
        of_role = [row for row in released if row["role"] == role]
        holding += of_role[max(0, sum(row["effective_at"] <= start for row in of_role) - 1) :]
    version_of = {row["model_version"]: row["feature_version"] for row in released}
    took_over = {world.calendar.day_of(row["effective_at"]) for row in holding if row["role"] == "champion"}
    targets = [rollback_target(world, day, ()) for day in sorted(took_over)]
    needed = {row["feature_version"] for row in holding} | {version_of[to.model_version] for to in targets if to}
    kept = {version for version in needed if not world.lost_columns(version)}
    return [world.feature_version, *sorted(kept - {world.feature_version})]


def feature_columns(features: Sequence[FeatureSet]) -> tuple[Column, ...]:
    """Columns of the ``features`` table that hold features of these versions."""
    names = {name: "VARCHAR" if name in fs.categorical else "DOUBLE" for fs in features for name in fs.names}
    return BY_NAME["features"].columns + tuple(Column(name, kind, "feature") for name, kind in names.items())


def ensure_features(world: World, days: Sequence[date], by: str) -> list[date]:
    """Compute features, freshness and feature profiles of the days whose stored ones are missing or of other inputs.

    Returns the days that were computed; takes the service's lease.
    """
    with world.ledger.lease(world.name, by):
        return refresh_features(world, days, known_for(world, days))


def refresh_features(world: World, days: Sequence[date], known: list[KnownGeneration]) -> list[date]:
    """``ensure_features`` for a caller that holds the lease and knows which generations are known.

    Those of closed days stay: a newer version is filled backwards beside them, when a training needs it.
    """
    first_unclosed = world.first_unclosed()
    unclosed = [day for day in days if day >= first_unclosed]
    if not unclosed:
        return []
    versions = needed_versions(world, unclosed)
    blocked = blocked_days(world, source_states(world, known, unclosed))
    stale = _stale_days(world, unclosed, known, versions, blocked)
    for segment in segments(known, stale) if stale else ():
        with open_engine() as con:
            compute_segment(world, con, segment, known, versions, blocked)
            run(con, BY_NAME["profiles"].create_sql())
            if open_days := [day for day in segment if day not in blocked]:
                feature_sets = [world.feature_set(version) for version in versions]
                profile_feature_sets(world, con, feature_sets, features="features", days=open_days)
            store_step(world, con, segment, inputs_fingerprints(known, segment), versions, blocked)
    return stale


def stored_inputs_sql() -> str:
    """SQL: what the stored features of each day were computed from, and whether the day was blocked then."""
    return "select day, inputs, feature_versions, state from generations where table_name = 'features'"


def _stale_days(
    world: World,
    days: Sequence[date],
    known: list[KnownGeneration],
    versions: Sequence[str],
    blocked: Collection[date],
) -> list[date]:
    inputs = inputs_fingerprints(known, days)
    with open_engine() as con:
        table = BY_NAME["generations"]
        world.lake.view(con, table.name, table.columns, first=min(days), last=max(days))
        stored = {
            day: (fingerprint, set((kept or "").split(",")), state == "blocked")
            for day, fingerprint, kept, state in rows(con, stored_inputs_sql())
        }

    def is_fresh(day: date) -> bool:
        fingerprint, kept, was_blocked = stored[day]
        return fingerprint == inputs[day] and set(versions) <= kept and was_blocked == (day in blocked)

    return [day for day in days if day not in stored or not is_fresh(day)]


def open_sources(
    world: World,
    con: duckdb.DuckDBPyConnection,
    features: FeatureSet,
    known: Collection[KnownGeneration],
    days: list[date],
) -> dict[str, str]:
    """Put the effective rows of every source of a feature set into the engine; source name -> relation."""
    log = world.service.prediction_log
    back = max(features.lookback, log.repeats_within if log else timedelta()) + timedelta(days=3)
    static = {view.source for view in features.views if isinstance(view, StaticView)}
    first = min(days) - back
    kept = [k for k in known if k.source in static or (k.listed_on if k.is_log else k.arrival_day) >= first]
    register_known(con, kept)
    relations = {}
    for source in features.sources:
        arrivals = [k.arrival_day for k in kept if k.source == source.name]
        opened = min([first, *arrivals]) if is_log(world, source.name) else first
        world.shared.view(
            con,
            source.name,
            source_columns(source),
            name=f"stored_{source.name}",
            first=None if source.name in static else opened,
            last=max(days),
            is_open=True,
        )
        rows_of = logged_source_sql if is_log(world, source.name) else effective_rows_sql
        run(con, rows_of(source, f"stored_{source.name}", "known", f"source_{source.name}"))
        relations[source.name] = f"source_{source.name}"
    return relations


def logged_source_sql(source: Source, stored: str, known: str, name: str) -> str:
    """SQL of a temp table with the rows of a log, each from when we could first read it.

    A file that comes after its day has closed is told on the day that lists it, like the answers in it.
    """
    declared = ", ".join(
        f"told_at as {quote(column)}" if column == source.available_at else quote(column) for column in source.columns
    )
    told = told_sql(source, stored=stored, listed="listed")
    return f"""
        create or replace temp table {quote(name)} as
        with listed as (select *, null::timestamp as start_at from {quote(known)}), told as ({told})
        select day, {declared} from told where not withdrawn
    """


def requests_sql(world: World, features: FeatureSet, relations: Mapping[str, str]) -> str:
    """SQL of the spine; of a log the first row of every request counts."""
    requests = spine_sql(features, relations[features.request.source])
    log = world.service.prediction_log
    return requests if log is None else first_rows_sql(requests, log.repeats_within_days)


def register_known(con: duckdb.DuckDBPyConnection, known: Collection[KnownGeneration]) -> None:
    """Temp table ``known(listed_on, source, day, generation, known_at)``: what is known, and since when."""
    columns = (
        Column("listed_on", "DATE", ""), Column("source", "VARCHAR", ""), Column("day", "DATE", ""),
        Column("generation", "INTEGER", ""), Column("known_at", "TIMESTAMP", ""),
    )  # fmt: skip
    listed: list[Row] = [
        {"listed_on": k.listed_on, "source": k.source, "day": k.arrival_day, "generation": k.generation,
         "known_at": k.known_at}
        for k in known
    ]  # fmt: skip
    put(con, "known", arrow(listed, columns))


def day_spine_sql(spine: str, slices: Mapping[str, str], days: Collection[date]) -> str:
    """SQL of the requests of some days, with the business day and, as JSON, the slices that each belongs to."""
    listed = ", ".join(literal(day) for day in days) or "null"
    pairs = ", ".join(f"{literal(name)}, ({expression})" for name, expression in slices.items())
    return f"""
        select s.*, d.day as business_day
        from (select *, json_object({pairs})::varchar as context from ({spine})) s
        join days d on s.predicted_at >= d.start_at and s.predicted_at < d.end_at
        where d.day in ({listed})
    """


def first_rows_sql(spine: str, within_days: int) -> str:
    """SQL of the rows of a log's spine that no earlier row of the same request precedes within some days."""
    before = "lag(s.predicted_at) over (partition by s.request_id order by s.predicted_at, s)"
    return f"""
        select * from ({spine}) s
        qualify {before} is null or s.predicted_at - {before} > interval {within_days} day
    """


def day_features_sql(features: FeatureSet, into: str) -> str:
    """SQL that adds computed features, under their business day and version, to ``into``."""
    named = ", ".join(f"f.{quote(name)}" for name in features.names)
    return f"""
        insert into {quote(into)} by name
        select s.business_day as day, f.request_id, {literal(features.version)} as feature_version,
               f.predicted_at, s.context, null::date as filled_on, {named}
        from computed f join spine s using (request_id)
    """


def create_features_sql(columns: Sequence[Column], name: str) -> str:
    """SQL of an empty temp table of the ``features`` shape with these feature columns."""
    listed = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
    return f"create or replace temp table {quote(name)} ({listed})"


def compute_segment(
    world: World,
    con: duckdb.DuckDBPyConnection,
    segment: list[date],
    known: list[KnownGeneration],
    versions: Sequence[str],
    blocked: Collection[date],
) -> None:
    """Temp tables ``features`` and ``freshness`` of days that see one set of generations; nothing is stored."""
    usable = visible(known, max(segment))
    open_days = [day for day in segment if day not in blocked]
    feature_sets = [world.feature_set(version) for version in versions]
    register_days(con, world.calendar, min(segment), max(segment))
    run(con, create_features_sql(feature_columns(feature_sets), "features"))
    run(con, BY_NAME["freshness"].create_sql())
    for features in reversed(feature_sets):  # the declared ones last: freshness is about their views
        relations = open_sources(world, con, features, usable, segment)
        requests = requests_sql(world, features, relations)
        run(con, copy_sql("spine", day_spine_sql(requests, world.service.context, open_days)))
        compute_features(con, features, spine="spine", sources=relations, into="computed")
        run(con, day_features_sql(features, "features"))
    measure_freshness(
        con, feature_sets[0], sources=relations, days=segment, features_table="features", into="freshness"
    )


def profile_feature_sets(
    world: World, con: duckdb.DuckDBPyConnection, feature_sets: Sequence[FeatureSet], *, features: str, days: list[date]
) -> None:
    """Add the profiles of every feature of these sets to the temp table ``profiles``."""
    frozen = frozen_bins(world, con, feature_sets, features=features, days=days)
    for some in feature_sets:
        numeric = [name for name in some.names if name not in some.categorical]
        profile_features(
            con, features=features, feature_version=some.version, numeric=numeric, categorical=some.categorical,
            days=days, into="profiles", frozen=frozen, slices=world.service.profiled_slices,
            sliced=world.service.profiled_features,
        )  # fmt: skip


def ordered_sql(name: str, columns: Sequence[str], key: Sequence[str], where: str = "true") -> str:
    """SQL of a table in a fixed column and row order."""
    return (
        f"select {', '.join(quote(c) for c in columns)} from {quote(name)} where {where} "
        f"order by day, {', '.join(quote(c) for c in key)}"
    )


def store_step(
    world: World,
    con: duckdb.DuckDBPyConnection,
    days: list[date],
    inputs: dict[date, str],
    versions: Sequence[str],
    blocked: Mapping[date, str],
) -> None:
    """Write the step's tables, then say in ``generations`` what they were computed from."""
    metadata = {
        "service": world.name, "epoch": str(world.ledger.epoch(world.name)), "step": "features",
        "days": f"{min(days)}..{max(days)}", "inputs": inputs[max(days)],
    }  # fmt: skip
    for name in STEP_TABLES:
        table = BY_NAME[name]
        ordered = ordered_sql(name, columns_of(con, name), table.key)
        world.lake.replace_days(name, days, con.sql(ordered).to_arrow_table(), metadata)
        fault_point(f"after-step-{name}")
    listed = [
        row for name in STEP_TABLES for row in generation_rows(world, con, name, days, inputs, ",".join(versions))
    ]
    for row in listed:
        if row["day"] in blocked:
            row["state"], row["reason"] = "blocked", blocked[row["day"]]
    table = BY_NAME["generations"]
    world.lake.replace_days("generations", days, arrow(listed, table.columns), metadata)


def generation_rows(
    world: World,
    con: duckdb.DuckDBPyConnection,
    name: str,
    days: Sequence[date],
    inputs: Mapping[date, str],
    versions: str = "",
    *,
    relation: str | None = None,
) -> list[Row]:
    """The ``generations`` rows of some days of a table that lies in the engine; a day without rows is empty."""
    observed = {*BY_NAME[name].observed, "day"}
    lying = relation or name
    content = sorted(column for column in columns_of(con, lying) if column not in observed)
    found = {day: (count, text) for day, count, text in rows(con, daily_fingerprints_sql(lying, content))}
    nothing = fingerprint_of_nothing(con)
    epoch = world.ledger.epoch(world.name)
    return [
        {
            "day": day, "table_name": name, "rows": found.get(day, (0, ""))[0],
            "fingerprint": found.get(day, (0, nothing))[1], "inputs": inputs[day], "feature_versions": versions,
            "state": "computed" if day in found else "empty", "reason": "", "epoch": epoch,
        }
        for day in days
    ]  # fmt: skip


def fingerprint_of_nothing(con: duckdb.DuckDBPyConnection) -> str:
    """The fingerprint of a day without rows."""
    return str(rows(con, fingerprint_sql("(select 1 as one where false)", ["one"]))[0][1])
