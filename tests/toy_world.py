"""A small service for stories about time: parcels that may arrive late, thirty a day, from March 2024 on.

Deterministic: the same day is always delivered with the same bytes, whatever was delivered before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlops_assets import (
    Aggregate,
    DriftPolicy,
    Duty,
    Expected,
    GatePolicy,
    IncidentPolicy,
    LabelDefinition,
    LatestView,
    MLService,
    ModelPolicy,
    ModelTier,
    Owner,
    QualityPolicy,
    Raci,
    Request,
    RequestView,
    Source,
    WindowView,
)
from mlops_assets.adapters.calendar import Calendar
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.ledger import Row
from mlops_assets.closing.sources import ingest_sources
from mlops_assets.closing.world import World
from mlops_assets.day_loop import run_days

FIRST = date(2024, 3, 1)
PARCELS = 30
CALENDAR = Calendar("Europe/Vienna")  # its clocks change on 2024-03-31: a day of 23 hours lies inside
_DUTY = Duty(responsible="Mia", accountable="Mia")
OWNED: dict[str, Any] = {
    "owner": Owner(name="Mia", email="mia@example.com"),
    "raci": Raci(model_updates=_DUTY, schema_changes=_DUTY, retraining_cadence=_DUTY, incident_response=_DUTY),
    "timezone": CALENDAR.timezone,
    "first_day": FIRST,
    "contracts": str(Path(__file__).parent / "toy_contracts"),
}
"""What every service of the stories promises: Mia answers for all of them."""
TIMES = {"event_at": "TIMESTAMP", "available_at": "TIMESTAMP"}


def linear(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """A model that fits in milliseconds."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(random_state=seed))


def cheap(features: Sequence[str], categorical: Sequence[str], seed: int) -> Any:
    """The fallback: the same kind of model, held back harder."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(), LogisticRegression(C=0.01, random_state=seed))


def a_service(**changes: Any) -> MLService:
    """The parcel service; ``changes`` replace what a story is about."""
    declared: dict[str, Any] = {
        **OWNED,
        "name": "parcels",
        "purpose": "Tell who waits for a parcel that it will be late.",
        "kpi": "calls to the hotline",
        "sources": (orders(), scans()),
        "request": Request(
            source="orders",
            request_id="parcel",
            predicted_at="due_at - interval 3 hour",
            columns=("depot", "weight_kg"),
        ),
        "views": (
            RequestView(name="parcel", features={"weight": "weight_kg"}),
            WindowView(
                name="late",
                source="scans",
                keys={"depot": "depot"},
                windows_hours=(24, 72),
                aggregates={"late_rate": Aggregate(function="rate", expression="delay_min > 10")},
            ),
            LatestView(
                name="last_scan",
                source="scans",
                keys={"depot": "depot"},
                features={"last_delay": "delay_min"},
                max_age_hours=30,
            ),
        ),
        "label": LabelDefinition(
            version="late10_v1",
            source="scans",
            request_id="parcel",
            value="delay_min > 10",
            window_hours=24,
            never_labelled="lost parcels",
        ),
        "model": ModelPolicy(
            champion=ModelTier(factory="toy_world:linear"),
            fallback=ModelTier(factory="toy_world:cheap"),
            prior=0.3,
            cadence="weekly",
            gate=GatePolicy(judged_days=4, min_labels=20, champion_age_days=3, max_loss_increase_share=0.5),
        ),
        "quality": QualityPolicy(min_labels=5),
        "drift": DriftPolicy(),
        "incidents": IncidentPolicy(digest="never"),
    }
    return MLService(**{**declared, **changes})


def orders(**changes: Any) -> Source:
    """Tomorrow's parcels, known at noon."""
    declared: dict[str, Any] = {
        "name": "orders",
        "description": "parcels due tomorrow",
        "columns": {
            "parcel": "VARCHAR", "depot": "VARCHAR", "weight_kg": "DOUBLE", "due_at": "TIMESTAMP", **TIMES,
        },
        "key": ("parcel",),
        "feeds": "next_day",
        "expected": Expected(first=FIRST),
        "on_missing_day": "block",
        "contract": "orders",
    }  # fmt: skip
    return Source(**{**declared, **changes})


def scans(**changes: Any) -> Source:
    """Parcels as they are handed over."""
    declared: dict[str, Any] = {
        "name": "scans",
        "description": "parcels handed over",
        "columns": {"parcel": "VARCHAR", "depot": "VARCHAR", "delay_min": "DOUBLE", **TIMES},
        "key": ("parcel",),
        "expected": Expected(first=FIRST + timedelta(days=1)),
        "on_missing_day": "go_stale",
        "on_bad_row": "quarantine_row",
        "max_bad_share": 0.2,
        "contract": "scans",
    }
    return Source(**{**declared, **changes})


