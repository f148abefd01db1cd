"""How much of the labels is known at which age: later ages only, newest days first, and silence before ten days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets import LabelDefinition, LabelNoise
from mlops_assets.adapters.engine import frame, open_engine
from mlops_assets.feedback_loop.maturity import (
    Triangle,
    completeness_frame,
    fill_triangle,
    product_limit,
    triangle_sql,
)

FIRST = date(2024, 3, 4)  # a Monday


def a_label(**changes: Any) -> LabelDefinition:
    declared = {
        "version": "paid_v1", "source": "payments", "request_id": "id", "value": "paid", "window_hours": 72,
        "never_labelled": "orders that were cancelled",
    }  # fmt: skip
    return LabelDefinition(**(declared | changes))


def a_triangle(days: int, arrives: tuple[int, ...] = (50, 30, 15, 5)) -> Triangle:
    """Every day the same: so many labels of each outcome come at age 0, 1, 2 and 3."""
    triangle = Triangle.empty(FIRST, FIRST + timedelta(days=days - 1), 3)
    triangle.arrived[:] = np.cumsum(arrives)[None, :, None, None]
    return triangle


def at(rows: pd.DataFrame, age: int, outcome: str = "positive", slice: str = "all") -> dict[str, Any]:
    wanted = (rows["age_days"] == age) & (rows["outcome"] == outcome) & (rows["slice"] == slice)
    [row] = rows[wanted].to_dict("records")
    return row


def test_the_share_known_at_an_age_is_what_later_ages_leave() -> None:
    """What comes at age 1 is known at age 1: the product starts after it."""
    curve = product_limit(a_triangle(30), FIRST + timedelta(days=29))
    assert curve.share[:, 0, 0] == pytest.approx([0.50, 0.80, 0.95])


def test_yesterday_counts_for_what_it_has_seen() -> None:
    """Three weeks ago half came on the first day; this week a fifth. Nobody waits three days to learn it."""
    triangle = a_triangle(80)
    last = FIRST + timedelta(days=79)
    before = product_limit(triangle, last).share[0, 0, 0]
    triangle.arrived[-5:] = np.cumsum([20, 60, 15, 5])[None, :, None, None]
    after = product_limit(triangle, last)
    assert after.share[0, 0, 0] < before - 0.01
    assert after.error[0, 0, 0] > 0


def test_fewer_than_ten_days_past_the_window_are_no_curve_unless_one_is_declared() -> None:
    triangle = a_triangle(12)
    last = FIRST + timedelta(days=11)  # nine days have reached age 3
    row = at(completeness_frame(triangle, a_label(), [last]), 0)
    assert pd.isna(row["value"])
    assert row["reason"] == "9 days past the label window, below 10"
    declared = at(completeness_frame(triangle, a_label(prior_completeness=(0.4, 0.7, 0.9)), [last]), 1)
    assert (declared["value"], declared["reason"]) == (0.7, "declared")
    estimated = at(completeness_frame(a_triangle(13), a_label(), [FIRST + timedelta(days=12)]), 0)
    assert estimated["value"] == 0.5


def test_a_mature_day_is_complete_by_definition() -> None:
    row = at(completeness_frame(a_triangle(5), a_label(), [FIRST + timedelta(days=4)]), 3)
    assert (row["value"], row["arrived"]) == (1.0, 100)


def test_a_weekday_has_its_own_curve_from_eight_weeks_on() -> None:
    """On Sundays nobody books payments."""
    triangle = a_triangle(70)
    triangle.arrived[6::7, 0, :] = 10.0
    sunday = FIRST + timedelta(days=69)
    assert sunday.isoweekday() == 7
    rows = completeness_frame(triangle, a_label(), [sunday])
    assert at(rows, 0)["weekday"] == 7
    assert at(rows, 0)["value"] == pytest.approx(0.1 / 0.8 * 0.8)
    assert at(rows, 1)["value"] == pytest.approx(0.8), "yesterday was a Saturday"
    early = completeness_frame(triangle, a_label(), [FIRST + timedelta(days=34)])
    assert at(early, 0)["weekday"] == 0
    assert 0.1 < at(early, 0)["value"] < 0.5


def test_a_slice_has_its_own_curve_and_a_small_one_borrows_that_of_all_requests() -> None:
    """Half of the labels come on the first day; of those of a shop abroad a tenth; of an island's there are few."""
    parts = ("all", "shop=abroad", "shop=island")
    triangle = Triangle.empty(FIRST, FIRST + timedelta(days=29), 3, parts)
    triangle.arrived[..., 0] = np.cumsum([50, 30, 15, 5])[None, :, None]
    triangle.arrived[..., 1] = np.cumsum([2, 10, 5, 3])[None, :, None]
    triangle.arrived[..., 2] = np.cumsum([1, 0, 0, 1])[None, :, None]
    rows = completeness_frame(triangle, a_label(), [FIRST + timedelta(days=29)])
    abroad, island = (at(rows, 0, slice=part) for part in parts[1:])
    assert abroad["value"] == 0.1 and pd.isna(abroad["reason"])
    assert (island["value"], island["arrived"]) == (0.5, 1)
    assert island["reason"] == "the curve of all requests: 54 mature labels of this slice, below 200"
    assert at(rows, 3, slice="shop=island")["value"] == 1.0, "a mature day is complete, whoever asks"


