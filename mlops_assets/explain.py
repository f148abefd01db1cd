"""``mlops explain``: the story of one prediction, from the source rows to the metric rows it counted in.

Everything is read as the closing of its day names it; the features are computed again from the sources and held
against the ones that were logged.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pandas as pd

from mlops_assets.adapters.engine import copy_sql, frame, literal, open_engine, quote, register_days, rows
from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.people_sql import Answer, ask, plain
from mlops_assets.closing.block import score_with
from mlops_assets.closing.features import open_sources, requests_sql
from mlops_assets.closing.known import recorded, visible
from mlops_assets.closing.world import World
from mlops_assets.errors import NothingToDoError
from mlops_assets.explain_incidents import Concerned, incident_lines, incidents_of
from mlops_assets.feature_loop.point_in_time import compute_features
from mlops_assets.feature_loop.used_rows import used_rows_sql
from mlops_assets.service.features import FeatureSet, RequestView

Story = dict[str, Any]
LISTED_ROWS = 3
"""Source rows that a view names; all are counted."""
LISTED_PARTS = 8
TYPICAL_DAYS = 30
"""Days of profiles that say what a feature usually is."""


def explain_request(worlds: Sequence[World], request_id: str) -> Story:
    """The whole story of one request, as plain values.

    Raises:
        NothingToDoError: no closed day of any service has a prediction of this request.
    """
    for world in worlds:
        answers = _asked(world, answers_sql(world.name, request_id))
        if answers:
            return _story(world, request_id, answers)
    for world in worlds:
        if apart := _asked(world, conflicts_sql(world.name, request_id)):
            raise NothingToDoError(
                f"request '{request_id}' of {world.name} has no prediction: its logged row is no answer for its "
                f'{apart[0]["differs"]}, logged {apart[0]["logged_at"]}. See what it says: mlops sql "select payload '
                f"from {world.name}.conflicts where request_id = '{request_id}'\""
            )
    named = " or ".join(world.name for world in worlds)
    raise NothingToDoError(
        f"no closed day of {named} has a prediction of request '{request_id}'. Ids can be looked up: "
        f'mlops sql "select request_id from {worlds[0].name}.predictions limit 5"'
    )


def _asked(world: World, query: str) -> list[Story]:
    answer: Answer = ask([world.service], world.home, query)
    return answer.objects()


def _story(world: World, request_id: str, answers: list[Story]) -> Story:
    day, logged_on = (date.fromisoformat(answers[0][name]) for name in ("prediction_day", "day"))
    shown = {row["model_version"] for row in answers}
    context = json.loads(answers[0]["context"] or "{}")
    told = _asked(world, labels_sql(world.name, request_id))
    outcomes = _asked(world, outcomes_sql(world.name, request_id))
    kept = {name: context[name] for name in world.service.slices if name in context}
    slices = ["all", *(f"{name}={'null' if text is None else text}" for name, text in kept.items())]
    counted = [row["model_version"] for row in answers if row["score"] is not None]
    counted += ["served"] if any(row["served"] and row["score"] is not None for row in answers) else []
    return {
        "service": world.name,
        "request_id": request_id,
        "predicted_at": answers[0]["predicted_at"],
        "prediction_day": day.isoformat(),
        "logged_on": logged_on.isoformat(),
        "context": context,
        "answers": answers,
        **_evidence(world, request_id, logged_on, answers[0]),
        "versions": [_version(row) for row in world.releases() if row["model_version"] in shown],
        "runs_elsewhere": world.service.is_monitor_only,
        "conflicts": _asked(world, conflicts_sql(world.name, request_id)),
        "labels": told,
        "outcomes": outcomes,
        "never_labelled": world.service.label.never_labelled,
        "metrics": _metrics(world, day, counted, slices, told, outcomes),
        "operations": _asked(world, operations_sql(world.name, logged_on, [*sorted(shown), "served"], slices)),
        "incidents": incidents_of(
            world,
            Concerned(
                logged_on,
                datetime.fromisoformat(answers[0]["predicted_at"]),
                day,
                _labelled_on(world, told),
                any(row["score"] is not None for row in answers),
                frozenset(shown),
                tuple(slices),
                world.feature_set(answers[0]["feature_version"]),
            ),
        ),
    }


def _metrics(
    world: World, day: date, versions: Sequence[str], slices: Sequence[str], told: list[Story], outcomes: list[Story]
) -> list[Story]:
    """Metric rows in which the request was counted: none before its label was known, none at all if it has none."""
    if not any(row["value"] is not None for row in outcomes):
        return []
    since: dict[str, date] = {}
    for row in told:
        known = world.calendar.day_of(datetime.fromisoformat(row["known_at"]))
        since[row["label_version"]] = min(known, since.get(row["label_version"], known))
    for label in world.service.labels:
        if label.is_one_sided:  # without a label it counts as negative, from its own day on
            since[label.version] = day
    query = metrics_sql(world.name, day, versions, slices, since)
    return _asked(world, query) if versions else []


def _labelled_on(world: World, told: list[Story]) -> tuple[date, ...]:
    """The days on which label events of the request became known."""
    return tuple(world.calendar.day_of(datetime.fromisoformat(row["known_at"])) for row in told)


def answers_sql(service: str, request_id: str) -> str:
    """SQL of everything that was answered to one request, the served answer first."""
    return (
        f"select * from {quote(service)}.predictions where request_id = {literal(request_id)} "
        "order by served desc, role, model_version"
    )


def conflicts_sql(service: str, request_id: str) -> str:
    """SQL of the logged rows of one request that were kept apart."""
    return (
        f"select model_version, logged_at, differs, coalesce(is_unfit, false) as is_unfit, payload "
        f"from {quote(service)}.conflicts where request_id = {literal(request_id)} order by logged_at, source_key"
    )


def labels_sql(service: str, request_id: str) -> str:
    """SQL of the label events of one request, in the order in which they became known."""
    return (
        f"select label_version, value, event_at, known_at, source from {quote(service)}.labels "
        f"where request_id = {literal(request_id)} order by known_at"
    )


def outcomes_sql(service: str, request_id: str) -> str:
    """SQL of what became of each answer, as of the last closed day."""
    return (
        f"select model_version, label_version, value, known_at, state from {quote(service)}.outcomes "
        f"where request_id = {literal(request_id)} order by model_version"
    )


def metrics_sql(
    service: str, day: date, versions: Sequence[str], slices: Sequence[str], since: Mapping[str, date]
) -> str:
    """SQL of the metric rows whose window holds a prediction day: in which slices, how many.

    Rows of a label definition count from ``since`` on, when its label of the request was known; rows of none do not
    depend on labels.
    """
    names = "version, window_days, slice, day, prediction_day, value, state, label_version"
    known = " or ".join(
        f"(label_version = {literal(version)} and day >= {literal(first)})" for version, first in since.items()
    )
    return f"""
        select version, window_days, list(distinct slice order by slice) as slices, count(*) as metric_rows,
               min(day) as first_day, max(day) as last_day
        from (
            select {names} from {quote(service)}.quality union all by name select {names} from {quote(service)}.kpi
        )
        where version in ({", ".join(map(literal, versions))}) and slice in ({", ".join(map(literal, slices))})
          and prediction_day >= {literal(day)} and prediction_day < {literal(day)} + window_days::integer
          and (label_version = '' or {known or "false"}) and value is not null and state <> 'estimated'
        group by all order by version, window_days
    """


def operations_sql(service: str, day: date, versions: Sequence[str], slices: Sequence[str]) -> str:
    """SQL of the rows about running (volume, latency, failures, cost) that count what was logged on a day."""
    return f"""
        select version, list(distinct slice order by slice) as slices from {quote(service)}.operations
        where day = {literal(day)} and version in ({", ".join(map(literal, versions))})
          and slice in ({", ".join(map(literal, slices))}) group by version order by version
    """


def _version(release: Row) -> Story:
    return {
        "model_version": release["model_version"], "role": release["role"], "trained_on": release["day"].isoformat(),
        "training_set": release["fingerprint"], "feature_version": release["feature_version"],
        "mlflow_version": release["mlflow_version"], "decision": release["decision_id"],
    }  # fmt: skip


def one_request_sql(spine: str, request_id: str) -> str:
    """SQL of the spine of one request."""
    return f"select * from ({spine}) where request_id = {literal(request_id)}"


def stored_features_sql(request_id: str, version: str) -> str:
    """SQL of the features as they were stored for one request."""
    return (
        f"select * from features where request_id = {literal(request_id)} and feature_version = {literal(version)} "
        "and filled_on is null"
    )


def _evidence(world: World, request_id: str, day: date, served: Story) -> Story:
    """Source rows, features stored and computed again, and what each of them did to the score."""
    features = world.feature_set(served["feature_version"])
    known = visible(recorded(world), day)
    with open_engine() as con:
        register_days(con, world.calendar, day, day)
        relations = open_sources(world, con, features, known, [day])
        con.execute(copy_sql("spine", one_request_sql(requests_sql(world, features, relations), request_id)))
        con.complete()
        compute_features(con, features, spine="spine", sources=relations, into="computed")
        again = frame(con, "from computed")
        read = [_read(con, features, view, relations[view.source])
                for view in features.views if not isinstance(view, RequestView)]  # fmt: skip
    stored = _stored(world, request_id, day, served["feature_version"])
    moved = _moved(world, day, served, features, stored)
    compared = [_compared(name, stored, again) for name in features.names]
    return {"sources": read, "features": compared, "contributions": moved}


def _read(con: duckdb.DuckDBPyConnection, features: FeatureSet, view: Any, relation: str) -> Story:
    source = features.source(view.source)
    found = rows(con, used_rows_sql(view, source, spine="spine", relation=relation, limit=LISTED_ROWS))
    listed = [{"event_at": plain(e), "available_at": plain(a), "key": key} for _n, e, a, key in found]
    return {"view": view.name, "source": view.source, "rows": found[0][0] if found else 0, "newest": listed}


def _stored(world: World, request_id: str, day: date, version: str) -> pd.DataFrame:
    from mlops_assets.closing.features import feature_columns

    with open_engine() as con:
        columns = feature_columns([world.feature_set(version)])
        world.lake.view(con, "features", columns, first=day, last=day, is_open=True)
        return frame(con, stored_features_sql(request_id, version))


def _compared(name: str, stored: pd.DataFrame, again: pd.DataFrame) -> Story:
    before, now = (plain(one[name].iloc[0]) if len(one) and pd.notna(one[name].iloc[0]) else None
                   for one in (stored, again))  # fmt: skip
    return {"name": name, "stored": before, "computed_again": now, "is_same": bool(before == now)}


def typical_sql(version: str, days: Sequence[date]) -> str:
    """SQL of the mean of every numeric feature over some days of profiles."""
    return f"""
        select column_name, sum(total) / nullif(sum(n - nulls), 0) from profiles
        where subject = {literal(version)} and slice = 'all' and total is not null
          and day between {literal(min(days))} and {literal(max(days))} group by column_name
    """


def _moved(world: World, day: date, served: Story, features: FeatureSet, stored: pd.DataFrame) -> list[Story]:
    from mlops_assets.model_loop.contributions import contributions
    from mlops_assets.tables import BY_NAME

    release = next((r for r in world.releases() if r["model_version"] == served["model_version"]), None)
    if release is None or stored.empty:
        return []
    span = [day - timedelta(days=TYPICAL_DAYS), day - timedelta(days=1)]
    with open_engine() as con:
        world.lake.view(con, "profiles", BY_NAME["profiles"].columns, first=span[0], last=span[1])
        typical: Mapping[str, float] = dict(rows(con, typical_sql(features.version, span)))
    moved = contributions(
        stored[list(features.names)], typical, names=features.names,
        score=lambda requests: score_with(world, release, requests, features.names),
    )  # fmt: skip
    return [{"feature": str(name), "moved": round(float(by), 6)} for name, by in moved.items()]


def story_lines(story: Story) -> Iterator[str]:
    """The story for people, line by line."""
    late = "" if story["logged_on"] == story["prediction_day"] else f", logged {story['logged_on']}"
    asked = f"asked {story['predicted_at']} UTC, day {story['prediction_day']}{late}"
    yield f"{story['request_id']} ({story['service']}), {asked}"
    if story["context"]:
        yield "  " + ", ".join(f"{name}={value}" for name, value in story["context"].items())
    yield "answers"
    for row in story["answers"]:
        score = "no score" if row["score"] is None else f"score {row['score']:.6f}"
        decided = {None: "no decision", True: "decided yes", False: "decided no"}[row["decision"]]
        told = "served" if row["served"] else "not served"
        yield f"  {row['role']:<10} {row['model_version']:<36} {score}  {decided}, {told}, {row['status']}"
    for row in story["versions"]:
        yield (
            f"  {row['model_version']}: trained {row['trained_on']} on snapshot {row['training_set']}, "
            f"features {row['feature_version']}, MLflow version {row['mlflow_version']}"
        )
    for row in story["conflicts"]:
        why = "is no answer" if row["is_unfit"] else "contradicts the first"
        yield f"  another row, logged {row['logged_at']}, {why} in {row['differs']}: see table conflicts"
    if story["runs_elsewhere"]:
        yield "  the model runs elsewhere: its training and what moved its score are not known here"
    yield from _source_lines(story)
    yield from _feature_lines(story)
    yield from _label_lines(story)
    yield from _counted_lines(story)
    yield "incidents"
    yield from incident_lines(story["incidents"])


def _counted_lines(story: Story) -> Iterator[str]:
    yield "counted in"
    for row in story["metrics"]:
        yield (
            f"  quality of {row['version']}, {row['window_days']} d ({', '.join(row['slices'])}): "
            f"{row['metric_rows']} rows, {row['first_day']} to {row['last_day']}"
        )
    if not story["metrics"]:
        yield f"  no row of quality: {_why_in_none(story)}"
    for row in story["operations"]:
        yield f"  operations of {row['version']}, {story['logged_on']} ({', '.join(row['slices'])})"


def _why_in_none(story: Story) -> str:
    """Why a request counted in no row of quality."""
    if all(row["score"] is None for row in story["answers"]):
        return "there is no score"
    if not story["labels"]:
        return "there is no label"
    if all(row["value"] is None for row in story["outcomes"]):
        return "no label counts (withdrawn, or its event lies outside of the window)"
    return "none was measured since its label is known"


def _source_lines(story: Story) -> Iterator[str]:
    yield "source rows used"
    if not story["sources"]:
        yield f"  the row of the log itself, available {story['answers'][0]['logged_at']}"
    for one in story["sources"]:
        yield f"  {one['view']:<18} {one['rows']:>6,} of {one['source']}"
        for row in one["newest"]:
            yield f"  {'':<18}        {row['key']}, available {row['available_at']}"


def _feature_lines(story: Story) -> Iterator[str]:
    differing = [row["name"] for row in story["features"] if not row["is_same"]]
    same = "as stored" if not differing else f"NOT as stored: {', '.join(differing)}"
    yield f"features, computed again from the sources: {same}"
    moved = {row["feature"]: row["moved"] for row in story["contributions"]}
    order = [*moved, *(row["name"] for row in story["features"] if row["name"] not in moved)]
    stored = {row["name"]: row["stored"] for row in story["features"]}
    for name in order[:LISTED_PARTS]:
        by = f"{moved[name]:+.4f} to the score" if name in moved else ""
        yield f"  {name:<34} {_short(stored[name]):>12}  {by}".rstrip()
    if len(order) > LISTED_PARTS:
        yield f"  and {len(order) - LISTED_PARTS} more (--format json has all)"


def _short(value: Any) -> str:
    return "missing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _label_lines(story: Story) -> Iterator[str]:
    yield "label events"
    for row in story["labels"]:
        value = "withdrawn" if row["value"] is None else f"{row['value']:g}"
        yield f"  {row['label_version']}: {value}, happened {row['event_at']}, known {row['known_at']}, {row['source']}"
    if not story["labels"]:
        yield f"  none; never labelled: {story['never_labelled']}"
    for row in story["outcomes"]:
        value = "no label" if row["value"] is None else f"{row['value']:g}"
        yield f"  outcome of {row['model_version']}: {value}, {row['state']}"