def day_rng(day: date) -> np.random.Generator:
    """Chance that is the same for a day whatever was asked before."""
    return np.random.default_rng(int(hashlib.sha256(day.isoformat().encode()).hexdigest()[:8], 16))


def _parcels(day: date) -> pd.DataFrame:
    """The parcels due on a day, with what will happen to them."""
    rng = day_rng(day)
    hours = np.sort(rng.integers(8, 23, PARCELS)) + rng.integers(0, 60, PARCELS) / 60
    due = [CALENDAR.start_of(day) + timedelta(hours=float(h)) for h in hours]
    weight = rng.gamma(2, 2, PARCELS).round(2)
    delay = (rng.normal(0, 12, PARCELS) + 3 * weight).round(1)
    return pd.DataFrame(
        {
            "parcel": [f"{day}-{i:02d}" for i in range(PARCELS)],
            "depot": rng.choice(["north", "south"], PARCELS),
            "weight_kg": weight,
            "due_at": due,
            "delay_min": delay,
            "scanned_at": [d + timedelta(minutes=float(x)) for d, x in zip(due, delay, strict=True)],
        }
    )


def orders_file(day: date) -> pd.DataFrame:
    """The file of arrival day ``day``: parcels due on the next one."""
    noon = CALENDAR.start_of(day) + timedelta(hours=12)
    rows = _parcels(day + timedelta(days=1))[["parcel", "depot", "weight_kg", "due_at"]]
    return rows.assign(event_at=noon, available_at=noon)


def scans_file(day: date) -> pd.DataFrame:
    """The file of arrival day ``day``: what was handed over on it, the odd parcel of the evening before included."""
    near = pd.concat([_parcels(d) for d in (day - timedelta(days=1), day) if d > FIRST] or [_parcels(day).iloc[:0]])
    start, end = CALENDAR.start_of(day), CALENDAR.end_of(day)
    rows = near[(near["scanned_at"] >= start) & (near["scanned_at"] < end)]
    found = rows[["parcel", "depot", "delay_min"]].assign(event_at=rows["scanned_at"], available_at=rows["scanned_at"])
    return found.reset_index(drop=True)


def deliver(landing: Path, source: str, day: date, rows: pd.DataFrame | None = None) -> Path:
    """Put one file into the landing zone, in place of an older one."""
    content = rows if rows is not None else (orders_file if source == "orders" else scans_file)(day)
    path = landing / source / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {c: "datetime64[us]" for c in content.columns if c.endswith("_at")}
    content.astype(columns).to_parquet(path, index=False)
    return path


def deliver_all(landing: Path, days: Sequence[date], *, without: Sequence[tuple[str, date]] = ()) -> None:
    """Both files of each day."""
    for day in days:
        for source in ("orders", "scans"):
            if (source, day) not in without and not (source == "scans" and day == FIRST):
                deliver(landing, source, day)


def span(first: int, last: int) -> list[date]:
    """Days counted from FIRST, both included: ``span(0, 6)`` is the first week."""
    return [FIRST + timedelta(days=i) for i in range(first, last + 1)]


def a_world(home: Path, service: MLService | None = None) -> World:
    """The service with all its stores in one folder."""
    stores = Home(
        path=home,
        landing=home / "landing",
        ledger_url=f"sqlite:///{home / 'ledger.db'}",
        mlflow_uri=f"sqlite:///{home / 'mlflow.db'}",
    )
    return World(service or a_service(), stores)


def close(world: World, days: Sequence[date], *, block_days: int = 14, acts: bool = True) -> None:
    """What a replay of these days does: sources, then the day loop."""
    ingest_sources(world, days)
    run_days(world, days, acts=acts, by="test", on_day=lambda report: None, block_days=block_days)


_OBSERVED = {
    "closed_at",
    "recorded_at",
    "acted_at",
    "opened_at",
    "versions",
    "mlflow_version",
    "model_sha256",
    "by",
    "pid",
}


def ledger_state(world: World) -> dict[str, list[Row]]:
    """What the ledger says, without what belongs to one run."""
    return {
        name: [{k: v for k, v in row.items() if k not in _OBSERVED} for row in world.ledger.effective(name, world.name)]
        for name in (
            "closings",
            "known_generations",
            "decisions",
            "incidents",
            "incident_events",
            "gates",
            "releases",
            "changes",
        )
    }


def at(day: date, hour: float) -> datetime:
    """An instant, naive UTC, counted in hours from the local start of a day."""
    return CALENDAR.start_of(day) + timedelta(hours=hour)
