"""A business number with a source of its own: added up per unit, given to the version that serves the unit's bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from toy_world import CALENDAR, FIRST, a_service, a_world, at, close, deliver, deliver_all, orders, scans, span

from mlops_assets import (
    DeclarationError,
    DegradationRule,
    Expected,
    KpiPolicy,
    KpiSource,
    MLService,
    QualityPolicy,
    Source,
    UnknownNameError,
)
from mlops_assets.adapters.engine import frame, open_engine, put, register_days, run
from mlops_assets.closing.arriving import correct_fresh_days
from mlops_assets.monitoring_loop.kpi_source import logged_sql, measure_own_kpi, routed_sql
from mlops_assets.tables import BY_NAME

MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)
REVENUE = KpiSource(source="visits", grain="session", value="revenue", unit="session", slices={"depot": "depot"})
NO_BUCKET = "case when unit < 'm' then 0 else 9000 end"


def visits(**changes: Any) -> Source:
    declared: dict[str, Any] = {
        "name": "visits", "description": "sessions of the shop, a row per basket",
        "columns": {"line": "BIGINT", "session": "VARCHAR", "depot": "VARCHAR", "revenue": "DOUBLE",
                    "event_at": "TIMESTAMP", "available_at": "TIMESTAMP"},
        "key": ("line",), "expected": Expected(first=FIRST), "on_missing_day": "go_stale", "contract": "visits",
    }  # fmt: skip
    return Source(**{**declared, **changes})


def a_shop(own: KpiSource = REVENUE, **quality: Any) -> MLService:
    kpi = KpiPolicy(name="revenue", unit="EUR per session", source=own)
    policy = {"min_labels": 5, "slices": {"depot": "depot"}, "kpi": kpi, **quality}
    return a_service(sources=(orders(), scans(), visits()), quality=QualityPolicy(**policy))


Visit = tuple[str, float, date]
"""Session, revenue, and the day it happened on."""


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_engine() as engine:
        register_days(engine, CALENDAR, MONDAY, MONDAY + timedelta(days=9))
        run(engine, BY_NAME["kpi"].create_sql())
        run(engine, BY_NAME["kpi"].create_sql("closed_kpi"))
        run(engine, "create temp table stored (day date, generation int, source_key varchar, withdrawn bool, "
                    "line bigint, session varchar, depot varchar, revenue double, event_at timestamp)")  # fmt: skip
        run(engine, "create temp table listed (listed_on date, source varchar, day date, generation int)")
        run(engine, "create temp table routes as select timestamp '2024-01-01' as start_at, timestamp '2025-01-01' as "
                    "end_at, * from (values ('fallback', 'f1', 0, 500), ('champion', 'm1', 500, 10000)) "
                    "r(role, version, from_bucket, to_bucket)")  # fmt: skip
        yield engine


def delivered(
    con: duckdb.DuckDBPyConnection, day: date, found: Sequence[Visit], *, known: date | None = None, generation: int = 1
) -> None:
    """A file of a day, known on it or later: rows are named by their place."""
    put(con, "given_rows", pd.DataFrame([
        {"day": day, "generation": generation, "source_key": str(n), "withdrawn": False, "line": n, "session": session,
         "depot": "north", "revenue": revenue,
         "event_at": datetime.combine(happened, datetime.min.time()) + timedelta(hours=9)}
        for n, (session, revenue, happened) in enumerate(found)
    ]))  # fmt: skip
    run(con, "insert into stored by name select * from given_rows")
    run(con, "insert into listed values (?, 'visits', ?, ?)", [known or day, day, generation])


def measured(
    con: duckdb.DuckDBPyConnection,
    days: Sequence[date],
    own: KpiSource = REVENUE,
    answerers: str = routed_sql("routes", NO_BUCKET),
    **more: Any,
) -> pd.DataFrame:
    put(con, "block_days", pd.DataFrame({"day": pd.to_datetime(pd.Series(days))}))
    measure_own_kpi(
        con, a_shop(own), own, stored="stored", listed="listed", answerers=answerers, days=days,
        history="closed_kpi", **more,
    )  # fmt: skip
    found = frame(con, "select * from kpi order by day, window_days, prediction_day, version, slice")
    return found.assign(day=found["day"].dt.date, prediction_day=found["prediction_day"].dt.date)


def one(found: pd.DataFrame, **wanted: Any) -> dict[str, Any]:
    for name, value in {"slice": "all", "window_days": 1, "version": "served", **wanted}.items():
        found = found[found[name] == value]
    (row,) = found.to_dict("records")
    return row


def test_the_rows_of_a_session_add_up_and_the_kpi_is_their_mean(con):
    delivered(con, MONDAY, [("a", 10, MONDAY), ("a", 20, MONDAY), ("z", 0, MONDAY), ("y", 6, MONDAY)])
    row = one(measured(con, [MONDAY]))
    assert (row["value"], row["total"], row["n"], row["state"]) == (12.0, 36.0, 3, "final")
    half = 1.96 * np.std([30, 0, 6], ddof=1) / np.sqrt(3)
    assert row["high"] - row["value"] == pytest.approx(half, rel=1e-3), "the session is the unit, not its rows"


def test_a_session_counts_for_the_version_that_serves_its_bucket(con):
    delivered(con, MONDAY, [("a", 10, MONDAY), ("b", 30, MONDAY), ("z", 1, MONDAY)])
    found = measured(con, [MONDAY])
    assert (one(found, version="f1")["value"], one(found, version="f1")["role"]) == (20.0, "fallback")
    assert (one(found, version="m1")["value"], one(found, version="m1")["n"]) == (1.0, 1)
    assert one(found, slice="depot=north")["n"] == 3
    assert one(found, slice="depot=north", version="f1")["value"] == 20.0


def test_where_a_log_is_read_a_session_counts_for_the_version_that_answered_it(con):
    delivered(con, MONDAY, [("a", 10, MONDAY), ("z", 30, MONDAY)])
    run(con, BY_NAME["predictions"].create_sql())
    answer = {"day": MONDAY, "prediction_day": MONDAY, "request_id": "z", "served": True, "role": "champion"}
    put(con, "answers", pd.DataFrame([
        {**answer, "model_version": "v7"}, {**answer, "model_version": "v8", "role": "shadow", "served": False}
    ]))  # fmt: skip
    run(con, "insert into predictions by name select * from answers")
    found = measured(con, [MONDAY], answerers=logged_sql("predictions"))
    assert (one(found)["total"], one(found, version="v7")["total"]) == (40.0, 30.0)
    assert "v8" not in set(found["version"])


def test_a_late_row_restates_its_day_and_the_windows_that_hold_it(con):
    wednesday = MONDAY + timedelta(days=2)
    delivered(con, MONDAY, [("a", 10, MONDAY)])
    delivered(con, TUESDAY, [("z", 40, TUESDAY)])
    delivered(con, wednesday, [("y", 5, wednesday), ("c", 20, MONDAY)])
    found = measured(con, [MONDAY, TUESDAY, wednesday])
    assert one(found, day=MONDAY)["value"] == 10.0, "what was known on Monday stays"
    later = found[found["day"] == wednesday]
    monday = one(later, prediction_day=MONDAY)
    assert (monday["value"], monday["state"]) == (15.0, "restated")
    week = one(later, prediction_day=TUESDAY, window_days=7)
    assert (week["total"], week["n_labelled"], week["state"]) == (70.0, 3, "restated")
    newest = one(later, prediction_day=wednesday, window_days=7)
    assert (newest["total"], newest["value"], newest["state"]) == (75.0, 18.75, "final")


def test_a_corrected_file_counts_from_the_day_that_knows_it(con):
    delivered(con, MONDAY, [("a", 10, MONDAY), ("z", 20, MONDAY)])
    delivered(con, MONDAY, [("a", 100, MONDAY)], known=TUESDAY, generation=2)
    found = measured(con, [MONDAY, TUESDAY])
    assert one(found, day=MONDAY)["total"] == 30.0
    assert one(found, day=TUESDAY, prediction_day=MONDAY)["total"] == 120.0


def seen_before(con: duckdb.DuckDBPyConnection) -> None:
    """Twelve days before Monday: half of the sessions came on the next day, and spent three times as much."""
    row = {"window_days": 1, "version": "served", "role": "served", "slice": "all", "kpi": "revenue", "state": "final"}
    past = [MONDAY - timedelta(days=back) for back in range(2, 14)]
    put(con, "given_rows", pd.DataFrame([
        {**row, "day": day + timedelta(days=age), "prediction_day": day, "n": n, "total": total}
        for place, day in enumerate(past)
        for age, n, total in ((0, 50 + place, 500.0), (1, 100 + 2 * place, 2000.0))
    ]))  # fmt: skip
    run(con, "insert into closed_kpi by name select * from given_rows")


@pytest.mark.slow
@pytest.mark.parametrize("settles", [0, 1])
def test_a_block_of_days_gives_what_its_days_give_one_by_one(con, settles):
    own = REVENUE.model_copy(update={"settles_after_days": settles})
    seen_before(con)
    days = [MONDAY + timedelta(days=n) for n in range(4)]
    for n, day in enumerate(days):
        back = days[max(n - 2, 0)]
        delivered(con, day, [("a", 0.1 * n, day), ("z", 0.7, day), ("q", 3.3, back), (f"c{n}", 1 / 3, back)])
    everything = "select * from {} where day >= ? order by day, window_days, prediction_day, version, slice"
    measured(con, days, own)
    correct_fresh_days(con, "revenue", own, days=days, history="closed_kpi")
    together = frame(con, everything.format("kpi"), [MONDAY])
    run(con, "delete from kpi")
    for day in days:
        measured(con, [day], own)
        correct_fresh_days(con, "revenue", own, days=[day], history="closed_kpi")
        run(con, "insert into closed_kpi select * from kpi")
        run(con, "delete from kpi")
    apart = frame(con, everything.format("closed_kpi"), [MONDAY])
    pd.testing.assert_frame_equal(apart, together)
    assert ("provisional" if settles else "restated") in set(together["state"])


def test_a_day_that_is_not_settled_is_not_measured_and_says_until_when(con):
    slow = REVENUE.model_copy(update={"settles_after_days": 1})
    delivered(con, MONDAY, [("a", 10, MONDAY)])
    delivered(con, TUESDAY, [("z", 20, MONDAY), ("y", 1, TUESDAY)])
    found = measured(con, [MONDAY, TUESDAY], slow)
    early = one(found, day=MONDAY, prediction_day=MONDAY)
    assert np.isnan(early["value"]) and early["state"] == "not_measured" and early["total"] == 10.0
    assert early["reason"] == "units of this day arrive until 2024-03-05"
    assert one(found, day=TUESDAY, prediction_day=MONDAY)["value"] == 15.0


def test_a_day_that_is_not_settled_has_the_value_it_will_probably_have(con):
    """Half of a day's sessions come on the next day and spend three times as much: 10 so far means 20 in the end."""
    slow = REVENUE.model_copy(update={"settles_after_days": 1})
    seen_before(con)
    delivered(con, MONDAY, [(session, revenue, MONDAY) for session, revenue in (("a", 8), ("b", 12), ("z", 10))])
    measured(con, [MONDAY], slow)
    correct_fresh_days(con, "revenue", slow, days=[MONDAY], history="closed_kpi")
    found = frame(con, "select * from kpi where window_days = 1")
    found = found.assign(day=found["day"].dt.date, prediction_day=found["prediction_day"].dt.date)
    fresh = one(found, prediction_day=MONDAY)
    assert fresh["state"] == "provisional" and pd.isna(fresh["reason"])
    assert fresh["value"] == pytest.approx(20.0) and fresh["completeness"] == pytest.approx(0.5)
    assert (fresh["total"], fresh["n"], fresh["expected"]) == (30.0, 3, pytest.approx(6.0))
    assert fresh["low"] < 20.0 - 2 * 1.96 * np.std([8, 12, 10], ddof=1) / np.sqrt(3), "the days have differed, too"
    assert one(found, prediction_day=MONDAY, version="f1")["value"] == pytest.approx(20.0), "a version shares the curve"

    run(con, "delete from closed_kpi where prediction_day < ?", [MONDAY - timedelta(days=8)])
    run(con, "delete from kpi")
    measured(con, [MONDAY], slow)
    correct_fresh_days(con, "revenue", slow, days=[MONDAY], history="closed_kpi")
    left = frame(con, "select * from kpi where window_days = 1 and prediction_day = ?", [MONDAY])
    assert set(left["state"]) == {"not_measured"}, "eight days are no curve"


