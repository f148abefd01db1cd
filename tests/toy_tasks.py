"""Three models that run elsewhere: one tells minutes, one a class, one orders a list. Sixty rows a day each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from toy_log import a_log_service, answers, payments
from toy_world import CALENDAR, FIRST, deliver

from mlops_assets import LabelDefinition, MLService, PredictionLog, QualityPolicy, RankingPolicy

ROWS, LISTS = 60, 12
CLASSES = ("letter", "box", "pallet")
COLUMNS = {
    "line": "BIGINT", "request": "VARCHAR", "model": "VARCHAR", "score": "DOUBLE", "arm": "VARCHAR", "page": "VARCHAR",
    **{name: "DOUBLE" for name in CLASSES}, "event_at": "TIMESTAMP", "available_at": "TIMESTAMP",
}  # fmt: skip
TRUTH = {
    "request": "VARCHAR", "minutes": "DOUBLE", "kind": "VARCHAR", "clicked": "BOOLEAN", "eur": "DOUBLE",
    "event_at": "TIMESTAMP", "available_at": "TIMESTAMP",
}  # fmt: skip


def a_task_service(task: str, **changes: Any) -> MLService:
    """The service of one task; all read the same log and the same outcomes."""
    label = {
        "regression": {"value": "minutes"},
        "multiclass": {"value": "kind", "classes": CLASSES},
        "ranking": {"value": "clicked", "kpi": "eur", "unlabelled": "negative"},
    }[task]
    answer = {"class_scores": {name: name for name in CLASSES}} if task == "multiclass" else {"score": "score"}
    declared: dict[str, Any] = {
        "name": f"toy_{task}",
        "task": task,
        "sources": (answers(columns=COLUMNS), payments(columns=TRUTH)),
        "prediction_log": PredictionLog(
            source="answers", request_id="request", model_version="model", context={"arm": "arm"}, **answer
        ),
        "label": LabelDefinition(
            version="v1", source="payments", request_id="request", window_hours=72, never_labelled="lost", **label
        ),
        "quality": QualityPolicy(min_labels=5),
    }
    if task == "ranking":
        declared["ranking"] = RankingPolicy(query="page", at_k=3)
        declared["quality"] = QualityPolicy(min_labels=5, metrics=("ndcg", "ctr", "revenue_per_impression"))
    return a_log_service(**{**declared, **changes})


def task_answers(day: date) -> pd.DataFrame:
    """What the three models answered on a day."""
    rng = np.random.default_rng(day.toordinal())
    start = CALENDAR.start_of(day)
    at = [start + timedelta(minutes=float(m)) for m in np.sort(rng.uniform(60, 1320, ROWS))]
    chances = rng.dirichlet([2, 1, 1], ROWS).round(9)
    chances[:, 2] = (1 - chances[:, 0] - chances[:, 1]).round(9)
    return pd.DataFrame({
        "line": day.toordinal() * 10_000 + np.arange(ROWS), "request": [f"{day}-{i:02d}" for i in range(ROWS)],
        "model": "v7", "score": rng.gamma(2, 50, ROWS).round(3), "arm": rng.choice(["a", "b"], ROWS),
        "page": [f"{day}-page-{i % LISTS}" for i in range(ROWS)],
        **{name: chances[:, place] for place, name in enumerate(CLASSES)},
        "event_at": at, "available_at": [a + timedelta(minutes=10) for a in at],
    })  # fmt: skip


def task_truth(day: date) -> pd.DataFrame:
    """What happened, each one or two days later; of a class that nobody declared now and then."""
    rows = task_answers(day)
    rng = np.random.default_rng(day.toordinal() + 1)
    known = [at + timedelta(hours=float(h)) for at, h in zip(rows["event_at"], rng.uniform(20, 50, ROWS), strict=True)]
    kinds = [rng.choice(CLASSES, p=row / row.sum()) for row in rows[list(CLASSES)].to_numpy()]
    kinds[0] = "tube"
    clicked = rng.random(ROWS) < 0.2 + rows["score"] / 500
    return pd.DataFrame({
        "request": rows["request"], "minutes": (rows["score"] + rng.normal(5, 20, ROWS)).round(3), "kind": kinds,
        "clicked": clicked, "eur": np.where(clicked, rng.gamma(2, 10, ROWS).round(2), 0.0),
        "event_at": known, "available_at": known,
    })  # fmt: skip


def deliver_tasks(landing: Path, days: Sequence[date], *, only_clicks: bool = False) -> None:
    """The log and its outcomes; ``only_clicks``: nobody reports what was not clicked on."""
    for day in days:
        deliver(landing, "answers", day, task_answers(day))
        if day > FIRST:
            near = pd.concat(
                [task_truth(day - timedelta(days=n)) for n in range(4) if day - timedelta(days=n) >= FIRST]
            )
            start, end = CALENDAR.start_of(day), CALENDAR.end_of(day)
            inside = near[(near["available_at"] >= start) & (near["available_at"] < end)]
            if only_clicks:
                inside = inside[inside["clicked"]]
            deliver(landing, "payments", day, inside.reset_index(drop=True))


def joined(days: Sequence[date]) -> pd.DataFrame:
    """Answers with what happened, in the order of the requests."""
    rows = [task_answers(day).merge(task_truth(day)[["request", "minutes", "kind", "clicked", "eur"]], on="request")
            for day in days]  # fmt: skip
    return pd.concat(rows, ignore_index=True)
