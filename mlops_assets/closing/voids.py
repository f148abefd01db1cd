"""What people said about something that the current epoch does not know (PROTOCOL.md 5).

A redo decides again: an incident may not open this time, a version may never be trained. A word about it then
changes nothing; it is shown as void, so that the person can say it again if it still holds.
"""

from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.world import World

NAMING = ("close", "acknowledge", "approve", "reject", "promote", "rollback")
"""Kinds of people's rows whose subject is a decision, an incident or a version."""


def void_inputs(world: World) -> list[Row]:
    """People's rows that name what the current epoch does not know, oldest first, each with a ``void`` sentence.

    Only what the redo has passed: before it has decided again up to a row's effective day, nobody can tell.
    """
    epoch, known, decided_until = world.ledger.epoch(world.name), known_names(world), world.first_unclosed()
    said = [
        row
        for row in world.ledger.rows("inputs", world.name)
        if row["kind"] in NAMING and row["subject"] not in known and row["effective_day"] <= decided_until
    ]
    return [
        {
            **row,
            "void": f"epoch {epoch} knows no '{row['subject']}'; say it again about what it knows, if it still holds",
        }
        for row in sorted(said, key=lambda row: (row["effective_day"], row["recorded_at"]))
    ]


def known_names(world: World) -> set[str]:
    """Decisions, incidents and model versions of the events that count, and the service itself."""
    named = {"decisions": ("decision_id",), "incidents": ("incident_id",), "gates": ("candidate",),
             "releases": ("decision_id", "model_version")}  # fmt: skip
    found = {
        row[column]
        for table, columns in named.items()
        for row in world.ledger.effective(table, world.name)
        for column in columns
    }
    return {world.name} | found


def void_lines(world: World) -> list[str]:
    """The same for people, one line per row."""
    return [
        f"void: '{row['kind']}' by {row['by']}, effective {row['effective_day']}: {row['void']}"
        for row in void_inputs(world)
    ]
