"""Labels that come more slowly in one part of the traffic are told with that part, whether or not the whole moves."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_log import a_log_service
from toy_stories import on, stored
from toy_world import CALENDAR, a_world, close, day_rng, deliver, span

REQUESTS = 600
DAYS = span(0, 33)
ALONE, WITH_THE_WHOLE = DAYS[30], DAYS[32]
"""Days from which on (for one day) the labels of arm c, then of arm b, are three days slower."""
SLOW = timedelta(days=3)


def answers_file(day: date) -> pd.DataFrame:
    """Answers in three arms; a tenth of them in arm c."""
    rng = day_rng(day)
    at = [CALENDAR.start_of(day) + timedelta(minutes=float(m)) for m in np.sort(rng.uniform(60, 1320, REQUESTS))]
    return pd.DataFrame({
        "line": day.toordinal() * 10_000 + np.arange(REQUESTS), "request": [f"{day}-{i:03d}" for i in range(REQUESTS)],
        "customer": "somebody", "model": "v7", "role": "champion", "score": rng.uniform(0.02, 0.9, REQUESTS).round(3),
        "status": "ok", "latency_ms": 10.0, "income": rng.normal(3000, 500, REQUESTS),
        "arm": rng.choice(["a", "b", "c"], REQUESTS, p=(0.4, 0.5, 0.1)), "event_at": at, "available_at": at,
    })  # fmt: skip


def outcomes_of(day: date) -> pd.DataFrame:
    """What became of them, between 20 and 50 hours later, or three days after that."""
    rows, rng = answers_file(day), np.random.default_rng(day.toordinal())
    slow = {ALONE: "c", WITH_THE_WHOLE: "b"}.get(day + timedelta(days=1))
    known = rows["event_at"] + pd.to_timedelta(rng.uniform(20, 50, REQUESTS), unit="h")
    known = known.mask(rows["arm"] == slow, known + SLOW)
    defaulted = rng.uniform(size=REQUESTS) < rows["score"]
    return rows[["request", "customer"]].assign(defaulted=defaulted, event_at=known, available_at=known)


@pytest.mark.slow
def test_a_slice_whose_labels_are_slow_is_noted_and_named_when_the_whole_moves_because_of_it(tmp_path: Path) -> None:
    """Of the labels of yesterday's requests usually more than half are there; of arm c, then of arm b, none are."""
    label = a_log_service().label.model_copy(update={"window_hours": 168})
    world = a_world(tmp_path, a_log_service(label=label))
    told = pd.concat([outcomes_of(day) for day in DAYS], ignore_index=True)
    for day in DAYS:
        deliver(world.home.landing, "answers", day, answers_file(day))
        arrived = told["available_at"].between(CALENDAR.start_of(day), CALENDAR.end_of(day), inclusive="left")
        if day > DAYS[0]:
            deliver(world.home.landing, "payments", day, told[arrived])
    close(world, DAYS)

    drift = stored(world, "drift").query("column_name == 'completeness_1'")
    of_slices = drift[drift["slice"] != "all"]
    assert set(of_slices["day"]) == {ALONE, WITH_THE_WHOLE}, "an ordinary day has none"
    (alone,) = on(of_slices, ALONE).to_dict("records")
    assert (alone["slice"], alone["subject"], alone["tier"]) == ("arm=c", "labels", "expected")
    assert alone["reason"].startswith("completeness_1: 100% of arm=c without a value (")
    (whole,) = on(drift[drift["slice"] == "all"], ALONE).to_dict("records")
    assert whole["tier"] == "stable", "a tenth of the requests hardly moves the whole"

    (whole,) = on(drift[drift["slice"] == "all"], WITH_THE_WHOLE).to_dict("records")
    assert whole["tier"] in ("moderate", "severe") and "% of it in arm=b (" in whole["reason"]
    assert on(of_slices, WITH_THE_WHOLE)["slice"].tolist() == ["arm=b"]
    assert "arm=b" in on(stored(world, "verdicts"), WITH_THE_WHOLE)["reason"].iloc[0]
