"""Outcomes that name a customer and no request, through the day loop: whose they are, and when that is doubtful."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_log import a_log_service, answers_of, payments_file
from toy_stories import moved_with, on, stored
from toy_world import CALENDAR, FIRST, a_world, at, close, deliver, span

from mlops_assets import LabelDefinition

DAY = span(1, 1)[0]


def by_customer(rule: str) -> LabelDefinition:
    """Payments that name the customer; somebody may have asked several times in the window."""
    return LabelDefinition(
        version="default_v2", source="payments", value="defaulted", window_hours=72, never_labelled="not taken",
        attribution=rule, entity="customer", request_entity="customer",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "owner"), [("first", "a"), ("last", "b"), ("nearest", "c")])
def test_an_outcome_belongs_to_the_first_the_last_or_the_nearest_request_of_its_customer(
    rule: str, owner: str, tmp_path: Path
) -> None:
    """Mia asks at ten, at six, and at half past eight; at eight her loan goes wrong, which is told on the next day."""
    world, days = a_world(tmp_path, a_log_service(label=by_customer(rule))), span(0, 3)
    for day in days:
        rows = answers_of(day)
        if day == DAY:
            asked = [at(DAY, hour) for hour in (10.0, 18.0, 20.5)]
            mia = rows.query("role == 'champion'").iloc[1:4].assign(
                line=[1, 2, 3], request=["a", "b", "c"], customer="mia", event_at=asked, available_at=asked
            )  # fmt: skip
            rows = pd.concat([rows, mia])
        deliver(world.home.landing, "answers", day, rows)
        if day > FIRST:
            told = payments_file(day)
            if day == DAY + timedelta(days=1):
                loss = told.iloc[:1].assign(request="mia's", customer="mia", defaulted=True, event_at=at(DAY, 20.0),
                                            available_at=at(day, 9.0))  # fmt: skip
                told = pd.concat([told, loss])
            deliver(world.home.landing, "payments", day, told)
    close(world, days)
    labels = stored(world, "labels")
    found = labels[labels["request_id"].isin(["a", "b", "c"]) & labels["value"].notna()]
    assert found["request_id"].tolist() == [owner] and found["value"].tolist() == [1.0]


DAYS = span(0, 43)
RENAMED, CROWDED = DAYS[38], DAYS[41]
"""A day whose payments name customers by a new scheme; a day from which on a handful of customers ask all the time."""


def asked_on(day: date) -> pd.DataFrame:
    """The champion's answers of a day, by customers out of six hundred, or of thirty."""
    rows = answers_of(day).query("role == 'champion'").reset_index(drop=True)
    customers = np.random.default_rng(day.toordinal()).integers(0, 30 if day >= CROWDED else 600, len(rows))
    return rows.assign(customer=[f"client-{n}" for n in customers])


def told_on(day: date) -> pd.DataFrame:
    """The payments that arrive on a day; a twelfth of them are of customers whom nobody knows."""
    parts = []
    for asked in (day - timedelta(days=back) for back in range(3)):
        if asked < FIRST:
            continue
        rows, rng = asked_on(asked), np.random.default_rng(asked.toordinal() + 7)
        known = rows["event_at"] + pd.to_timedelta(rng.uniform(6, 40, len(rows)), unit="h")
        names = rows["customer"].mask(rng.uniform(size=len(rows)) < 1 / 12, "client-nobody")
        parts.append(rows[["request"]].assign(customer=names, defaulted=rng.uniform(size=len(rows)) < 0.3,
                                              event_at=known, available_at=known))  # fmt: skip
    told = pd.concat(parts, ignore_index=True)
    told = told[told["available_at"].between(CALENDAR.start_of(day), CALENDAR.end_of(day), inclusive="left")]
    is_new = (np.arange(len(told)) % 2 == 0) & (day == RENAMED)
    return told.assign(customer=told["customer"].mask(is_new, "C/" + told["customer"]))


@pytest.mark.slow
def test_more_outcomes_of_nobody_and_more_that_several_could_have_are_findings(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_log_service(label=by_customer("last")))
    for day in DAYS:
        deliver(world.home.landing, "answers", day, asked_on(day))
        if day > FIRST:
            deliver(world.home.landing, "payments", day, told_on(day))
    close(world, DAYS)

    drift = stored(world, "drift").query("subject == 'labels' and tier in ('moderate', 'severe')")
    found = {day: set(on(drift, day)["column_name"]) for day in sorted(set(drift["day"]))}
    assert "unattributed" in found[RENAMED] and min(found) == RENAMED, "nothing is said before"
    crowded = [day for day, columns in found.items() if "several_candidates" in columns]
    assert crowded and min(crowded) in (CROWDED, CROWDED + timedelta(days=1))
    moved = moved_with(world, "payments")
    assert moved["unattributed"] == RENAMED and moved["several_candidates"] == min(crowded)
