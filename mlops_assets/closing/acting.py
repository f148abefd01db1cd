"""Act: carry out a decision, once, and record that it was done. Only this file has effects.

Per decision: a row *intended*, the effect (found or made by decision id), a row *done* or *failed*. Killed in
between, the same decision is carried out again and finds what it made before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.adapters.engine import frame, literal, open_engine, quote
from mlops_assets.adapters.fault_points import fault_point
from mlops_assets.adapters.ledger import Row
from mlops_assets.adapters.notifier import send
from mlops_assets.adapters.stopwatch import Used, measured, resources
from mlops_assets.closing.backfill import fill_backwards
from mlops_assets.closing.block import score_with
from mlops_assets.closing.features import feature_columns
from mlops_assets.closing.releasing import change_champion, reconcile
from mlops_assets.closing.standing import bad_days
from mlops_assets.closing.telling import message, told_with
from mlops_assets.closing.world import World, arrow
from mlops_assets.decisions import Kind
from mlops_assets.errors import LedgerError, MlopsError
from mlops_assets.model_loop.retraining import FIRST_RELEASE, Retraining, Rival, retrain
from mlops_assets.model_loop.training_set import Snapshot, build_training_set
from mlops_assets.tables import BY_NAME

LATE_ALERT_DAYS = 2
"""An alert about a day that lies further back than this is recorded, not sent."""


@dataclass(frozen=True)
class Moment:
    """Who acts, and when: ``now`` is the service's time (in a replay the start of the day after)."""

    by: str
    now: datetime


def act(world: World, decision: Row, moment: Moment) -> str:
    """Carry one decision out; returns one line that says what was done."""
    _record(world, decision, "intended", moment, "")
    fault_point("after-intended")
    try:
        detail = _EFFECTS[Kind(decision["kind"])](world, decision, moment)
    except (duckdb.Error, OSError, ValueError, MlopsError) as error:
        _record(world, decision, "failed", moment, f"{type(error).__name__}: {str(error)[:300]}")
        raise
    fault_point("before-done")
    _record(world, decision, "done", moment, detail)
    fault_point("after-done")
    return detail


def _record(world: World, decision: Row, state: str, moment: Moment, detail: str) -> None:
    row = {
        "service": world.name, "epoch": decision["epoch"], "day": decision["day"],
        "decision_id": decision["decision_id"], "attempt": decision["attempt"], "state": state, "by": moment.by,
        "detail": detail, "acted_at": moment.now, "recorded_at": world.clock(),
    }  # fmt: skip
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "actions", [row])


def _freeze(_world: World, decision: Row, _moment: Moment) -> str:
    return f"retraining is frozen from {decision['day']} on, until its incidents are closed or a person lifts it"


def _unfreeze(_world: World, decision: Row, _moment: Moment) -> str:
    return f"candidates are trained again from {decision['day']} on"


def _hold(_world: World, decision: Row, _moment: Moment) -> str:
    return f"no training: {decision['because']}"


def _tell(world: World, decision: Row, moment: Moment) -> str:
    """A message to people; history is recorded, not sent."""
    age = moment.now - world.calendar.end_of(decision["day"])
    if moment.by == "replay" or age > timedelta(days=LATE_ALERT_DAYS):
        return "recorded, not sent: history"
    if decision["kind"] == Kind.DIGEST and (page := told_with(world, decision)):
        return f"told in the owner's page of the week, {page}"
    return send(message(world, decision))


