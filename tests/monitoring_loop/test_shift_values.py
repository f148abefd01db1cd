"""Whatever way a column shifts, the part of the traffic in which it does is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_log import a_log, a_log_service, answers_of, deliver_log
from toy_stories import on, stored
from toy_world import FIRST, a_world, close, deliver, span

from mlops_assets import OperationsPolicy
from mlops_assets.adapters.engine import frame, open_engine, put, rows
from mlops_assets.monitoring_loop.bins import Bins
from mlops_assets.monitoring_loop.profiles import FrozenBins, profile_features
from mlops_assets.monitoring_loop.shift_values import DAYS_OF, Told, addend_sql, told_sql
from mlops_assets.monitoring_loop.slice_shifts import sliced_totals_sql, where_it_sits

DAYS = [FIRST + timedelta(days=n) for n in range(25)]
LAST = DAYS[-1]
BINS = {"income": Bins(edges=(0.0, 1000.0, 2000.0, 2500.0, 3000.0, 3500.0, 4000.0, 6000.0)),
        "kind": Bins(texts=("house", "car", "boat"))}  # fmt: skip
Change = Callable[[pd.DataFrame], pd.DataFrame]


def loans(day: int, change: Change | None = None) -> pd.DataFrame:
    """The requests of one day, in two arms; ``change`` is what happens to those of arm b."""
    rng = np.random.default_rng(day)
    asked = pd.DataFrame({
        "day": pd.Timestamp(DAYS[day]), "feature_version": "v1", "arm": rng.choice(["a", "b"], 200),
        "income": rng.normal(3000, 500, 200).round(2),
        "kind": rng.choice(["house", "car", "boat"], 200, p=(0.4, 0.5, 0.1)),
    })  # fmt: skip
    asked["context"] = [json.dumps({"arm": arm}) for arm in asked["arm"]]
    if change is None:
        return asked
    return pd.concat([asked[asked["arm"] == "a"], change(asked[asked["arm"] == "b"])], ignore_index=True)


def placed(statistic: str, column: str, change: Change, *, days: int = 1) -> str:
    """What is said about a shift of the last days that happened in arm b alone."""
    asked = pd.concat(
        [loans(n, change if n > len(DAYS) - 1 - days else None) for n in range(len(DAYS))], ignore_index=True
    )
    with open_engine() as con:
        put(con, "asked", asked)
        frozen = FrozenBins(BINS, {})
        profile_features(
            con, features="asked", feature_version="v1", numeric=["income"], categorical=["kind"], days=DAYS,
            into="profiles", frozen=frozen,
        )  # fmt: skip
        told = [Told(*row[1:]) for row in rows(con, told_sql("profiles", "v1", [column], DAYS[0], LAST))]
        addend = addend_sql(statistic, column, told, LAST)
        assert addend is not None
        table = frame(con, sliced_totals_sql("asked", {statistic: addend}, ["arm"]))
    return where_it_sits(table, LAST, 0, days=DAYS_OF.get(statistic, 1))


SHIFTS: dict[tuple[str, str], Change] = {
    ("mean", "income"): lambda b: b.assign(income=b["income"] + 900),
    ("mean_alone", "income"): lambda b: b.assign(income=b["income"] + 900),
    ("null_alone", "income"): lambda b: b.assign(income=np.nan),
    ("spread", "income"): lambda b: b.assign(income=3000 + (b["income"] - 3000) * 4),
    ("distance", "income"): lambda b: b.assign(income=np.where(b["income"] > 3000, 3800.0, 2200.0)),
    ("distance", "kind"): lambda b: b.assign(kind="boat"),
    ("out_of_range", "income"): lambda b: b.assign(income=-1.0),
    ("new_category", "kind"): lambda b: b.assign(kind="plane"),
}


@pytest.mark.parametrize(("statistic", "column"), SHIFTS)
def test_a_shift_of_any_kind_is_told_with_the_arm_that_holds_it(statistic: str, column: str) -> None:
    words = placed(statistic, column, SHIFTS[statistic, column])
    share = float(words.removeprefix("; ").split("% of it in arm=b (")[0])
    assert words.count(" of it in ") == 1 and share >= 85


def test_a_distance_of_seven_days_is_laid_on_seven_days() -> None:
    words = placed("distance_7d", "kind", lambda b: b.assign(kind="boat"), days=7)
    assert " of it in arm=b (" in words and "arm=a" not in words


def test_a_column_that_became_constant_is_told_with_the_arm_that_used_to_vary() -> None:
    """Arm a always sends the same income; since today arm b does too."""

    def same(asked: pd.DataFrame) -> pd.DataFrame:
        return asked.assign(income=np.where(asked["arm"] == "a", 3000.0, asked["income"]))

    asked = pd.concat([same(loans(n)) for n in range(len(DAYS))], ignore_index=True)
    asked = asked.assign(income=asked["income"].mask(asked["day"] == pd.Timestamp(LAST), 3000.0))
    told = [Told(LAST - timedelta(days=1), 200, 6e5, 1000.0, None, None, None, None),
            Told(LAST, 200, 6e5, 3000.0, None, None, None, None)]  # fmt: skip
    with open_engine() as con:
        put(con, "asked", asked)
        addend = addend_sql("constant", "income", told, LAST)
        assert addend is not None
        table = frame(con, sliced_totals_sql("asked", {"constant": addend}, ["arm"]))
    assert "100% of it in arm=b" in where_it_sits(table, LAST, 0)


def test_a_shift_that_no_profile_describes_is_told_without_a_place() -> None:
    """While bins are being learned there is no histogram that a row could be held against."""
    told = [Told(day, 200, 6e5, 1000.0, None, None, None, None) for day in DAYS]
    assert addend_sql("distance", "income", told, LAST) is None and addend_sql("distance", "income", [], LAST) is None


@pytest.mark.slow
def test_slow_failing_and_scattered_answers_of_one_arm_are_told_with_it_by_the_day(tmp_path: Path) -> None:
    """On the last day arm b answers ten times as slowly, a third of its answers fail, and its incomes scatter."""
    service = a_log_service(prediction_log=a_log(), operations=OperationsPolicy(watches_latency=True))
    world, days = a_world(tmp_path, service), span(0, 40)
    deliver_log(world.home.landing, days)
    last = answers_of(days[-1])
    is_hit = last["arm"] == "b"
    is_failed = is_hit & (np.arange(len(last)) % 3 == 0)
    last = last.assign(
        latency_ms=last["latency_ms"].mask(is_hit, last["latency_ms"] * 10),
        income=last["income"].mask(is_hit, 3000 + (last["income"] - 3000) * 6),
        status=last["status"].mask(is_failed, "error"), score=last["score"].mask(is_failed),
    )  # fmt: skip
    deliver(world.home.landing, "answers", days[-1], last)
    close(world, days)

    found = on(stored(world, "drift"), days[-1]).query("slice == 'all' and tier in ('moderate', 'severe')")
    told = {(row["column_name"], row["statistic"]): row["reason"] for row in found.to_dict("records")}
    expected = {("income", "spread"), ("latency_ms", "mean"), ("latency_ms", "spread"), ("failed", "mean")}
    assert expected <= set(told)
    assert [name for name, reason in told.items() if "% of it in arm=b (" not in reason] == []
