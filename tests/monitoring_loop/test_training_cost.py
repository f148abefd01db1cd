"""A training that suddenly takes three times as much is a finding; a busy machine and a small service are not."""

from __future__ import annotations

from datetime import date, timedelta

from mlops_assets.monitoring_loop.training_cost import Training, costly

FIRST = date(2013, 3, 1)


def trainings(*used: tuple[float, float]) -> list[Training]:
    """One training a day from FIRST on, each (CPU seconds, MiB)."""
    return [Training(f"t{n}", FIRST + timedelta(days=n), 1000 * (n + 1), *one) for n, one in enumerate(used)]


def told(found: list[Training], growth: float | None = 3.0) -> list[str]:
    return [one.reason for one in costly(found, found[-1].known_on, growth)]


def test_three_times_the_usual_cpu_seconds_are_named_with_the_rows() -> None:
    assert told(trainings((6, 900), (7, 900), (8, 900), (30, 900))) == [
        "training t3: 30 CPU seconds, usually 7 (4,000 rows, 2,000 before)"
    ]
    assert [one.cause for one in costly(trainings((6, 900), (7, 900), (8, 900), (30, 900)), FIRST, 3.0)] == []


def test_memory_is_watched_beside_time() -> None:
    assert told(trainings((6, 900), (7, 900), (8, 900), (8, 2800))) == [
        "training t3: 2,800 MiB of memory, usually 900 (4,000 rows, 2,000 before)"
    ]


def test_a_busy_machine_a_small_service_and_too_few_trainings_say_nothing() -> None:
    assert told(trainings((6, 900), (7, 900), (8, 900), (14, 1800))) == []
    assert told(trainings((0.1, 90), (0.1, 90), (0.1, 90), (3, 400))) == []
    assert told(trainings((6, 900), (7, 900), (90, 900))) == []
    assert told(trainings((6, 900), (7, 900), (8, 900), (90, 900)), None) == []


def test_a_day_of_scoring_is_watched_like_a_training_but_its_memory_is_that_of_a_block() -> None:
    days = trainings((6, 900), (7, 900), (8, 900), (30, 2900))
    found = list(costly(days, days[-1].known_on, 3.0, work="scoring", watched=("cpu_seconds",)))
    assert [(one.cause, one.tier, one.reason) for one in found] == [
        ("scoring:cpu_seconds", "moderate", "scoring t3: 30 CPU seconds, usually 7 (4,000 rows, 2,000 before)")
    ]


def test_a_day_that_is_computed_again_knows_the_trainings_of_then() -> None:
    found = trainings((6, 900), (7, 900), (8, 900), (30, 900), (6, 900))
    assert [one.cause for one in costly(found, FIRST + timedelta(days=3), 3.0)] == ["training:cpu_seconds"]
