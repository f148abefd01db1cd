"""The prediction log: one row per request and model version that scored it, scored here or logged elsewhere."""

from collections.abc import Mapping, Sequence
from datetime import date

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.feedback_loop.told import told_sql
from mlops_assets.service.prediction_log import ANSWERED, ROLES, STATUSES, PredictionLog
from mlops_assets.service.sources import Source

BUCKETS = 10_000


def bucket_sql(service: str, request_id: str) -> str:
    """SQL of the hash bucket 0..9999 of a request; the same request always falls into the same one."""
    return f"(('0x' || left(sha256({literal(service + '/')} || {request_id}), 8))::ubigint % {BUCKETS})::integer"


def log_sql(service: str, *, scored: str, into: str, threshold: float | None, decides: bool = True) -> str:
    """SQL that adds batch scores to ``into`` (columns of table ``predictions``).

    Reads ``scored(day, request_id, model_version, role, from_bucket, to_bucket, score, feature_version, context,
    predicted_at, latency_ms, cost)``. Batch scoring stands for a caller that asked at ``predicted_at``, so that is
    when the row was logged. A row is served if its bucket lies in ``[from_bucket, to_bucket)``, and the share of those
    buckets is its ``propensity``. The decision is taken on the stored score, unless nobody ``decides``. A score that is
    no number is no answer: status *error*, never served.
    """
    return f"""
        insert into {quote(into)} by name
        select day, request_id, model_version, role,
               score is not null and bucket >= from_bucket and bucket < to_bucket as served,
               score, {decision_sql("score", threshold if decides else None)} as decision,
               if(score is null, 'error', 'ok') as status, feature_version, bucket,
               (to_bucket - from_bucket) / {BUCKETS:.1f} as propensity, context, predicted_at,
               predicted_at as logged_at, day as prediction_day, latency_ms, cost
        from (
            select * replace (if(isfinite(score), score, null) as score), {bucket_sql(service, "request_id")} as bucket
            from {quote(scored)}
        )
    """


def decision_sql(score: str, threshold: float | None) -> str:
    """SQL of the decision on a score; null where nobody decides, or without a score."""
    return "null::boolean" if threshold is None else f"{score} >= {threshold!r}::double"


UNANSWERED = """(
    select request_id from predictions where day in (select day from block_days)
    group by request_id having not bool_or(served)
)"""
"""SQL of the requests of the block's days that nobody has answered."""


def other_stands_in_sql(threshold: float | None) -> str:
    """SQL that lets the other model answer a request whose turn's model failed, with status *fallback*."""
    return f"""
        update predictions set served = true, status = 'fallback', decision = {decision_sql("score", threshold)}
        where status = 'ok' and request_id in {UNANSWERED}
    """


def prior_stands_in_sql(prior: float, threshold: float | None) -> str:
    """SQL that lets the prior answer a request for which every model failed, with status *fallback*."""
    answer = f"round({prior!r}::double, 9)"
    return f"""
        insert into predictions by name
        select distinct on (request_id) * replace (
            'prior' as model_version, 'prior' as role, true as served, {answer} as score, 'fallback' as status,
            {decision_sql(answer, threshold)} as decision, null as latency_ms, 0.0 as cost, 1.0 as propensity
        )
        from predictions where request_id in {UNANSWERED}
        order by request_id, role
    """


def class_scores_sql(log: PredictionLog, classes: Sequence[str]) -> str:
    """SQL of the chances of the classes in their declared order, 9 decimals; null if a row has no score."""
    chances = ", ".join(f"round(({log.class_scores[name]})::double, 9)" for name in classes)
    return f"case when ({log.score}) is not null then [{chances}] end" if classes else "null::double[]"


COMPARED = ("role", "score", "class_scores", "decision", "status", "context", "payload", "predicted_at")
"""What two rows of one key must agree in; times and costs of a repeated delivery may differ."""
ALIKE = {"context": "json_keys({0}.context)", "payload": "{0}.feature_version"}
"""Compared only where both rows were read under the same names: a new column of the declaration is no contradiction."""


def logged_rows_sql(
    log: PredictionLog,
    source: Source,
    *,
    slices: Mapping[str, str],
    classes: Sequence[str] = (),
    service: str,
    feature_version: str,
    stored: str,
    listed: str,
) -> str:
    """SQL of the rows of an external log that some closings list, in the shape of ``predictions``, repeats included.

    Reads what ``told_sql`` reads, and ``days(day, start_at, end_at)``. ``logged_at`` is when we could first read a
    row, ``predicted_at`` when the answer was given; ``arrival`` numbers the rows in the order in which they came.
    ``slices`` name what else of a row is kept, as JSON; ``payload`` is a hash of the logged features. ``unfit`` names
    the field for which a row is no answer at all: no key, a role or status that nobody declared, or an instant that
    lies outside of ``days`` (after it was logged, or months before).
    """
    pairs = ", ".join(f"{literal(name)}, {text}" for name, text in {**log.features, "": "null"}.items())
    context = ", ".join(f"{literal(name)}, {text}" for name, text in slices.items())
    return f"""
        with told as ({told_sql(source, stored=stored, listed=listed)}), logged as (
            select listed_on as day, ({log.request_id})::varchar as request_id,
                   ({log.model_version})::varchar as model_version, ({log.role})::varchar as role,
                   round(({log.score})::double, 9) as score,
                   {class_scores_sql(log, classes)} as class_scores, ({log.decision or "null"})::boolean as decision,
                   ({log.status})::varchar as status, json_object({context})::varchar as context,
                   left(sha256(json_object({pairs})::varchar), 16) as payload,
                   ({log.propensity or "null"})::double as propensity,
                   ({log.latency_ms or "null"})::double as latency_ms, ({log.cost or "null"})::double as cost,
                   ({log.served_at})::timestamptz::timestamp as predicted_at, told_at as logged_at, source_key
            from told where not withdrawn
        )
        select l.*, d.day as prediction_day, {literal(feature_version)} as feature_version,
               {bucket_sql(service, "request_id")} as bucket,
               row_number() over (order by logged_at, source_key, l.day) as arrival,
               case when coalesce(trim(request_id), '') = '' then 'request_id'
                    when coalesce(trim(model_version), '') = '' then 'model_version'
                    when coalesce(role not in ({_listed_sql(ROLES)}), true) then 'role'
                    when coalesce(status not in ({_listed_sql(STATUSES)}), true) then 'status'
                    when d.day is null then 'served_at'
                    when coalesce(propensity not between 0 and 1, false) then 'propensity' end as unfit
        from logged l left join days d
          on l.predicted_at >= d.start_at and l.predicted_at < d.end_at and l.predicted_at <= l.logged_at
    """


