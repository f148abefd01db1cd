"""A shift is told with the part of the traffic it sits in, and one that sits in one part alone is not lost."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_log import a_log_service, answers_of, deliver_log, payments_file
from toy_stories import on, stored
from toy_world import FIRST, a_world, close, deliver, span

from mlops_assets.adapters.engine import frame, open_engine, put
from mlops_assets.closing.slicing import labelled_sql
from mlops_assets.monitoring_loop.shift_values import value_sql
from mlops_assets.monitoring_loop.slice_shifts import parted_slices, sliced_totals_sql, where_it_sits

DAYS = [FIRST + timedelta(days=n) for n in range(21)]
LAST = DAYS[-1]


def traffic(*, arm_b: float = 0.0, everywhere: float = 0.0, new_version_share: float = 0.0) -> pd.DataFrame:
    """Three weeks of 300 scored requests a day in two arms and three markets; on the last day something happens.

    ``arm_b`` and ``everywhere`` are added to the scores, ``new_version_share`` of the requests come from a new
    version of the app, whose scores are .4 higher.
    """
    rng, parts = np.random.default_rng(3), []
    for day in DAYS:
        arm, market = rng.choice(["a", "b"], 300), rng.choice(["at", "de", "ch"], 300)
        is_new = (rng.uniform(size=300) < new_version_share) if day == LAST else np.zeros(300, dtype=bool)
        score = rng.beta(2, 5, 300) + 0.1 * (market == "de") + 0.4 * is_new
        if day == LAST:
            score = score + arm_b * (arm == "b") + everywhere
        context = [
            json.dumps({"arm": a, "market": m, "app": "9.0" if n else "8.7"})
            for a, m, n in zip(arm, market, is_new, strict=True)
        ]
        parts.append(pd.DataFrame({"day": pd.Timestamp(day), "context": context, "score": score}))
    return pd.concat(parts, ignore_index=True)


def totals(rows: pd.DataFrame) -> pd.DataFrame:
    """What the monitor adds up of them: the score, its square, and missing scores."""
    with open_engine() as con:
        put(con, "rows_of_days", rows)
        values = {
            "mean": value_sql("mean", "score"),
            "square": value_sql("square", "score"),
            "nulls": value_sql("null_share", "score"),
        }
        return frame(con, sliced_totals_sql("rows_of_days", values, ["arm", "market", "app"]))


def parted(rows: pd.DataFrame, versions: dict[date, str] | None = None) -> list[str]:
    """Slices that part from the others on the last day."""
    found = parted_slices(totals(rows), [LAST], versions or dict.fromkeys(DAYS, "v7"))
    return [one.slice for one in found]


def test_a_shift_of_the_whole_names_the_arm_it_sits_in_and_no_other_part() -> None:
    words = where_it_sits(totals(traffic(arm_b=0.3)), LAST, 0)
    assert words.count(" of it in ") == 1 and "of it in arm=b (5" in words and words.endswith("% of the rows)")
    share = float(words.split("% of it in arm=b")[0].removeprefix("; "))
    assert 90 <= share <= 110


def test_a_new_app_version_is_named_though_it_has_no_past() -> None:
    words = where_it_sits(totals(traffic(new_version_share=0.3)), LAST, 0)
    assert "of it in app=9.0" in words


def test_a_shift_that_is_everywhere_names_nobody() -> None:
    assert where_it_sits(totals(traffic(everywhere=0.3)), LAST, 0) == ""


def test_missing_values_and_missing_requests_are_placed_too() -> None:
    rows = traffic()
    is_hit = (rows["day"] == pd.Timestamp(LAST)) & rows["context"].str.contains('"de"')
    assert "of it in market=de" in where_it_sits(totals(rows.assign(score=rows["score"].mask(is_hit))), LAST, 2)
    assert "of it in market=de" in where_it_sits(totals(rows[~is_hit]), LAST, None)


def test_a_slice_that_parts_from_all_others_is_noted_and_a_storm_that_hits_all_is_not() -> None:
    """The market that always scores higher is its own usual; the arm that jumps is told, from both sides."""
    assert parted(traffic(arm_b=0.12)) == ["arm=a", "arm=b"]
    assert parted(traffic(everywhere=0.3)) == [] and parted(traffic()) == []


def test_a_value_without_bounds_breaks_no_sum_and_is_placed_like_any_other() -> None:
    """A sensor that answers 1e300 and infinity, in one market: the day closes, and the market is named."""
    rows = traffic()
    is_hit = (rows["day"] == pd.Timestamp(LAST)) & rows["context"].str.contains('"de"')
    absurd = rows["score"].mask(is_hit, 1e300)
    absurd.iloc[-1] = np.inf
    assert "of it in market=de" in where_it_sits(totals(rows.assign(score=absurd)), LAST, 0)
    assert "market=de" in parted(rows.assign(score=absurd))


def test_only_labels_of_answers_that_every_block_has_at_hand_are_counted() -> None:
    """A correction of an old answer: a block that begins today no longer has the answer, one from last week has it."""
    label = a_log_service().label
    with open_engine() as con:
        asked = {"request_id": ["new", "old"], "served": True, "context": "{}",
                 "prediction_day": pd.to_datetime([LAST - timedelta(days=2), LAST - timedelta(days=30)]),
                 "predicted_at": pd.to_datetime([LAST - timedelta(days=2), LAST - timedelta(days=30)])}  # fmt: skip
        put(con, "predictions", pd.DataFrame(asked))
        told = {"day": pd.Timestamp(LAST), "request_id": ["new", "old"], "value": 1.0, "label_version": label.version,
                "known_at": pd.Timestamp(LAST), "kpi": None}  # fmt: skip
        put(con, "labels", pd.DataFrame(told))
        assert len(con.sql(labelled_sql(label, DAYS[0], LAST)).fetchall()) == 1


def test_slices_are_compared_under_the_same_model_version_only() -> None:
    """A new model ranks the arms in its own way: for two weeks nothing is said about them."""
    new = {day: "v8" if day >= DAYS[10] else "v7" for day in DAYS}
    assert parted(traffic(arm_b=0.12), new) == []


@pytest.mark.slow
def test_the_day_says_in_which_arm_the_score_and_the_feature_moved(tmp_path: Path) -> None:
    """On one day the checkout of arm b forgets to send the income, its score rises, and nobody of it paid back."""
    world, days = a_world(tmp_path, a_log_service()), span(0, 24)
    deliver_log(world.home.landing, days)
    rows = answers_of(days[-1])
    is_hit = rows["arm"] == "b"
    rows = rows.assign(
        income=rows["income"].mask(is_hit), score=rows["score"].mask(is_hit, rows["score"] * 0.05 + 0.94)
    )
    deliver(world.home.landing, "answers", days[-1], rows)
    told, arms = payments_file(days[-1]), pd.concat([answers_of(day) for day in days]).set_index("request")["arm"]
    of_b = told["request"].map(arms[~arms.index.duplicated()]) == "b"
    deliver(world.home.landing, "payments", days[-1], told.assign(defaulted=told["defaulted"] | of_b))
    close(world, days)

    found = on(stored(world, "drift"), days[-1])
    nulls = found[(found["column_name"] == "income") & (found["statistic"] == "null_share")]
    assert nulls["reason"].str.contains("100% of it in arm=b").all() and len(nulls) == 1
    alone = found[(found["subject"] == "score") & (found["slice"] == "arm=b")]
    assert (
        list(alone["tier"]) == ["expected"] and "a shift in that part of the traffic alone" in alone["reason"].iloc[0]
    )
    labels = found[(found["subject"] == "labels") & (found["slice"] == "arm=b")]
    assert list(labels["tier"]) == ["expected"] and labels["reason"].iloc[0].startswith("label: arm=b lies +")
    assert "of it in arm=b" in on(stored(world, "verdicts"), days[-1])["reason"].iloc[0]
    before = stored(world, "drift").query("slice.str.startswith('arm=')", engine="python")
    assert set(before["day"]) == {days[-1]}
