"""The week's report on alarms: what is known beside what was declared, and suggestions that change nothing."""

from __future__ import annotations

from datetime import date

import pytest

from mlops_assets.monitoring_loop.alarm_budget import QUARTER_DAYS, Asked, BudgetRow, budget_rows, in_words
from mlops_assets.service.drifting import AlarmBudget

SUNDAY = date(2013, 6, 30)
BUDGET = AlarmBudget(tier2_a_quarter=3, tier3_a_quarter=1)


def reported(*asked: Asked, days: int = QUARTER_DAYS) -> list[BudgetRow]:
    return budget_rows(SUNDAY, days, asked, BUDGET, "shop")


def one(cause: str, answer: str | None, *, tier: str = "moderate", alarms: int = 1) -> Asked:
    return Asked(cause, tier, alarms, answer)


def test_a_cause_that_cried_wolf_is_named_with_what_would_make_it_quieter():
    """Five of seven incidents came from the weather, and all five answers were the same."""
    asked = [one("weather", "false_alarm")] * 5 + [one("quality:brier", "new_normal"), one("orders", "bad_data")]

    whole, weather, *others = reported(*asked)

    assert (whole.scope, whole.incidents, whole.false_alarms, whole.state) == ("all", 7, 5, "over")
    assert "consider a smaller drift.alarm_budget" in whole.suggestion
    assert "mlops backtest-policy shop" in whole.suggestion
    assert weather.suggestion.startswith(
        "weather made 5 of 7 incidents (5 of 7 alarms), 5 of 5 answered were false alarms: consider a known event"
    )
    assert [row.suggestion for row in others] == ["", ""]


def test_precision_comes_from_answers_and_has_an_interval():
    whole, *_ = reported(*[one("a", "bad_data")] * 3, one("b", "false_alarm"), one("c", None))

    assert (whole.incidents, whole.answered, whole.real_share) == (5, 4, 0.75)
    assert whole.low == pytest.approx(0.301, abs=0.001)  # Wilson, 3 of 4
    assert whole.high == pytest.approx(0.954, abs=0.001)
    assert "75% of 4 answered were real (30% to 95%)" in in_words(whole)


def test_without_answers_nobody_knows_whether_the_budget_is_kept():
    few, *_ = reported(*[one("a", None)] * 4)
    many, cause = reported(*[one("a", None)] * 5)

    assert (few.state, many.state) == ("within", "not known")
    assert many.suggestion == "5 of 5 incidents have no answer, so nobody knows: mlops close, with --as"
    assert cause.suggestion.endswith("none is answered: mlops close says whether they were real")


def test_a_quarter_without_an_incident_may_mean_that_nobody_looks():
    [silent] = reported()
    [young] = reported(days=30)

    assert silent.suggestion.startswith("a quarter without any incident: consider whether it would see one")
    assert young.suggestion == ""
