"""Where the time of a run goes: seconds per kind of work, added up in this process."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Spent:
    """What one kind of work took: how often, wall and CPU seconds, and the CPU seconds of the dearest time."""

    times: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    largest_cpu_seconds: float = 0.0


@dataclass
class Stopwatch:
    """Seconds per kind of work; work inside work of the same kind counts once."""

    spent: dict[str, Spent] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)

    @contextmanager
    def measure(self, work: str) -> Iterator[None]:
        """Add what the body takes to a kind of work."""
        if work in self._running:
            yield
            return
        self._running.add(work)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._running.discard(work)
            took, so_far = time.process_time() - cpu, self.spent.setdefault(work, Spent())
            so_far.times += 1
            so_far.wall_seconds += time.perf_counter() - wall
            so_far.cpu_seconds += took
            so_far.largest_cpu_seconds = max(so_far.largest_cpu_seconds, took)


_process = Stopwatch()


def measured(work: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function whose time counts as a kind of work, whoever calls it."""

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with _process.measure(work):
                return function(*args, **kwargs)

        return timed

    return decorated


def spent() -> Mapping[str, Spent]:
    """What this process has spent so far."""
    return _process.spent


def start_anew() -> None:
    """Forget what was spent."""
    _process.spent.clear()
