"""Replay: close every day of a range in order, one calendar month per Dagster run, and say how far it is."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from mlops_assets.adapters.calendar import days_between
from mlops_assets.adapters.stopwatch import spent, start_anew
from mlops_assets.closing.waiting import wait_for_lease
from mlops_assets.closing.world import World
from mlops_assets.display import display
from mlops_assets.errors import LeaseHeldError, RangeError
from mlops_assets.summary import Effort, summary_lines

if TYPE_CHECKING:
    from mlops_assets.day_loop import DayReport

Say = Callable[[str], None]
Wait = Callable[[], None]
OnDay = Callable[["DayReport"], None]
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Plan:
    """Which days a replay closes; none if everything asked for is closed already."""

    first: date
    last: date
    skipped: int = 0

    @property
    def days(self) -> list[date]:
        """The days to close, oldest first."""
        return list(days_between(self.first, self.last))

    @property
    def months(self) -> list[list[date]]:
        """The days of each calendar month; one month is one Dagster run."""
        return [list(days) for _month, days in groupby(self.days, key=lambda day: (day.year, day.month))]


@dataclass
class Progress:
    """How far a replay is: what its display shows."""

    total: int
    done: int = 0
    predictions: int = 0
    day: date | None = None
    champion: str = "prior"
    seconds: dict[str, float] = field(default_factory=dict)
    stopped: str = ""

    def count(self, world: World, report: "DayReport") -> None:
        """Take in one finished day."""
        self.done += 1
        self.day = report.day
        self.predictions += report.rows.get("predictions", 0)
        holder = world.holders(world.calendar.end_of(report.day)).get("champion")
        nobody = "elsewhere" if world.service.is_monitor_only else "prior"
        self.champion = holder["model_version"] if holder else nobody

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time that the body takes to a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def plan(world: World, first: date | None, last: date | None) -> Plan:
    """The unclosed days between first and last; by default from the first unclosed one to the end.

    Raises:
        RangeError: the range starts after the first unclosed day, or ends before it starts.
    """
    unclosed = world.first_unclosed()
    if first is not None and last is not None and last < first:
        raise RangeError(f"--from {first} lies after --to {last}.")
    if first is not None and first > unclosed and not _is_finished(world, unclosed):
        raise RangeError(
            f"service '{world.name}': days close in order, and {unclosed} is the first that is not closed; "
            f"--from {first} would leave a gap. Use --from {unclosed}, or leave --from out."
        )
    end = last_day(world)
    skipped = max((min(unclosed, end + ONE_DAY) - (first or unclosed)).days, 0)
    return Plan(unclosed, min(last or end, end), skipped)


def _is_finished(world: World, unclosed: date) -> bool:
    return unclosed > last_day(world)


def last_day(world: World) -> date:
    """The last day that can be asked for: the declared one, or the last one that is over."""
    if world.service.last_day is not None:
        return world.service.last_day
    return world.calendar.day_of(world.now()) - ONE_DAY


def has_open_work(world: World) -> bool:
    """Whether a decision still waits for its action; read from the ledger alone, to be quick."""
    done = {row["decision_id"] for row in world.ledger.effective("actions", world.name) if row["state"] == "done"}
    return any(row["decision_id"] not in done for row in world.ledger.effective("decisions", world.name))


def close_days(world: World, wanted: Plan, progress: Progress, *, on_day: OnDay, wait: Wait, say: Say) -> None:
    """Repair what a killed run left, then close the days of a plan, one month per Dagster run.

    Stops at the first day that cannot be closed yet. One run per month: its events stay few enough to page
    through, and a year still opens as a year.
    """
    from mlops_assets.adapters.dagster_home import instance
    from mlops_assets.build import Watcher, build_definitions, replay_run
    from mlops_assets.closing.standing import first_closable

    wait()
    for line in recover_all(world):
        say(line)
    finish_open_work(world)
    definitions, watcher = build_definitions([world.service], world.home), Watcher(on_day, progress.step)
    with instance(world.home) as dagster:
        for days in wanted.months:
            _close_month(world, days, wait, lambda days: replay_run(world, definitions, dagster, days, watcher))
            if world.first_unclosed() <= days[-1]:
                progress.stopped = first_closable(world).reason
                return


def _close_month(world: World, days: Sequence[date], wait: Wait, run: Callable[[Sequence[date]], None]) -> None:
    """One month as one run; if somebody else takes the lease in between, tried again."""
    while days:
        wait()
        try:
            run(days)
            return
        except LeaseHeldError:
            first = world.first_unclosed()
            days = [day for day in days if day >= first]


def recover_all(world: World) -> list[str]:
    """Repair what a killed run left, then let Dagster's history say what the ledger says; one line each."""
    from mlops_assets.adapters.dagster_home import instance
    from mlops_assets.build import settle
    from mlops_assets.day_loop import recover

    lines = recover(world)
    with instance(world.home) as dagster:
        return [*lines, *settle(world, dagster)]


def finish_open_work(world: World) -> None:
    """Carry out what was decided and not done; a range without days closes nothing."""
    from mlops_assets.day_loop import run_days

    if has_open_work(world):
        run_days(world, [], acts=True, by="replay", on_day=lambda _report: None)


def replay_service(
    world: World,
    *,
    first: date | None,
    last: date | None,
    redo_from: date | None,
    by: str,
    wait_seconds: float,
    say: Say,
) -> None:
    """Close what is not closed yet and print the summary; quick if everything is closed."""
    started = time.perf_counter()
    start_anew()

    def wait() -> None:
        wait_for_lease(world, seconds=wait_seconds, say=say)

    if redo_from:
        refuse_without_landing(world)
        last = _open_redo(world, redo_from, last, by, wait)
    wanted = plan(world, first, last)
    if wanted.days:
        refuse_without_landing(world)
    if wanted.skipped and wanted.days:
        say(f"{wanted.skipped:,} days before {wanted.first} are closed already; skipped")
    progress = Progress(len(wanted.days))
    if not wanted.days and not has_open_work(world):
        say(f"{world.name}: every day up to {wanted.last} is closed; nothing to do")
        _print_summary(world, None, say)
        return
    with display(progress.total, say) as show:

        def on_day(report: "DayReport") -> None:
            progress.count(world, report)
            show(progress, report)

        close_days(world, wanted, progress, on_day=on_day, wait=wait, say=say)
    if progress.stopped:
        say(progress.stopped)
    _print_summary(world, Effort(progress.done, time.perf_counter() - started, progress.seconds, spent()), say)


def refuse_without_landing(world: World) -> None:
    """Close nothing from a folder without a landing zone.

    Raises:
        RangeError: there is none; names the folder and what to do.
    """
    from mlops_assets.closing.standing import lacks_landing

    if why := lacks_landing(world):
        raise RangeError(f"{why}.")


def _open_redo(world: World, redo_from: date, last: date | None, by: str, wait: Wait) -> date:
    """Open a new epoch; returns the last day to close: by default the last one that is closed now."""
    from mlops_assets.day_loop import open_epoch

    closed = world.closed_through()
    wait()
    open_epoch(world, redo_from, by)
    return last or closed or redo_from


def _print_summary(world: World, effort: Effort | None, say: Say) -> None:
    for line in summary_lines(world, effort):
        say(line)