@measured("trainings")
def _retrain(world: World, decision: Row, moment: Moment) -> str:
    """Training set, candidate, gate, refit, release: each found by its content if a killed run made it before."""
    closed = world.closed_through()
    if closed is None or closed < decision["day"]:
        raise LedgerError(f"service '{world.name}': {decision['day']} is not closed, so nothing is trained as of it.")
    if "labels" not in world.ledger.closings(world.name)[decision["day"]]["versions"]:
        return f"no training: no label is known by {decision['day']}"
    fill_backwards(world, decision["day"])
    with resources() as used, open_engine() as con:
        open_training_tables(world, con, decision["day"])
        snapshot = _training_set(world, con, decision)
        if snapshot.rows == 0 or not snapshot.judged_days:
            return f"no training: {snapshot.rows} mature labelled rows by {decision['day']}"
        done = _retraining(world, con, snapshot, decision)
        _store_training(world, con, done, snapshot, decision)
    fault_point("after-training-tables")
    _release(world, done, decision, moment, _cost_row(world, decision, moment, snapshot, used))
    fault_point("after-release-rows")
    reconcile(world)
    is_waiting = done.releases and world.service.model.approval == "sign_off"
    waits = f"; waits for: mlops approve {decision['decision_id']} --by NAME" if is_waiting else ""
    return f"{done.gate['verdict']}: {'; '.join(done.gate['reasons'])}{waits}"


def open_training_tables(world: World, con: duckdb.DuckDBPyConnection, day: date) -> None:
    """Views ``features`` and ``labels`` over what the closing of ``day`` names."""
    versions = world.ledger.closings(world.name)[day]["versions"]
    feature_sets = [world.feature_set(v) for v in sorted(feature_versions(world))]
    world.lake.view(con, "features", feature_columns(feature_sets), last=day, is_open=True)
    world.lake.view(con, "labels", BY_NAME["labels"].columns, version=versions["labels"], last=day)


def feature_versions(world: World) -> set[str]:
    """The declared feature version and every released one."""
    return {world.feature_version} | {row["feature_version"] for row in world.releases()}


def training_instant(world: World, decision: Row) -> datetime:
    """The instant a training set is taken at: the start of the day after the decision's."""
    return world.calendar.end_of(decision["day"])


def _training_set(world: World, con: duckdb.DuckDBPyConnection, decision: Row) -> Snapshot:
    model, features = world.service.model, world.service.feature_set
    return build_training_set(
        con, features="features", labels="labels", label=world.service.label,
        instant=training_instant(world, decision), day=decision["day"], judged_days=model.gate.judged_days,
        window_days=model.training_window_days, feature_names=features.names, feature_version=features.version,
        into="training", bad_days=bad_days(world, decision["day"]),
    )  # fmt: skip


def _retraining(world: World, con: duckdb.DuckDBPyConnection, snapshot: Snapshot, decision: Row) -> Retraining:
    champion, why_none = _champion_before(world, decision)
    return retrain(
        con, world.service, world.registry, training_table="training", snapshot=snapshot, day=decision["day"],
        decision_id=decision["decision_id"], rival=_rival(world, champion),
        score_rival=_rival_scorer(world, con, champion) if champion else None, unopposed=why_none,
    )  # fmt: skip


def _champion_before(world: World, decision: Row) -> tuple[Row | None, str]:
    """Who holds the role at the training instant, leaving out what a killed run of this decision released.

    If nobody does, why.

    A champion that reads a column which is gone can answer no more, so it is nobody's rival: its days block, and none
    would ever be left on which a candidate could be compared with it.
    """
    instant = training_instant(world, decision)
    earlier = [r for r in world.releases() if r["effective_at"] <= instant and r["day"] < decision["day"]]
    champion = next((row for row in reversed(earlier) if row["role"] == "champion"), None)
    if champion and world.lost_columns(champion["feature_version"]):
        return None, f"{champion['model_version']} reads a column that is gone"
    return champion, FIRST_RELEASE


def _rival(world: World, champion: Row | None) -> Rival | None:
    """The champion, with the last prediction day that it learned from."""
    if champion is None:
        return None
    trained_on = world.trained_on(champion["model_version"])
    fitted_until = world.calendar.day_of(world.calendar.end_of(trained_on) - world.service.label.window)
    return Rival(champion["model_version"], "champion", trained_on, fitted_until)


def rival_features_sql(columns: Sequence[str], version: str) -> str:
    """SQL of the features, of the rival's own version, of the judged requests."""
    named = ", ".join(f"f.{quote(column)}" for column in columns)
    return f"""
        select j.request_id, {named} from judged j left join features f
          on f.request_id = j.request_id and f.feature_version = {literal(version)} order by j.request_id
    """


