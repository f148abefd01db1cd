"""How quiet is the drift monitor when nothing is wrong, and what does it see when something is? Seeded, one table each.

Reads the stored features and scores of a replayed home, profiles them again (one pass), and judges every day with the
service's own policy and known events:

1. quiet replay: alarms, alarmed days and incidents per quarter of 91 days, April-August and September-December apart,
   beside the rules everybody knows on the same profiles, and every incident with what the raw rows say about it;
2. faults from ``monitor_faults.py`` injected at random dates; a hit counts only on a day that is quiet without the
   fault; share of episodes detected with Wilson's 95 % interval, share seen on the first day, mean delay in days;
3. the same fault again, 40 days after one that nobody confirmed; and faults that never end, through the incidents;
4. the smallest shift of a mean that would be seen on 80 % of days, per feature;
5. what the home's own ledger says: everything that people were asked, the furlough of April, Thanksgiving.

Small lasting harm, which no feature shows, is injected by ``small_harm.py``.

    python benchmarks/monitor.py                        # a home replayed to December, see MLOPS_HOME
    python benchmarks/monitor.py --dates 2 --seed 7
    python benchmarks/monitor.py --evidently /path/to/an/environment/bin/python
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from monitor_faults import CATALOGUE, SCHEDULE, Fault
from monitor_incidents import home_tables, permanent_table
from monitor_year import Year, seen_on, with_fault

from mlops_assets.adapters.engine import frame, open_engine
from mlops_assets.adapters.home import Home
from mlops_assets.closing.drifting import source_of
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.bins import LEARNING_DAYS
from mlops_assets.monitoring_loop.distances import Reference, plain_distance
from mlops_assets.monitoring_loop.drift import Limits
from mlops_assets.monitoring_loop.events import known_events
from mlops_assets.monitoring_loop.findings import Finding
from mlops_assets.monitoring_loop.grid import FEATURES, Grid
from mlops_assets.monitoring_loop.incidents import with_upstream_causes
from mlops_assets.monitoring_loop.plain_rules import measures
from mlops_assets.service.drifting import KnownEvent
from mlops_assets.service.service import MLService
from mlops_assets.services import find_service

PERIODS = {
    "April-August": (date(2013, 4, 1), date(2013, 8, 31)),
    "September-December": (date(2013, 9, 1), date(2013, 12, 31)),
}
QUIET_DAYS = 3
QUARTER = 91
METHOD = "this monitor"
RULES = {
    "KS p < .05": ("ks", 0.05), "PSI > .2": ("psi", 0.2), "JS > .1": ("js", 0.1),
    "W1 / sd > .1": ("wasserstein", 0.1), "mean > 3 sd of days": ("mean_days", 3.0),
    "mean > 3 sd of values": ("mean_values", 3.0),
}  # fmt: skip
NANNY = "NannyML style"
EVIDENCE = ("storm", "thunderstorm", "atc", "feed", "holiday", "holiday_travel")
"""Kinds of public events that inputs of every flight can show; an accident at one airport is none."""
Alarms = dict[str, set[tuple[date, str]]]
"""Method -> (day, column) on which it asks a person to look."""


def alarms_of(found: pd.DataFrame) -> set[tuple[date, str]]:
    """Where the monitor asks somebody to look."""
    asked = found[found["tier"].isin(["moderate", "severe", "unknown"])]
    return set(zip(pd.to_datetime(asked["day"]).dt.date, asked["column_name"], strict=True))


def rule_alarms(year: Year, series: pd.DataFrame, days: Sequence[date], first_month: pd.DataFrame) -> Alarms:
    """Where the plain rules would ask somebody to look, on the same profiles; features only."""
    series = series[series["subject"] == FEATURES]
    grid = Grid.of(series, min(days), max(days), year.world.service.drift, ())
    measured = measures(series, grid, {measure for measure, _ in RULES.values()})
    found: Alarms = {}
    for name, (measure, limit) in RULES.items():
        with np.errstate(invalid="ignore"):
            fires = measured[measure] < limit if measure == "ks" else measured[measure] > limit
        found[name] = {
            (day, column)
            for position, (_, column) in enumerate(grid.keys)
            for day in days
            if fires[position, grid.position(day)]
        }
    found[NANNY] = set(nanny_alarms(grid, days, first_month))
    return found


def nanny_alarms(grid: Grid, days: Sequence[date], first_month: pd.DataFrame) -> Iterator[tuple[date, str]]:
    """A fixed reference, the first 30 days with bins; alarm three standard deviations above its own daily distances."""
    for position, (_, column) in enumerate(grid.keys):
        known = first_month[first_month["column_name"] == column]
        if known.empty:
            continue
        width = grid.counts.shape[-1]
        chunks = np.array([np.pad(np.asarray(c, dtype=float), (0, width - len(c))) for c in known["counts"]])
        whole = chunks.sum(axis=0)
        own = js(chunks, whole)
        limit = np.nanmean(own) + 3 * np.nanstd(own)
        today = js(grid.counts[position, [grid.position(day) for day in days]], whole)
        yield from ((day, column) for day, value in zip(days, today, strict=True) if value > limit)


def js(counts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distances of rows of counts from one histogram."""
    every, enough = np.full((1, len(counts)), float(whole.sum())), np.full((1, len(counts)), 30.0)
    beside = Reference(np.broadcast_to(whole, (1, *counts.shape)).astype(float), every, every, enough)
    with np.errstate(divide="ignore", invalid="ignore"):
        return plain_distance(counts[None].astype(float), beside)[0]


