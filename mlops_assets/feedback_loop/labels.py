"""Outcomes in the world become label events: append-only, and a correction is a new event."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.service.labels import LabelDefinition
from mlops_assets.service.sources import Source


def label_events_sql(label: LabelDefinition, source: Source, *, stored: str, listed: str, into: str) -> str:
    """SQL that adds the label events of some days to ``into`` (columns of table ``labels``).

    Reads ``stored`` (the source table with all generations) and ``listed(listed_on, source, day, generation,
    known_at, start_at)``: which generation which day's closing lists. A row of a generation listed on its own
    day is known from its ``available_at`` (``known_at`` is null there; in a redo an older file counts from the
    start of the listing day), any other from the last instant of the listing day. Of several generations of a
    file listed together the newest counts. A withdrawn row is an event with value null.
    """
    at = f"s.{quote(source.available_at)}"
    return f"""
        insert into {quote(into)} by name
        with told as (
            select s.*, k.listed_on, coalesce(k.known_at, greatest({at}, k.start_at)) as told_at
            from {quote(stored)} s
            join {quote(listed)} k on k.source = {literal(source.name)} and k.day = s.day
                                  and k.generation = s.generation
            qualify row_number() over (
                partition by k.listed_on, s.day, s.source_key order by s.generation desc) = 1
        )
        select listed_on as day, {quote(label.request_id)}::varchar as request_id,
               {literal(label.version)} as label_version,
               case when withdrawn then null else ({label.value})::double end as value,
               {quote(source.event_at)} as event_at, told_at as known_at,
               {literal(source.name)} || '/' || day || '/' || generation as source
        from told
    """
