"""However a log and its labels arrive, is what is final the same? The flights' year, once clean and once in a mess.

The answers that a replayed home has served become the prediction log of a service that only watches; its labels are the
flights' arrivals. The year is closed twice by the replay's own function, in scratch homes. *Clean*: every row once, at
its time. *Messy*, seeded: a tenth of the log's rows stand in their file a second time, and another tenth comes again up
to five days later; the rows of a file stand, and are told, in reversed order; the labels of a prediction day are told
in reversed order too, across the days that are left of its window; one label in twenty says the opposite at its own
time and is corrected by a row of a later file; and the last file of every month is closed with a fifth of the labels
wrong, as far as they can still be corrected in time, and is then delivered again (a new generation). Every correction
comes before its prediction day is mature: a later one is meant to restate.

Compared, exactly, as known at the very end: ``outcomes`` (day, role, served, score, value; one row per request, version
and label version) and ``quality`` (value, low, high, raw_value, n, n_labelled; per prediction day, window, version,
role, slice, metric and label version the newest row of state final or restated). Not compared: ``label_events`` and
``known_at`` of ``outcomes``, and whether its state is final or restated. They say how a label came, not what it is: an
answer of the early morning may be corrected after its own 48 hours, though before its day is mature. The home is read
only.

    python benchmarks/final_rows.py
    python benchmarks/final_rows.py --days 40 --seed 2
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from mlops_assets import Expected, MLService, PredictionLog, QualityPolicy, Source
from mlops_assets.adapters.calendar import Calendar, days_between
from mlops_assets.adapters.engine import frame, literal, quote, rows
from mlops_assets.adapters.home import Home
from mlops_assets.adapters.people_sql import open_views
from mlops_assets.closing.world import World
from mlops_assets.examples.flight_delays.service import LATE, arrivals, flight_delays
from mlops_assets.feature_loop.contracts import TABLE_LEVEL
from mlops_assets.replay import Plan, Progress, close_days

AGAIN, WRONG, WRONG_IN_A_FILE = 0.1, 0.05, 0.2
MOST_DAYS_LATER = 5
SETTLES = 3
"""Days after the last prediction day until it is mature: the window of 48 hours, and one for days of 23 hours."""
ONE_DAY, ONE_SECOND = timedelta(days=1), timedelta(seconds=1)
SLICES = ("carrier", "origin", "hour_band")
OUTCOME = ["request_id", "model_version", "label_version"]
MEASURED = ["prediction_day", "window_days", "version", "role", "slice", "metric", "label_version"]
Opposite = Callable[[pd.DataFrame], pd.DataFrame]
"""Label rows that say the opposite."""


@dataclass(frozen=True)
class Story:
    """What a log and a label source bring; ``available_at`` says in which file a row stands.

    ``log`` has a number ``line``; ``labels`` have ``answered_on``, the prediction day of their request. ``wrong``:
    arrival day -> the labels' file as it is delivered first, to be put right when that day is closed.
    """

    log: pd.DataFrame
    labels: pd.DataFrame
    wrong: Mapping[date, pd.DataFrame] = field(default_factory=dict)


# --- the mess -------------------------------------------------------------------------------------


def arrival_days(instants: "pd.Series[pd.Timestamp]", calendar: Calendar) -> "pd.Series[date]":
    """The business day of every instant."""
    days = list(days_between(calendar.day_of(instants.min()), calendar.day_of(instants.max())))
    starts = np.array([calendar.start_of(day) for day in days], dtype="datetime64[us]")
    place = np.searchsorted(starts, instants.to_numpy("datetime64[us]"), side="right") - 1
    return pd.Series(np.array(days, dtype=object)[place], index=instants.index)


def mature_at(labels: pd.DataFrame, calendar: Calendar, window: timedelta) -> "pd.Series[pd.Timestamp]":
    """When the prediction day of each label is mature."""
    ends = {day: calendar.end_of(day) + window for day in labels["answered_on"].unique()}
    return pd.to_datetime(labels["answered_on"].map(ends))


def reversed_labels(labels: pd.DataFrame, calendar: Calendar, window: timedelta) -> pd.DataFrame:
    """The labels of each prediction day in reversed order, told between the last of them and the day's maturity."""
    at = labels["available_at"]
    of_day = at.groupby(labels["answered_on"])
    first, last = of_day.transform("min"), of_day.transform("max")
    room = (mature_at(labels, calendar, window) - ONE_SECOND - last).clip(lower=timedelta(0))
    told = last + room * ((last - at) / (last - first)).fillna(0.0)
    return labels.assign(available_at=told.dt.floor("us"))


