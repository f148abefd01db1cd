"""Which outcome belongs to which request: one outcome counts once, and whatever came first, the end is the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import permutations
from typing import Any

import pandas as pd
import pytest
from toy_log import payments
from toy_world import CALENDAR, FIRST

from mlops_assets import LabelDefinition
from mlops_assets.adapters.engine import copy_sql, open_engine, put, register_days, rows, run
from mlops_assets.feedback_loop.attribution import (
    attributed_events_sql,
    attribution_profile_sql,
    candidates_sql,
    held_sql,
)
from mlops_assets.tables import BY_NAME

SOURCE = payments()
Request = tuple[str, str, float, float]
"""Request, customer, hour it was answered, hour its row was logged; hours count from FIRST."""
Outcome = tuple[str, int, str, bool | None, float, float]
"""Key, generation, customer, defaulted (None: withdrawn), hour it happened, hour it was told."""
Event = tuple[str, float | None, float]
"""Request, value, hour it became known."""


def at(hour: float) -> datetime:
    return CALENDAR.start_of(FIRST) + timedelta(hours=hour)


def day_of(hour: float) -> date:
    return CALENDAR.day_of(at(hour))


def label(rule: str = "last") -> LabelDefinition:
    return LabelDefinition(
        version="default_v1", source="payments", value="defaulted", window_hours=48, never_labelled="loans not taken",
        attribution=rule, entity="customer", request_entity="customer", kpi="100 * length(request)",
    )  # fmt: skip


def told(
    requests: Sequence[Request], outcomes: Sequence[Outcome], *, rule: str = "last", days: Sequence[date] | None = None
) -> tuple[list[Event], dict[date, tuple[float, float]]]:
    """Label events in the order in which they became known, and per day the unattributed and ambiguous shares."""
    with open_engine() as con:
        fill(con, requests, outcomes, days or [FIRST + timedelta(days=n) for n in range(12)])
        found = candidates_sql(label(rule), SOURCE, stored="stored", listed="listed", predictions="predictions")
        run(con, copy_sql("candidates", found))
        run(con, copy_sql("held", held_sql("candidates")))
        run(con, BY_NAME["labels"].create_sql())
        run(con, attributed_events_sql(label(rule), held="held", into="labels"))
        listed = rows(con, "select request_id, value, known_at from labels order by known_at, value nulls first")
        events = [(who, value, (known - at(0)) / timedelta(hours=1)) for who, value, known in listed]
        watched = f"select day, avg(unattributed), avg(several_candidates) from ({profile()}) group by day"
        return events, {day: (alone, several) for day, alone, several in rows(con, watched)}


def worths(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> list[tuple[str, float | None, float | None]]:
    """Request, value and worth of every label event, in the order in which they became known."""
    with open_engine() as con:
        fill(con, requests, outcomes, [FIRST + timedelta(days=n) for n in range(12)])
        found = candidates_sql(label(), SOURCE, stored="stored", listed="listed", predictions="predictions")
        run(con, copy_sql("candidates", found))
        run(con, copy_sql("held", held_sql("candidates")))
        run(con, BY_NAME["labels"].create_sql())
        run(con, attributed_events_sql(label(), held="held", into="labels"))
        return rows(con, "select request_id, value, kpi from labels order by known_at, value nulls first")


def test_an_outcome_takes_what_it_is_worth_with_it() -> None:
    """A better request that is logged late gets the outcome and its worth; the one that had it keeps neither."""
    early, late = ("early", "ann", 1.0, 1.0), ("late", "ann", 5.0, 30.0)
    assert worths([early, late], [("loan", 1, "ann", True, 10.0, 26.0)]) == [
        ("early", 1.0, 400.0),
        ("early", None, None),
        ("late", 1.0, 400.0),
    ]
    of_two = worths([early], [("loan", 1, "ann", True, 10.0, 26.0), ("second", 1, "ann", True, 12.0, 50.0)])
    assert of_two == [("early", 1.0, 400.0), ("early", 1.0, 600.0)], "of two outcomes the newer one, and its worth"


def profile() -> str:
    return attribution_profile_sql(label(), "candidates")


def fill(con: Any, requests: Sequence[Request], outcomes: Sequence[Outcome], days: Sequence[date]) -> None:
    register_days(con, CALENDAR, FIRST, FIRST + timedelta(days=12))
    put(con, "block_days", pd.DataFrame({"day": pd.to_datetime(pd.Series(days))}))
    asked = [
        {
            "request_id": who,
            "context": f'{{"customer":"{customer}"}}',
            "predicted_at": at(asked),
            "logged_at": at(logged),
        }
        for who, customer, asked, logged in requests
    ]
    put(con, "predictions", pd.DataFrame(asked, columns=["request_id", "context", "predicted_at", "logged_at"]))
    arrival = {key: min(day_of(o[5]) for o in outcomes if o[0] == key) for key, *_ in outcomes}
    stored = [
        {"day": arrival[key], "generation": number, "source_key": key, "withdrawn": value is None, "request": key,
         "customer": customer, "defaulted": bool(value), "event_at": at(event), "available_at": at(event)}
        for key, number, customer, value, event, _known in outcomes
    ]  # fmt: skip
    put(con, "stored", pd.DataFrame(stored).assign(day=lambda f: pd.to_datetime(f["day"])))
    listed = {
        (arrival[key], number): {
            "listed_on": day_of(known), "source": "payments", "day": arrival[key], "generation": number,
            "known_at": at(known), "start_at": CALENDAR.start_of(day_of(known)),
        }
        for key, number, _customer, _value, _event, known in outcomes
    }  # fmt: skip
    frame = pd.DataFrame(list(listed.values()))
    put(con, "listed", frame.assign(day=pd.to_datetime(frame["day"]), listed_on=pd.to_datetime(frame["listed_on"])))


TWO_LOANS: list[Request] = [("a", "mia", 1, 1), ("b", "mia", 10, 10)]
DEFAULT: Outcome = ("p1", 1, "mia", True, 20, 30)


@pytest.mark.parametrize(("rule", "owner"), [("first", "a"), ("last", "b"), ("nearest", "b")])
def test_the_declared_rule_says_whose_outcome_it_is(rule: str, owner: str) -> None:
    assert told(TWO_LOANS, [DEFAULT], rule=rule)[0] == [(owner, 1.0, 30)]


def test_only_nearest_looks_past_the_outcome() -> None:
    """The clock of the system that answers is a little ahead: its answer seems to come after the outcome."""
    ahead: list[Request] = [("a", "mia", 1, 1), ("b", "mia", 21, 21)]
    assert told(ahead, [DEFAULT], rule="last")[0] == [("a", 1.0, 30)]
    assert told(ahead, [DEFAULT], rule="nearest")[0] == [("b", 1.0, 30)]


def test_an_outcome_after_the_window_or_of_somebody_else_is_nobodys() -> None:
    late: Outcome = ("p1", 1, "mia", True, 60, 70)
    other: Outcome = ("p2", 1, "tom", True, 20, 70)
    events, shares = told([("a", "mia", 1, 1)], [late, other])
    assert events == [] and shares == {day_of(70): (1.0, 0.0)}


def test_a_better_request_that_is_logged_late_takes_the_outcome_over() -> None:
    """The label is known when both are: b's from hour 50 on, and at that moment a's is corrected."""
    late: list[Request] = [("a", "mia", 1, 1), ("b", "mia", 10, 50)]
    events, shares = told(late, [DEFAULT])
    assert events == [("a", 1.0, 30), ("a", None, 50), ("b", 1.0, 50)]
    assert shares == {day_of(30): (0.0, 0.0)}, "as known at the end of the day there was one candidate"


def test_a_request_with_two_outcomes_keeps_the_one_that_is_left() -> None:
    """Both belong to a until b is logged, which takes the later one."""
    both: list[Outcome] = [("p1", 1, "mia", False, 5, 30), ("p2", 1, "mia", True, 20, 30)]
    events, _shares = told([("a", "mia", 1, 1), ("b", "mia", 10, 50)], both)
    assert events == [("a", 1.0, 30), ("a", 0.0, 50), ("b", 1.0, 50)]


def test_a_withdrawn_or_corrected_outcome_is_a_new_event() -> None:
    corrected: Outcome = ("p1", 2, "mia", False, 20, 60)
    assert told(TWO_LOANS, [DEFAULT, corrected])[0] == [("b", 1.0, 30), ("b", 0.0, 60)]
    withdrawn: Outcome = ("p1", 2, "mia", None, 20, 60)
    assert told(TWO_LOANS, [DEFAULT, withdrawn])[0] == [("b", 1.0, 30), ("b", None, 60)]


def test_several_candidates_are_counted() -> None:
    assert told(TWO_LOANS, [DEFAULT])[1] == {day_of(30): (0.0, 1.0)}


def final(events: Sequence[Event]) -> dict[str, float | None]:
    """The newest label of each request, without those that have none."""
    newest = {who: value for who, value, _known in sorted(events, key=lambda event: event[2])}
    return {who: value for who, value in newest.items() if value is not None}


@pytest.mark.parametrize("rule", ["first", "last", "nearest"])
def test_in_whatever_order_rows_arrive_the_final_labels_are_the_same(rule: str) -> None:
    """Three requests and three outcomes of two customers, logged and told in every order within days."""
    asked = [("a", "mia", 1.0), ("b", "mia", 10.0), ("c", "tom", 12.0)]
    happened = [("p1", "mia", True, 20.0), ("p2", "mia", False, 30.0), ("p3", "tom", True, 40.0)]
    hours = [50.0, 75.0, 100.0, 125.0, 150.0, 175.0]
    results = set()
    for order in list(permutations(hours))[::37]:
        requests = [(*request, known) for request, known in zip(asked, order[:3], strict=True)]
        outcomes = [(k, 1, c, v, h, known) for (k, c, v, h), known in zip(happened, order[3:], strict=True)]
        results.add(tuple(sorted(final(told(requests, outcomes, rule=rule)[0]).items())))
    assert len(results) == 1, results


def test_a_block_of_days_brings_the_same_events_as_its_days_one_by_one() -> None:
    requests: list[Request] = [("a", "mia", 1, 1), ("b", "mia", 10, 80), ("c", "mia", 15, 120)]
    outcomes: list[Outcome] = [DEFAULT, ("p2", 1, "mia", False, 25, 60), ("p1", 2, "mia", None, 20, 130)]
    days = [FIRST + timedelta(days=n) for n in range(8)]
    alone = [event for day in days for event in told(requests, outcomes, days=[day])[0]]
    assert told(requests, outcomes, days=days)[0] == alone and len(alone) >= 5
