"""Which file generations are known on which day: the closings' lists, and what the next closings will list.

A generation listed while its arrival day is open is known from each row's ``available_at``. One listed later
(late, repaired, re-delivered) is known from the last instant of the day that lists it, so the first day that
can use it is the next one. In a redo every file is known on its own day (PROTOCOL.md 1, 5).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import Any

from mlops_assets.closing.gone import gone_columns
from mlops_assets.closing.world import SHARED, World
from mlops_assets.service.sources import Source


@dataclass(frozen=True)
class KnownGeneration:
    """One generation in one closing's list; ``known_at`` None: from each row's own ``available_at``.

    ``is_log``: its rows are the requests themselves, so the day that lists them late is the day that has them.
    """

    listed_on: date
    source: str
    arrival_day: date
    generation: int
    fingerprint: str
    known_at: datetime | None
    is_log: bool = False

    @property
    def visible_from(self) -> date:
        """First day whose requests can use it."""
        return self.listed_on if self.known_at is None or self.is_log else self.listed_on + timedelta(days=1)

    @property
    def is_late(self) -> bool:
        """Whether its rows are told at the end of the listing day instead of on their own instants."""
        return self.known_at is not None


_ORDER = attrgetter("listed_on", "source", "arrival_day", "generation")
"""The order of a list of generations; the dataclass's own compares ten times slower, and a year has thousands."""


def is_log(world: World, source: str) -> bool:
    """Whether the rows of a source are the requests themselves: the log of a model that runs elsewhere."""
    log = world.service.prediction_log
    return log is not None and source == log.source == world.service.request.source


def recorded(world: World) -> list[KnownGeneration]:
    """What the closings so far list."""
    listed = [
        KnownGeneration(
            row["day"],
            row["source"],
            row["arrival_day"],
            row["generation"],
            row["fingerprint"],
            row["known_at"],
            is_log(world, row["source"]),
        )
        for row in world.ledger.effective("known_generations", world.name)
    ]
    return sorted(listed, key=_ORDER)


def known_for(world: World, days: Sequence[date]) -> list[KnownGeneration]:
    """What the closings list, with the lists that the unclosed ones of ``days`` will have as things stand now."""
    known = recorded(world)
    first_unclosed = world.first_unclosed()
    listed = {(k.source, k.arrival_day, k.generation) for k in known}
    sources = {source.name for source in world.service.sources}
    accepted = [
        row
        for row in world.ledger.rows("deliveries", SHARED)
        if row["outcome"] == "accepted" and row["source"] in sources
    ]
    redo_until = world.ledger.redo_until(world.name)
    for day in (day for day in days if day >= first_unclosed):
        for row in accepted:
            key = (row["source"], row["arrival_day"], row["generation"])
            if row["arrival_day"] <= day and key not in listed:
                listed.add(key)
                on_its_own_day = row["arrival_day"] == day or (redo_until is not None and day <= redo_until)
                at = None if on_its_own_day else world.calendar.last_instant(day)
                known.append(KnownGeneration(day, *key, row["fingerprint"], at, is_log(world, row["source"])))
    return sorted(known, key=_ORDER)


def visible(known: Iterable[KnownGeneration], day: date) -> list[KnownGeneration]:
    """The generations that requests of this day can use."""
    return [generation for generation in known if generation.visible_from <= day]


def inputs_fingerprints(known: Sequence[KnownGeneration], days: Iterable[date]) -> dict[date, str]:
    """Per day, one text for the set of generations its requests can use: a chain over the days before."""
    entering: dict[date, list[KnownGeneration]] = {}
    for generation in known:
        entering.setdefault(generation.visible_from, []).append(generation)
    wanted = sorted(days)
    chain = hashlib.sha256()
    found: dict[date, str] = {}
    for day in sorted({*entering, *wanted}):
        for entry in sorted(entering.get(day, []), key=_ORDER):
            chain.update(f"{entry.source}/{entry.arrival_day}/{entry.generation}/{entry.fingerprint};".encode())
        found[day] = chain.hexdigest()[:32]
    return {day: found[day] for day in wanted}