def test_days_that_differ_in_speed_make_a_wide_curve_and_a_wider_forecast_of_one_day() -> None:
    calm, restless = a_triangle(40), a_triangle(40)
    restless.arrived[::2, 0, :] -= 25
    restless.arrived[1::2, 0, :] += 25
    last = FIRST + timedelta(days=39)
    assert product_limit(restless, last).error[0, 0, 0] > 3 * product_limit(calm, last).error[0, 0, 0]
    assert product_limit(restless, last).variance[0, 0, 0] > 20 * product_limit(restless, last).error[0, 0, 0]


def counted(events: list[tuple[str, int, float | None]], *, logged_late: int, slices: tuple[str, ...] = ()) -> Triangle:
    """Two requests of one day, the second logged some days later, and label events by the age they came at."""
    noon = datetime(2024, 3, 4, 12)
    day, at_noon = timedelta(days=1), noon
    logged = [FIRST, FIRST + logged_late * day]
    predictions = pd.DataFrame(
        {
            "request_id": ["a", "b"],
            "served": True,
            "prediction_day": FIRST,
            "predicted_at": noon,
            "day": logged,
            "context": '{"shop": "here"}',
        }
    )
    labels = pd.DataFrame(
        [
            {"request_id": r, "day": FIRST + n * day, "known_at": at_noon + n * day, "event_at": at_noon, "value": v}
            for r, n, v in events
        ]
    ).assign(label_version="paid_v1")
    with open_engine() as con:
        con.register("given_predictions", predictions)
        con.register("given_labels", labels)
        con.execute(
            "create temp table predictions as "
            "select * replace (prediction_day::date as prediction_day, day::date as day) from given_predictions"
        )
        con.execute("create temp table labels as select * replace (day::date as day) from given_labels")
        query = triangle_sql(
            a_label(), predictions="predictions", labels="labels", first=FIRST, last=FIRST, slices=slices
        )
        found = frame(con, query)
        triangle = Triangle.empty(FIRST, FIRST, 3, tuple(found["slice"]))
        fill_triangle(triangle, found)
    return triangle


def test_a_correction_takes_a_label_from_one_outcome_and_gives_it_to_the_other() -> None:
    triangle = counted([("a", 0, 1.0), ("a", 2, 0.0), ("b", 1, 1.0), ("b", 2, None)], logged_late=0)
    assert triangle.arrived[0, :, 0, 0].tolist() == [1, 2, 0, 0]
    assert triangle.arrived[0, :, 1, 0].tolist() == [0, 0, 1, 1]
    assert triangle.predicted[:, :, 0].tolist() == [[2, 2, 2, 2]]


def test_a_request_that_is_logged_late_counts_from_then_on_and_so_does_its_label() -> None:
    triangle = counted([("a", 0, 1.0), ("b", 1, 1.0)], logged_late=2)
    assert triangle.predicted[:, :, 0].tolist() == [[1, 1, 2, 2]]
    assert triangle.arrived[0, :, 0, 0].tolist() == [1, 1, 2, 2]


def test_the_labels_of_a_slice_are_those_of_its_requests() -> None:
    triangle = counted([("a", 0, 1.0), ("b", 1, 0.0)], logged_late=0, slices=("shop",))
    assert triangle.slices == ("all", "shop=here")
    assert (triangle.arrived[..., 0] == triangle.arrived[..., 1]).all()


def test_a_declared_curve_that_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="name one share above 0 for each age from 0 to 2 days, never falling"):
        a_label(prior_completeness=(0.5, 0.4, 0.9))


def test_noise_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="name the shares of wrong labels, not of right ones"):
        LabelNoise(wrong_positive_share=0.95, wrong_negative_share=0.9, source="audit")
