"""Rows of a source as they are told: each under the closing that lists its generation."""

from mlops_assets.adapters.engine import literal, quote
from mlops_assets.service.sources import Source


def told_sql(source: Source, *, stored: str, listed: str) -> str:
    """SQL of the source rows that some closings list, each with ``listed_on`` and ``told_at``.

    Reads ``stored`` (the source table with all generations) and ``listed(listed_on, source, day, generation,
    known_at, start_at)``: which generation which day's closing lists. A row of a generation listed on its own
    day is told at its ``available_at`` (``known_at`` is null there; in a redo an older file counts from the
    start of the listing day), any other at the last instant of the listing day. Of several generations of a
    file listed together the newest counts.
    """
    at = f"s.{quote(source.available_at)}"
    return f"""
        select s.*, k.listed_on, coalesce(k.known_at, greatest({at}, k.start_at)) as told_at
        from {quote(stored)} s
        join {quote(listed)} k on k.source = {literal(source.name)} and k.day = s.day and k.generation = s.generation
        qualify row_number() over (partition by k.listed_on, s.day, s.source_key order by s.generation desc) = 1
    """