def segments(known: Iterable[KnownGeneration], days: Sequence[date]) -> list[list[date]]:
    """Runs of days that see one set of generations: a day that lists a late one ends its run."""
    cuts = {generation.listed_on for generation in known if generation.is_late}
    runs: list[list[date]] = [[]]
    for day in sorted(days):
        if runs[-1] and (day - runs[-1][-1] != timedelta(days=1) or runs[-1][-1] in cuts):
            runs.append([])
        runs[-1].append(day)
    return [run for run in runs if run]


CONFLICTING = "conflicting"


@dataclass(frozen=True)
class SourceState:
    """What a source gave one day: delivered, quarantined (some rows left out), missing, rejected, not_expected,
    conflicting (a log that contradicts itself), or column_gone: a version that holds a role reads what the source no
    longer declares."""

    source: str
    arrival_day: date
    state: str
    reason: str
    blocks: bool = False


def source_states(
    world: World, known: Sequence[KnownGeneration], days: Sequence[date]
) -> dict[date, list[SourceState]]:
    """What each source gave each day, from the file that feeds it; of a closed day, as it was known at its closing."""
    closings = world.ledger.closings(world.name)
    looked_at = sorted(world.ledger.rows("deliveries", SHARED), key=lambda row: row["delivery"])
    reasons = {_generation(row): row["reason"] for row in looked_at if row["outcome"] == "accepted"}
    rejected = [row for row in looked_at if row["outcome"] == "rejected"]
    feeding = {day - timedelta(days=lag) for day in days for lag in (0, 1)}
    candidates = sorted((k for k in known if k.arrival_day in feeding), key=_ORDER)
    found = {}
    for day in days:
        usable = {(k.source, k.arrival_day): reasons[(k.source, k.arrival_day, k.generation)]
                  for k in candidates if k.visible_from <= day}  # fmt: skip
        refused = {(row["source"], row["arrival_day"]): row["reason"] for row in rejected
                   if day not in closings or row["recorded_at"] <= closings[day]["closed_at"]}  # fmt: skip
        delivered = {s.name: _source_state(s, day, usable, refused) for s in world.service.sources}
        gone = gone_columns(world, day, closings.get(day))
        states = delivered | {name: SourceState(name, day, "column_gone", why, True) for name, why in gone.items()}
        found[day] = list(states.values())
    return found


def _generation(delivery: Mapping[str, Any]) -> tuple[str, date, int]:
    return delivery["source"], delivery["arrival_day"], delivery["generation"]


def blocked_days(world: World, states: Mapping[date, Sequence[SourceState]]) -> dict[date, str]:
    """Days that get no features and no predictions, with the reason; a closed day stays as its closing says."""
    closings = world.ledger.closings(world.name)
    blocked = {}
    for day, found in states.items():
        if day in closings:
            if closings[day]["state"] == "blocked":
                blocked[day] = str(closings[day]["reason"])
        elif any(state.blocks for state in found):
            blocked[day] = "; ".join(state.reason for state in found if state.blocks)
    return blocked


def newest_deliveries(world: World) -> dict[tuple[str, date], Mapping[str, Any]]:
    """(source, arrival day) -> its newest delivery, accepted or not."""
    rows = sorted(world.ledger.rows("deliveries", SHARED), key=lambda row: row["delivery"])
    return {(row["source"], row["arrival_day"]): row for row in rows}


def _source_state(
    source: Source, day: date, usable: Mapping[tuple[str, date], str], refused: Mapping[tuple[str, date], str]
) -> SourceState:
    arrival = day if source.feeds == "same_day" else day - timedelta(days=1)
    file = (source.name, arrival)
    if file in usable:
        return SourceState(source.name, arrival, "quarantined" if usable[file] else "delivered", usable[file])
    if not source.expected.covers(arrival):
        return SourceState(source.name, arrival, "not_expected", "")
    if file in refused:
        return SourceState(source.name, arrival, "rejected", refused[file], blocks=True)
    reason = f"source '{source.name}', day {arrival}: no file was there when the day closed"
    return SourceState(source.name, arrival, "missing", reason, blocks=source.on_missing_day == "block")