def reversed_log(log: pd.DataFrame, calendar: Calendar) -> pd.DataFrame:
    """The rows of each file in reversed order, told in the last minutes of its day."""
    days = arrival_days(log["available_at"], calendar)
    starts = pd.to_datetime(days.map({day: calendar.start_of(day) for day in days.unique()}))
    ends = pd.to_datetime(days.map({day: calendar.end_of(day) for day in days.unique()}))
    told = (ends - ONE_SECOND - (log["available_at"] - starts) / 1000).dt.floor("us")
    return log.assign(available_at=told.where(told > log["available_at"], log["available_at"]))[::-1]


def logged_again(log: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The log with identical rows: a tenth of them in the same file, a tenth in one of the five files after it."""
    same, later = (log[rng.random(len(log)) < AGAIN] for _ in range(2))
    later = later.assign(
        available_at=later["available_at"]
        + pd.to_timedelta(rng.integers(1, MOST_DAYS_LATER, len(later), endpoint=True), "D")
    )
    again = pd.concat([same, later])
    return pd.concat([log, again.assign(line=log["line"].max() + 1 + np.arange(len(again)))])


def messy(
    clean: Story,
    calendar: Calendar,
    window: timedelta,
    opposite: Opposite,
    rng: np.random.Generator,
    *,
    rewritten: Sequence[date],
) -> Story:
    """The same answers and the same final labels, told as badly as may be; files of days ``rewritten`` come twice."""
    turned = reversed_labels(clean.labels, calendar, window)
    own, corrected = (arrival_days(told["available_at"], calendar) for told in (clean.labels, turned))
    is_told_wrong = (rng.random(len(turned)) < WRONG) & (own < corrected)
    early = opposite(clean.labels[is_told_wrong])
    labels = pd.concat([turned.assign(is_wrong=False), early.assign(is_wrong=True)])[::-1]
    first: dict[date, pd.DataFrame] = {}
    files = by_day(labels, calendar)
    for day in rewritten:
        file = files[day]
        # What the next day's closing is told must come before the prediction day is mature.
        is_early = mature_at(file, calendar, window) >= calendar.end_of(day + ONE_DAY)
        is_first_wrong = ~file["is_wrong"] & is_early & (rng.random(len(file)) < WRONG_IN_A_FILE)
        first[day] = pd.concat([file[~is_first_wrong], opposite(file[is_first_wrong])])
    return Story(reversed_log(logged_again(clean.log, rng), calendar), labels, first)


# --- delivering and closing -----------------------------------------------------------------------


def by_day(told: pd.DataFrame, calendar: Calendar) -> dict[date, pd.DataFrame]:
    """One file per arrival day, the rows in the order in which they stand."""
    days = arrival_days(told["available_at"], calendar)
    return {day: file for day, file in told.groupby(days.to_numpy(), sort=True)}


def deliver(landing: Path, source: str, day: date, told: pd.DataFrame) -> None:
    """Put one file into the landing zone, in place of an older one."""
    path = landing / source / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = told.drop(columns=["answered_on", "is_wrong"], errors="ignore")
    instants = {name: "datetime64[us]" for name in content.columns if name.endswith("_at")}
    content.astype(instants).to_parquet(path, index=False)


def close_story(world: World, told: Story, parts: Sequence[Sequence[date]]) -> None:
    """Deliver and close part after part, as a replay does; a file that was wrong is put right after its part."""
    log, label = world.service.prediction_log, world.service.label
    assert log is not None
    files = {log.source: by_day(told.log, world.calendar), label.source: by_day(told.labels, world.calendar)}
    for part in parts:
        for source, found in files.items():
            for day in (day for day in part if day in found):
                first = told.wrong.get(day) if source == label.source else None
                deliver(world.home.landing, source, day, found[day] if first is None else first)
        plan = Plan(part[0], part[-1])
        close_days(
            world, plan, Progress(len(part)), on_day=lambda report: None, wait=lambda: None, say=lambda text: None
        )
        for day in (day for day in part if day in told.wrong):
            deliver(world.home.landing, label.source, day, files[label.source][day])


def scratch(service: MLService, folder: Path) -> World:
    """The service with all its stores in one empty folder."""
    folder.mkdir()
    stores = {name: f"sqlite:///{folder / name}.db" for name in ("ledger", "mlflow")}
    return World(service, Home(folder, folder / "landing", stores["ledger"], stores["mlflow"]))


# --- what is final --------------------------------------------------------------------------------


def final_outcomes_sql(service: str) -> str:
    """SQL of what became of every answer whose window is over."""
    return f"""
        select {", ".join(OUTCOME)}, day, role, served, score, value
        from {quote(service)}.outcomes where state in ('final', 'restated')
    """


def final_quality_sql(service: str) -> str:
    """SQL of every metric of every mature window, as known in the end."""
    key = ", ".join(MEASURED)
    return f"""
        select {key}, value, low, high, raw_value, n, n_labelled
        from {quote(service)}.quality where state in ('final', 'restated')
        qualify row_number() over (partition by {key} order by day desc) = 1
    """


def fresh_quality_sql(service: str) -> str:
    """SQL of what was said of days and windows while their labels were still coming in."""
    return f"""
        select day, {", ".join(MEASURED)}, n_labelled
        from {quote(service)}.quality where state in ('open', 'provisional')
    """


@dataclass(frozen=True)
class Closed:
    """What a closed home says in the end, and how much of it came twice."""

    outcomes: pd.DataFrame
    quality: pd.DataFrame
    fresh: pd.DataFrame
    days: int
    blocked: int
    repeats: int
    conflicts: int
    by_row: int
    by_file: int

    @classmethod
    def of(cls, world: World) -> "Closed":
        """Read it as ``mlops sql`` does."""
        name = world.name
        with open_views([world.service], world.home, is_open=False) as con:
            ((days, blocked),) = rows(con, closings_sql(name))
            ((repeats, conflicts, by_row, by_file),) = rows(con, told_twice_sql(world.service))
            found = (frame(con, made(name)) for made in (final_outcomes_sql, final_quality_sql, fresh_quality_sql))
            return cls(*found, days, blocked, repeats, conflicts, by_row, by_file)


def closings_sql(service: str) -> str:
    """SQL of (closed days, of which blocked)."""
    return f"select count(*), count(*) filter (state = 'blocked') from {quote(service)}.closings"


def told_twice_sql(service: MLService) -> str:
    """SQL of (log rows that are no prediction and no conflict, conflicts, labels corrected by a row, by a new file).

    A label event names its file and generation; every further event of a request is a correction.
    """
    name, log = quote(service.name), service.prediction_log
    assert log is not None
    conflicts = f"(select count(*) from {name}.conflicts)"
    again = f"(select count(*) from {name}.labels where split_part(source, '/', 3) > '1')"
    further = f"(select count(*) - count(distinct request_id) from {name}.labels)"
    logged = f"(select count(*) from sources.{quote(log.source)}) - (select count(*) from {name}.predictions)"
    return f"select {logged} - {conflicts}, {conflicts}, {further} - {again}, {again}"


def compared(one: pd.DataFrame, other: pd.DataFrame, key: Sequence[str]) -> tuple[int, pd.DataFrame]:
    """How many rows either side has, and those that are not on both sides with the same values, bit by bit."""
    both = one.merge(other, on=list(key), how="outer", suffixes=("_clean", "_messy"), indicator=True)
    differs = (both["_merge"] != "both").to_numpy()
    for column in (column for column in one.columns if column not in key):
        mine, theirs = both[f"{column}_clean"], both[f"{column}_messy"]
        differs = differs | ~((mine == theirs) | (mine.isna() & theirs.isna())).to_numpy(bool)
    return len(both), both[differs]


# --- the flights ----------------------------------------------------------------------------------


def answers_sql(last: date) -> str:
    """SQL of the answers that a home has served, up to a prediction day, as rows of a log."""
    slices = ", ".join(f"json_extract_string(context, {literal('$.' + name)}) as {name}" for name in SLICES)
    return f"""
        select row_number() over (order by logged_at, request_id) as line, request_id as request, model_version, role,
               score, decision, {slices}, predicted_at as event_at, logged_at as available_at
        from flight_delays.predictions where served and prediction_day <= {literal(last)}
        order by line
    """


def arrivals_sql(last: date) -> str:
    """SQL of the arrivals of those answers' flights, with the prediction day of each."""
    columns = ", ".join(f"a.{quote(column)}" for column in arrivals.columns)
    return f"""
        select {columns}, p.prediction_day as answered_on
        from (
            from sources.arrivals
            qualify row_number() over (partition by day, source_key order by generation desc) = 1 and not withdrawn
        ) a join flight_delays.predictions p on p.request_id = a.request_id and p.served
        where p.prediction_day <= {literal(last)} order by a.available_at, a.request_id
    """


def answered_days_sql() -> str:
    """SQL of the first and the last prediction day."""
    return "select min(prediction_day), max(prediction_day) from flight_delays.predictions"


def flights(con: duckdb.DuckDBPyConnection, last: date) -> Story:
    """The year as it was."""
    labels = frame(con, arrivals_sql(last))
    return Story(frame(con, answers_sql(last)), labels.assign(answered_on=labels["answered_on"].dt.date))


def opposite_arrival(told: pd.DataFrame) -> pd.DataFrame:
    """Late flights were punctual, and punctual ones late."""
    return told.assign(arr_delay=np.where(told["arr_delay"] >= 15, -5.0, 60.0))


def watched(first: date, last: date, contracts: Path) -> MLService:
    """A service that only watches the answers of those prediction days."""
    log = Source(
        name="answers",
        description="what the flights' models answered",
        columns={
            "line": "BIGINT", "request": "VARCHAR", "model_version": "VARCHAR", "role": "VARCHAR",
            "score": "DOUBLE", "decision": "BOOLEAN", **dict.fromkeys(SLICES, "VARCHAR"), "event_at": "TIMESTAMP",
            "available_at": "TIMESTAMP",
        },
        key=("line",),
        expected=Expected(first=first, last=last),
        on_missing_day="block",
        contract="answers",
    )  # fmt: skip
    due = Expected(first=first + ONE_DAY, last=last)
    return MLService(
        name="watched_flights",
        purpose="Watch answers that were logged elsewhere.",
        kpi=flight_delays.kpi,
        owner=flight_delays.owner,
        raci=flight_delays.raci,
        timezone=flight_delays.timezone,
        first_day=first,
        last_day=last + SETTLES * ONE_DAY,
        contracts=str(contracts),
        sources=(log, arrivals.model_copy(update={"expected": due})),
        prediction_log=PredictionLog(
            source="answers", request_id="request", model_version="model_version", score="score", role="role",
            decision="decision",
        ),
        label=flight_delays.label,
        quality=QualityPolicy(slices={name: name for name in SLICES}),
    )  # fmt: skip


def write_contracts(folder: Path) -> Path:
    """The flights' contract of arrivals without what it says of whole files; nothing is promised of the log."""
    folder.mkdir()
    suite = json.loads((Path(flight_delays.contracts) / "arrivals.json").read_text())
    kept = [item for item in suite["expectations"] if item["type"] not in TABLE_LEVEL]
    (folder / "arrivals.json").write_text(json.dumps({**suite, "expectations": kept}))
    (folder / "answers.json").write_text(json.dumps({"name": "answers", "expectations": []}))
    return folder


def report(clean: Closed, found: Closed, seconds: Mapping[str, float]) -> Iterator[str]:
    """The table, line by line, and the first rows that differ."""
    yield f"{'days closed, of which blocked':<44}{clean.days:>12,}{clean.blocked + found.blocked:>10,}"
    yield f"{'final rows':<44}{'compared':>12}{'differ':>10}"
    off: list[pd.DataFrame] = []
    for name, key in (("outcomes", OUTCOME), ("quality", MEASURED)):
        n, differs = compared(getattr(clean, name), getattr(found, name), key)
        off.append(differs)
        yield f"{'  ' + name:<44}{n:>12,}{len(differs):>10,}"
    n, differs = compared(clean.fresh, found.fresh, ["day", *MEASURED])
    yield f"{'quality while labels were coming in':<44}{n:>12,}{len(differs):>10,}"
    for title, number in (
        ("repeated log rows dropped", found.repeats),
        ("log rows in conflict", found.conflicts),
        ("labels corrected by a row of a later file", found.by_row),
        ("labels corrected by a new delivery of a file", found.by_file),
    ):
        yield f"{title:<44}{number:>12,}"
    if max(clean.repeats, clean.conflicts, clean.by_row, clean.by_file):
        raise SystemExit("the clean home has repeats or corrections: it is none")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.items())
    yield f"CPU s to deliver and close: {took} (the first with imports); peak memory of both together {peak:,.0f} MiB"
    for differs in off:
        if len(differs):
            yield differs.head(10).to_string()


