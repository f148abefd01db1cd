"""Where the time of a run goes: seconds per kind of work, added up in this process, and what one piece of it used."""

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
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


SAMPLE_SECONDS = 0.05
MIB = 1024**2


@dataclass
class Used:
    """What one piece of work used: CPU and wall seconds, and the largest memory of this process meanwhile."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def resources() -> Iterator[Used]:
    """Measure the body; complete when it has ended, also by an error."""
    used, ended = Used(peak_mib=memory_mib()), threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            used.peak_mib = max(used.peak_mib, memory_mib())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield used
    finally:
        used.cpu_seconds, used.wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
        ended.set()
        watcher.join()
        used.peak_mib = max(used.peak_mib, memory_mib())


def memory_mib() -> float:
    """Memory that this process holds now; where the system does not say, the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / MIB
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (MIB if sys.platform == "darwin" else 1024)