@dataclass(frozen=True)
class Incident:
    """Alarms of one cause without three quiet days in between."""

    cause: str
    days: tuple[date, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Causes:
    """Where columns come from, and which source follows which: what the service groups its findings by."""

    source: dict[str, str]
    sources: frozenset[str]
    follows: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, service: MLService) -> "Causes":
        """As declared."""
        names = frozenset(source.name for source in service.sources)
        return cls(source_of(service.views), names, service.incidents.follows)

    def upstream(self, day: date, columns: Sequence[str], known: Sequence["Incident"]) -> dict[str, str]:
        """Cause of each column that moved on a day, beside the incidents that go on."""
        findings = [Finding("moderate", self.source.get(name, f"drift:{name}"), name, 0.0, name) for name in columns]
        going_on = {
            one.cause: {self.source[name] for name in one.columns if name in self.source}
            for one in known
            if (day - one.days[-1]).days <= QUIET_DAYS
        }
        found = with_upstream_causes(findings, self.sources, self.follows, going_on)
        return {one.subject: one.cause for one in found}


def incidents(alarms: set[tuple[date, str]], causes: Causes) -> list[Incident]:
    """Group alarms by upstream-most cause: one that comes within three days of the last belongs to it."""
    found: list[Incident] = []
    for day in sorted({day for day, _ in alarms}):
        moved = causes.upstream(day, sorted(column for d, column in alarms if d == day), found)
        for cause in sorted(set(moved.values())):
            columns = {column for column, its in moved.items() if its == cause}
            last = next((one for one in reversed(found) if one.cause == cause), None)
            if last is not None and (day - last.days[-1]).days <= QUIET_DAYS:
                found.remove(last)
                found.append(Incident(cause, (*last.days, day), tuple(sorted({*last.columns, *columns}))))
            else:
                found.append(Incident(cause, (day,), tuple(sorted(columns))))
    return sorted(found, key=lambda one: one.days)


def quiet_table(name: str, span: tuple[date, date], alarms: Alarms, causes: Causes) -> None:
    """Print alarms, alarmed days and incidents per quarter of every method."""
    first, last = span
    quarters = ((last - first).days + 1) / QUARTER
    print(f"\n{name}, {first} to {last}: per quarter of {QUARTER} days")
    print(f"{'method':<24}{'alarms':>9}{'alarmed days':>14}{'incidents':>11}{'95 % of incidents':>20}")
    for method, found in alarms.items():
        here = {(day, column) for day, column in found if first <= day <= last}
        days, count = len({day for day, _ in here}), len(incidents(here, causes))
        low, high = poisson(count)
        interval = f"{low / quarters:.1f} .. {high / quarters:.1f}"
        print(
            f"{method:<24}{len(here) / quarters:>9.1f}{days / quarters:>14.1f}{count / quarters:>11.1f}{interval:>20}"
        )


