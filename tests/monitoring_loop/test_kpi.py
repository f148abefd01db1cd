"""What answers were worth: counted by hand, corrected later, added up with the day as the unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from toy_tasks import a_task_service
from toy_world import a_service

from mlops_assets import DeclarationError, KpiPolicy, MLService, QualityPolicy
from mlops_assets.adapters.engine import frame, open_engine, put, run
from mlops_assets.monitoring_loop.kpi import measure_kpi
from mlops_assets.tables import BY_NAME

MONDAY = date(2024, 3, 4)
KPI = KpiPolicy(name="saved", unit="EUR per parcel", value_per_true_alarm=3, value_per_false_alarm=-1)
Answer = tuple[str, bool, float]
"""Request, whether there was an alarm, and its outcome."""


def priced(kpi: KpiPolicy = KPI) -> MLService:
    declared = a_service()
    return a_service(
        model=declared.model.model_copy(update={"threshold": 0.5}),
        quality=declared.quality.model_copy(update={"kpi": kpi, "slices": {"depot": "depot"}}),
    )


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine() as engine:
        for name in ("predictions", "labels", "quality", "kpi", "completeness"):
            run(engine, BY_NAME[name].create_sql())
        run(engine, BY_NAME["kpi"].create_sql("closed_kpi"))
        yield engine


def add(con: duckdb.DuckDBPyConnection, name: str, rows: Sequence[dict[str, object]]) -> None:
    put(con, "given_rows", pd.DataFrame(rows))
    run(con, f"insert into {name} by name select * from given_rows")


def answered(con: duckdb.DuckDBPyConnection, day: date, answers: Sequence[Answer], known_on: date) -> None:
    """A champion's answers of one day, and their labels on another; quality asks for the day when it is known."""
    at = datetime.combine(day, datetime.min.time()) + timedelta(hours=9)
    row = {"day": day, "prediction_day": day, "model_version": "m1", "role": "champion", "served": True,
           "predicted_at": at, "logged_at": at, "context": '{"depot": "north"}'}  # fmt: skip
    add(con, "predictions", [{**row, "request_id": r, "score": 0.9, "decision": d} for r, d, _ in answers])
    told(con, [(r, y) for r, _, y in answers], known_on, at)
    asked(con, known_on, day, 1)


def told(con: duckdb.DuckDBPyConnection, labels: Sequence[tuple[str, float | None]], day: date, at: datetime) -> None:
    known = datetime.combine(day, datetime.min.time()) + timedelta(hours=20)
    row = {"day": day, "label_version": "late10_v1", "event_at": at + timedelta(hours=2), "known_at": known}
    add(con, "labels", [{**row, "request_id": r, "value": y} for r, y in labels])


def asked(
    con: duckdb.DuckDBPyConnection, day: date, last: date, length: int, state: str = "final", *,
    metric: str = "positive_share",
) -> None:  # fmt: skip
    for version, role in (("m1", "champion"), ("served", "served")):
        add(con, "quality", [{
            "day": day, "prediction_day": last, "window_days": length, "version": version, "role": role,
            "slice": "all", "metric": metric, "label_version": "late10_v1", "n": 4, "n_labelled": 4,
            "completeness": 1.0, "state": state,
        }])  # fmt: skip


def kpi_rows(con: duckdb.DuckDBPyConnection, days: Sequence[date], service: MLService | None = None) -> pd.DataFrame:
    measure_kpi(con, service or priced(), days=days, history="closed_kpi", completeness="completeness")
    found = frame(con, "select * from kpi where version = 'served' order by day, window_days, prediction_day")
    return found.assign(day=found["day"].dt.date)


FOUR: list[Answer] = [("a", True, 1.0), ("b", True, 0.0), ("c", False, 1.0), ("d", False, 0.0)]


def test_a_true_alarm_earns_a_false_one_costs_and_silence_is_free(con):
    answered(con, MONDAY, FOUR, MONDAY + timedelta(days=1))
    (row,) = kpi_rows(con, [MONDAY + timedelta(days=1)]).to_dict("records")
    assert (row["total"], row["alarms"], row["n_labelled"], row["value"]) == (2.0, 2, 4, 0.5)
    assert row["low"] < 0.5 < row["high"] and row["state"] == "final"


def test_any_expression_over_score_outcome_and_slices_can_be_the_value(con):
    kpi = KpiPolicy(name="saved", unit="EUR", expression="if(depot = 'north', 10 * score * outcome::integer, 0)")
    answered(con, MONDAY, FOUR, MONDAY + timedelta(days=1))
    (row,) = kpi_rows(con, [MONDAY + timedelta(days=1)], priced(kpi)).to_dict("records")
    assert row["total"] == 18.0


