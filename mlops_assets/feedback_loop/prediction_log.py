"""The prediction log: one row per request and model version that scored it."""

from mlops_assets.adapters.engine import literal, quote

BUCKETS = 10_000


def bucket_sql(service: str, request_id: str) -> str:
    """SQL of the hash bucket 0..9999 of a request; the same request always falls into the same one."""
    return f"(('0x' || left(sha256({literal(service + '/')} || {request_id}), 8))::ubigint % {BUCKETS})::integer"


def log_sql(service: str, *, scored: str, into: str, threshold: float | None) -> str:
    """SQL that adds batch scores to ``into`` (columns of table ``predictions``).

    Reads ``scored(day, request_id, model_version, role, served, score, feature_version, context, predicted_at,
    latency_ms, cost)``. Batch scoring stands for a caller that asked at ``predicted_at``, so that is when the row
    was logged; a served row was chosen with certainty. The decision is taken on the stored score.
    """
    decision = "null::boolean" if threshold is None else f"score >= {threshold!r}::double"
    return f"""
        insert into {quote(into)} by name
        select day, request_id, model_version, role, served, score, {decision} as decision,
               'ok' as status, feature_version,
               {bucket_sql(service, "request_id")} as bucket,
               case when served then 1.0 else 0.0 end as propensity, context, predicted_at,
               predicted_at as logged_at, day as prediction_day, latency_ms, cost
        from {quote(scored)}
    """
