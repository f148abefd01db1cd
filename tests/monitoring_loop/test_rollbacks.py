"""The champion gives its place back for a severe breach, to a version that was green, once in a while."""

from __future__ import annotations

from datetime import date, timedelta

from mlops_assets import RollbackPolicy
from mlops_assets.decisions import Kind
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.rollbacks import Tenure, rollback, target

FIRST = date(2013, 3, 1)
BREACH = Finding("severe", "quality:brier", "brier up 20 % against the fallback")


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def champions(*starts: int) -> list[Tenure]:
    """Champions v0, v1, ... from these days on, and a fallback from the first on."""
    ends = [day(start) - timedelta(days=1) for start in starts[1:]]
    held = [
        Tenure("champion", f"v{number}", day(start), last)
        for number, (start, last) in enumerate(zip(starts, [*ends, None], strict=True))
    ]
    return [*held, Tenure("fallback", "cheap", day(starts[0]), None)]


def name_of(found: Tenure | None) -> str | None:
    return found.model_version if found else None


def test_the_place_goes_to_the_last_champion_that_was_green() -> None:
    assert name_of(target(champions(0, 30, 60), [], mature_days=3)) == "v1"
    assert name_of(target(champions(0, 30, 60), [day(35)], mature_days=3)) == "v0", "v1 had a breach of its own"


def test_a_version_that_was_replaced_before_its_labels_came_is_not_known_to_be_green() -> None:
    assert name_of(target(champions(0, 30, 32), [], mature_days=3)) == "v0"


def test_without_a_green_one_the_fallback_takes_over() -> None:
    assert name_of(target(champions(0), [], mature_days=3)) == "cheap"
    assert name_of(target(champions(0, 30), [day(10)], mature_days=3)) == "cheap"
    assert target(champions(0)[:1], [], mature_days=3) is None
    assert target([], [], mature_days=3) is None


def test_a_version_that_cannot_answer_any_more_is_nobody_to_go_back_to() -> None:
    assert name_of(target(champions(0, 30, 60), [], mature_days=3, barred=["v1"])) == "v0"
    assert target(champions(0), [], mature_days=3, barred=["cheap"]) is None


def asked(
    finding: Finding, *, on_day: int = 60, last: date | None = None, on: tuple[str, ...] = ("quality", "objective")
) -> str | None:
    policy = RollbackPolicy.model_validate({"on": on})
    to = target(champions(0, 30), [], mature_days=3)
    found = rollback(
        [finding], policy, day=day(on_day), champion="v1", since=day(30), to=to, last_rollback=last, label_days=2
    )
    assert found is None or found.kind is Kind.ROLLBACK
    return found.because if found else None


def test_a_severe_breach_rolls_back_and_says_why() -> None:
    because = f"v1 gives its place to v0, champion until {day(29)} and green: {BREACH.reason}"
    assert asked(BREACH) == because


def test_a_shift_alone_never_rolls_back_nor_does_a_moderate_breach() -> None:
    assert asked(Finding("severe", "weather", "wind: a storm")) is None
    assert asked(Finding("severe", "drift:score", "score: high")) is None
    assert asked(Finding("moderate", "quality:brier", "brier up 6 %")) is None


def test_a_champion_is_not_blamed_for_answers_of_the_one_before() -> None:
    """Labels of day 31 speak of day 29; a latency of day 30 is the new version's own."""
    assert asked(BREACH, on_day=31) is None
    assert asked(BREACH, on_day=32) is not None
    assert asked(Finding("severe", "objective:latency", "latency 900, limit 50"), on_day=30) is not None


def test_old_features_and_late_labels_are_no_version_s_fault() -> None:
    for promise in ("freshness", "label_delay", "cost_per_1000"):
        assert asked(Finding("severe", f"objective:{promise}", "missed")) is None
    assert asked(Finding("severe", "objective:errors", "errors (12 % of 900 bad)")) is not None


def test_the_second_breach_within_the_window_is_left_to_people() -> None:
    assert asked(BREACH, last=day(47)) is None
    assert asked(BREACH, last=day(46)) is not None


def test_a_service_may_switch_it_off() -> None:
    assert asked(BREACH, on=()) is None