def test_silence_and_a_blocked_day_are_no_zero(con):
    delivered(con, TUESDAY, [("a", 10, TUESDAY)])
    found = measured(con, [MONDAY, TUESDAY], blocked={TUESDAY})
    assert one(found, day=MONDAY)["reason"] == "source visits says nothing about this day"
    blocked = one(found, day=TUESDAY)
    assert np.isnan(blocked["value"]) and blocked["reason"] == "blocked"


def test_a_day_grain_source_says_how_many_units_it_counts_and_only_the_whole_has_a_value(con):
    daily = KpiSource(source="visits", grain="day", value="revenue", unit="line + 1")  # lines 0, 1: 1 + 2 sessions
    delivered(con, MONDAY, [("", 10, MONDAY), ("", 20, MONDAY)])
    found = measured(con, [MONDAY], daily)
    assert set(found["version"]) == {"served"}
    row = one(found)
    assert (row["value"], row["n"]) == (10.0, 3)
    assert np.isnan(row["low"]), "one day alone says nothing about how days differ"


def visits_file(day: date) -> pd.DataFrame:
    rng = np.random.default_rng(day.toordinal())
    when = [at(day, float(hour)) for hour in np.sort(rng.uniform(1, 20, 60))]
    return pd.DataFrame({"line": np.arange(60), "session": [f"{day}-{n}" for n in range(60)], "depot": "north",
                         "revenue": rng.gamma(2, 10, 60).round(2), "event_at": when, "available_at": when})  # fmt: skip


