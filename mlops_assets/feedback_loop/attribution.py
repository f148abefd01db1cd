"""Which outcome belongs to which request, where they share an entity and no request id.

An outcome counts once: at any time it belongs to one request of its entity, or to none. What is known changes that:
a better request that is logged late takes the outcome over, from the instant on at which both are known, and the
request that had it gets a correction. So the label of a request at any time is a function of what was known by then,
whatever came first.
"""

from datetime import timedelta
from math import ceil

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.feedback_loop.told import told_sql
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.sources import Source

REACH_DAYS = 30
"""What is told more than this after an outcome's file changes its attribution no more; an outcome that happened more
than this before its file came is nobody's, and what a request had longer ago than this is not given back to it."""


def history_days(label: LabelDefinition) -> int:
    """Days before a day whose predictions can have an outcome that changes hands on it."""
    return 3 * REACH_DAYS + ceil(label.window / timedelta(days=1)) + 3


def told_days() -> int:
    """Days before a day whose outcomes can change hands on it."""
    return 2 * REACH_DAYS + 2


def rank_sql(label: LabelDefinition) -> str:
    """SQL of a number by which the candidates of an outcome are ordered: the smallest has it."""
    at = "epoch_us(a.predicted_at)"
    distance = "abs(epoch_us(v.event_at) - epoch_us(a.predicted_at))"
    return {"first": at, "last": f"-{at}", "nearest": distance}[label.attribution]


def candidates_sql(label: LabelDefinition, source: Source, *, stored: str, listed: str, predictions: str) -> str:
    """SQL of ``candidates``: one row per version of an outcome and request that may have it, or none.

    Reads what ``told_sql`` reads, and ``predictions`` (whose context names the entity). ``known_at`` is when both are
    known; a version of an outcome counts until the next one of its key is told.
    """
    window = f"to_microseconds({round(label.window_hours * 3_600_000_000)})"
    latest = f"v.event_at + {window}" if label.attribution == "nearest" else "v.event_at"
    entity = f"json_extract_string(context, {literal(f'$.{label.request_entity}')})"
    return f"""
        with told as ({told_sql(source, stored=stored, listed=listed)}), versions as (
            select day as arrival_day, source_key, generation, withdrawn, ({label.entity})::varchar as entity,
                   {label.stored_value} as value, ({label.kpi or "null"})::double as kpi,
                   {quote(source.event_at)} as event_at, told_at,
                   {literal(source.name)} || '/' || day || '/' || generation as source,
                   lead(told_at) over (partition by day, source_key order by told_at, generation) as until
            from told where listed_on <= day + {REACH_DAYS}
        ), asked as (
            select request_id, {entity} as entity, min(predicted_at) as predicted_at, min(logged_at) as logged_at
            from {quote(predictions)} group by all
        )
        select v.*, a.request_id, a.predicted_at, {rank_sql(label)} as rank,
               greatest(v.told_at, coalesce(a.logged_at, v.told_at)) as known_at
        from versions v left join asked a
          on a.entity = v.entity and not v.withdrawn and a.predicted_at >= v.event_at - {window}
         and a.predicted_at <= {latest} and coalesce(a.logged_at < v.until, true)
         and a.logged_at < v.arrival_day + interval {REACH_DAYS} day
         and v.event_at >= v.arrival_day - interval {REACH_DAYS} day
    """


def held_sql(candidates: str) -> str:
    """SQL of ``held(request_id, value, kpi, event_at, source, source_key, from_at, until_at)``: who has what when."""
    best = "arg_min(request_id, (rank, request_id)) filter (where request_id is not null)"
    return f"""
        with seen as (
            select arrival_day, source_key, told_at as instant from {quote(candidates)}
            union select arrival_day, source_key, known_at from {quote(candidates)}
        ), steps as (
            select arrival_day, source_key, s.instant, c.generation, {best} as request_id,
                   any_value(value) as value, any_value(kpi) as kpi, any_value(event_at) as event_at,
                   any_value(source) as source
            from seen s join {quote(candidates)} c using (arrival_day, source_key)
            where c.told_at <= s.instant and coalesce(s.instant < c.until, true)
              and (c.request_id is null or c.known_at <= s.instant)
            group by all
        )
        select request_id, value, kpi, event_at, source, source_key, instant as from_at,
               lead(instant) over (partition by arrival_day, source_key order by instant) as until_at
        from steps qualify request_id is not null
    """


def attributed_events_sql(label: LabelDefinition, *, held: str, into: str) -> str:
    """SQL that adds the label events of the block's days to ``into``: whenever what a request has is something else.

    Of several outcomes that a request has the newest counts; when it loses the last one, its label is null. Reads
    ``held``, ``days`` and ``block_days``.
    """
    return f"""
        insert into {quote(into)} by name
        with changed as (
            select request_id, from_at as instant from {quote(held)}
            union select request_id, until_at from {quote(held)} where until_at is not null
        ), state as (
            select c.request_id, c.instant, arg_max(
                       {{value: h.value, kpi: h.kpi, event_at: h.event_at, source: h.source}},
                       (h.event_at, h.source_key)) as has
            from changed c left join {quote(held)} h
              on h.request_id = c.request_id and h.from_at <= c.instant and coalesce(c.instant < h.until_at, true)
             and h.from_at > c.instant - interval {REACH_DAYS} day
            group by all
        ), known as (
            select request_id, instant, unnest(has), case
                       when instant - lag(instant) over of_request <= interval {REACH_DAYS} day
                       then lag(has) over of_request end as old
            from state window of_request as (partition by request_id order by instant)
        ), events as (
            select *, old.event_at as old_event_at, old.source as old_source,
                   old.value is distinct from value or old.kpi is distinct from kpi
                       or old.event_at is distinct from event_at as is_new
            from known where event_at is not null or old.event_at is not null
        )
        select d.day, request_id, {literal(label.version)} as label_version, value, kpi,
               coalesce(event_at, old_event_at) as event_at, instant as known_at, coalesce(source, old_source) as source
        from events join days d on instant >= d.start_at and instant < d.end_at
        where is_new and d.day in (select day from block_days)
    """


def attribution_profile_sql(label: LabelDefinition, candidates: str) -> str:
    """SQL of the outcomes that were first told on the block's days, each with whether nobody, or several, may have it.

    As known at the end of that day; one row per outcome, numbers 0 or 1, to be profiled.
    """
    return f"""
        select d.day, {literal(label.version)} as label_version,
               (count(distinct request_id) filter (where known_at < d.end_at) = 0)::integer as unattributed,
               (count(distinct request_id) filter (where known_at < d.end_at) > 1)::integer as several_candidates
        from {quote(candidates)} c join days d on c.told_at >= d.start_at and c.told_at < d.end_at
        where d.day in (select day from block_days) and not withdrawn
        group by d.day, d.end_at, c.arrival_day, c.source_key
    """
