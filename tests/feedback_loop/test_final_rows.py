"""However the log and its labels arrive, what is final is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from states import state
from toy_log import a_log_service, answers_of, deliver_log, truth_of
from toy_world import CALENDAR, FIRST, a_world, close, deliver, span

from mlops_assets.closing.world import World

pytestmark = pytest.mark.slow
DAYS = span(0, 13)
KEY = ["prediction_day", "window_days", "version", "role", "slice", "metric"]


def clean(folder: Path) -> World:
    """Two weeks as they should be."""
    world = a_world(folder, a_log_service())
    deliver_log(world.home.landing, DAYS)
    close(world, DAYS)
    return world


def messy(folder: Path) -> World:
    """The same answers and outcomes: every fourth answer is logged twice, labels arrive in reversed order, and every
    fifth one says the opposite first."""
    world = a_world(folder, a_log_service())
    told = []
    for day in DAYS:
        answers = answers_of(day)
        again = answers.iloc[::4]
        deliver(world.home.landing, "answers", day, pd.concat([answers, again.assign(line=again["line"] + 5000)]))
        truth = truth_of(day).sort_values("available_at").reset_index(drop=True)
        latest = truth["available_at"].max() + pd.Timedelta(hours=1)
        turned = truth.assign(available_at=latest + (truth["available_at"].max() - truth["available_at"]) / 10)
        wrong = turned.iloc[::5].assign(
            defaulted=~turned["defaulted"], available_at=latest - pd.Timedelta(minutes=30)
        )  # fmt: skip
        told.append(pd.concat([wrong, turned]))
    every = pd.concat(told)
    for day in DAYS[1:]:
        inside = (every["available_at"] >= CALENDAR.start_of(day)) & (every["available_at"] < CALENDAR.end_of(day))
        found = every[inside].sort_values("available_at").drop_duplicates("request", keep="last")
        deliver(world.home.landing, "payments", day, found.reset_index(drop=True))
    close(world, DAYS)
    return world


def test_repeats_corrections_and_a_reversed_order_change_no_final_row(tmp_path: Path) -> None:
    (right, _), (found, _) = (state(make(tmp_path / name)) for name, make in (("clean", clean), ("messy", messy)))
    for name, states, key, columns in (
        ("quality", ["final"], KEY, ["value", "raw_value", "low", "high", "n", "n_labelled"]),
        # A request of the early morning is corrected after its own window, though before its day is mature.
        (
            "outcomes",
            ["final", "restated"],
            ["request_id", "model_version"],
            ["day", "role", "served", "score", "value"],
        ),
    ):
        both = [
            tables[name][tables[name]["state"].isin(states)].set_index(key).sort_index()[columns]
            for tables in (right, found)
        ]
        assert len(both[0]) > 100, name
        pd.testing.assert_frame_equal(*both)
    provisional = [tables["quality"][tables["quality"]["state"] == "provisional"] for tables in (right, found)]
    assert not np.array_equal(provisional[0]["n_labelled"].to_numpy(), provisional[1]["n_labelled"].to_numpy()), (
        "the order in which labels came did differ"
    )
    assert (right["labels"].groupby("request_id").size() == 1).all()
    assert (found["labels"].groupby("request_id").size() == 2).sum() > 20
    assert FIRST in set(right["outcomes"]["day"].dt.date)
