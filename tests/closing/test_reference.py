"""Predictions, labels and outcomes of twelve days equal what plain pandas makes of the files in the landing zone.

Shuffled by a seed: which files come late, come again with corrections, or never. The reference knows only when
each file was there, and the rule of what is known when.
"""

import random
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from toy_stories import stored, untrained
from toy_world import CALENDAR, FIRST, a_world, close, deliver, deliver_all, orders_file, scans_file, span

from mlops_assets.adapters.calendar import MICROSECOND
from mlops_assets.closing.world import World

DAYS = 12
WINDOW = timedelta(hours=24)
Delivered = list[tuple[date, date, pd.DataFrame]]
"""(day that lists the file, arrival day, its rows), in the order of delivery."""


def a_history(folder: Path, seed: int) -> tuple[World, Delivered]:
    """Close twelve days one by one over a landing zone in which files come late and come again."""
    chance = random.Random(seed)
    world = a_world(folder, untrained())
    days = span(0, DAYS - 1)
    late = dict(zip(chance.sample(days[1:8], 3), (1, 2, 4), strict=True))
    again = dict(zip(chance.sample(days[1:8], 3), (1, 2, 3), strict=True))
    delivered: Delivered = []
    for day in days:
        for arrival in days[1:]:
            if arrival + timedelta(days=late.get(arrival, 0)) == day:
                rows = scans_file(arrival)
            elif arrival in again and arrival + timedelta(days=late.get(arrival, 0) + again[arrival]) == day:
                rows = scans_file(arrival).iloc[2:]
                rows.loc[rows.index[::3], "delay_min"] = 20 - rows["delay_min"]
            else:
                continue
            deliver(world.home.landing, "scans", arrival, rows)
            delivered.append((day, arrival, rows))
        deliver_all(world.home.landing, [day], without=[("scans", day)])
        close(world, [day])
    return world, delivered


def expected_labels(delivered: Delivered) -> list[tuple[str, float | None, datetime, datetime]]:
    """(request, value, event, known) of every label event, told by what each file changed."""
    events, before = [], {}
    for listed, arrival, rows in delivered:
        known: dict[date, dict[str, tuple[float, datetime, datetime]]] = before
        old = known.get(arrival, {})
        new = {
            row.parcel: (row.delay_min, row.event_at.to_pydatetime(), row.available_at.to_pydatetime())
            for row in rows.itertuples()
        }
        told_at = None if listed == arrival else CALENDAR.end_of(listed) - MICROSECOND
        for parcel in {**old, **new}:
            if parcel not in new:
                events.append((parcel, None, old[parcel][1], told_at or old[parcel][2]))
            elif old.get(parcel) != new[parcel]:
                delay, event_at, available_at = new[parcel]
                events.append((parcel, float(delay > 10), event_at, told_at or available_at))
        known[arrival] = new
    return sorted(events, key=lambda event: (event[0], event[3]))


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Delivered]:
    return a_history(tmp_path_factory.mktemp("history"), request.param)


def test_every_parcel_that_was_ordered_is_answered_exactly_once(history: tuple[World, Delivered]) -> None:
    world, _delivered = history
    predictions = stored(world, "predictions")
    due = pd.concat([orders_file(FIRST + timedelta(days=n)) for n in range(DAYS - 1)])
    asked = dict(zip(due["parcel"], due["due_at"] - timedelta(hours=3), strict=True))
    served = predictions[predictions["served"]]
    assert sorted(served["request_id"]) == sorted(asked)
    assert dict(zip(served["request_id"], served["predicted_at"], strict=True)) == asked
    assert (served["prediction_day"] == served["predicted_at"].map(CALENDAR.day_of).map(pd.Timestamp)).all()


def test_every_label_is_told_when_its_file_could_be_known(history: tuple[World, Delivered]) -> None:
    world, delivered = history
    labels = stored(world, "labels").sort_values(["request_id", "known_at"])
    found = [
        (row.request_id, None if pd.isna(row.value) else row.value, row.event_at, row.known_at)
        for row in labels.itertuples()
    ]
    assert found == expected_labels(delivered)
    assert (labels["day"] == labels["known_at"].map(CALENDAR.day_of)).all()


def test_every_outcome_is_the_newest_label_that_was_known_in_its_window(history: tuple[World, Delivered]) -> None:
    world, delivered = history
    events = expected_labels(delivered)
    predictions = stored(world, "predictions").set_index("request_id")["predicted_at"]
    end = CALENDAR.end_of(span(0, DAYS - 1)[-1])
    expected = {}
    for request, predicted_at in predictions.items():
        told = [event for event in events if event[0] == request and event[2] <= predicted_at + WINDOW]
        newest = told[-1] if told else None
        if end < predicted_at + WINDOW:
            kind = "open" if newest is None or newest[1] is None else "provisional"
        else:
            kind = "restated" if len(told) > 1 and told[-1][3] > predicted_at + WINDOW else "final"
        expected[request] = (newest[1] if newest else None, len(told), kind)
    found = {
        row.request_id: (None if pd.isna(row.value) else row.value, row.label_events, row.state)
        for row in stored(world, "outcomes").itertuples()
    }
    assert found == expected
    assert {kind for _value, _events, kind in found.values()} >= {"final", "restated", "provisional"}


def test_positive_shares_are_those_of_the_labels_known_on_the_day(history: tuple[World, Delivered]) -> None:
    """As known at the end of each day: what is told later changes no row of an earlier day."""
    world, delivered = history
    events = expected_labels(delivered)
    predictions = stored(world, "predictions")
    rows = stored(world, "quality").query("window_days == 1 and slice == 'all' and version == 'served'")
    measured = rows[(rows["metric"] == "positive_share") & rows["raw_value"].notna()]
    assert len(measured) > DAYS / 2 or "positive_share" not in set(rows["metric"])
    for row in rows[rows["metric"] == rows["metric"].iloc[0]].itertuples():
        about = predictions[predictions["day"] == row.prediction_day.date()].set_index("request_id")["predicted_at"]
        known: dict[str, float | None] = {}
        for request, value, event_at, known_at in events:
            if request in about and event_at <= about[request] + WINDOW and known_at < CALENDAR.end_of(row.day):
                known[request] = value
        labelled = [value for value in known.values() if value is not None]
        assert (row.n, row.n_labelled) == (len(about), len(labelled)), (row.day, row.prediction_day)
        for share in measured[
            (measured["day"] == row.day) & (measured["prediction_day"] == row.prediction_day)
        ].raw_value:
            assert share == pytest.approx(sum(labelled) / len(labelled))