def _listed_sql(words: Sequence[str]) -> str:
    return ", ".join(literal(word) for word in words)


def judged_rows_sql(log: PredictionLog, *, arrived: str, known: str) -> str:
    """SQL of every arrived row with what it is: first of its key, a repeat of it, or in conflict with it.

    Reads ``arrived`` (as ``logged_rows_sql`` gives it) and ``known`` (the predictions of closed days). The first row
    of a key counts; for ``repeats_within_days`` after it, rows of the same key are compared with it. ``differs``
    names the columns in which a row says something else, ``is_repeat`` holds if there are none.
    """
    within = f"interval {log.repeats_within_days} day"
    said = "{" + ", ".join(f"{quote(column)}: {quote(column)}" for column in (*COMPARED, "feature_version")) + "}"
    others = ", ".join(
        f"case when {quote(column)} is distinct from (first_said).{quote(column)}{_is_alike_sql(column)} "
        f"then {literal(column)} end"
        for column in COMPARED
    )
    return f"""
        with closed as (
            select request_id, model_version, max(logged_at) as known_at, arg_max({said}, logged_at) as known_said
            from {quote(known)} group by all
        ), beside as (
            select a.*, case when a.logged_at - c.known_at <= {within} then c.known_said end as closed_said
            from {quote(arrived)} a left join closed c using (request_id, model_version)
        ), compared as (
            select *, coalesce(closed_said, first_value({said}) over of_key) as first_said,
                   closed_said is null and arrival = min(arrival) over of_key as is_first
            from beside
            window of_key as (partition by request_id, model_version, closed_said is null, unfit is null
                              order by arrival rows between unbounded preceding and unbounded following)
        )
        select * exclude (first_said, closed_said),
               coalesce(unfit, concat_ws(', ', {others})) as differs,
               is_first and unfit is null as is_kept, not is_first and differs = '' as is_repeat
        from compared
    """


def _is_alike_sql(column: str) -> str:
    """SQL of whether two rows can be compared in a column at all; empty if they always can."""
    if column not in ALIKE:
        return ""
    return f" and {ALIKE[column].format('compared')} = {ALIKE[column].format('(first_said)')}"


def keep_first_rows_sql(log: PredictionLog, *, judged: str, into: str) -> str:
    """SQL that adds the first row of every key to ``into`` (table ``predictions``, closed days already in it).

    Of all rows of a request the first that answered it is the one that was served: not a shadow's, not a failure.
    """
    within = f"interval {log.repeats_within_days} day"
    return f"""
        insert into {quote(into)} by name
        with answered as (
            select request_id, max(logged_at) as answered_at from {quote(into)} where served group by request_id
        ), beside as (
            select j.*, role <> 'shadow' and status in ({_listed_sql(ANSWERED)})
                   and coalesce(logged_at - answered_at > {within}, true) as may_serve
            from {quote(judged)} j left join answered using (request_id)
            where is_kept
        ), told as (
            select *, may_serve and arrival = min(arrival) over (partition by request_id, may_serve) as served
            from beside
        )
        select day, request_id, model_version, role, served, score, class_scores, decision, status, feature_version,
               bucket, coalesce(propensity, case when served then 1.0 else 0.0 end) as propensity, context, payload,
               predicted_at, logged_at, prediction_day, latency_ms, cost
        from told
    """


def conflicts_sql(*, judged: str, into: str) -> str:
    """SQL that adds rows that contradict the first one of their key, or are no answers, to ``into`` (``conflicts``)."""
    kept = (*COMPARED, "propensity", "latency_ms", "cost")
    said = ", ".join(f"{literal(column)}, {quote(column)}" for column in kept)
    return f"""
        insert into {quote(into)} by name
        select day, request_id, model_version, logged_at, source_key, differs, unfit is not null as is_unfit,
               json_object({said})::varchar as payload
        from {quote(judged)} where not is_kept and not is_repeat
    """


def log_events_sql(log: PredictionLog, *, judged: str, days: Sequence[date], subject: str) -> str:
    """SQL of what happened to the rows that a log brought: one row per arrived row, numbers 0 or 1, to be profiled.

    Late is a row that came later than the log's usual lag.
    """
    listed = ", ".join(literal(day) for day in days)
    return f"""
        select day, {literal(subject)} as subject, is_repeat::integer as repeated,
               (not is_kept and not is_repeat)::integer as conflicting,
               (is_kept and prediction_day < day - {log.log_lag_days})::integer as late,
               (unfit is null and status <> 'ok')::integer as failed
        from {quote(judged)} where day in ({listed})
    """