def main() -> None:
    """Close the year twice, compare, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365, help="prediction days, from the first on (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with open_views([flight_delays], Home.existing(), is_open=False) as con:
        ((first, newest),) = rows(con, answered_days_sql())
        if first is None:
            raise SystemExit("no answer in this home; run `make run` first")
        last = min(first + timedelta(days=asked.days - 1), newest)
        clean = flights(con, last)
    with tempfile.TemporaryDirectory(prefix="mlops-benchmark-") as folder:
        service = watched(first, last, write_contracts(Path(folder) / "contracts"))
        calendar = Calendar(service.timezone)
        days = list(days_between(first, last + SETTLES * ONE_DAY))
        parts = [list(part) for _month, part in groupby(days, key=lambda day: (day.year, day.month))]
        mess = messy(
            clean, calendar, service.label.window, opposite_arrival, np.random.default_rng(asked.seed),
            rewritten=[part[-1] for part in parts[:-1]],
        )  # fmt: skip
        print(f"{len(clean.log):,} answers of {first} to {last}, label {LATE!r}, seed {asked.seed}", flush=True)
        found, seconds = {}, {}
        for name, told in (("clean", clean), ("messy", mess)):
            world, started = scratch(service, Path(folder) / name), time.process_time()
            close_story(world, told, parts)
            found[name], seconds[name] = Closed.of(world), time.process_time() - started
        for line in report(found["clean"], found["messy"], seconds):
            print(line)


if __name__ == "__main__":
    main()
