"""The drill: somebody upstream changes what our label means, and not a letter of our declaration."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_log import a_log_service, answers_of, payments
from toy_stories import moved_with, on, stored
from toy_world import CALENDAR, FIRST, TIMES, a_world, close, deliver, span

DAYS = span(0, 44)
WORTH_LESS, MORE_POSITIVES, SOONER = DAYS[38], DAYS[40], DAYS[43]
"""Days on which the checkout of arm b tells a fifth of the revenue, baskets count as purchases, all comes at once."""
COLUMNS = {"request": "VARCHAR", "bought": "BOOLEAN", "eur": "DOUBLE", **TIMES}


def visits(day: date) -> pd.DataFrame:
    """The champion's answers of a day, three times as many as the plain log has."""
    rows = answers_of(day).query("role == 'champion' and status == 'ok'")
    parts = [rows.assign(line=rows["line"] + 100_000_000 * n, request=rows["request"] + f"-{n}") for n in range(3)]
    return pd.concat(parts, ignore_index=True)


def purchases(day: date) -> pd.DataFrame:
    """What became of the visits of a day within two days: bought or not, and for how much."""
    rows, rng = visits(day)[["request", "event_at", "arm"]], np.random.default_rng(day.toordinal())
    hours = rng.uniform(20, 46, len(rows)) / (10 if day == SOONER - timedelta(days=1) else 1)
    told = rows["event_at"] + pd.to_timedelta(hours, unit="h")
    bought = rng.uniform(size=len(rows)) < 0.3
    eur = np.where(bought, rng.gamma(8, 5, len(rows)).round(2), 0.0)
    return rows.assign(bought=bought, eur=eur, event_at=told, available_at=told)


def redesigned(day: date, told: pd.DataFrame) -> pd.DataFrame:
    """The file of an arrival day, as the new checkout page writes it."""
    if day == WORTH_LESS:
        return told.assign(eur=told["eur"].mask(told["arm"] == "b", told["eur"] / 5))
    if day == MORE_POSITIVES:
        is_new = ~told["bought"] & (np.arange(len(told)) % 2 == 0)
        return told.assign(bought=told["bought"] | is_new, eur=told["eur"].mask(is_new, 40.0))
    return told


@pytest.mark.slow
def test_a_redesign_upstream_opens_a_finding_for_the_rate_the_delay_and_the_revenue_per_label(tmp_path: Path) -> None:
    """Each of the three moves on a day of its own, is found on that day, and is left alone on all others."""
    label = a_log_service().label.model_copy(update={"version": "bought_v1", "value": "bought", "kpi": "eur"})
    world = a_world(
        tmp_path, a_log_service(label=label, sources=(a_log_service().sources[0], payments(columns=COLUMNS)))
    )
    told = pd.concat([purchases(day) for day in DAYS], ignore_index=True)
    for day in DAYS:
        deliver(world.home.landing, "answers", day, visits(day))
        arrived = told["available_at"].between(CALENDAR.start_of(day), CALENDAR.end_of(day), inclusive="left")
        if day > FIRST:
            deliver(world.home.landing, "payments", day, redesigned(day, told[arrived]))
    close(world, DAYS)

    drift = stored(world, "drift").query("subject == 'labels' and slice == 'all' and tier in ('moderate', 'severe')")
    found = {day: set(on(drift, day)["column_name"]) for day in sorted(set(drift["day"]))}
    assert found[WORTH_LESS] == {"per_kpi"}
    assert found[MORE_POSITIVES] == {"label"}
    assert "delay_hours" in found[SOONER - timedelta(days=1)] | found[SOONER]
    (reason,) = on(drift, WORTH_LESS)["reason"]
    assert "% of it in arm=b (" in reason and "arm=a" not in reason
    assert min(found) == WORTH_LESS, "nothing is said before the redesign"
    moved = moved_with(world, "payments")
    assert moved["per_kpi"] == WORTH_LESS and moved["label"] == MORE_POSITIVES
    assert SOONER - timedelta(days=1) <= moved["delay_hours"] <= SOONER