@pytest.mark.slow
def test_a_session_of_the_holdback_counts_for_the_fallback_in_the_day_loop(tmp_path: Path) -> None:
    """Before the first release the prior has all sessions; then a tenth of the buckets keeps the fallback."""
    declared = a_shop()
    model = declared.model.model_copy(
        update={"rollout": declared.model.rollout.model_copy(update={"holdback_share": 0.1})}
    )
    world = a_world(tmp_path, declared.model_copy(update={"declared_model": model}))
    deliver_all(world.home.landing, span(0, 16))
    for day in span(0, 16):
        deliver(world.home.landing, "visits", day, visits_file(day))
    close(world, span(0, 16))
    with open_engine() as con:
        world.lake.view(con, "kpi", BY_NAME["kpi"].columns)
        found = frame(con, "select * from kpi where window_days = 1 and slice = 'all' and state = 'final'")
    totals = found.pivot_table(index="prediction_day", columns="role", values="n", aggfunc="sum")
    assert (totals["served"] == 60).all()
    assert totals.iloc[0]["prior"] == 60
    split = totals.dropna(subset=["champion", "fallback"])
    assert len(split) and (split["champion"] + split["fallback"] == 60).all()
    assert 0.03 < split["fallback"].sum() / split["served"].sum() < 0.2


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"source": "visitz"}, "visits"),
        ({"value": "revenues"}, "revenue"),
        ({"slices": {"shop": "depot"}}, "depot"),
    ],
)
def test_a_source_that_does_not_fit_fails_when_it_is_declared(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises((DeclarationError, UnknownNameError), match=named):
        a_shop(REVENUE.model_copy(update=wrong))


def test_a_session_has_an_id_and_a_rule_waits_for_settled_days() -> None:
    with pytest.raises(ValidationError, match="needs unit"):
        KpiSource(source="visits", grain="session", value="revenue")
    rule = DegradationRule(metric="revenue", compared_with="same_weekday", drops_by_share=0.03, of_days=3)
    with pytest.raises(DeclarationError, match="settled after 5 days"):
        a_shop(REVENUE.model_copy(update={"settles_after_days": 5}), degradation=(rule,))
    assert a_shop(degradation=(rule,)).quality.degradation == (rule,)
