"""Columns that a role holder's features read and that a source no longer declares: such days block (PROTOCOL.md 6)."""

from datetime import date

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.world import World

_MARK = " is gone, which feature version "


def holders_on(world: World, day: date) -> list[Row]:
    """The releases that hold a role at some instant of a day."""
    start, end = world.calendar.start_of(day), world.calendar.end_of(day)
    changed = [row for row in world.releases() if start < row["effective_at"] < end]
    return [*world.holders(start).values(), *changed]


def gone_columns(world: World, day: date, closing: Row | None) -> dict[str, str]:
    """Source -> why it blocks a day, if a version that holds a role on it reads what the source no longer declares.

    Of a closed day its closing says so, whatever is declared now.
    """
    if closing is not None:
        told = [part for part in str(closing["reason"]).split("; ") if _MARK in part]
        return {part.split("'")[1]: part for part in told}
    found: dict[str, str] = {}
    for row in holders_on(world, day):
        for source, columns in world.lost_columns(row["feature_version"]).items():
            found.setdefault(source, _reason(source, day, columns, row))
    return found


def _reason(source: str, day: date, columns: tuple[str, ...], row: Row) -> str:
    return (
        f"source '{source}', day {day}: column {', '.join(columns)}{_MARK}{row['feature_version']} of "
        f"{row['role']} {row['model_version']} reads. Declare the column again, or release a version that does not "
        f"read it"
    )
