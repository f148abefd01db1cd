"""First step, before the files are looked at: a source that is a table lands as one file per arrival day.

From there on nothing tells it from a delivered file: generations, fingerprints, contracts, lateness. Only its declared
ids are pseudonyms already, which the file says of itself: no file of ours ever holds them. A row that shows
up, changes or goes after its day was read is found while the day is read again, and is known from the first unclosed
day on, as in any file that is delivered again (PROTOCOL.md 1).
"""

from collections.abc import Sequence
from datetime import date, timedelta

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.landing import SUFFIXES
from mlops_assets.adapters.sql_tables import open_table
from mlops_assets.closing.world import World
from mlops_assets.feature_loop.pseudonyms import hider
from mlops_assets.service.sources import Source, SqlTable


def extract_tables(world: World, days: Sequence[date], *, again: bool) -> list[tuple[str, date]]:
    """Land what the tables have of these days, as far as they are over; returns (source, day) of each changed file.

    Args:
        again: read days that have landed before again, and the few before ``days`` that each table declares.

    Raises:
        DeclarationError, DatabaseError: a table cannot be read. Then no day closes: that a database cannot be reached
            says nothing about the world, and a day that was closed without its rows stays so.
    """
    landed = []
    for source in world.service.sources if days else ():
        if source.table is not None:
            landed += [(source.name, day) for day in _extract(world, source, source.table, days, again)]
    return landed


def _extract(world: World, source: Source, table: SqlTable, days: Sequence[date], again: bool) -> list[date]:
    first = min(days) - timedelta(days=table.reread_days if again else 0)
    settled = world.clock() - timedelta(minutes=table.settle_minutes)
    wanted = [
        day
        for day in days_between(max(first, source.expected.first_due), max(days))
        if world.calendar.end_of(day) <= settled and (again or not is_landed(world, source, day))
    ]
    if not wanted:
        return []
    hide = hider(source, world.name)
    with open_table(source, table) as reader:
        bounds = {day: (world.calendar.start_of(day), world.calendar.end_of(day)) for day in wanted}
        return [day for day in wanted if reader.land(world.home.landing, day, *bounds[day], hide)]


def is_landed(world: World, source: Source, day: date) -> bool:
    """Whether a file of a source and arrival day lies in the landing zone."""
    return any((world.home.landing / source.name / f"{day}{suffix}").exists() for suffix in SUFFIXES)