def poisson(count: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean (F. Garwood, Biometrika 28, 1936)."""
    from scipy.stats import chi2

    return (float(chi2.ppf(0.025, 2 * count)) / 2 if count else 0.0), float(chi2.ppf(0.975, 2 * count + 2)) / 2


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    if not n:
        return 0.0, 1.0
    z, share = 1.96, hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def outcomes_sql() -> str:
    """SQL of how each day went in the end: share of late flights, and of flights that never arrived."""
    return """
        with known as (select request_id, arg_max(value, known_at) as late from labels group by 1)
        select prediction_day as day, avg(late) as late, 1 - count(late) / count(*) as gone
        from predictions left join known using (request_id) where served group by 1 order by 1
    """


def worst_days(year: Year) -> dict[date, str]:
    """The days that are among the worst twentieth of the year by raw outcomes, with their numbers."""
    days = frame(year.con, outcomes_sql())
    is_bad = (days["late"] >= days["late"].quantile(0.95)) | (days["gone"] >= days["gone"].quantile(0.95))
    return {
        row.day.date(): f"raw outcomes: {row.late:.0%} late, {row.gone:.0%} never arrived"
        for row in days[is_bad].itertuples()
    }


def facts(year: Year, found: pd.DataFrame, causes: Causes) -> None:
    """Print every incident of this monitor with what else is known about its days."""
    bad = worst_days(year)
    told = yaml.safe_load((Path(__file__).parent / "data" / "flights_events.yaml").read_text())["events"]
    real = 0
    listed = incidents(alarms_of(found), causes)
    print(
        "\nincidents of this monitor, and the evidence: a known event, values that are missing in the stored rows, or a"
    )
    print("day among the worst twentieth of the year by share of late or of missing arrivals")
    for one in listed:
        rows = found[found["column_name"].isin(one.columns) & found["tier"].isin(["moderate", "severe", "unknown"])]
        rows = rows[pd.to_datetime(rows["day"]).dt.date.isin(one.days)]
        near = [event for event in told if event["start"] - timedelta(days=1) <= one.days[-1]
                and one.days[0] <= event["end"] and event["kind"] in EVIDENCE]  # fmt: skip
        missing = rows[rows["statistic"].isin(["null_share", "null_alone"]) & (rows["value"] > rows["expected"])]
        outcome = [bad[day] for day in one.days if day in bad]
        is_real = bool(near) or len(missing) > 0 or bool(outcome)
        real += is_real
        why = "; ".join(f"{event['id']}: {event.get('evidence', event['reason'])}" for event in near[:1])
        why = "; ".join([*outcome[:1], *([why] if why else []), *missing["reason"][:1]])
        print(f"  {one.days[0]} {one.cause:<12} {'fact' if is_real else 'none'}  {rows['reason'].iloc[0][:88]}")
        print(f"{'':>26}{why[:110] or 'nothing known'}")
    low, high = wilson(real, len(listed))
    print(f"precision: {real} of {len(listed)}, {real / max(len(listed), 1):.0%} ({low:.0%} .. {high:.0%})")


@dataclass
class Score:
    """How often one kind of fault was seen."""

    episodes: int = 0
    hits: int = 0
    first_day: int = 0
    delays: int = 0

    def add(self, delay: int | None) -> None:
        """Count one episode; the delay is in days, none if it was not seen."""
        self.episodes += 1
        if delay is not None:
            self.hits, self.delays, self.first_day = self.hits + 1, self.delays + delay, self.first_day + (delay == 0)

    @property
    def words(self) -> str:
        """Share, interval, share on the first day, mean delay."""
        low, high = wilson(self.hits, self.episodes)
        delay = f"{self.delays / self.hits:.1f}" if self.hits else "-"
        share, first = self.hits / max(self.episodes, 1), self.first_day / max(self.episodes, 1)
        return f"{share:>6.2f}  {low:.2f} .. {high:.2f}{first:>7.2f}{delay:>7}"


def first_hit(before: set[tuple[date, str]], after: set[tuple[date, str]], days: Sequence[date]) -> int | None:
    """Days until the first alarm on a day that is quiet without the fault."""
    loud = {day for day, _ in before}
    for number, day in enumerate(days):
        if day not in loud and any(alarmed == day for alarmed, _ in after):
            return number
    return None


def episodes(
    fault: Fault, span: tuple[date, date], dates: int, rng: np.random.Generator, events: Sequence[KnownEvent]
) -> Iterator[tuple[str, date]]:
    """Random first days per column; kinds of one column get as many episodes as the others have together.

    A masked fault begins with a random one of the known events of at least three days.
    """
    times = dates * (12 // len(fault.columns) if len(fault.columns) < 12 else 1)
    length = (span[1] - span[0]).days - fault.days
    inside = [one for one in events if span[0] <= one.start and one.end <= span[1]]
    begins = [one.start for one in inside if one.start + timedelta(days=2) <= one.end]
    for column in fault.columns:
        for back in rng.integers(0, len(begins) if fault.is_masked else length, times):
            yield column, begins[back] if fault.is_masked else span[0] + timedelta(days=int(back))


def inject(
    year: Year, fault: Fault, column: str, start: date, quiet: Alarms, month: pd.DataFrame, count: int,
    rng: np.random.Generator,
) -> dict[str, int | None]:  # fmt: skip
    """Delay until each method sees one fault; none if it does not."""
    days = [start + timedelta(days=number) for number in range(fault.days)]
    columns = year.numeric + year.categorical if fault.is_of_table else [column]
    series = with_fault(year, year.series, fault, column, days, rng)
    after = {METHOD: alarms_of(year.judge(seen_on(series, days), days, count))}
    after |= rule_alarms(year, series[series["column_name"].isin(columns)], days, month)
    watched = set(columns) | {"rows"}
    return {
        name: first_hit(
            {(d, c) for d, c in quiet[name] if c in watched}, {(d, c) for d, c in found if c in watched}, days
        )
        for name, found in after.items()
    }


AGAIN_DAYS = 40


def again_table(year: Year, quiet: Alarms, count: int, dates: int, seed: int) -> None:
    """Print how often a fault is seen that nobody had confirmed when it came for five days, 40 days before."""
    rng = np.random.default_rng(seed)
    first, last = PERIODS["April-August"]
    loud = quiet[METHOD]
    print(f"\nthe same fault {AGAIN_DAYS} days after one of five days that nobody confirmed, April-August, seed {seed}")
    for fault in (fault for fault in CATALOGUE if fault.name in ("shift 1 sd", "unit x1.6", "null 20 %", "stuck")):
        alone, again = Score(), Score()
        for column in SCHEDULE:
            for back in rng.integers(0, (last - first).days - AGAIN_DAYS - fault.days, dates):
                start = first + timedelta(days=int(back))
                days = [start + timedelta(days=AGAIN_DAYS + number) for number in range(fault.days)]
                first_days = [start + timedelta(days=number) for number in range(5)]
                earlier = with_fault(year, year.series, fault, column, first_days, rng)
                was_loud = {one for one in loud if one[1] == column}
                for before, score in ((year.series, alone), (earlier, again)):
                    series = with_fault(year, before, fault, column, days, rng)
                    found = alarms_of(year.judge(seen_on(series, days), days, count))
                    score.add(first_hit(was_loud, {one for one in found if one[1] == column}, days))
        without = alone.hits / alone.episodes
        print(f"{fault.name:<24}{again.episodes:>9} {again.words}   without the earlier one {without:.2f}")


def detection_table(
    year: Year, name: str, quiet: Alarms, month: pd.DataFrame, count: int, dates: int, seed: int
) -> None:
    """Inject the whole catalogue into one period and print what was seen."""
    rng = np.random.default_rng(seed)
    scores: dict[tuple[str, str], Score] = {}
    for fault in CATALOGUE:
        usable = [column for column in fault.columns if column == "rows" or column in year.bins]
        for column, start in episodes(fault, PERIODS[name], dates, rng, known_events(year.world.service.drift)):
            if column in usable:
                seen = inject(year, fault, column, start, quiet, month, count, rng)
                for method, delay in seen.items():
                    scores.setdefault((fault.name, method), Score()).add(delay)
    print(f"\n{name}, seed {seed}: share of episodes seen within 7 days (ramp: 14)")
    print(
        f"{'fault':<24}{'episodes':>9}{'seen':>7}  {'95 %':<12}{'day 0':>7}{'delay':>7}   others: " + ", ".join(RULES)
    )
    for fault in CATALOGUE:
        own = scores.get((fault.name, METHOD), Score())
        rest = [scores.get((fault.name, other), Score()) for other in (*RULES, NANNY)]
        others = " ".join(f"{other.hits / max(other.episodes, 1):.2f}" for other in rest)
        print(f"{fault.name:<24}{own.episodes:>9} {own.words}   {others}")
    groups = {
        "the seven of the study": [fault.name for fault in CATALOGUE if fault.is_measured],
        "integrity, 5 points up": [fault.name for fault in CATALOGUE if fault.points >= 5],
        "all": [fault.name for fault in CATALOGUE],
    }
    for label, some in groups.items():
        own = pooled(scores, some, METHOD)
        rest = [pooled(scores, some, other) for other in (*RULES, NANNY)]
        others = " ".join(f"{other.hits / max(other.episodes, 1):.2f}" for other in rest)
        print(f"{label:<24}{own.episodes:>9} {own.words}   {others}")


def pooled(scores: dict[tuple[str, str], Score], faults: Sequence[str], method: str) -> Score:
    """Several kinds together."""
    total = Score()
    for name in faults:
        one = scores.get((name, method), Score())
        total = Score(*(a + b for a, b in zip(vars(total).values(), vars(one).values(), strict=True)))
    return total


def smallest_table(year: Year, found: pd.DataFrame, count: int) -> None:
    """Print the shift of a mean, in standard deviations of its values, that would be seen on 80 % of days.

    On its own or beside the columns that usually move with it, whichever sees it first.
    """
    limit = Limits.of(year.world.service.drift, count).moderate_z
    gate = year.world.service.drift.min_mean_shift_stds
    means = found[found["statistic"].isin(["mean", "mean_alone"]) & found["surprise"].notna()].copy()
    own = means[(means["statistic"] == "mean") & (means["size"] > 0)]
    std = ((own["value"] - own["expected"]).abs() / own["size"]).set_axis(
        own[["column_name", "day"]].agg(tuple, axis=1)
    )
    means["std"] = means[["column_name", "day"]].agg(tuple, axis=1).map(std)
    needed = limit * means["scale"] / means["std"].where(means["std"] > 0)
    keys = [means["column_name"], means["day"]]
    sides = [needed - means["size"], needed + means["size"]]
    both = pd.concat([side.clip(lower=gate).groupby(keys).min() for side in sides])
    smallest = both.groupby(level="column_name").quantile(0.8).sort_values()
    print("\nsmallest shift of the mean seen on 80 % of days, up or down (sd of the values)")
    listed = [f"{column} {value:.2f}".ljust(40) for column, value in smallest.items()]
    for first in range(0, len(listed), 3):
        print("  " + "".join(listed[first : first + 3]))


def first_month(year: Year) -> pd.DataFrame:
    """Histograms of the first 30 days that have any."""
    binned = year.series[year.series["counts"].notna() & (year.series["subject"] == FEATURES)]
    day = pd.to_datetime(binned["day"]).dt.date
    return binned[day < year.days[LEARNING_DAYS] + timedelta(days=30)]


def evidently_table(year: Year, python: str, dates: int, seed: int) -> None:
    """Ask Evidently, in its own environment, about ordinary Wednesdays: which columns drifted?"""
    rng = np.random.default_rng(seed)
    days = sorted(rng.choice([d for d in year.days if d.isoweekday() == 3 and d >= PERIODS["April-August"][0]
                              and d <= PERIODS["April-August"][1]], dates * 3, replace=False))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asked = []
        for day in days:
            rows = year.rows([day - timedelta(days=30), day])[["day", *year.numeric]]
            today = pd.to_datetime(rows["day"]).dt.date == day
            for part, some in (("reference", rows[~today]), ("current", rows[today])):
                some.drop(columns="day").to_csv(Path(folder) / f"{day}-{part}.csv", index=False)
            asked.append(str(day))
        script = Path(__file__).with_name("monitor_evidently.py")
        told = subprocess.run([python, str(script), folder, *asked], capture_output=True, text=True, check=False)
    if told.returncode:
        raise SystemExit(f"Evidently failed: {told.stderr[-800:]}")
    answer = json.loads(told.stdout.splitlines()[-1])
    print(
        f"\nEvidently {answer['version']}, default drift per column, {len(days)} Wednesdays against the 30 days before"
    )
    print(f"  columns said to have drifted, of {len(year.numeric)}: {answer['drifted']}")


def main() -> None:
    """Read, judge, inject, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="flight_delays")
    parser.add_argument("--dates", type=int, default=2, help="episodes per column and kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet-only", action="store_true", help="no injected faults")
    parser.add_argument("--evidently", metavar="PYTHON", help="a Python that has evidently installed")
    asked = parser.parse_args()
    world = World(find_service(asked.service), Home.from_environment())
    causes = Causes.of(world.service)
    with open_engine() as con:
        year = Year.read(con, world)
        judged = [day for day in year.days if day >= min(first for first, _ in PERIODS.values())]
        found = year.judge(year.series, judged)
        month = first_month(year)
        quiet = {METHOD: alarms_of(found)} | rule_alarms(year, year.series, judged, month)
        count = round(len(found[found["surprise"].notna()]) / len(judged))
        print(f"{len(year.days)} days, {len(year.numeric) + len(year.categorical)} features, {count} series a day")
        print("tiers: " + ", ".join(f"{name} {n}" for name, n in sorted(Counter(found["tier"]).items())))
        for name, span in PERIODS.items():
            quiet_table(name, span, quiet, causes)
        facts(year, found, causes)
        home_tables(world, PERIODS)
        smallest_table(year, found, count)
        if asked.evidently:
            evidently_table(year, asked.evidently, asked.dates, asked.seed)
        if not asked.quiet_only:
            for name in PERIODS:
                detection_table(year, name, quiet, month, count, asked.dates, asked.seed)
                sys.stdout.flush()
            again_table(year, quiet, count, asked.dates, asked.seed)
            permanent_table(year, count, asked.dates, asked.seed, PERIODS["April-August"])


if __name__ == "__main__":
    main()