def _rival_scorer(
    world: World, con: duckdb.DuckDBPyConnection, champion: Row
) -> Callable[[pd.DataFrame], NDArray[np.float64]]:
    """What the champion says to the judged rows, on features of its own version."""

    def scores(judged: pd.DataFrame) -> NDArray[np.float64]:
        names = world.feature_set(champion["feature_version"]).names
        con.register("judged", judged[["request_id"]])
        features = frame(con, rival_features_sql(names, champion["feature_version"])).set_index("request_id")
        con.unregister("judged")
        return score_with(world, champion, features.loc[judged["request_id"]].reset_index(), names)

    return scores


def training_rows_sql(decision_day: date, fingerprint: str) -> str:
    """SQL of the rows of table ``training_set`` from the snapshot in the engine."""
    return f"""
        select {literal(decision_day)} as day, {literal(fingerprint)} as fingerprint, request_id,
               prediction_day, value, known_at, part
        from training order by request_id
    """


def _store_training(
    world: World, con: duckdb.DuckDBPyConnection, done: Retraining, snapshot: Snapshot, decision: Row
) -> None:
    metadata = {"service": world.name, "decision": decision["decision_id"]}
    rows = con.sql(training_rows_sql(decision["day"], snapshot.fingerprint)).to_arrow_table()
    world.lake.replace_days("training_set", [decision["day"]], rows, metadata)
    evaluation = arrow([dict(row) for row in done.evaluation], BY_NAME["evaluation"].columns)
    world.lake.replace_days("evaluation", [decision["day"]], evaluation, metadata)


def _cost_row(world: World, decision: Row, moment: Moment, snapshot: Snapshot, used: Used) -> Row:
    """Row of ledger table ``trainings``: what the training used; known on the day on which it was carried out."""
    return {
        **{name: decision[name] for name in ("service", "epoch", "day", "decision_id")},
        "known_on": world.calendar.day_of(moment.now), "rows": snapshot.rows,
        "features": len(world.service.feature_set.names), **asdict(used),
    }  # fmt: skip


def _release(world: World, done: Retraining, decision: Row, moment: Moment, cost: Row) -> None:
    """The gate's row, and one role change per stored version in one transaction; proposals, if somebody must sign."""
    event = {"service": world.name, "epoch": decision["epoch"], "day": decision["day"],
             "decision_id": decision["decision_id"]}  # fmt: skip
    effective_at = max(world.calendar.end_of(decision["day"]), moment.now)
    waits = world.service.model.approval == "sign_off"
    stored = [{**event, **asdict(release)} for release in done.releases]
    releases = [] if waits else [{**row, "effective_at": effective_at} for row in stored]
    gate = {**event, **done.gate, "versions": world.lake.versions()}
    with world.ledger.transaction() as transaction:
        world.ledger.append(transaction, "gates", [gate])
        world.ledger.append(transaction, "trainings", [cost])
        world.ledger.append(transaction, "proposals", stored if waits else [])
        world.ledger.append(transaction, "releases", releases)


def _change_champion(world: World, decision: Row, moment: Moment) -> str:
    """A rollback, or a promotion by a person: a role change and the aliases that follow it."""
    said = change_champion(world, decision, moment.now)
    fault_point("after-release-rows")
    reconcile(world)
    return said


_EFFECTS: Mapping[Kind, Callable[[World, Row, Moment], str]] = {
    Kind.RETRAIN: _retrain,
    Kind.HOLD_RETRAINING: _hold,
    Kind.FREEZE: _freeze,
    Kind.UNFREEZE: _unfreeze,
    Kind.OPEN_INCIDENT: _tell,
    Kind.RAISE_INCIDENT: _tell,
    Kind.ESCALATE: _tell,
    Kind.DIGEST: _tell,
    Kind.STALLED: _tell,
    Kind.FAILED_RUN: _tell,
    Kind.ROLLBACK: _change_champion,
    Kind.PROMOTE: _change_champion,
}
