"""How far a replay is: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from mlops_assets.day_loop import DayReport

ONE_DAY = timedelta(days=1)


class Progress(Protocol):
    """What a display shows."""

    total: int
    done: int
    predictions: int
    day: date | None
    champion: str


Update = Callable[[Progress, "DayReport"], None]


@contextmanager
def display(total: int, say: Callable[[str], None]) -> Iterator[Update]:
    """A function to call after every day; what is not a terminal gets a line per month and blocked day."""
    console = Console()
    if not console.is_terminal:
        yield lambda progress, report: _tell(progress, report, say)
        return
    columns = (
        TextColumn("{task.fields[day]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[predictions]:,} predictions, champion {task.fields[champion]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("days", total=total, day="preparing ", predictions=0, champion="prior")

        def update(progress: Progress, _report: "DayReport") -> None:
            bar.update(
                task,
                completed=progress.done,
                day=str(progress.day),
                predictions=progress.predictions,
                champion=progress.champion,
            )

        yield update


def _tell(progress: Progress, report: "DayReport", say: Callable[[str], None]) -> None:
    if report.state == "blocked":
        say(f"{report.day}  {report.reason}")
    is_month_end = (report.day + ONE_DAY).day == 1
    if is_month_end or progress.done == progress.total:
        say(
            f"{report.day}  {progress.done} of {progress.total} days, {progress.predictions:,} predictions, "
            f"champion {progress.champion}"
        )


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to tell how many of something are done: a bar on the terminal's error stream, silence elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
