"""Spine, features and mature labels of one training, and the fingerprint of all three.

A snapshot is what was known at the training instant: later labels, later corrections and requests whose label
window is still open are not in it.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import duckdb
import pandas as pd

from mlops_assets.adapters.engine import copy_sql, fingerprint_sql, frame, literal, quote, rows, run
from mlops_assets.service.labels import LabelDefinition

FIT, JUDGED, REFIT = "fit", "judged", "refit"
"""Parts of a snapshot. The candidate learns from ``fit`` and is judged on ``judged``; the released version learns
from all three. ``refit`` are mature rows of days that are newer than the judged ones and only partly mature."""

COLUMNS = ("request_id", "prediction_day", "value", "known_at", "part")
"""What stands before the features in a snapshot."""


@dataclass(frozen=True)
class Snapshot:
    """One training set: its name (a hash of every cell and of the definitions) and what it holds.

    ``rows`` and ``positives`` count all parts; ``first_day`` and ``last_day`` are prediction days, none if the
    snapshot is empty.
    """

    fingerprint: str
    rows: int
    positives: int
    fit_rows: int
    judged_rows: int
    fit_days: int
    judged_days: tuple[date, ...]
    first_day: date | None
    last_day: date | None
    feature_version: str
    label_version: str


def build_training_set(
    con: duckdb.DuckDBPyConnection,
    *,
    features: str,
    labels: str,
    label: LabelDefinition,
    instant: datetime,
    day: date,
    judged_days: int,
    window_days: int | None,
    feature_names: Sequence[str],
    feature_version: str,
    into: str,
    bad_days: Collection[date] = (),
) -> Snapshot:
    """Create the temp table ``into`` (``COLUMNS``, then the features) and say what is in it.

    Args:
        features: relation ``(day, request_id, feature_version, predicted_at, <features>)``.
        labels: relation with the columns of table ``labels``.
        instant: the training instant, naive UTC. A request is mature if ``predicted_at + window <= instant``; a
            label counts if ``known_at <= instant`` and its day is not after ``day``.
        day: business day of the decision to train; what lies on later days is not read.
        judged_days: this many of the newest wholly mature prediction days become the part ``judged``.
        window_days: prediction days after ``day - window_days`` only; None: all.
        bad_days: prediction days that a person declared bad; they are left out, as if nothing had been asked.
    """
    selected = training_set_sql(
        label=label, features=features, labels=labels, instant=instant, day=day, judged_days=judged_days,
        window_days=window_days, feature_names=feature_names, feature_version=feature_version, bad_days=bad_days,
    )  # fmt: skip
    run(con, copy_sql(into, selected))
    ((_, hashed),) = rows(con, fingerprint_sql(quote(into), [*COLUMNS, *feature_names]))
    ((count, positives, fit_rows, judged_rows, fit_days, first, last),) = rows(con, _summary_sql(into))
    named = "\n".join([str(count), hashed, feature_version, label.version, *feature_names])
    return Snapshot(
        fingerprint=hashlib.sha256(named.encode()).hexdigest()[:32],
        rows=count,
        positives=positives,
        fit_rows=fit_rows,
        judged_rows=judged_rows,
        fit_days=fit_days,
        judged_days=tuple(one for (one,) in rows(con, _judged_days_sql(into))),
        first_day=first,
        last_day=last,
        feature_version=feature_version,
        label_version=label.version,
    )


def training_set_sql(
    *,
    label: LabelDefinition,
    features: str,
    labels: str,
    instant: datetime,
    day: date,
    judged_days: int,
    window_days: int | None,
    feature_names: Sequence[str],
    feature_version: str,
    bad_days: Collection[date] = (),
) -> str:
    """SQL of a snapshot: one row is one mature request with the newest label known at ``instant``.

    As in ``outcomes``, events outside the label window do not count, and of the others the newest one does; a
    withdrawn one (value null) leaves its request out, unless what is not labelled counts as negative. A day is
    wholly mature if none of its requests is still open. Days that are partly mature and newer than the judged ones
    are ``refit``.
    """
    window = f"to_microseconds({round(label.window_hours * 3_600_000_000)})"
    named = "".join(f", {quote(name)}" for name in feature_names)
    join, value = ("left join", "coalesce(l.value, 0.0)") if label.is_one_sided else ("join", "l.value")
    lower = "" if window_days is None else f"and day > {literal(day)} - {int(window_days)}"
    if bad_days:
        lower += f" and day not in ({', '.join(literal(bad) for bad in sorted(bad_days))})"
    return f"""
        with asked as (
            select day::date as prediction_day, request_id, predicted_at, predicted_at + {window} as mature_at{named}
            from {quote(features)}
            where feature_version = {literal(feature_version)} and day <= {literal(day)} {lower}
        ),
        labelled as (
            select a.* exclude (predicted_at), {value} as value, coalesce(l.known_at, a.mature_at) as known_at
            from asked a
            {join} {quote(labels)} l on l.request_id = a.request_id and l.label_version = {literal(label.version)}
              and l.event_at <= a.mature_at and l.known_at <= {literal(instant)} and l.day <= {literal(day)}
            where a.mature_at <= {literal(instant)}
            qualify row_number() over (partition by a.request_id order by l.known_at desc) = 1
        ),
        mature as (select * from labelled where value is not null),
        judged as (
            select prediction_day from (select distinct prediction_day from mature)
            join (select prediction_day, max(mature_at) as closed_at from asked group by all) using (prediction_day)
            where closed_at <= {literal(instant)}
            order by prediction_day desc limit {int(judged_days)}
        )
        select request_id, prediction_day, value, known_at,
               case when prediction_day in (from judged) then '{JUDGED}'
                    when prediction_day > (select max(prediction_day) from judged) then '{REFIT}'
                    else '{FIT}' end as part{named}
        from mature
    """


def _summary_sql(table: str) -> str:
    return f"""
        select count(*), count(*) filter (value > 0.5), count(*) filter (part = '{FIT}'),
               count(*) filter (part = '{JUDGED}'),
               count(distinct prediction_day) filter (part = '{FIT}'), min(prediction_day), max(prediction_day)
        from {quote(table)}
    """


def _judged_days_sql(table: str) -> str:
    return f"select distinct prediction_day from {quote(table)} where part = '{JUDGED}' order by all"


def read_training_rows(
    con: duckdb.DuckDBPyConnection,
    table: str,
    parts: Sequence[str] = (FIT, JUDGED, REFIT),
    *,
    max_rows: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Rows of some parts of a snapshot, ordered by request id: the order that training depends on.

    ``max_rows`` draws that many, the same ones for the same seed: those whose MD5 of seed and request id is lowest.
    """
    return frame(con, _training_rows_sql(table, parts, max_rows, seed))


def _training_rows_sql(table: str, parts: Sequence[str], max_rows: int | None, seed: int) -> str:
    wanted = f"part in ({', '.join(literal(part) for part in parts)})"
    if max_rows is not None:
        lot = f"md5({literal(f'{seed}:')} || request_id)"
        drawn = f"select request_id from {quote(table)} where {wanted} order by {lot}, request_id limit {max_rows}"
        wanted = f"{wanted} and request_id in ({drawn})"
    return f"select * from {quote(table)} where {wanted} order by request_id"
