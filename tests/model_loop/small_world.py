"""Requests and labels of some weeks, and the few promises they are read by."""

from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from mlops_assets.service.labels import LabelDefinition

LABEL = LabelDefinition(
    version="late_v1", source="arrivals", request_id="request_id", value="late", window_hours=48, never_labelled="-"
)
FIRST = date(2013, 1, 1)
NAMES = ("speed", "load", "carrier_code")
CATEGORICAL = ("carrier_code",)


def weeks(days: int, per_day: int, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``features`` and ``labels`` of some days: the chance of being late follows speed and carrier."""
    chance = np.random.default_rng(seed)
    count = days * per_day
    day = [FIRST + timedelta(days=n // per_day) for n in range(count)]
    asked = [datetime.combine(one, datetime.min.time()) + timedelta(hours=12) for one in day]
    speed, carrier = chance.normal(size=count), chance.choice(["AA", "UA"], size=count)
    late = chance.random(count) < 1 / (1 + np.exp(-(1.5 * speed + (carrier == "AA") - 1)))
    ids = [f"r{n:06d}" for n in range(count)]
    features = pd.DataFrame(
        {
            "day": pd.to_datetime(day), "request_id": ids, "feature_version": "v1",
            "predicted_at": pd.to_datetime(asked), "speed": speed, "load": chance.normal(size=count),
            "carrier_code": carrier,
        }
    )  # fmt: skip
    known = pd.to_datetime(asked) + pd.Timedelta(hours=6)
    labels = pd.DataFrame(
        {
            "day": pd.to_datetime(day), "request_id": ids, "label_version": "late_v1",
            "value": late.astype("float64"), "event_at": known, "known_at": known, "source": "arrivals/1",
        }
    )  # fmt: skip
    return features, labels
