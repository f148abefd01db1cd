"""Two years of rented bikes: does Hurricane Sandy surface, does the growth of 2012, and is it quiet otherwise?

Hourly rentals of Washington D.C., 24 rows a day (data/bike_sharing, CC BY 4.0). Every column is profiled by the
package and judged with its default policy; the second baseline is the year 2011, as if a model had learned from it.
Prints incidents of 2012 (alarms of one column without three quiet days in between) per quarter, and what was noted
against 2011.

    python benchmarks/bikes.py
"""

from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from mlops_assets.adapters.engine import open_engine, run
from mlops_assets.monitoring_loop.bins import LEARNING_DAYS, learn_bins
from mlops_assets.monitoring_loop.drift import find_drift, series_from_profiles
from mlops_assets.monitoring_loop.profiles import FrozenBins, profile_features
from mlops_assets.monitoring_loop.since_training import Training, learned_columns
from mlops_assets.service.monitoring import DriftPolicy
from mlops_assets.tables import BY_NAME

DATA = Path(__file__).parent / "data" / "bike_sharing" / "hour.csv.gz"
NUMBERS = ["temp", "hum", "windspeed", "weathersit", "cnt"]
FIRST, YEAR, LAST = date(2011, 1, 1), date(2012, 1, 1), date(2012, 12, 31)
QUIET_DAYS = 3


def rentals_sql() -> str:
    """SQL of the table: one row per hour in which bikes were rented."""
    named = ", ".join(f"{name}::double as {name}" for name in NUMBERS)
    return f"""
        create or replace temp table features as
        select dteday::date as day, instant::varchar as request_id, 'v1' as feature_version, {named}
        from read_csv('{DATA}')
    """


def roles_sql() -> str:
    """SQL of one feature version for all days."""
    return """create or replace temp view roles as
        select distinct day, 'v1' as feature_version, null::varchar as model_version from features"""


def learning_sql() -> str:
    """SQL of the rows that bins are learned from."""
    return (
        f"create or replace temp view learning as select * from features where day < DATE '{FIRST}' + {LEARNING_DAYS}"
    )


def year_sql() -> str:
    """SQL of the profiles of the first year."""
    return f"create or replace temp view first_year as select * from profiles where day < DATE '{YEAR}'"


def judged() -> pd.DataFrame:
    """Rows of ``drift`` for 2012."""
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    with open_engine() as con:
        run(con, rentals_sql())
        run(con, roles_sql())
        run(con, learning_sql())
        bins = learn_bins(con, "learning", numeric=NUMBERS, categorical=())
        run(con, BY_NAME["profiles"].create_sql())
        profile_features(
            con, features="features", feature_version="v1", numeric=NUMBERS, categorical=(), days=days,
            into="profiles", frozen=FrozenBins(bins, {}),
        )  # fmt: skip
        run(con, year_sql())
        training = Training("2011", FIRST, YEAR, learned_columns(con, profiles="first_year", feature_version="v1"))
        series = series_from_profiles(con, profiles="profiles", roles="roles")
    later = [day for day in days if day >= YEAR]
    trainings = dict.fromkeys(later, training)
    return find_drift(series, days=later, policy=DriftPolicy(), critical=("cnt",), blocked=(), trainings=trainings)


def main() -> None:
    """Judge, group, print."""
    found = judged()
    found["day"] = pd.to_datetime(found["day"]).dt.date
    alarms = found[found["tier"].isin(["moderate", "severe", "unknown"])].sort_values(["day", "column_name"])
    last_seen: dict[str, date] = {}
    opened = []
    for row in alarms.to_dict("records"):
        cause = row["column_name"] if row["column_name"] in ("cnt", "rows") else "weather"
        if cause not in last_seen or (row["day"] - last_seen[cause]).days > QUIET_DAYS:
            opened.append((row["day"], cause, row["tier"], row["reason"]))
        last_seen[cause] = row["day"]
    print(f"2012: {len(alarms)} alarms on {alarms['day'].nunique()} days, {len(opened)} incidents, "
          f"{len(opened) / 366 * 91:.1f} a quarter")  # fmt: skip
    for day, cause, tier, reason in opened:
        print(f"  {day} {cause:<8} {tier:<9} {reason}")
    print("noted against 2011:")
    for row in found[(found["baseline"] == "training") & (found["tier"] == "expected")].to_dict("records"):
        print(f"  {row['day']} {row['reason']}")


if __name__ == "__main__":
    main()