def test_another_label_definition_beside_it_is_not_mixed_in(con):
    day = MONDAY + timedelta(days=1)
    answered(con, MONDAY, FOUR, day)
    run(con, "insert into quality select * replace ('late30_v1' as label_version) from quality")
    assert kpi_rows(con, [day])["label_version"].tolist() == ["late10_v1"]


def test_a_corrected_label_restates_the_day_and_the_old_row_stays(con):
    first, later = MONDAY + timedelta(days=1), MONDAY + timedelta(days=3)
    answered(con, MONDAY, FOUR, first)
    told(con, [("b", 1.0), ("a", None)], later, datetime.combine(MONDAY, datetime.min.time()) + timedelta(hours=9))
    asked(con, later, MONDAY, 1, "restated")
    found = kpi_rows(con, [first, later]).set_index("day")
    assert found.loc[first, "total"] == 2.0
    assert (found.loc[later, "total"], found.loc[later, "n_labelled"], found.loc[later, "state"]) == (
        3.0,
        3,
        "restated",
    )


def test_a_window_adds_up_the_newest_news_of_its_days_closed_or_not(con):
    """Two days of 2.0 and 6.0 over four requests each; the first was known as 1.0 first, and will be 3.0 later."""
    tuesday = MONDAY + timedelta(days=1)
    add(con, "closed_kpi", [
        {"day": tuesday + timedelta(days=age), "prediction_day": MONDAY, "window_days": 1, "version": "served",
         "role": "served", "slice": "all", "kpi": "saved", "label_version": "late10_v1", "value": total / 4,
         "total": total, "alarms": 2, "n": 4, "n_labelled": 4, "state": "final"}
        for age, total in ((-1, 1.0), (0, 2.0), (9, 3.0))
    ])  # fmt: skip
    answered(
        con, tuesday, [(r, True, 1.0) for r in "ef"] + [(r, False, 1.0) for r in "gh"], tuesday + timedelta(days=1)
    )
    asked(con, tuesday + timedelta(days=1), tuesday, 7)
    window = kpi_rows(con, [tuesday + timedelta(days=1)]).query("window_days == 7").iloc[0]
    assert (window["total"], window["n_labelled"], window["value"]) == (8.0, 8, 1.0)


def test_the_interval_of_a_window_comes_from_how_days_differ(con):
    """Two days of 40 and 60 over a hundred requests: t with one degree of freedom, standard error .1."""
    tuesday, known = MONDAY + timedelta(days=1), MONDAY + timedelta(days=2)
    add(con, "closed_kpi", [
        {"day": day + timedelta(days=1), "prediction_day": day, "window_days": 1, "version": "served", "role": "served",
         "slice": "all", "kpi": "saved", "label_version": "late10_v1", "value": total / 100, "total": total,
         "alarms": 10, "n": 100, "n_labelled": 100, "state": "final"}
        for day, total in ((MONDAY, 40.0), (tuesday, 60.0))
    ])  # fmt: skip
    asked(con, known + timedelta(days=1), tuesday, 7)
    asked(con, known + timedelta(days=1), MONDAY, 28)
    two, one = kpi_rows(con, [known + timedelta(days=1)]).to_dict("records")
    assert (two["window_days"], two["value"]) == (7, 0.5)
    assert two["high"] - two["low"] == pytest.approx(2 * 12.706 * 0.1, rel=1e-3)
    assert one["value"] == 0.4 and np.isnan(one["low"]), "one day alone says nothing about how days differ"


def fresh(con: duckdb.DuckDBPyConnection, day: date, positive: float, negative: float) -> None:
    """At the end of its day these shares of the labels are known, and quality has a provisional answer."""
    add(con, "completeness", [
        {"day": day, "label_version": "late10_v1", "outcome": outcome, "age_days": 0, "slice": "all", "value": share,
         "variance": 0.0, "covariance": 0.0}
        for outcome, share in (("positive", positive), ("negative", negative))
    ])  # fmt: skip
    run(con, "update quality set state = 'provisional'")


def test_a_fresh_day_counts_each_outcome_for_those_that_have_not_come(con):
    """A half of the late parcels and all of the punctual ones are known: every late one stands for two."""
    answered(con, MONDAY, FOUR, MONDAY)
    fresh(con, MONDAY, 0.5, 1.0)
    (row,) = kpi_rows(con, [MONDAY]).to_dict("records")
    assert (row["total"], row["expected"], row["n_labelled"]) == (2 * 3 - 1, 6, 4)
    assert row["value"] == pytest.approx(5 / 6) and row["low"] < row["value"] < row["high"]
    assert row["state"] == "provisional"


