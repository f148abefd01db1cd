"""Judge: which shifts a known event explains: in its days, its columns, its direction, and up to its size.

An event counts as known only if it was declared before it began; declared later it is an explanation in hindsight,
which names who gives it and changes no tier. Integrity is never explained: during a sale orders may jump, but ids may
not vanish. The only exception is a text or a range that the event has announced itself, and no other one.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from mlops_assets.errors import DeclarationError
from mlops_assets.monitoring_loop.drift import FEATURES, MIN_SEVERE_NULL_SHIFT, SEVERE_TIMES_GATE
from mlops_assets.monitoring_loop.grid import LABELS
from mlops_assets.monitoring_loop.profiles import ALL
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.monitoring import DriftPolicy

ENVELOPE = 1.5
"""An event may be so many times as large as the largest of its kind before it."""
SHIFTS = ("mean", "mean_alone", "spread", "distance", "distance_7d", "volume")
ANNOUNCED = ("new_category", "out_of_range")
"""Faults of which an event may announce what it will look like."""
ASKS_PEOPLE = ("moderate", "severe")


class StrictLoader(yaml.SafeLoader):
    """YAML without anchors, aliases and repeated keys: a file that people review must say each thing once."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _value in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def known_events(policy: DriftPolicy) -> tuple[KnownEvent, ...]:
    """The declared events, oldest first; none if no file is declared.

    Raises:
        DeclarationError: the file is missing or says something impossible; the message names file, event and field.
    """
    if policy.known_events is None:
        return ()
    path = Path(policy.known_events)
    if not path.is_file():
        raise DeclarationError(f"drift > known_events > {path}", "there is no such file.", "Write it, or name another.")
    return _load(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _load(path: Path, _changed: int) -> tuple[KnownEvent, ...]:
    where = f"drift > known_events > {path.name}"
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise DeclarationError(f"{where}{line}", f"{problem}.", "Write each field once, as plain YAML.") from error
    if not isinstance(given, dict) or set(given) != {"events"} or not isinstance(given["events"], list):
        raise DeclarationError(where, "is no mapping with the one field 'events', a list.", "Start with 'events:'.")
    events = [_event(where, number, fields) for number, fields in enumerate(given["events"], start=1)]
    ids = [event.id for event in events]
    if repeated := {name for name in ids if ids.count(name) > 1}:
        raise DeclarationError(where, f"{sorted(repeated)} stand there twice.", "Give every event its own id.")
    return tuple(sorted(events, key=lambda event: (event.start, event.id)))


def _event(where: str, number: int, fields: Any) -> KnownEvent:
    name = fields.get("id", f"number {number}") if isinstance(fields, dict) else f"number {number}"
    try:
        return KnownEvent.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "event"
        raise DeclarationError(f"{where} > {name} > {field}", f"{first['msg']}.", "Correct the field.") from error


def asked_on(day: date, subject: str, lag_days: int) -> date:
    """The day that the rows of a day are about: a log of elsewhere comes ``lag_days`` after its answers, labels do not.

    >>> asked_on(date(2013, 11, 30), "score", 2), asked_on(date(2013, 11, 30), "labels", 2)
    (datetime.date(2013, 11, 28), datetime.date(2013, 11, 30))
    """
    return day if subject == LABELS else day - timedelta(days=lag_days)


def closed_days(events: Collection[KnownEvent], days: Collection[date], *, lag_days: int = 0) -> set[date]:
    """Declared non-business days, as the days on which their rows do not come."""
    lag = timedelta(days=lag_days)
    return {d for d in days for event in events if event.no_rows and event.is_known_before and event.covers(d - lag)}


def days_of_earlier(events: Collection[KnownEvent], days: Collection[date]) -> set[date]:
    """Days of earlier events of the kinds that cover some of ``days``: what the envelopes are learned from."""
    kinds = {event.kind for event in events for day in days if event.covers(day)}
    spans = [(event.start, event.end) for event in events if event.kind in kinds]
    return {
        date.fromordinal(number)
        for start, end in spans
        for number in range(start.toordinal(), min(end, max(days)).toordinal() + 1)
    }


@dataclass(frozen=True)
class Asked:
    """Which part of a fault of a column on a day an event had announced, is the question."""

    day: date
    column: str
    statistic: str
    event: str


Announced = Mapping[Asked, float]
"""The answers: shares of the rows of that day."""


def asked_of_events(
    drift: pd.DataFrame, events: Sequence[KnownEvent], *, lag_days: int = 0
) -> Iterator[tuple[Asked, KnownEvent]]:
    """What has to be looked up: faults of feature columns about which an event of the day has announced something."""
    asked = drift[(drift["subject"] == FEATURES) & drift["statistic"].isin(ANNOUNCED) & drift["tier"].isin(ASKS_PEOPLE)]
    days = pd.to_datetime(asked["day"]).dt.date
    for day, column, statistic in zip(days, asked["column_name"], asked["statistic"], strict=True):
        for event in events:
            if event.covers(day - timedelta(days=lag_days)) and event.announces(column, statistic):
                yield Asked(day, column, statistic, event.id), event


def explain(
    drift: pd.DataFrame,
    events: Sequence[KnownEvent],
    gates: Mapping[str, float],
    *,
    earlier: pd.DataFrame,
    announced: Announced = MappingProxyType({}),
    lag_days: int = 0,
) -> pd.DataFrame:
    """The rows of ``drift`` with column ``event`` and, where one explains a shift, tier ``expected``.

    Args:
        drift: findings of some days, with ``value``, ``expected`` and ``size``.
        events: every declared event.
        gates: size gate per statistic.
        earlier: rows of ``drift`` about days before; sizes of earlier occurrences are looked up in it and in ``drift``.
        announced: how much of a fault an event had announced; what is not in it was not announced.
        lag_days: how long after its day the rows of an event come.
    """
    days = _asked_on(drift, lag_days)
    covering = {day: [event for event in events if event.covers(day)] for day in set(days)}
    if not any(covering.values()):
        return drift
    whole = [rows[rows["slice"] == ALL][list(HISTORY)] for rows in (earlier, drift) if len(rows)]
    history = pd.concat(whole) if whole else drift[list(HISTORY)]
    history = history.assign(day=_asked_on(history, lag_days))
    found = drift.copy()
    asked = drift["statistic"].isin((*SHIFTS, *ANNOUNCED)) & drift["tier"].isin(ASKS_PEOPLE)
    for index in drift.index[asked]:
        row = drift.loc[index]
        for event in covering[days[index]]:
            if not _is_in_scope(event, row):
                continue
            if row["statistic"] in ANNOUNCED:
                question = Asked(
                    pd.Timestamp(row["day"]).date(), str(row["column_name"]), str(row["statistic"]), event.id
                )
                tier, name, said = _announced(event, row, gates, announced.get(question, 0.0))
            else:
                tier, name, said = _explained(event, row, _envelope(event, row, events, gates, history))
            found.loc[index, ["tier", "event", "reason"]] = [tier, name, f"{row['reason']}; {said}"]
            if tier == "expected":
                break
    return found


def _asked_on(drift: pd.DataFrame, lag_days: int) -> "pd.Series[Any]":
    days = pd.to_datetime(drift["day"]).dt.date
    told = [asked_on(day, subject, lag_days) for day, subject in zip(days, drift["subject"], strict=True)]
    return pd.Series(told, index=drift.index, dtype=object)


HISTORY = ("day", "subject", "column_name", "statistic", "size")


def _is_in_scope(event: KnownEvent, row: "pd.Series[Any]") -> bool:
    is_named = ALL in event.features or row["column_name"] in event.features
    is_of_slice = ALL in event.slices or row["slice"] in event.slices
    if row["statistic"] in ANNOUNCED:
        return is_named and is_of_slice and event.announces(str(row["column_name"]), str(row["statistic"]))
    is_up = row["value"] >= row["expected"]
    has_side = not str(row["statistic"]).startswith("distance")
    is_turned = event.direction == "any" or not has_side or (event.direction == "up") == is_up
    return is_named and is_turned and is_of_slice


def _envelope(
    event: KnownEvent,
    row: "pd.Series[Any]",
    events: Sequence[KnownEvent],
    gates: Mapping[str, float],
    history: pd.DataFrame,
) -> float:
    """The largest size that an event explains: declared, or three times the gate, or 1.5 times its like before."""
    statistic = str(row["statistic"])
    same = {"mean_alone": "mean"}.get(statistic, statistic)  # a mean that moves alone has the size of a mean
    given = event.max_size.get(statistic, event.max_size.get(same))  # type: ignore[call-overload]
    declared = SEVERE_TIMES_GATE * gates[statistic] if given is None else given
    before = [other for other in events if other.kind == event.kind and other.end < event.start]
    like = history[(history["column_name"] == row["column_name"]) & (history["statistic"] == statistic)]
    seen = [size for day, size in zip(like["day"], like["size"], strict=True) if any(o.start <= day <= o.end for o in before)]  # fmt: skip # noqa: E501
    largest = max([size for size in seen if not pd.isna(size)], default=0.0)
    return float(max(declared, ENVELOPE * largest))


def _explained(event: KnownEvent, row: "pd.Series[Any]", largest: float) -> tuple[str, str, str]:
    """Tier, event and words of a shift in the scope of an event."""
    if not event.is_known_before:
        said = f"explained in hindsight by {event.declared_by} on {event.declared_on}: {event.reason}"
        return str(row["tier"]), f"{event.id} (in hindsight)", said
    if row["size"] > largest:
        said = f"{event.id} explains up to {largest:.2g}, and this is {row['size']:.2g}"
        return str(row["tier"]), event.id, said
    return "expected", event.id, f"expected: {event.reason}"


def _announced(
    event: KnownEvent, row: "pd.Series[Any]", gates: Mapping[str, float], share: float
) -> tuple[str, str | None, str]:
    """Tier, event and words of new texts or numbers out of range, of which the event had announced a share of all rows.

    What is left is judged by the size gate; a severe fault stays one if what is left alone would be.
    """
    if not event.is_known_before:
        said = f"explained in hindsight by {event.declared_by} on {event.declared_on}: {event.reason}"
        return str(row["tier"]), f"{event.id} (in hindsight)", said
    rest, gate = max(row["value"] - share, 0.0), gates[str(row["statistic"])]
    excess = round(rest - row["expected"], 9)
    if excess < gate:
        return "expected", event.id, f"expected: {event.reason} announced {share:.1%}"
    said = f"{event.id} announced {share:.1%}, and not {rest:.1%}"
    is_grave = excess >= max(SEVERE_TIMES_GATE * gate, MIN_SEVERE_NULL_SHIFT)
    return str(row["tier"]) if is_grave else "moderate", event.id, said
