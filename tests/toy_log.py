"""A model that runs elsewhere and leaves a log: sixty answers a day from March 2024 on, outcomes within two days."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from toy_world import CALENDAR, FIRST, OWNED, TIMES, a_world, close, day_rng, deliver, span

from mlops_assets import Expected, LabelDefinition, MLService, PredictionLog, QualityPolicy, Source
from mlops_assets.closing.world import World

ANSWERS = 60


def a_log_service(**changes: Any) -> MLService:
    """Only a log, its outcomes, and what is promised about them."""
    declared: dict[str, Any] = {
        **OWNED,
        "name": "loans",
        "purpose": "Watch the credit score that the core banking system computes.",
        "kpi": "defaults",
        "sources": (answers(), payments()),
        "prediction_log": a_log(),
        "label": LabelDefinition(
            version="default_v1", source="payments", request_id="request", value="defaulted", window_hours=72,
            never_labelled="loans that were not taken",
        ),
        "quality": QualityPolicy(min_labels=5),
    }  # fmt: skip
    return MLService(**{**declared, **changes})


def a_log(**changes: Any) -> PredictionLog:
    """The mapping of the log's columns."""
    declared: dict[str, Any] = {
        "source": "answers",
        "request_id": "request",
        "model_version": "model",
        "score": "score",
        "role": "role",
        "status": "status",
        "latency_ms": "latency_ms",
        "features": {"income": "income"},
        "context": {"arm": "arm"},
    }
    return PredictionLog(**{**declared, **changes})


def answers(**changes: Any) -> Source:
    """The log: one row is one answer of one version."""
    declared: dict[str, Any] = {
        "name": "answers",
        "description": "what the credit score answered",
        "columns": {
            "line": "BIGINT", "request": "VARCHAR", "customer": "VARCHAR", "model": "VARCHAR", "role": "VARCHAR",
            "score": "DOUBLE", "status": "VARCHAR", "latency_ms": "DOUBLE", "income": "DOUBLE", "arm": "VARCHAR",
            **TIMES,
        },
        "key": ("line",),
        "expected": Expected(first=FIRST),
        "on_missing_day": "block",
        "contract": "answers",
    }  # fmt: skip
    return Source(**{**declared, **changes})


def payments(**changes: Any) -> Source:
    """What became of the loans."""
    declared: dict[str, Any] = {
        "name": "payments",
        "description": "loans that were paid back, or not",
        "columns": {"request": "VARCHAR", "customer": "VARCHAR", "defaulted": "BOOLEAN", **TIMES},
        "key": ("request",),
        "expected": Expected(first=FIRST + timedelta(days=1)),
        "on_missing_day": "go_stale",
        "contract": "answers",
    }
    return Source(**{**declared, **changes})


def answers_of(day: date) -> pd.DataFrame:
    """The log's rows of the answers of one day, the champion's and a shadow's; readable ten minutes later."""
    rng = day_rng(day)
    start = CALENDAR.start_of(day)
    at = [start + timedelta(minutes=float(m)) for m in np.sort(rng.uniform(60, 1320, ANSWERS))]
    score = rng.uniform(0.02, 0.9, ANSWERS).round(3)
    rows = pd.DataFrame({
        "line": day.toordinal() * 10_000 + np.arange(ANSWERS), "request": [f"{day}-{i:02d}" for i in range(ANSWERS)],
        "customer": [f"client-{i % 40:02d}" for i in range(ANSWERS)], "model": "v7", "role": "champion", "score": score,
        "status": "ok", "latency_ms": rng.gamma(2, 10, ANSWERS).round(2), "income": rng.normal(3000, 500, ANSWERS),
        "arm": rng.choice(["a", "b"], ANSWERS), "event_at": at,
        "available_at": [a + timedelta(minutes=10) for a in at],
    })  # fmt: skip
    rows.loc[0, ["score", "status"]] = [None, "timeout"]
    shadow = rows[:20].assign(line=rows["line"] + 1000, model="v8", role="shadow", score=(score[:20] * 0.9).round(3))
    return pd.concat([rows, shadow], ignore_index=True)


def truth_of(day: date) -> pd.DataFrame:
    """What becomes of the answers of one day, each one or two days later: a default as likely as the score says."""
    rows = answers_of(day)[:ANSWERS]
    rng = np.random.default_rng(day.toordinal())
    known = [
        at + timedelta(hours=float(h)) for at, h in zip(rows["event_at"], rng.uniform(20, 50, ANSWERS), strict=True)
    ]
    defaulted = rng.uniform(size=ANSWERS) < rows["score"].fillna(0.3)
    return pd.DataFrame({"request": rows["request"], "customer": rows["customer"], "defaulted": defaulted,
                         "event_at": known, "available_at": known})  # fmt: skip


def payments_file(day: date) -> pd.DataFrame:
    """The file of arrival day ``day``."""
    near = pd.concat([truth_of(day - timedelta(days=n)) for n in range(4) if day - timedelta(days=n) >= FIRST])
    inside = (near["available_at"] >= CALENDAR.start_of(day)) & (near["available_at"] < CALENDAR.end_of(day))
    return near[inside].reset_index(drop=True)


def deliver_log(landing: Path, days: Sequence[date]) -> None:
    """The plain log and its outcomes."""
    for day in days:
        deliver(landing, "answers", day, answers_of(day))
        if day > FIRST:
            deliver(landing, "payments", day, payments_file(day))


def deliver_with_accidents(landing: Path) -> None:
    """Twenty days in which everything happens to the log that can happen to one.

    Day 5: all rows of scores of 0.7 and more are written twice. Day 8: ten rows of day 6 come again, unchanged, and
    three say something else. Day 10: the last thirty rows of day 9 come a day late. Day 12: its file comes two days
    late.
    """
    days = span(0, 19)
    deliver_log(landing, days)
    five, six, nine = (answers_of(days[n]) for n in (5, 6, 9))
    again = five[five["score"] >= 0.7]
    deliver(landing, "answers", days[5], pd.concat([five, again.assign(line=again["line"] + 5000)]))
    late = CALENDAR.start_of(days[8]) + timedelta(hours=1)
    repeated = six[10:20].assign(line=six["line"] + 5000, available_at=late)
    other = six[30:33].assign(line=six["line"] + 6000, available_at=late, score=0.999)
    deliver(landing, "answers", days[8], pd.concat([answers_of(days[8]), repeated, other]))
    moved = nine[30:60].assign(available_at=CALENDAR.start_of(days[10]) + timedelta(minutes=5))
    deliver(landing, "answers", days[9], nine.drop(index=range(30, 60)))
    deliver(landing, "answers", days[10], pd.concat([answers_of(days[10]), moved]))


def twenty_days(folder: Path, *, one_by_one: Sequence[date]) -> World:
    """The accidents above, closed in blocks, some days one by one; the file of day 12 lies there from day 14 on."""
    world, days = a_world(folder, a_log_service()), span(0, 19)
    deliver_with_accidents(world.home.landing)
    held_back = world.home.landing / "answers" / f"{days[12]}.parquet"
    content = pd.read_parquet(held_back)
    held_back.unlink()
    for part in (days[:14], days[14:]):
        if part[0] > days[12]:
            deliver(world.home.landing, "answers", days[12], content)
        alone = [day for day in part if day in one_by_one]
        before = [day for day in part if not alone or day < alone[0]]
        after = [day for day in part if alone and day > alone[-1]]
        for some in (before, *([day] for day in alone), after):
            if some:
                close(world, some)
    return world