def test_what_is_not_known_yet_has_a_reason_and_no_value(con):
    answered(con, MONDAY, FOUR, MONDAY)
    run(con, "update quality set state = 'not_measured', reason = '3 days past the label window, below 10'")
    (row,) = kpi_rows(con, [MONDAY]).to_dict("records")
    assert np.isnan(row["value"]) and row["state"] == "not_measured"
    assert row["reason"] == "3 days past the label window, below 10"


def test_where_only_positives_arrive_silence_is_worth_what_a_negative_is(con):
    """Two claims came and two requests are silent; half of the claims are known, so one silent one hides a claim."""
    declared = priced()
    service = declared.reading(declared.label.model_copy(update={"unlabelled": "negative"}))
    answered(con, MONDAY, FOUR, MONDAY)
    run(con, "delete from labels where value = 0")
    (final,) = kpi_rows(con, [MONDAY], service).to_dict("records")
    assert (final["total"], final["n_labelled"]) == (3 - 1, 4)
    run(con, "delete from kpi")
    fresh(con, MONDAY, 0.5, 1.0)
    (row,) = kpi_rows(con, [MONDAY], service).to_dict("records")
    assert row["total"] == 3 - 1 + (3 - -1), "the alarm that came true was worth 3; another one like it will turn"


def test_a_slice_has_a_value_of_its_own(con):
    answered(con, MONDAY, FOUR, MONDAY + timedelta(days=1))
    run(con, """update predictions set context = '{"depot": "south"}' where request_id in ('b', 'd')""")
    run(
        con,
        """
        insert into quality select q.* replace ('depot=' || depot as slice)
        from quality q cross join (values ('north'), ('south')) t(depot) where role = 'served'
    """,
    )
    run(con, "insert into quality select * replace (7 as window_days) from quality where role = 'served'")
    found = kpi_rows(con, [MONDAY + timedelta(days=1)])
    for length in (1, 7):
        total = found[found["window_days"] == length].set_index("slice")["total"]
        assert total.to_dict() == {"all": 2.0, "depot=north": 3.0, "depot=south": -1.0}


OF_TASK = {
    "regression": ("mae", "-abs(score - outcome)", [2.0, 5.0, 9.0], -13.3),
    "multiclass": ("accuracy", "case outcome when 'box' then 2.0 when '' then -1.0 else 0.0 end", [1, 1, -1], 3.0),
    "ranking": ("ctr", "3 * outcome", [1.0, 2.0, 0.0], 9.0),
}
"""Task -> the metric that asks, an expression, three labels of answers of 0.9, and what they are worth together."""


@pytest.mark.parametrize("task", OF_TASK)
def test_an_expression_values_numbers_classes_and_gains(con, task):
    """Final, all three answers count; fresh, each stands for two of which one has been told."""
    metric, expression, labels, total = OF_TASK[task]
    kpi, declared = KpiPolicy(name="saved", unit="EUR", expression=expression), a_task_service(task)
    label = declared.label.model_copy(update={"version": "late10_v1"})
    service = a_task_service(
        task, label=label, quality=QualityPolicy(metrics=declared.quality.metrics, kpi=kpi, min_labels=1)
    )
    tuesday, wednesday = (MONDAY + timedelta(days=back) for back in (1, 2))
    answered(con, MONDAY, [(r, False, y) for r, y in zip("abc", labels, strict=True)], tuesday)
    run(con, "delete from quality")
    asked(con, wednesday, MONDAY, 1, metric=metric)
    asked(con, tuesday, MONDAY, 1, "provisional", metric=metric)
    add(con, "completeness", [
        {"day": tuesday, "label_version": "late10_v1", "age_days": 1, "outcome": outcome, "slice": "all", "value": 0.5,
         "variance": 0.0, "covariance": 0.0}
        for outcome in (("positive", "negative") if task == "ranking" else ("positive",))
    ])  # fmt: skip
    fresh, final = kpi_rows(con, [tuesday, wednesday], service).to_dict("records")
    assert final["total"] == pytest.approx(total) and final["n_labelled"] == 3
    assert fresh["total"] == pytest.approx(2 * total) and fresh["value"] == pytest.approx(
        2 * total / 3 if task == "ranking" else total / 3
    )


def test_a_value_that_cannot_be_computed_fails_when_it_is_declared():
    with pytest.raises(ValidationError, match="needs value_per_true_alarm"):
        KpiPolicy(name="saved", unit="EUR", value_per_true_alarm=1)
    with pytest.raises(ValidationError, match="more than one of"):
        KpiPolicy(name="saved", unit="EUR", expression="score", value_per_true_alarm=1)
    with pytest.raises(DeclarationError, match="price"):
        priced(KpiPolicy(name="saved", unit="EUR", expression="score * price"))
    quality = a_service().quality.model_copy(update={"kpi": KPI})
    with pytest.raises(DeclarationError, match=r"model\.threshold"):
        a_service(quality=quality)
