"""The summary of a replay says what was spent on contracts, trainings and Dagster's history."""

import time

import numpy as np
import pytest

from mlops_assets.adapters.stopwatch import Spent, Stopwatch, resources
from mlops_assets.summary import Effort


def busy(cpu_seconds: float) -> None:
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        pass


def test_work_inside_work_of_the_same_kind_counts_once_and_the_dearest_time_is_kept() -> None:
    watch = Stopwatch()
    with watch.measure("trainings"):
        busy(0.05)
        with watch.measure("trainings"), watch.measure("events"):
            busy(0.05)
    with pytest.raises(ValueError, match="torn"), watch.measure("trainings"):
        busy(0.02)
        raise ValueError("torn")
    trainings, events = watch.spent["trainings"], watch.spent["events"]
    assert (trainings.times, events.times) == (2, 1)
    assert 0.12 <= trainings.cpu_seconds < 0.3
    assert 0.1 <= trainings.largest_cpu_seconds < trainings.cpu_seconds
    assert events.cpu_seconds < trainings.largest_cpu_seconds
    assert trainings.wall_seconds > 0.05  # CPU seconds are of all threads: less wall may pass


def test_a_summary_says_where_the_time_went_and_what_share_of_it() -> None:
    spent = {
        "trainings": Spent(times=11, wall_seconds=40.0, cpu_seconds=44.0, largest_cpu_seconds=5.25),
        "Great Expectations": Spent(times=104, wall_seconds=50.0, cpu_seconds=49.0, largest_cpu_seconds=0.5),
    }
    lines = list(Effort(356, 200.0, {"sources": 60.0, "day loop": 100.0}, spent).lines())
    assert lines[1:] == [
        "             sources 60.0 s, day loop 100.0 s",
        "             of that Great Expectations: 50.0 s (25%), CPU 49.0 s; 104 times, the largest 0.5 CPU s",
        "             of that trainings: 40.0 s (20%), CPU 44.0 s; 11 times, the largest 5.2 CPU s",
    ]


def test_what_a_piece_of_work_used_is_known_when_it_ends() -> None:
    with resources() as used:
        kept = np.ones(20_000_000)  # 153 MiB
        spent_on = sum(number * number for number in range(200_000))
    assert spent_on > 0 and kept.size
    assert used.cpu_seconds > 0 and used.wall_seconds > 0
    assert used.peak_mib > 150
