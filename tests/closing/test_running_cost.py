"""What answering costs, and where it fails: a daily bill and an endpoint, from the file to the verdict."""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd
import pytest
from toy_log import a_log, a_log_service, answers, answers_of, deliver_log, payments
from toy_stories import stored
from toy_world import CALENDAR, FIRST, TIMES, a_world, close, deliver, span

from mlops_assets import DailyBill, ErrorObjective, Expected, OperationsPolicy, Source
from mlops_assets.closing.world import World

pytestmark = pytest.mark.slow

LAST = 5
CLOUD = Source(
    name="cloud", description="what the cloud asks for", contract="answers", key=("request",),
    on_missing_day="go_stale", expected=Expected(first=FIRST + timedelta(days=1)),
    columns={"request": "VARCHAR", "euros": "DOUBLE", **TIMES},
)  # fmt: skip


def bill_of(day: date) -> pd.DataFrame:
    """The line about the day before; from day 4 on it is ten times as high."""
    about = CALENDAR.start_of(day - timedelta(days=1)) + timedelta(hours=12)
    euros = 8.0 if day < span(LAST - 1, LAST - 1)[0] else 80.0
    told = CALENDAR.start_of(day) + timedelta(hours=8)
    return pd.DataFrame({"request": [f"bill of {day}"], "euros": [euros], "event_at": [about], "available_at": [told]})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Sixty answers a day at three endpoints; on the last day every answer of one of them fails."""
    promised = OperationsPolicy(
        objectives=(ErrorObjective(good_share=0.95, max_burn=5),), max_cost_per_1000=500.0, cost_broken_days=2,
        bill=DailyBill(source="cloud", amount="euros"),
    )  # fmt: skip
    service = a_log_service(
        prediction_log=a_log(context={"endpoint": "arm"}), operations=promised, sources=(answers(), payments(), CLOUD)
    )
    found = a_world(tmp_path_factory.mktemp("cost"), service)
    days = span(0, LAST)
    deliver_log(found.home.landing, days)
    for day in days:
        rows = answers_of(day)
        rows.loc[(rows["arm"] == "a") & (rows.index % 2 == 0), "arm"] = "checkout"
        if day == days[-1]:
            rows.loc[rows["arm"] == "checkout", ["score", "status"]] = [None, "error"]
        deliver(found.home.landing, "answers", day, rows)
    for day in days[1:]:
        deliver(found.home.landing, "cloud", day, bill_of(day))
    close(found, days)
    return found


def test_a_bill_is_shared_by_the_answers_of_the_day_before_and_breaks_the_promised_cost(world: World) -> None:
    rows = stored(world, "operations")
    served = rows[(rows["version"] == "served") & (rows["slice"] == "all")].set_index("day")
    usual, dear = span(2, 2)[0], span(LAST - 1, LAST - 1)[0]
    assert served.loc[usual, "billed"] == pytest.approx(8.0 * 60 / 80), "the shadow's twenty answers pay their part"
    assert served.loc[dear, "billed_per_1000"] == pytest.approx(1000.0)
    levels = stored(world, "objectives").query("objective == 'cost_per_1000'").set_index("day")
    assert levels.loc[[usual, dear, span(LAST, LAST)[0]], "tier"].tolist() == ["stable", "stable", "moderate"]


def test_the_finding_names_the_endpoint_that_explains_the_errors(world: World) -> None:
    [row] = [r for r in world.ledger.effective("incidents", "loans") if r["cause"] == "objective:errors"]
    assert row["day"] == span(LAST, LAST)[0]
    assert "; endpoint=checkout explains 96% of the rise" in row["text"]
    parts = stored(world, "operations").query("version == 'served' and slice.str.startswith('endpoint=')")
    assert set(parts["slice"]) == {"endpoint=a", "endpoint=b", "endpoint=checkout"}
