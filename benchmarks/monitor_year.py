"""A replayed year as daily series, and the same with a fault in it: what ``benchmarks/monitor.py`` judges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import sqrt

import duckdb
import numpy as np
import pandas as pd
from monitor_faults import Fault

from mlops_assets.adapters.engine import frame, quote, run
from mlops_assets.closing.world import World
from mlops_assets.monitoring_loop.bins import LEARNING_DAYS, Bins, learn_bins
from mlops_assets.monitoring_loop.drift import find_drift, history_days, series_from_profiles, size_gates
from mlops_assets.monitoring_loop.events import explain, known_events
from mlops_assets.monitoring_loop.grid import FEATURES
from mlops_assets.monitoring_loop.profiles import FrozenBins, profile_features, profile_scores
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME


@dataclass
class Year:
    """A replayed year in the engine, its profiles as series, and what is needed to profile broken rows the same way."""

    con: duckdb.DuckDBPyConnection
    world: World
    version: str
    numeric: list[str]
    categorical: list[str]
    bins: dict[str, Bins]
    series: pd.DataFrame
    days: list[date] = field(default_factory=list)

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection, world: World) -> "Year":
        """Profile everything once; bins from the first days, as the service itself learns them."""
        features = world.service.feature_set
        for name in ("features", "predictions", "labels"):
            world.lake.view(con, name, BY_NAME[name].columns, name=f"stored_{name}", is_open=name == "features")
            run(con, copied_sql(name))
        there = set(frame(con, described_sql("features"))["column_name"])
        categorical = [name for name in features.names if name in features.categorical and name in there]
        numeric = [name for name in features.names if name not in features.categorical and name in there]
        version = frame(con, usual_version_sql())["feature_version"][0]
        days = [day.date() for day in frame(con, days_sql())["day"]]
        run(con, learning_sql(days[LEARNING_DAYS]))
        bins = learn_bins(con, "learning", numeric=numeric, categorical=categorical)
        run(con, BY_NAME["profiles"].create_sql())
        frozen = FrozenBins(bins, dict.fromkeys(bins, days[LEARNING_DAYS]))
        profile_features(
            con, features="features", feature_version=version, numeric=numeric, categorical=categorical, days=days,
            into="profiles", frozen=frozen,
        )  # fmt: skip
        profile_scores(con, predictions="predictions", days=days, into="profiles")
        run(con, roles_sql(version))
        series = series_from_profiles(con, profiles="profiles", roles="roles")
        return cls(con, world, version, numeric, categorical, bins, series, days)

    def judge(self, series: pd.DataFrame, days: Sequence[date], count: int | None = None) -> pd.DataFrame:
        """Findings with known events, as the service has them."""
        policy = self.world.service.drift
        found = find_drift(
            series, days=days, policy=policy, critical=policy.critical_features, blocked=(), series_count=count
        )
        return explain(found, known_events(policy), size_gates(policy), earlier=found.iloc[:0])

    def rows(self, days: Sequence[date]) -> pd.DataFrame:
        """Feature rows of some days."""
        return frame(self.con, rows_sql(min(days), max(days)))

    def profiled(self, rows: pd.DataFrame, days: Sequence[date], columns: Sequence[str]) -> pd.DataFrame:
        """Series rows of some columns over broken rows."""
        self.con.register("broken", rows)
        run(self.con, BY_NAME["profiles"].create_sql("broken_profiles"))
        profile_features(
            self.con, features="broken", feature_version=self.version, days=days, into="broken_profiles",
            numeric=[name for name in columns if name in self.numeric],
            categorical=[name for name in columns if name in self.categorical], frozen=FrozenBins(self.bins, {}),
        )  # fmt: skip
        self.con.unregister("broken")
        return series_from_profiles(self.con, profiles="broken_profiles", roles="roles")


def copied_sql(name: str) -> str:
    """SQL that keeps a stored table in the engine."""
    kept = "filled_on is null" if name == "features" else "true"  # labels: every event, the newest counts
    return f"create or replace temp table {quote(name)} as select * from {quote('stored_' + name)} where {kept}"


def described_sql(name: str) -> str:
    """SQL of the columns of a table."""
    return f"select column_name from (describe {quote(name)})"


def usual_version_sql() -> str:
    """SQL of the feature version with most rows."""
    return "select feature_version from features group by 1 order by count(*) desc, 1 limit 1"


def days_sql() -> str:
    """SQL of the days with features."""
    return "select distinct day from features order by day"


def learning_sql(before: date) -> str:
    """SQL of the rows that bins are learned from."""
    return f"create or replace temp table learning as select * from features where day < DATE '{before}'"


def rows_sql(first: date, last: date) -> str:
    """SQL of feature rows in a fixed order."""
    return f"select * from features where day between DATE '{first}' and DATE '{last}' order by request_id"


def roles_sql(version: str) -> str:
    """SQL of whose features and whose score stand for a day: one feature version, and what was served."""
    return f"""
        create or replace temp view roles as
        select prediction_day as day, '{version}' as feature_version,
               nullif(arg_max(model_version, (predicted_at, request_id)), 'prior') as model_version
        from predictions where served group by 1
    """


def month_std(series: pd.DataFrame, column: str, start: date) -> float:
    """Standard deviation of a column's values over the 30 days before."""
    day = pd.to_datetime(series["day"]).dt.date
    month = series[(series["column_name"] == column) & (day < start) & (day >= start - timedelta(days=30))]
    n = (month["n"] - month["nulls"]).sum()
    if not len(month) or not n or month["total"].isna().all():
        return 0.0
    return sqrt(max(month["squares"].sum() / n - (month["total"].sum() / n) ** 2, 0.0))


def with_fault(
    year: Year, series: pd.DataFrame, fault: Fault, column: str, days: Sequence[date], rng: np.random.Generator
) -> pd.DataFrame:
    """The feature series with one fault on some days; all other columns are as they were."""
    columns = year.numeric + year.categorical if fault.is_of_table else [column]
    broken = fault.breaks(year.rows(days), column, month_std(year.series, column, days[0]), rng)
    changed = year.profiled(broken, days, columns)
    is_hit = series["column_name"].isin(columns) & pd.to_datetime(series["day"]).dt.date.isin(days)
    both = pd.concat([series[~is_hit], changed], ignore_index=True)
    return both[both["subject"] == FEATURES]


def seen_on(series: pd.DataFrame, days: Sequence[date]) -> pd.DataFrame:
    """What judging these days can see."""
    day, back = pd.to_datetime(series["day"]).dt.date, timedelta(days=history_days(DriftPolicy()))
    return series[(day >= min(days) - back) & (day <= max(days))]
