"""What a source may promise about when its files are due, and what it may not."""

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets import Expected

JANUARY, APRIL, JULY = date(2024, 1, 1), date(2024, 4, 1), date(2024, 7, 1)


def test_a_quarterly_list_is_due_on_its_days_alone() -> None:
    quarterly = Expected(cadence="list", days=(JANUARY, APRIL))
    assert [quarterly.covers(day) for day in (JANUARY, date(2024, 1, 2), APRIL, JULY)] == [True, False, True, False]
    assert quarterly.first_due == JANUARY


def test_a_list_is_the_same_written_as_yaml() -> None:
    quarterly = Expected(cadence="list", days=(JANUARY, APRIL))
    assert Expected.model_validate_json(quarterly.model_dump_json()) == quarterly


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"cadence": "list"}, "cadence 'list' needs days, for example days=(date(2013, 1, 1), date(2013, 4, 1))"),
        (
            {"cadence": "list", "days": (JANUARY,), "first": JANUARY},
            "cadence 'list' is due on its days alone; leave first and last out, or use 'daily'",
        ),
        (
            {"cadence": "list", "days": (APRIL, JANUARY)},
            "cadence 'list': days must be in order, each named once; sort them",
        ),
        (
            {"cadence": "list", "days": (APRIL, APRIL)},
            "cadence 'list': days must be in order, each named once; sort them",
        ),
        ({"days": (JANUARY,)}, "cadence 'daily' has no days; use cadence='list', or leave days out"),
        ({}, "cadence 'daily' needs first, the first day on which a file is due"),
        (
            {"cadence": "once", "first": JANUARY, "last": APRIL},
            "cadence 'once' is due on first alone; leave last out, or use 'daily'",
        ),
        ({"first": APRIL, "last": JANUARY}, "last 2024-01-01 lies before first 2024-04-01; exchange them"),
    ],
)
def test_days_that_contradict_each_other_are_refused_with_the_fix(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Expected(**declared)
    assert message in str(refused.value)
